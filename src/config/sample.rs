//! A small document of the same shape as the real one, for the tests of this folder.

use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::units::{Cidr, HumanDuration, OneOrMany};

/// A gateway in one file.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Sample {
    /// Settings of the process.
    #[serde(default)]
    pub(super) runtime: Runtime,
    /// Where clients connect.
    #[serde(default)]
    pub(super) listeners: OneOrMany<String>,
    /// Named groups of backends.
    #[serde(default)]
    pub(super) upstreams: BTreeMap<String, Upstream>,
    /// What is served for which host.
    #[serde(default)]
    pub(super) sites: Vec<Site>,
}

/// Settings of the process.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Runtime {
    /// How many threads serve.
    #[serde(default)]
    pub(super) threads: Option<u16>,
    /// How long connections may finish.
    #[serde(default = "drain")]
    pub(super) drain: HumanDuration,
    /// Whether an idle thread may take another's work.
    #[serde(default)]
    pub(super) work_stealing: bool,
}

fn drain() -> HumanDuration {
    HumanDuration::secs(30)
}

/// A named group of backends.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Full {
    /// The backends.
    pub(super) servers: Vec<String>,
    /// Who takes the next request.
    #[serde(default)]
    pub(super) balance: Balance,
}

/// Who takes the next request.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Balance {
    /// One after the other.
    #[default]
    RoundRobin,
    /// Whoever has the fewest.
    LeastRequests,
    /// The same key to the same backend.
    Hash(Hash),
}

/// The same key to the same backend.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub(super) struct Hash {
    /// What is hashed.
    pub(super) key: String,
}

/// An upstream: a text, a list, or the mapping.
#[derive(Clone, Debug)]
pub(super) struct Upstream(pub(super) Full);

impl<'de> Deserialize<'de> for Upstream {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Short;
        impl<'de> Visitor<'de> for Short {
            type Value = Upstream;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address, a list of addresses, or a mapping with `servers`")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Upstream, E> {
                if !text.contains(':') {
                    return Err(E::custom(format!("`{text}` has no port; write `host:port`")));
                }
                Ok(Upstream(Full { servers: vec![text.to_owned()], balance: Balance::default() }))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Upstream, A::Error> {
                let servers = Vec::deserialize(SeqAccessDeserializer::new(items))?;
                Ok(Upstream(Full { servers, balance: Balance::default() }))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Upstream, A::Error> {
                Full::deserialize(MapAccessDeserializer::new(map)).map(Upstream)
            }
        }
        deserializer.deserialize_any(Short)
    }
}

impl JsonSchema for Upstream {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Upstream".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let full = generator.subschema_for::<Full>();
        json_schema!({
            "description": "A named group of backends.",
            "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }, full],
            "examples": ["127.0.0.1:3000", ["10.0.0.1:80", "10.0.0.2:80"]],
        })
    }
}

/// What is served for which host.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Site {
    /// Names of hosts. None: whatever no other site names.
    #[serde(default)]
    pub(super) hosts: OneOrMany<String>,
    /// What looks at each request, in this order.
    #[serde(default)]
    pub(super) filters: Vec<Filter>,
    /// Replies of our own, by status.
    #[serde(default)]
    pub(super) errors: BTreeMap<u16, String>,
    /// The upstream.
    pub(super) proxy: Option<Upstream>,
    /// The reply.
    pub(super) respond: Option<Respond>,
}

/// What may look at a request.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Filter {
    /// Lets clients in, or keeps them out, by address.
    IpRules(IpRules),
    /// Headers to set.
    Headers(BTreeMap<String, String>),
    /// Gives each request an id.
    RequestId,
}

/// Lets clients in, or keeps them out, by address.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct IpRules {
    /// Who may pass. Empty: everyone.
    #[schemars(example = &"10.0.0.0/8")]
    pub(super) allow: OneOrMany<Cidr>,
    /// Who may not, whatever `allow` says.
    pub(super) deny: OneOrMany<Cidr>,
}

/// A reply of our own.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Respond {
    /// The status.
    pub(super) status: u16,
    /// The body.
    #[serde(default)]
    pub(super) body: String,
}

/// A document that uses all of it.
pub(super) const DOCUMENT: &str = r#"runtime:
  threads: 4
  drain: 1m 30s
listeners: [":80", "[::1]:80"]
upstreams:
  api: &api
    servers: [10.0.0.1:80, 10.0.0.2:80]
    balance: { hash: { key: "${client.ip}" } }
  canary:
    <<: *api
    balance: least_requests
  list: [10.0.1.1:80]
  text: "${HOST:-localhost}:80"
sites:
  - hosts: ["*.example.com", example.com]
    filters:
      - ip_rules:
          allow: 10.0.0.0/8
          deny: [10.9.0.0/16, 10.8.0.0/16]
      - headers: { X-A: 1, X-B: true, X-C: text }
      - request_id
    errors: { 502: /srv/502.html }
    proxy: 10.0.0.1:80
  - respond: { status: 200, body: 42 }
"#;
