//! What the gateway tells of its work: metrics, access log, diagnostics.

pub mod access_log;
mod counters;
mod log_format;
mod log_writer;
pub mod metrics;
mod process_usage;
mod wall_clock;

pub use access_log::AccessLog;
pub use counters::{
    BUCKETS_US, BackendStats, ByClass, ConnectionStats, Counter, Gauge, Histogram, ProcessStats, RouteStats,
};
pub use log_format::Format as LogFormat;
