//! Metrics and access log.

mod counters;

pub use counters::{
    BUCKETS_US, BackendStats, ByClass, ConnectionStats, Counter, Gauge, Histogram, ProcessStats, RouteStats,
};
