//! `Asking`: which name servers are asked, and for how long at least and at most an answer of theirs is used.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error};

use crate::diag::Scope;
use crate::units::HumanDuration;

/// The port of name servers.
const DNS: u16 = 53;

/// Which name servers are asked, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asking {
    /// The name servers. None: the system's.
    pub servers: Vec<SocketAddr>,
    /// An answer is used for at least so long.
    pub min_ttl: Duration,
    /// An answer is used for at most so long.
    pub max_ttl: Duration,
}

impl Default for Asking {
    fn default() -> Self {
        Self::new(&[], Self::least(), Self::most())
    }
}

impl Asking {
    pub(super) fn least() -> HumanDuration {
        HumanDuration::secs(1)
    }

    pub(super) fn most() -> HumanDuration {
        HumanDuration::secs(300)
    }

    pub(super) fn new(servers: &[NameServer], min_ttl: HumanDuration, max_ttl: HumanDuration) -> Self {
        Self { servers: servers.iter().map(|server| server.0).collect(), min_ttl: min_ttl.0, max_ttl: max_ttl.0 }
    }

    /// Reports what cannot work.
    pub fn check(&self, at: &Scope<'_>) {
        if self.min_ttl < Duration::from_millis(100) {
            at.key("min_ttl").error_hint(
                format!("DNS cannot be asked every `{}`", HumanDuration(self.min_ttl)),
                "write `100ms` or more; a second will do in most cases",
            );
        } else if self.max_ttl < self.min_ttl {
            at.key("max_ttl").error_hint(
                format!("`max_ttl` is shorter than `min_ttl`, which is `{}`", HumanDuration(self.min_ttl)),
                "write a longer time, or a shorter `min_ttl`",
            );
        }
    }

    /// How long an answer is used that holds for `ttl`.
    pub fn clamp(&self, ttl: Duration) -> Duration {
        // Not `Ord::clamp`, which panics when the bounds are the wrong way round.
        ttl.min(self.max_ttl).max(self.min_ttl)
    }
}

/// A name server: `10.0.0.53`, `[fd00::53]:5353`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameServer(pub SocketAddr);

impl FromStr for NameServer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self(SocketAddr::new(ip, DNS)));
        }
        match text.parse::<SocketAddr>() {
            Ok(at) if at.port() != 0 => Ok(Self(at)),
            _ => {
                Err(format!("`{text}` is no name server; write an IP address, with a port or without: `10.0.0.53:53`"))
            }
        }
    }
}

impl<'de> Deserialize<'de> for NameServer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for NameServer {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "NameServer".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": ["10.0.0.53", "10.0.0.53:5353"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_server_is_an_address_with_or_without_a_port() {
        for (text, at) in [
            ("10.0.0.53", Some("10.0.0.53:53")),
            ("10.0.0.53:5353", Some("10.0.0.53:5353")),
            ("fd00::53", Some("[fd00::53]:53")),
            ("[fd00::53]:5353", Some("[fd00::53]:5353")),
            ("10.0.0.53:0", None),
            ("ns.internal", None),
            ("", None),
        ] {
            let read = text.parse::<NameServer>();
            assert_eq!(read.as_ref().ok().map(|server| server.0.to_string()).as_deref(), at, "{text}: {read:?}");
        }
    }

    #[test]
    fn a_time_to_live_is_held_within_its_bounds() {
        let asking = Asking::default();
        for (ttl, used) in [(0, 1), (1, 1), (30, 30), (300, 300), (86_400, 300)] {
            assert_eq!(asking.clamp(Duration::from_secs(ttl)), Duration::from_secs(used), "{ttl}");
        }
    }
}
