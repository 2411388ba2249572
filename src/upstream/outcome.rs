//! `Outcome`: how a try at a backend went, as health, limits and policies learn it.

use std::fmt;
use std::time::Duration;

/// What a failure counts for beside the time it took, where latency decides: a backend that fails fast is not a fast one.
pub(super) const PENALTY: Duration = Duration::from_secs(1);

/// How a try at a backend went. What the client did wrong is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered, with this status.
    Status(u16),
    /// It could not be connected to.
    Connect,
    /// It broke the exchange off, or what it sent is no HTTP.
    Reset,
    /// It was silent for too long.
    Timeout,
}

impl Outcome {
    /// Whether the backend did its part: any status below 500 and those that tell of the request, not of the server.
    pub fn is_good(self) -> bool {
        matches!(self, Self::Status(status) if status < 500 || matches!(status, 501 | 505 | 511))
    }

    /// Whether it is the failure of a gateway: the backend could not be reached or broke off, or says so of its own
    /// (502, 503, 504; RFC 9110, 15.6.3 to 15.6.5).
    pub fn is_gateway_failure(self) -> bool {
        !matches!(self, Self::Status(status) if !matches!(status, 502..=504))
    }
}

/// As a clause for logs.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "it answered {status}"),
            Self::Connect => f.write_str("it could not be connected to"),
            Self::Reset => f.write_str("it broke off"),
            Self::Timeout => f.write_str("it was silent for too long"),
        }
    }
}
