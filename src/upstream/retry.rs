//! When a request is tried again, how often, and the word by which logs name a failure.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use pingora::{Error, ErrorSource, ErrorType};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::limits::budget::Budget;
use crate::diag::Scope;
use crate::units::{HumanDuration, Percent};

/// When a request is tried again, on another backend.
///
/// Only what is safe: a connection that could not be made has shown the backend nothing of the request; whatever failed
/// later is tried again only for methods that may be repeated (RFC 9110, 9.2.2: GET, HEAD, OPTIONS, PUT, DELETE), only
/// while the request's body is at hand (64 KiB of it are kept), and only before the client got anything. When no further
/// try can follow, the client gets the backend's own answer. No backend is tried twice while another is left, and none
/// after the request's `total` time; where there is no other, one that answered or broke off gets
/// another try after a short pause.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Retry")]
pub struct Config {
    /// How many further tries may follow the first, from 0 (none) to 15. Default: 2.
    pub attempts: u32,
    /// After what another try follows: `connect` (no connection could be made), `reset` (the connection broke before the
    /// response began), `timeout` (the response did not begin in time), or a status from 400 to 599. Default: `connect`
    /// and `reset`. With `per_try`, `timeout` is always among them. `retry_on` is the same key.
    #[serde(alias = "retry_on")]
    pub causes: Option<Vec<Cause>>,
    /// How long a backend may be silent before its response begins, and then between two pieces of it, where that is
    /// less than the upstream's `read`. Default: `read` alone.
    pub per_try: Option<HumanDuration>,
    /// How many retries may be under way at the upstream, as a share of its requests under way; ten may always be. Those
    /// above that are not made, so that an upstream that is dying is not stormed. Default: `50%`.
    pub budget: Percent,
    /// Whether methods are tried again too that may not be repeated, as POST: only for backends that do no harm then.
    /// Default: `false`.
    pub non_idempotent: bool,
}

/// What a further try may follow upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// No connection could be made.
    Connect,
    /// The connection broke before the response began.
    Reset,
    /// The response did not begin in time.
    Timeout,
    /// The backend answered with this status.
    Status(u16),
}

impl Default for Config {
    fn default() -> Self {
        Self { attempts: 2, causes: None, per_try: None, budget: Budget::SHARE, non_idempotent: false }
    }
}

impl Config {
    /// The most attempts that may be set: Pingora gives up after 16 tries of its own accord.
    pub const MAX_ATTEMPTS: u32 = 15;

    /// Checks the options and compiles them.
    pub fn build(&self, at: &Scope<'_>) -> Option<Retry> {
        let mut sound = true;
        if self.attempts > Self::MAX_ATTEMPTS {
            at.key("attempts").error_hint(
                format!("{} further attempts are too many", self.attempts),
                format!("write at most {}; one or two will do in most cases", Self::MAX_ATTEMPTS),
            );
            sound = false;
        }
        if self.per_try.is_some_and(|span| span.0.is_zero()) {
            at.key("per_try").error_hint("a try of no time fails always", "write how long a try may take, as in `5s`");
            sound = false;
        }
        let mut causes = self.causes.clone().unwrap_or_else(|| vec![Cause::Connect, Cause::Reset]);
        if self.per_try.is_some() && !causes.contains(&Cause::Timeout) {
            causes.push(Cause::Timeout);
        }
        for (index, cause) in causes.iter().enumerate() {
            if matches!(cause, Cause::Status(status) if !(400..600).contains(status)) {
                at.key("causes").index(index).error_hint(
                    format!("{cause} is no status that tells of a failure"),
                    "write one from 400 to 599, as in `503`",
                );
                sound = false;
            }
        }
        let per_try = self.per_try.map(|span| span.0);
        let non_idempotent = self.non_idempotent;
        let (attempts, budget) = (self.attempts, self.budget);
        sound.then(|| Retry { attempts, causes: causes.into(), per_try, budget, non_idempotent })
    }
}

/// When a request is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    attempts: u32,
    causes: Box<[Cause]>,
    per_try: Option<Duration>,
    budget: Percent,
    non_idempotent: bool,
}

impl Retry {
    /// Whether one more try may follow upon this cause, after `tries` that failed, the first included, with `remaining`
    /// time left of the request's total (`None`: no limit).
    pub fn allows(&self, cause: Cause, tries: u32, remaining: Option<Duration>) -> bool {
        tries <= self.attempts && remaining.is_none_or(|left| !left.is_zero()) && self.causes.contains(&cause)
    }

    /// The share of the requests under way that may be retries.
    pub fn budget(&self) -> Percent {
        self.budget
    }

    /// How long a backend may be silent at one try.
    pub fn per_try(&self) -> Option<Duration> {
        self.per_try
    }

    /// Whether methods count as repeatable that by themselves are not.
    pub fn repeats_all(&self) -> bool {
        self.non_idempotent
    }
}

impl Cause {
    /// Why the exchange with a backend broke, where its response had not begun.
    pub fn of(error: &Error) -> Self {
        match error.etype() {
            ErrorType::ReadTimedout | ErrorType::WriteTimedout => Self::Timeout,
            _ => Self::Reset,
        }
    }

    /// Whether the same backend may do better after a moment, where there is no other: one that cannot be reached, or was
    /// silent, would only be waited for once more.
    pub fn may_pass(self) -> bool {
        matches!(self, Self::Reset | Self::Status(_))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("connect"),
            Self::Reset => f.write_str("reset"),
            Self::Timeout => f.write_str("timeout"),
            Self::Status(status) => write!(f, "{status}"),
        }
    }
}

