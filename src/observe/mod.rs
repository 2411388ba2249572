//! What the gateway tells of its work: metrics, access log, diagnostics.

mod counters;
pub mod metrics;
mod process_usage;

pub use counters::{
    BUCKETS_US, BackendStats, ByClass, ConnectionStats, Counter, Gauge, Histogram, ProcessStats, RouteStats,
};
