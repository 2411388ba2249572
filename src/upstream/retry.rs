//! Which failures are tried again on another backend, how often, and the word by which logs name a failure.

use std::time::Duration;

use pingora::{Error, ErrorSource, ErrorType};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diag::Scope;

/// When another backend is tried.
///
/// Only a connection that could not be made is tried again, for then the backend has seen nothing of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Retry")]
pub struct Config {
    /// How many further backends are tried after a failed connect, from 0 (none) to 15. No backend is tried twice for
    /// one request, and none after the request's `total` time. Default: 2.
    pub attempts: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { attempts: 2 }
    }
}

impl Config {
    /// The most attempts that may be set: Pingora gives up after 16 tries of its own accord.
    pub const MAX_ATTEMPTS: u32 = 15;

    /// Checks the options and compiles them.
    pub fn build(&self, at: &Scope<'_>) -> Option<Retry> {
        if self.attempts > Self::MAX_ATTEMPTS {
            at.key("attempts").error_hint(
                format!("{} further attempts are too many", self.attempts),
                format!("write at most {}; one or two will do in most cases", Self::MAX_ATTEMPTS),
            );
            return None;
        }
        Some(Retry { attempts: self.attempts })
    }
}

/// How often a request may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    attempts: u32,
}

impl Retry {
    /// Whether one more backend may be tried, after `tries` that failed, the first included, with `remaining` time
    /// left of the request's total (`None`: no limit).
    pub fn allows(self, tries: u32, remaining: Option<Duration>) -> bool {
        tries <= self.attempts && remaining.is_none_or(|left| !left.is_zero())
    }
}

/// Whether the backend could not be reached at all, so that nothing of the request was sent and another may take it.
pub fn is_failed_connect(error: &Error) -> bool {
    use ErrorType as E;
    match error.etype() {
        E::ConnectTimedout
        | E::ConnectRefused
        | E::ConnectNoRoute
        | E::ConnectError
        | E::ConnectProxyFailure
        | E::TLSWantX509Lookup
        | E::TLSHandshakeFailure
        | E::TLSHandshakeTimedout
        | E::InvalidCert
        | E::HandshakeError
        | E::BindError
        | E::SocketError => true,
        // Pingora files a connect under internal errors when the fault seems ours: no local port left for this very
        // address, or no right to open this Unix socket. Another backend may still work.
        E::InternalError => {
            matches!(error.root_etype(), E::BindError | E::SocketError)
                || std::iter::successors(Some(error.root_cause() as &(dyn std::error::Error + 'static)), |e| e.source())
                    .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
                    .any(|cause| cause.kind() == std::io::ErrorKind::PermissionDenied)
        }
        _ => false,
    }
}

/// The failure as one word for access logs.
///
/// What went wrong on the client's side begins with `client_`, except `invalid_request`.
pub fn failure_word(error: &Error) -> &'static str {
    use ErrorType as E;
    let client = matches!(error.esource(), ErrorSource::Downstream);
    match error.etype() {
        E::ConnectTimedout => "connect_timeout",
        E::ConnectRefused => "connect_refused",
        E::ConnectNoRoute => "connect_no_route",
        E::ConnectError | E::BindError | E::SocketError => "connect_error",
        E::ConnectProxyFailure => "connect_proxy_error",
        E::InvalidCert => "invalid_certificate",
        E::TLSHandshakeTimedout => "tls_timeout",
        E::TLSHandshakeFailure | E::HandshakeError | E::TLSWantX509Lookup => "tls_error",
        E::ReadTimedout | E::WriteTimedout if client => "client_timeout",
        E::ReadError | E::WriteError | E::ConnectionClosed | E::AcceptError if client => "client_closed",
        E::InvalidHTTPHeader | E::H1Error | E::InvalidH2 | E::H2Error if client => "invalid_request",
        E::ReadTimedout => "read_timeout",
        E::WriteTimedout => "write_timeout",
        E::ReadError => "read_error",
        E::WriteError => "write_error",
        E::ConnectionClosed => "connection_closed",
        E::InvalidHTTPHeader | E::H1Error | E::InvalidH2 | E::H2Error | E::H2Downgrade => "invalid_response",
        E::HTTPStatus(_) => "status",
        // Pingora's words for what is wrong within a body.
        E::Custom("InvalidChunk" | "InvalidTrailerEnd" | "PrematureBodyEnd") if client => "invalid_request",
        E::Custom("InvalidChunk" | "InvalidTrailerEnd" | "PrematureBodyEnd") => "invalid_response",
        // Our own words for our own errors.
        E::Custom(word) | E::CustomCode(word, _) => word,
        E::InternalError if is_failed_connect(error) => "connect_error",
        _ => "internal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Issues;

    #[test]
    fn two_attempts_make_three_tries() {
        let issues = Issues::default();
        let retry = Config::default().build(&issues.root()).unwrap();
        assert_eq!([1, 2, 3].map(|tries| retry.allows(tries, None)), [true, true, false]);
        assert!(retry.allows(1, Some(Duration::from_millis(1))));
        assert!(!retry.allows(1, Some(Duration::ZERO)));
        let never = Config { attempts: 0 }.build(&issues.root()).unwrap();
        assert!(!never.allows(1, None));
        assert!(Config { attempts: 16 }.build(&issues.root()).is_none());
        assert_eq!(issues.errors(), 1);
    }

    #[test]
    fn only_what_never_reached_the_backend_is_a_failed_connect() {
        for (kind, failed) in [
            (ErrorType::ConnectTimedout, true),
            (ErrorType::ConnectRefused, true),
            (ErrorType::ConnectNoRoute, true),
            (ErrorType::ConnectError, true),
            (ErrorType::TLSHandshakeFailure, true),
            (ErrorType::InvalidCert, true),
            (ErrorType::ReadTimedout, false),
            (ErrorType::ConnectionClosed, false),
            (ErrorType::HTTPStatus(502), false),
            (ErrorType::InternalError, false),
        ] {
            assert_eq!(is_failed_connect(&Error::new_up(kind.clone())), failed, "{kind:?}");
        }
    }

    #[test]
    fn a_local_fault_of_a_connect_counts_too() {
        let no_port_left = Error::because(ErrorType::InternalError, "connecting", Error::new(ErrorType::BindError));
        assert!(is_failed_connect(&no_port_left));
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let denied = Error::because(ErrorType::InternalError, "connecting", denied);
        assert!(is_failed_connect(&denied));
        assert_eq!(failure_word(&denied), "connect_error");
    }

    #[test]
    fn a_failure_has_a_word_by_kind_and_side() {
        for (error, word) in [
            (Error::new_up(ErrorType::ConnectRefused), "connect_refused"),
            (Error::new_up(ErrorType::ConnectTimedout), "connect_timeout"),
            (Error::new_up(ErrorType::ReadTimedout), "read_timeout"),
            (Error::new_down(ErrorType::ReadTimedout), "client_timeout"),
            (Error::new_up(ErrorType::WriteTimedout), "write_timeout"),
            (Error::new_up(ErrorType::ConnectionClosed), "connection_closed"),
            (Error::new_down(ErrorType::ConnectionClosed), "client_closed"),
            (Error::new_down(ErrorType::WriteError), "client_closed"),
            (Error::new_up(ErrorType::InvalidHTTPHeader), "invalid_response"),
            (Error::new_down(ErrorType::InvalidHTTPHeader), "invalid_request"),
            (Error::new_in(ErrorType::InternalError), "internal"),
            (Error::new_in(ErrorType::Custom("no_backend")), "no_backend"),
        ] {
            assert_eq!(failure_word(&error), word, "{error}");
        }
    }
}
