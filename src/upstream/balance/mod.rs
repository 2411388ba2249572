//! Who takes the next request: the list of policies, two lines each.

mod busy;
mod circle;
pub mod consistent_hash;
mod draw;
mod hash;
pub mod ip_hash;
pub mod least_connections;
mod maglev;
mod named;
pub mod peak_ewma;
pub mod policy;
#[cfg(test)]
mod policy_tests;
pub mod power_of_two;
pub mod random;
mod ring;
pub mod round_robin;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use crate::diag::Scope;
use policy::{Members, Policy};

/// Makes of the list the enum of the document, in which a policy is its name alone or its name with options
/// (`round_robin` and `{ round_robin: {} }` are the same), and the way to build what runs.
macro_rules! policies {
    ($($(#[doc = $doc:literal])+ $variant:ident => $module:ident,)+) => {
        /// Which server takes the next request.
        #[derive(Clone, Debug)]
        pub enum Config {
            $($(#[doc = $doc])+ $variant($module::Config),)+
        }

        impl Config {
            const NAMES: &'static [&'static str] = &[$(stringify!($module)),+];

            /// The name of the policy.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => stringify!($module),)+
                }
            }

            /// Reports what cannot work, at the place of the whole choice.
            pub fn check(&self, at: &Scope<'_>) {
                match self {
                    $(Self::$variant(config) => config.check(&at.key(stringify!($module))),)+
                }
            }

            /// How long a backend that comes back takes to get its full share; zero: it gets it at once.
            pub fn slow_start(&self) -> Duration {
                match self {
                    $(Self::$variant(config) => config.slow_start(),)+
                }
            }

            /// The policy at work.
            pub fn build(&self, members: &Members<'_>) -> Box<dyn Policy> {
                match self {
                    $(Self::$variant(config) => Box::new(config.build(members)),)+
                }
            }
        }

        impl<'de> Visitor<'de> for Choice {
            type Value = Config;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a policy, as in `round_robin`")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Config, E> {
                match name {
                    $(stringify!($module) => Ok(Config::$variant(Default::default())),)+
                    _ => Err(E::unknown_variant(name, Config::NAMES)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Config, A::Error> {
                let Some(name) = map.next_key::<Cow<'de, str>>()? else {
                    return Err(A::Error::invalid_length(0, &self));
                };
                let config = match &*name {
                    $(stringify!($module) => Config::$variant(map.next_value()?),)+
                    _ => return Err(A::Error::unknown_variant(&name, Config::NAMES)),
                };
                match map.next_key::<Cow<'de, str>>()? {
                    None => Ok(config),
                    Some(_) => Err(A::Error::custom("an upstream has one policy, not two")),
                }
            }
        }

        impl JsonSchema for Config {
            fn schema_name() -> Cow<'static, str> {
                "Balance".into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "description": "Which server takes the next request.",
                    "anyOf": [$(
                        { "const": stringify!($module), "description": concat!($($doc),+).trim() },
                        {
                            "type": "object",
                            "description": concat!($($doc),+).trim(),
                            "properties": { stringify!($module): generator.subschema_for::<$module::Config>() },
                            "required": [stringify!($module)],
                            "additionalProperties": false,
                        },
                    )+]
                })
            }
        }
    };
}

policies! {
    /// In turn, each as often as its weight says, spread as evenly as can be.
    RoundRobin => round_robin,
    /// Whoever has the fewest requests under way for its weight.
    LeastConnections => least_connections,
    /// Of two drawn at random, the one with fewer requests under way for its weight. Good where requests differ in cost,
    /// and where several gateways share the servers.
    PowerOfTwo => power_of_two,
    /// Whoever will answer soonest, by its latency of late and its requests under way (of many: of two drawn at random).
    PeakEwma => peak_ewma,
    /// The same client to the same server, by its address (IPv4: whole; IPv6: its first 64 bits).
    IpHash => ip_hash,
    /// The same key to the same server: a path, a header, a cookie, or a text made of several.
    ConsistentHash => consistent_hash,
    /// Any, each as often as its weight says.
    Random => random,
}

