//! `listeners`: what is written of a listener.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use super::Address;
use crate::diag::Scope;
use crate::units::{ByteRate, ByteSize, HumanDuration, OneOrMany};

/// One listener: an address as text, or a mapping with its options.
#[derive(Clone, Debug, serde::Deserialize, JsonSchema)]
#[serde(remote = "Self", deny_unknown_fields)]
#[schemars(rename = "Listener", transform = or_text)]
pub struct Config {
    /// Where to listen: `127.0.0.1:80`, `:80` (every address, IPv4 and IPv6), `[::1]:80` or `unix:/path`; or a list of
    /// these. Clients of a Unix socket have no address, so no limit per client holds for them.
    pub address: OneOrMany<Address>,
    /// How long clients of this listener may take.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// The slowest pace at which a client may take a response, as in `1KiB/s`; 0 (the default): any pace
    /// that keeps to `timeouts.write`. HTTP/1 only.
    #[serde(default)]
    pub min_send_rate: SendRate,
    /// Whether a client may begin with HTTP/2 at once, without TLS (prior knowledge, RFC 9113 3.3). Default: true.
    #[serde(default = "yes")]
    pub http2: bool,
}

/// How long clients of a listener may take.
#[derive(Clone, Copy, Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "ListenerTimeouts")]
pub struct Timeouts {
    /// For a whole request head, from its first byte; and for a new connection until its first byte. A head that is
    /// late is answered with 408. An HTTP/2 connection must begin its first request in this time. Default: 10s.
    pub head: HumanDuration,
    /// How long a connection may wait for its next request. Default: 60s.
    pub idle: HumanDuration,
    /// The longest pause within a request body. HTTP/1 only. Default: 60s.
    pub body: HumanDuration,
    /// How long a client may take no byte of a response. Default: 60s.
    pub write: HumanDuration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head: HumanDuration::secs(10),
            idle: HumanDuration::secs(60),
            body: HumanDuration::secs(60),
            write: HumanDuration::secs(60),
        }
    }
}

impl Config {
    /// A listener at this address, with every option at its default.
    pub fn at(address: Address) -> Self {
        Self {
            address: OneOrMany(vec![address]),
            timeouts: Timeouts::default(),
            min_send_rate: SendRate::default(),
            http2: true,
        }
    }
}

/// Reports what is wrong with a list of listeners, `scope` being the place of the list: an address that is taken
/// twice, a listener without one, a time of zero.
pub fn check(listeners: &[Config], scope: &Scope<'_>) {
    let mut taken: Vec<&Address> = Vec::new();
    for (index, listener) in listeners.iter().enumerate() {
        let here = scope.index(index);
        if listener.address.is_empty() {
            here.key("address").error_hint("a listener needs an address", "write one, as in `address: \":80\"`");
        }
        for (position, address) in listener.address.iter().enumerate() {
            if let Some(other) = taken.iter().find(|other| other.overlaps(address)) {
                let list = here.key("address");
                list.index(position).error_hint(
                    format!("`{address}` is taken by the listener at `{other}`"),
                    "give each address to one listener",
                );
            }
            taken.push(address);
        }
        let Timeouts { head, idle, body, write } = listener.timeouts;
        for (name, span) in [("head", head), ("idle", idle), ("body", body), ("write", write)] {
            if span.0.is_zero() {
                let timeouts = here.key("timeouts");
                timeouts.key(name).error_hint("no client can keep to a time of 0", "write a longer time, as in `10s`");
            }
        }
    }
}

/// A pace in bytes per second, or 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendRate(pub ByteRate);

impl SendRate {
    /// Bytes per second; `None`: any pace will do.
    pub fn bytes(self) -> Option<usize> {
        Some(self.0.0.as_usize()).filter(|rate| *rate > 0)
    }
}

impl FromStr for SendRate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "0" { Ok(Self(ByteRate(ByteSize(0)))) } else { text.parse().map(Self) }
    }
}

impl<'de> Deserialize<'de> for SendRate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = SendRate;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a rate in bytes per second, as in `1KiB/s`, or 0")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<SendRate, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<SendRate, E> {
                number.to_string().parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Text)
    }
}

impl JsonSchema for SendRate {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SendRate".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "const": 0 }, generator.subschema_for::<ByteRate>()] })
    }
}

fn yes() -> bool {
    true
}

fn or_text(schema: &mut Schema) {
    let mapping = std::mem::take(schema);
    *schema = json_schema!({ "anyOf": [{ "$ref": "#/$defs/ListenAddress" }, mapping] });
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Config;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address, as in `127.0.0.1:80`, or a mapping with `address`")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Config, E> {
                Address::deserialize(StrDeserializer::new(text)).map(Config::at)
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Config, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Config, A::Error> {
                // The derived function, not this one: see `remote` above.
                Config::deserialize(MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Issues;

    fn read(yaml: &str) -> Result<Vec<Config>, String> {
        serde_yaml::from_str(yaml).map_err(|fault| fault.to_string())
    }

    #[test]
    fn a_listener_is_text_or_a_mapping() {
        let listeners = read(
            r#"
            - "127.0.0.1:80"
            - { address: [":81", "unix:/x"], timeouts: { head: 5s }, min_send_rate: 1KiB/s, http2: false }
            - { address: ":82", min_send_rate: 0 }
            "#,
        )
        .unwrap();
        assert_eq!(listeners[0].address[0].to_string(), "127.0.0.1:80");
        assert!(listeners[0].http2);
        assert_eq!(listeners[1].address.len(), 2);
        assert_eq!(listeners[1].timeouts.head, HumanDuration::secs(5));
        assert_eq!(listeners[1].timeouts.idle, HumanDuration::secs(60));
        assert_eq!(listeners[1].min_send_rate.bytes(), Some(1024));
        assert!(!listeners[1].http2);
        assert_eq!(listeners[2].min_send_rate.bytes(), None);
    }

    #[test]
    fn a_slip_is_refused() {
        for (yaml, told) in [
            ("- 8080", "write `:8080`"),
            ("- { adress: ':80' }", "adress"),
            ("- { address: ':80', timeouts: { haed: 1s } }", "haed"),
            ("- { address: ':80', min_send_rate: 5 }", "no rate"),
            ("- { http2: true }", "address"),
        ] {
            let fault = read(yaml).unwrap_err();
            assert!(fault.contains(told), "{yaml}: {fault}");
        }
    }

    #[test]
    fn faults_are_told_at_their_place() {
        let yaml = r#"
            - ":80"
            - { address: ["127.0.0.1:81", "127.0.0.1:80"] }
            - { address: [] }
            - { address: ":82", timeouts: { idle: 0 } }
        "#;
        let issues = Issues::default();
        check(&read(yaml).unwrap(), &issues.root().key("listeners"));
        let places: Vec<_> = issues.into_vec().iter().map(|issue| issue.path.to_string()).collect();
        assert_eq!(places, ["listeners[1].address[1]", "listeners[2].address", "listeners[3].timeouts.idle"]);
    }

    #[test]
    fn the_schema_knows_both_forms() {
        let schema = serde_json::to_value(schemars::schema_for!(Vec<Config>)).unwrap();
        let listener = &schema["$defs"]["Listener"]["anyOf"];
        assert_eq!(listener[0]["$ref"], "#/$defs/ListenAddress", "{schema:#}");
        assert!(listener[1]["properties"]["timeouts"].is_object());
        assert!(schema["$defs"]["ListenAddress"].is_object());
    }
}
