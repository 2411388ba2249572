//! `Config`: the `limits` of an upstream, as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{adaptive, circuit};
use crate::diag::Scope;
use crate::units::HumanDuration;

/// How much an upstream and its servers take at once, and what becomes of the requests above that.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "UpstreamLimits")]
pub struct Config {
    /// How many requests may be under way at the upstream, all its servers together. Default: any number.
    pub requests: Option<u32>,
    /// How many requests may be under way at each server. A full server is passed over. Default: any number.
    pub server_requests: Option<u32>,
    /// How many connections may be open to each server, those kept for further requests among them. Default: any number.
    pub connections: Option<u32>,
    /// How many requests may wait, first come first served, while the upstream or all of its servers are full. A request
    /// that finds no place gets 503 with `Retry-After`. Default: 0.
    pub queue: u32,
    /// How long a request may wait in the queue, before it gets 503. Default: `2s`.
    pub queue_timeout: HumanDuration,
    /// When an upstream that fails is left alone for a while: its requests get 503 at once. Default: never.
    pub circuit: Option<circuit::Config>,
    /// A limit of requests at once that follows how fast the upstream answers. `requests` stays in force beside it.
    /// Default: none.
    pub adaptive: Option<adaptive::Config>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            requests: None,
            server_requests: None,
            connections: None,
            queue: 0,
            queue_timeout: HumanDuration::secs(2),
            circuit: None,
            adaptive: None,
        }
    }
}

impl Config {
    /// Whether any of its limits can be reached.
    pub(super) fn limits_anything(&self) -> bool {
        self.requests.is_some()
            || self.server_requests.is_some()
            || self.connections.is_some()
            || self.adaptive.is_some()
    }

    /// Reports what cannot work, and what surely is not meant. `of_servers`: some server has a limit of its own.
    pub fn check(&self, of_servers: bool, at: &Scope<'_>) {
        for (key, limit) in
            [("requests", self.requests), ("server_requests", self.server_requests), ("connections", self.connections)]
        {
            check_limit(limit, &at.key(key));
        }
        if self.queue > 0 && self.queue_timeout.0.is_zero() {
            at.key("queue_timeout").error_hint(
                "nobody can wait for 0 in a queue",
                "write how long a request may wait, as in `2s`, or leave `queue` away",
            );
        }
        if self.queue > 0 && !self.limits_anything() && !of_servers {
            at.key("queue").warn(
                "nothing ever waits in this queue: the upstream has no limit",
                "write a limit beside it, as in `requests: 100`, or remove it",
            );
        }
        if let Some(circuit) = &self.circuit {
            circuit.check(&at.key("circuit"));
        }
        if let Some(adaptive) = &self.adaptive {
            adaptive.check(&at.key("adaptive"));
        }
    }
}

/// How much one server takes at once; `None`: any amount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfServer {
    /// Requests under way.
    pub requests: Option<u32>,
    /// Open connections.
    pub connections: Option<u32>,
}

impl OfServer {
    /// The limits of a server that has its own, of which each goes before that of the upstream.
    pub fn of(upstream: &Config, own: Self) -> Self {
        Self {
            requests: own.requests.or(upstream.server_requests),
            connections: own.connections.or(upstream.connections),
        }
    }

    /// How many requests may be under way: each has a connection to itself, so that those are limited by it, too.
    pub fn most(self) -> Option<u32> {
        match (self.requests, self.connections) {
            (Some(requests), Some(connections)) => Some(requests.min(connections)),
            (requests, connections) => requests.or(connections),
        }
    }
}

/// Reports a limit that lets nothing through.
pub fn check_limit(limit: Option<u32>, at: &Scope<'_>) {
    if limit == Some(0) {
        at.error_hint("a limit of 0 lets no request through", "write 1 or more, or leave it away for any number");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::{Issues, Severity};

    fn faults(yaml: &str, of_servers: bool) -> Vec<(String, Severity)> {
        let issues = Issues::default();
        serde_yaml::from_str::<Config>(yaml).unwrap().check(of_servers, &issues.root());
        issues.into_vec().into_iter().map(|issue| (issue.path.to_string(), issue.severity)).collect()
    }

    #[test]
    fn every_limit_is_read() {
        let config: Config = serde_yaml::from_str(
            "{ requests: 1, server_requests: 2, connections: 3, queue: 4, queue_timeout: 5s,
               circuit: { errors: 6%, within: 7s, min_requests: 8, open: 9s },
               adaptive: { min: 10, max: 11, tolerance: 1.2 } }",
        )
        .unwrap();
        assert_eq!((config.requests, config.server_requests, config.connections), (Some(1), Some(2), Some(3)));
        assert_eq!((config.queue, config.queue_timeout), (4, HumanDuration::secs(5)));
        let circuit = config.circuit.unwrap();
        assert_eq!((circuit.errors.to_string().as_str(), circuit.within), ("6%", HumanDuration::secs(7)));
        assert_eq!((circuit.min_requests, circuit.open), (8, HumanDuration::secs(9)));
        assert_eq!(config.adaptive, Some(adaptive::Config { min: 10, max: 11, tolerance: 1.2 }));
        for (yaml, fault) in [
            ("{ request: 1 }", "unknown field `request`"),
            ("{ requests: -1 }", "expected u32"),
            ("{ circuit: { error: 5% } }", "unknown field `error`"),
            ("{ adaptive: { least: 5 } }", "unknown field `least`"),
        ] {
            let error = serde_yaml::from_str::<Config>(yaml).unwrap_err().to_string();
            assert!(error.contains(fault), "{yaml}: {error}");
        }
    }

    #[test]
    fn what_lets_nothing_through_is_an_error_and_what_does_nothing_a_warning() {
        use Severity::{Error, Warning};
        for (yaml, of_servers, expected) in [
            ("{}", false, &[][..]),
            ("{ requests: 10, queue: 5 }", false, &[]),
            ("{ adaptive: {}, queue: 5 }", false, &[]),
            ("{ requests: 0 }", false, &[("requests", Error)]),
            ("{ server_requests: 0, connections: 0 }", false, &[("server_requests", Error), ("connections", Error)]),
            ("{ requests: 1, queue: 5, queue_timeout: 0 }", false, &[("queue_timeout", Error)]),
            ("{ requests: 1, queue_timeout: 0 }", false, &[]),
            ("{ queue: 5 }", false, &[("queue", Warning)]),
            ("{ queue: 5, circuit: {} }", false, &[("queue", Warning)]),
            ("{ queue: 5 }", true, &[]),
            ("{ circuit: { open: 0 } }", false, &[("circuit.open", Error)]),
            ("{ adaptive: { tolerance: 0 } }", false, &[("adaptive.tolerance", Error)]),
        ] {
            let expected: Vec<_> = expected.iter().map(|(path, severity)| ((*path).to_owned(), *severity)).collect();
            assert_eq!(faults(yaml, of_servers), expected, "{yaml}");
        }
    }
}