impl Config {
    /// Whether it must know how long backends take to answer.
    pub fn learns_latency(&self) -> bool {
        matches!(self, Self::PeakEwma(_))
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::RoundRobin(round_robin::Config::default())
    }
}

struct Choice;

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Choice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Issues;

    #[test]
    fn a_policy_is_its_name_or_its_name_with_options() {
        for name in Config::NAMES {
            for text in [(*name).to_owned(), format!("{name}: {{}}")] {
                assert_eq!(serde_yaml::from_str::<Config>(&text).unwrap().name(), *name);
            }
        }
        for (text, fault) in [
            ("round_robbin", "unknown variant `round_robbin`, expected one of `round_robin`"),
            ("{ round_robin: { x: 1 } }", "unknown field `x`"),
            ("{ ip_hash: { slow_start: 1s } }", "unknown field `slow_start`"),
            ("{ consistent_hash: { algorithm: ketama } }", "expected `maglev` or `ring`"),
            ("{ round_robin: {}, random: {} }", "one policy"),
            ("{}", "the name of a policy"),
            ("3", "the name of a policy"),
        ] {
            let error = serde_yaml::from_str::<Config>(text).unwrap_err().to_string();
            assert!(error.contains(fault), "{text}: {error}");
        }
    }

    #[test]
    fn a_share_grows_where_that_moves_no_keys() {
        for (text, seconds) in [
            ("round_robin", 0),
            ("round_robin: { slow_start: 30s }", 30),
            ("least_connections: { slow_start: 30s }", 30),
            ("power_of_two: { slow_start: 30s }", 30),
            ("peak_ewma: { slow_start: 30s }", 30),
            ("random: { slow_start: 30s }", 30),
            ("ip_hash", 0),
            ("consistent_hash", 0),
        ] {
            let config: Config = serde_yaml::from_str(text).unwrap();
            assert_eq!(config.slow_start(), Duration::from_secs(seconds), "{text}");
        }
    }

    #[test]
    fn the_schema_has_both_forms() {
        let schema = schemars::schema_for!(Config).to_value().to_string();
        for part in [r#""const":"round_robin""#, "spread as evenly as can be.", r#""const":"peak_ewma""#, "slow_start"]
        {
            assert!(schema.contains(part), "{part} is not in {schema}");
        }
    }

    #[test]
    fn what_cannot_work_is_told_with_its_place() {
        for (text, path, message, hint) in [
            ("consistent_hash: { key: '${client.ipp}' }", "key", "nothing is named", "did you mean `client.ip`?"),
            ("consistent_hash: { key: '${response.status}' }", "key", "not known yet", "before there is a response"),
            ("consistent_hash: { key: all }", "key", "is the same for all requests", "${client.ip}"),
            ("consistent_hash: { key: '' }", "key", "is the same for all requests", "${client.ip}"),
            ("consistent_hash: { bounded_load: 0.9 }", "bounded_load", "a bound of 0.9 times", "from 1.0 to 10.0"),
            ("consistent_hash: { bounded_load: 11 }", "bounded_load", "a bound of 11 times", "from 1.0 to 10.0"),
            ("consistent_hash: { bounded_load: .nan }", "bounded_load", "a bound of NaN times", "from 1.0 to 10.0"),
        ] {
            let issues = Issues::default();
            serde_yaml::from_str::<Config>(text).unwrap().check(&issues.root().key("balance"));
            let issues = issues.into_vec();
            assert_eq!(issues.len(), 1, "{text}");
            assert_eq!(issues[0].path.to_string(), format!("balance.consistent_hash.{path}"), "{text}");
            assert!(issues[0].message.contains(message), "{text}: {}", issues[0].message);
            assert!(issues[0].hint.as_ref().unwrap().contains(hint), "{text}: {:?}", issues[0].hint);
        }
    }
}