impl Serialize for Cause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Status(status) => serializer.serialize_u16(*status),
            _ => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Cause {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;
        impl Visitor<'_> for Forms {
            type Value = Cause;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`connect`, `reset`, `timeout`, or a status, as in `503`")
            }
            fn visit_u64<E: serde::de::Error>(self, status: u64) -> Result<Cause, E> {
                Ok(Cause::Status(u16::try_from(status).unwrap_or(u16::MAX)))
            }
            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Cause, E> {
                match name {
                    "connect" => Ok(Cause::Connect),
                    "reset" => Ok(Cause::Reset),
                    "timeout" => Ok(Cause::Timeout),
                    _ => match name.parse() {
                        Ok(status) => Ok(Cause::Status(status)),
                        Err(_) => Err(E::unknown_variant(name, &["connect", "reset", "timeout"])),
                    },
                }
            }
        }
        deserializer.deserialize_any(Forms)
    }
}

impl JsonSchema for Cause {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Cause".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "enum": ["connect", "reset", "timeout"] },
            { "type": "integer", "minimum": 400, "maximum": 599 },
        ] })
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

/// Whether connecting failed for a reason on this side, as when file descriptors run out.
pub fn is_own_fault(error: &Error) -> bool {
    let own =
        |kind: &ErrorType| matches!(kind, ErrorType::BindError | ErrorType::SocketError | ErrorType::InternalError);
    own(error.etype()) || own(error.root_etype())
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
        // Pingora's own names for faults of a body.
        E::Custom("InvalidChunk" | "InvalidTrailerEnd") if client => "invalid_request",
        E::Custom("InvalidChunk" | "InvalidTrailerEnd") => "invalid_response",
        E::Custom("PrematureBodyEnd") if client => "client_closed",
        E::Custom("PrematureBodyEnd") => "connection_closed",
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
        let allows = |tries, left: Option<u64>| retry.allows(Cause::Connect, tries, left.map(Duration::from_millis));
        assert_eq!([1, 2, 3].map(|tries| allows(tries, None)), [true, true, false]);
        assert!(allows(1, Some(1)) && !allows(1, Some(0)));
        let never = Config { attempts: 0, ..Config::default() }.build(&issues.root()).unwrap();
        assert!(!never.allows(Cause::Connect, 1, None));
        assert!(issues.into_vec().is_empty());
    }

    #[test]
    fn a_further_try_follows_upon_its_causes_alone() {
        for (yaml, causes) in [
            ("{}", "connect reset"),
            ("{ per_try: 5s }", "connect reset timeout"),
            ("{ causes: [connect] }", "connect"),
            ("{ causes: [reset], per_try: 1s }", "reset timeout"),
            ("{ retry_on: [502, '503', timeout] }", "timeout 502 503"),
            ("{ causes: [] }", ""),
        ] {
            let issues = Issues::default();
            let retry = serde_yaml::from_str::<Config>(yaml).unwrap().build(&issues.root()).unwrap();
            let all = [Cause::Connect, Cause::Reset, Cause::Timeout, Cause::Status(502), Cause::Status(503)];
            let allowed: Vec<_> =
                all.iter().filter(|cause| retry.allows(**cause, 1, None)).map(Cause::to_string).collect();
            assert_eq!(allowed.join(" "), causes, "{yaml}");
            assert!(issues.into_vec().is_empty(), "{yaml}");
        }
    }

    #[test]
    fn what_cannot_work_is_told_with_its_place() {
        for (yaml, place, told) in [
            ("{ attempts: 16 }", "attempts", "too many"),
            ("{ per_try: 0 }", "per_try", "fails always"),
            ("{ causes: [200] }", "causes[0]", "no status that tells of a failure"),
            ("{ causes: [connect, 99999999] }", "causes[1]", "no status that tells of a failure"),
        ] {
            let issues = Issues::default();
            serde_yaml::from_str::<Config>(yaml).unwrap().build(&issues.root());
            let issues = issues.into_vec();
            assert_eq!((issues.len(), issues[0].path.to_string()), (1, place.to_owned()), "{yaml}");
            assert!(issues[0].message.contains(told), "{yaml}: {}", issues[0].message);
        }
        let unknown = serde_yaml::from_str::<Config>("{ causes: [refused] }").unwrap_err().to_string();
        assert!(unknown.contains("unknown variant `refused`"), "{unknown}");
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
    fn what_lacks_on_this_side_is_no_fault_of_a_backend() {
        let no_port_left = Error::because(ErrorType::InternalError, "connecting", Error::new(ErrorType::BindError));
        assert!(is_own_fault(&no_port_left) && is_own_fault(&Error::new(ErrorType::SocketError)));
        for kind in [ErrorType::ConnectRefused, ErrorType::ConnectTimedout, ErrorType::TLSHandshakeFailure] {
            assert!(!is_own_fault(&Error::new_up(kind)));
        }
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
            (Error::new_down(ErrorType::new("InvalidChunk")), "invalid_request"),
            (Error::new_up(ErrorType::new("InvalidChunk")), "invalid_response"),
            (Error::new_down(ErrorType::new("PrematureBodyEnd")), "client_closed"),
            (Error::new_up(ErrorType::new("PrematureBodyEnd")), "connection_closed"),
            (Error::new_in(ErrorType::InternalError), "internal"),
            (Error::new_in(ErrorType::Custom("no_backend")), "no_backend"),
        ] {
            assert_eq!(failure_word(&error), word, "{error}");
        }
    }
}
