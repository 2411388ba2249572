//! Settings that belong to no feature: threads, draining, limits of the whole process, the admin address.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use crate::forwarded;
use crate::listen;
use crate::units::{Cidr, HumanDuration, OneOrMany};

/// `runtime`: the process as a whole.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Runtime {
    /// Threads that serve requests: `auto` (one for each core) or a number. Needs a restart to change.
    pub threads: Threads,
    /// Lets idle threads take over work from busy ones. Default: false: each connection stays on the thread that
    /// accepted it, which costs less CPU. Needs a restart to change.
    pub work_stealing: bool,
    /// How long requests under way may take to finish after SIGTERM. Default: 30s.
    pub drain: HumanDuration,
    /// How often to look whether a file of the document has changed, and reload then. Default: 0, never.
    pub watch: HumanDuration,
    /// Idle connections to backends that are kept, for each thread and all upstreams together; the one that was used
    /// longest ago gives way. 0: none. How long each is kept is the upstream's `keepalive`. Default: 512. Needs a
    /// restart to change.
    pub upstream_pool: usize,
    /// Networks of proxies in front, whose `X-Forwarded-*`, `Forwarded` and `X-Request-Id` are believed. Default: none.
    pub trusted_proxies: OneOrMany<Cidr>,
    /// Limits on connections and requests.
    pub limits: listen::LimitsConfig,
    /// What backends are told about the client.
    pub forwarded: forwarded::Config,
    /// The `Server` field of responses: a text, or `none`. Default: none. That of an upstream is hidden either way,
    /// unless the upstream says `keep_server_headers`.
    pub server_header: Option<String>,
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            threads: Threads::Auto,
            work_stealing: false,
            drain: HumanDuration::secs(30),
            watch: HumanDuration::default(),
            upstream_pool: 512,
            trusted_proxies: OneOrMany::default(),
            limits: listen::LimitsConfig::default(),
            forwarded: forwarded::Config::default(),
            server_header: None,
        }
    }
}

/// How many threads serve requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Threads {
    /// One for each core.
    #[default]
    Auto,
    /// This many.
    Number(u16),
}

impl Threads {
    /// The number of threads on this machine.
    pub fn count(self) -> usize {
        match self {
            Self::Auto => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            Self::Number(number) => usize::from(number),
        }
    }
}

impl<'de> Deserialize<'de> for Threads {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;
        impl Visitor<'_> for Forms {
            type Value = Threads;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`auto` or a number of threads from 1 to 1024")
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Threads, E> {
                match u16::try_from(number) {
                    Ok(number @ 1..=1024) => Ok(Threads::Number(number)),
                    _ => Err(E::custom(format!("`{number}` threads are not from 1 to 1024"))),
                }
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Threads, E> {
                match text.parse::<u64>() {
                    _ if text == "auto" => Ok(Threads::Auto),
                    Ok(number) => self.visit_u64(number),
                    Err(_) => Err(E::custom(format!("`{text}` is neither `auto` nor a number of threads"))),
                }
            }
        }
        deserializer.deserialize_any(Forms)
    }
}

impl JsonSchema for Threads {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Threads".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "const": "auto" }, { "type": "integer", "minimum": 1, "maximum": 1024 }], "default": "auto" })
    }
}

/// `admin`: where operators look in: `/metrics`, `/healthz`, `/readyz`. Short form: the address alone, or `false`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Admin {
    /// Nothing is written: the default address, and no fault if it is taken.
    #[default]
    Unwritten,
    /// `false`: nowhere.
    Nowhere,
    /// At this address.
    At(AdminConfig),
}

/// `admin` in its long form.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminConfig {
    /// The address: loopback or a Unix socket, since whoever reaches it needs no password. Default: 127.0.0.1:9900.
    pub listen: listen::Address,
}

impl Admin {
    /// The address that is used when none is written.
    pub const DEFAULT: &'static str = "127.0.0.1:9900";
}

impl<'de> Deserialize<'de> for Admin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;
        impl<'de> Visitor<'de> for Forms {
            type Value = Admin;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address, as in `127.0.0.1:9900` or `unix:/run/edgeway.sock`, or `false`")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Admin, E> {
                Ok(Admin::At(AdminConfig { listen: text.parse().map_err(E::custom)? }))
            }
            fn visit_bool<E: Error>(self, value: bool) -> Result<Admin, E> {
                Ok(if value { Admin::Unwritten } else { Admin::Nowhere })
            }
            fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Admin, A::Error> {
                AdminConfig::deserialize(MapAccessDeserializer::new(entries)).map(Admin::At)
            }
        }
        deserializer.deserialize_any(Forms)
    }
}

impl JsonSchema for Admin {
    fn schema_name() -> Cow<'static, str> {
        "Admin".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let long = generator.subschema_for::<AdminConfig>();
        json_schema!({
            "description": "Where operators look in: `/metrics`, `/healthz`, `/readyz`. An address, `false` for nowhere, or a mapping.",
            "anyOf": [{ "type": "string" }, { "const": false }, long],
            "default": "127.0.0.1:9900"
        })
    }
}
