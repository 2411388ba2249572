//! `cache.ttl`: how long responses are fresh, as written.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use crate::units::{HumanDuration, StatusRange};

/// How long responses are fresh, where they do not say it or shall not be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TtlConfig {
    /// For all that may be stored by guessing (RFC 9110 15.1).
    pub default: Option<HumanDuration>,
    /// By status, as written.
    pub statuses: Vec<(StatusRange, HumanDuration)>,
    /// By media type.
    pub types: BTreeMap<String, HumanDuration>,
    /// Whether all these count against what the response says.
    pub force: bool,
    /// No response is fresh for less.
    pub min: Option<HumanDuration>,
    /// No response is fresh for longer.
    pub max: Option<HumanDuration>,
}

impl TtlConfig {
    /// Whether it gives no response a lifetime.
    pub fn is_silent(&self) -> bool {
        self.default.is_none() && self.statuses.is_empty() && self.types.is_empty()
    }
}

/// A key of the mapping.
enum Key {
    Default,
    Types,
    Force,
    Min,
    Max,
    Status(StatusRange),
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Key;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`default`, `types`, `force`, `min`, `max`, or a status, as in `404` or `5xx`")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Key, E> {
                Ok(match text {
                    "default" => Key::Default,
                    "types" => Key::Types,
                    "force" => Key::Force,
                    "min" => Key::Min,
                    "max" => Key::Max,
                    _ => Key::Status(text.parse().map_err(|_| E::custom(unknown(text)))?),
                })
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Key, E> {
                self.visit_str(itoa::Buffer::new().format(number))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

fn unknown(text: &str) -> String {
    format!("`{text}` is none of: `default`, `types`, `force`, `min`, `max`, a status, as in `404` or `5xx`")
}

impl<'de> Deserialize<'de> for TtlConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;
        impl<'de> Visitor<'de> for Forms {
            type Value = TtlConfig;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a duration, as in `10m`, or a mapping of `default`, statuses, `types`, `force`, `min`, `max`",
                )
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<TtlConfig, E> {
                let default = Some(text.parse().map_err(E::custom)?);
                Ok(TtlConfig { default, ..TtlConfig::default() })
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<TtlConfig, E> {
                self.visit_str(itoa::Buffer::new().format(number))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TtlConfig, A::Error> {
                let mut all = TtlConfig::default();
                while let Some(key) = map.next_key()? {
                    match key {
                        Key::Default => all.default = Some(map.next_value()?),
                        Key::Types => all.types = map.next_value()?,
                        Key::Force => all.force = map.next_value()?,
                        Key::Min => all.min = Some(map.next_value()?),
                        Key::Max => all.max = Some(map.next_value()?),
                        Key::Status(range) => all.statuses.push((range, map.next_value()?)),
                    }
                }
                Ok(all)
            }
        }
        deserializer.deserialize_any(Forms)
    }
}

/// How long responses are fresh. Beside the keys below, a status, a class or a range of them: `404: 10s`, `5xx: 1s`. The
/// most exact entry counts: a status before a media type before `default`, and a narrow range before a wide one. `0` stores
/// nothing of that kind.
#[derive(JsonSchema)]
#[schemars(rename = "CacheTtlSettings")]
#[expect(dead_code, reason = "the schema of a mapping that is read by hand")]
struct Mapping {
    /// For the statuses that may be stored without a word on it: 200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414 and
    /// 501 (RFC 9110 15.1). Default: a tenth of the time since `Last-Modified`, and a day at most (RFC 9111 4.2.2).
    default: Option<HumanDuration>,
    /// By media type, for the same statuses: `image/*`, or `text/css`.
    types: Option<BTreeMap<String, HumanDuration>>,
    /// Whether the entries count also where a response says how long it is fresh; `no-store`, `private` and `no-cache` still
    /// hold, unless they are to be ignored. Default: `false`.
    force: Option<bool>,
    /// What says that it is fresh for less, is fresh for so long. Default: 0.
    min: Option<HumanDuration>,
    /// What says that it is fresh for longer, is fresh for so long. Default: no bound.
    max: Option<HumanDuration>,
}

impl JsonSchema for TtlConfig {
    fn schema_name() -> Cow<'static, str> {
        "CacheTtl".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let duration = generator.subschema_for::<HumanDuration>();
        let mut mapping = Mapping::json_schema(generator);
        let statuses = json_schema!({ "^[1-5]([0-9][0-9]|xx)( *- *[1-5][0-9][0-9])?$": &duration });
        mapping.insert("patternProperties".into(), statuses.into());
        mapping.insert("additionalProperties".into(), false.into());
        generator.definitions_mut().insert("CacheTtlSettings".into(), mapping.into());
        let mapping = json_schema!({ "$ref": "#/$defs/CacheTtlSettings" });
        json_schema!({ "anyOf": [duration, mapping] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_the_default() {
        let seconds = HumanDuration::secs;
        let ttl: TtlConfig = serde_yaml::from_str("10m").unwrap();
        assert_eq!(ttl, TtlConfig { default: Some(seconds(600)), ..TtlConfig::default() });
        let ttl: TtlConfig = serde_yaml::from_str(
            "{ default: 1h, 404: 10s, 5xx: 1s, types: { image/*: 1d }, force: true, min: 2s, max: 30d }",
        )
        .unwrap();
        assert_eq!(ttl.statuses, [("404".parse().unwrap(), seconds(10)), ("5xx".parse().unwrap(), seconds(1))]);
        assert_eq!((ttl.types["image/*"], ttl.force), (seconds(86_400), true));
        assert_eq!((ttl.min, ttl.max), (Some(seconds(2)), Some(seconds(30 * 86_400))));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for (yaml, fault) in [
            ("{ defualt: 1h }", "`defualt` is none of"),
            ("{ 700: 1h }", "`700` is none of"),
            ("[1h]", "a duration, as in `10m`"),
            ("{ 404: soon }", "`soon` is no duration"),
            ("60", "`60` is no duration"),
        ] {
            let error = serde_yaml::from_str::<TtlConfig>(yaml).unwrap_err().to_string();
            assert!(error.contains(fault), "{yaml}: {error}");
        }
    }
}
