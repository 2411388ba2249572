//! What the gateway tells of its work: metrics, access log, diagnostics.
//!
//! What is counted is held as plain atomics ([`RouteStats`], [`BackendStats`], [`ProcessStats`]) that a request has at
//! hand since `build`; [`metrics`] reads them when asked. The access log formats its lines on the request's thread
//! and writes them on another ([`access_log`]). What goes wrong with the gateway itself is told by `tracing` on
//! standard error ([`diagnostics`]).

pub mod access_log;
mod counters;
pub mod diagnostics;
mod log_format;
mod log_writer;
pub mod metrics;
mod process_usage;
mod wall_clock;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::diag::Scope;
use crate::keep::Keep;

pub use access_log::AccessLog;
pub use counters::{
    BackendStats, ByClass, CircuitStats, ConcurrencyStats, ConnectionStats, Counter, DiscoveryStats, DiskStats,
    FilterStats, Finding, Gauge, Histogram, MirrorStats, OpenConnections, ProcessStats, QueueStats, RouteCacheStats,
    RouteStats, TierStats, UpstreamStats, ZoneStats,
};
pub use diagnostics::{Diagnostics, Level};
pub use log_format::Format as LogFormat;

/// What the gateway writes down of its work.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Log")]
pub struct Config {
    /// How much the gateway tells of itself on standard error: `off`, `error`, `warn`, `info`, `debug` or `trace`, or
    /// directives by part, as in `warn,edgeway::upstream=debug`. The environment variable `RUST_LOG` wins over it. At
    /// `info` and below, what the HTTP library says of single requests is left out: the access log has it. Default: `warn`.
    #[serde(default = "default_level")]
    pub level: String,
    /// The access logs: one line a finished request.
    #[serde(default)]
    pub access: access_log::Config,
}

fn default_level() -> String {
    diagnostics::DEFAULT_LEVEL.into()
}

impl Default for Config {
    fn default() -> Self {
        Self { level: default_level(), access: access_log::Config::default() }
    }
}

impl Config {
    /// Compiles the block. Access logs that `keep` holds for the same target go on; reports what is wrong at `at`.
    pub fn build(&self, keep: &Keep, stats: &Arc<ProcessStats>, at: &Scope<'_>) -> (Level, AccessLog) {
        let level = Level::build(&self.level, &at.key("level")).unwrap_or_default();
        (level, self.access.build(keep, stats, &at.key("access")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Issues;

    #[test]
    fn all_faults_of_the_block_are_told_at_once() {
        let config: Config = serde_yaml::from_str("{ level: loud, access: xml }").unwrap();
        let issues = Issues::default();
        config.build(&Keep::default(), &Arc::default(), &issues.root().key("log"));
        let paths: Vec<_> = issues.into_vec().iter().map(|issue| issue.path.to_string()).collect();
        assert_eq!(paths, ["log.level", "log.access"]);
        assert!(serde_yaml::from_str::<Config>("{ lvl: warn }").is_err());
    }
}
