//! `active`: checks that the gateway makes of its own accord, as they are written and as they are made.
//!
//! A check that can never succeed takes every server out, so whatever can be seen at once to be such a one is a fault of
//! the document.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::http_check::Http;
use super::probe::{Kind, Probe};
use super::rules::ActiveRules;
use super::state::Start;
use crate::diag::Scope;
use crate::units::{HumanDuration, Percent};

/// Checks of the gateway's own: a path, or a mapping.
#[derive(Clone, Debug)]
pub struct Active {
    settings: ActiveSettings,
    short: bool,
}

/// Checks that the gateway makes of its own accord: `http`, `tcp` or `grpc`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "ActiveHealth")]
pub struct ActiveSettings {
    /// Asks for a path by HTTP/1.1, on a new connection each time: the path, or a mapping.
    pub http: Option<Http>,
    /// `true`: makes a connection, which is enough.
    pub tcp: bool,
    /// Asks by the gRPC health protocol (`grpc.health.v1`, over HTTP/2) for the service of this name; `""`: for the server
    /// as a whole.
    pub grpc: Option<String>,
    /// How often each server is checked. Default: `5s`.
    pub every: HumanDuration,
    /// By up to which share the time between two checks is longer or shorter, so that not all servers are checked at the
    /// same moment. Default: `10%`.
    pub jitter: Percent,
    /// How long a check may take in all, however the server trickles. Default: `2s`, or `every` when that is shorter.
    pub timeout: Option<HumanDuration>,
    /// After how many successes in a row a server that is down takes requests again. Default: 2.
    pub rise: u32,
    /// After how many failures in a row a server takes no more requests. Default: 3.
    pub fall: u32,
    /// The port to check. Default: that of the server.
    pub port: Option<u16>,
    /// What a server that was not checked yet counts as: `up`; `checking`, not to be used until the first success; or
    /// `down`, until `rise` successes. What was known before a reload stays. Default: `up`.
    pub start: Start,
    /// How many servers of the upstream are checked at the same time. Default: 32.
    pub parallel: u32,
}

impl Default for ActiveSettings {
    fn default() -> Self {
        Self {
            http: None,
            tcp: false,
            grpc: None,
            every: HumanDuration::secs(5),
            jitter: Percent::new(10),
            timeout: None,
            rise: 2,
            fall: 3,
            port: None,
            start: Start::Up,
            parallel: 32,
        }
    }
}

/// Checks, ready to be made.
#[derive(Debug)]
pub struct Checks {
    /// One of them.
    pub probe: Probe,
    /// How they count.
    pub rules: ActiveRules,
    /// The time from one to the next.
    pub every: Duration,
    /// By up to which share of it that time differs.
    pub jitter: Percent,
    /// How many are made at the same time.
    pub parallel: usize,
}

impl Active {
    /// What a server that nothing is known of counts as.
    pub fn start(&self) -> Start {
        self.settings.start
    }

    /// Compiles it; reports at `at` what is wrong. `unix`: one of the servers is behind a Unix socket.
    pub fn build(&self, unix: bool, at: &Scope<'_>) -> Option<Checks> {
        let settings = &self.settings;
        settings.check(unix, at);
        let kind = self.kind(at)?;
        let timeout = settings.timeout.unwrap_or_else(|| HumanDuration::secs(2).min(settings.every));
        Some(Checks {
            probe: Probe { kind, timeout: timeout.0, port: settings.port },
            rules: ActiveRules { rise: settings.rise, fall: settings.fall },
            every: settings.every.0,
            jitter: settings.jitter,
            parallel: settings.parallel as usize,
        })
    }

    fn kind(&self, at: &Scope<'_>) -> Option<Kind> {
        let settings = &self.settings;
        match (&settings.http, settings.tcp, &settings.grpc) {
            (Some(http), false, None) if self.short => http.build(at).map(Kind::Http),
            (Some(http), false, None) => http.build(&at.key("http")).map(Kind::Http),
            (None, true, None) => Some(Kind::Tcp),
            (None, false, Some(service)) => Some(Kind::Grpc(service.as_str().into())),
            (None, false, None) => {
                at.error_hint(
                    "the check says neither `http` nor `tcp` nor `grpc`",
                    "write one of them, as in `http: /healthz`, `tcp: true` or `grpc: \"\"`",
                );
                None
            }
            _ => {
                at.error_hint("a check is one of `http`, `tcp` and `grpc`, not several", "leave one of them");
                None
            }
        }
    }
}

impl ActiveSettings {
    fn check(&self, unix: bool, at: &Scope<'_>) {
        let at_least_one = |key: &str, number: u32, what: &str| {
            if number == 0 {
                at.key(key).error_hint(format!("0 {what} make no sense"), "write 1 or more");
            }
        };
        at_least_one("rise", self.rise, "successes in a row");
        at_least_one("fall", self.fall, "failures in a row");
        at_least_one("parallel", self.parallel, "checks at the same time");
        if self.every.0.is_zero() {
            at.key("every").error_hint("no time between two checks", "write how often to check, as in `5s`");
        }
        match self.timeout {
            Some(timeout) if timeout.0.is_zero() => at
                .key("timeout")
                .error_hint("a timeout of 0 would fail every check", "write how long a check may take, as in `2s`"),
            Some(timeout) if timeout > self.every && !self.every.0.is_zero() => at.key("timeout").warn(
                format!("a check may take {timeout}, longer than the {} between two", self.every),
                "raise `every` or lower `timeout`; a check that takes longer delays the next",
            ),
            _ => {}
        }
        match self.port {
            Some(0) => at.key("port").error_hint("nobody listens at port 0", "write the port to check"),
            Some(_) if unix => at.key("port").error_hint(
                "one of the servers is a Unix socket, which has no ports",
                "leave `port` out, or make two upstreams of it",
            ),
            _ => {}
        }
    }
}

impl<'de> Deserialize<'de> for Active {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;
        impl<'de> Visitor<'de> for Forms {
            type Value = Active;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path to ask for, as in `/healthz`, or a mapping with `http`, `tcp` or `grpc`")
            }
            fn visit_str<E: Error>(self, path: &str) -> Result<Active, E> {
                let settings = ActiveSettings { http: Some(Http::plain(path)), ..ActiveSettings::default() };
                Ok(Active { settings, short: true })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Active, A::Error> {
                let settings = Deserialize::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Active { settings, short: false })
            }
        }
        deserializer.deserialize_any(Forms)
    }
}

impl JsonSchema for Active {
    fn schema_name() -> Cow<'static, str> {
        "ActiveCheck".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let settings = generator.subschema_for::<ActiveSettings>();
        json_schema!({
            "description": "Checks that the gateway makes of its own accord: the path to ask for, or a mapping.",
            "anyOf": [{ "type": "string", "examples": ["/healthz"] }, settings],
        })
    }
}
