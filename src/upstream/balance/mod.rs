//! Who takes the next request: the list of policies, two lines each.

pub mod policy;
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

            /// Reports what cannot work.
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

    #[test]
    fn a_policy_is_its_name_or_its_name_with_options() {
        for text in ["round_robin", "round_robin: {}"] {
            assert_eq!(serde_yaml::from_str::<Config>(text).unwrap().name(), "round_robin");
        }
        for (text, fault) in [
            ("round_robbin", "unknown variant `round_robbin`, expected `round_robin`"),
            ("{ round_robin: { x: 1 } }", "unknown field `x`"),
            ("{ round_robin: {}, maglev: {} }", "one policy"),
            ("{}", "the name of a policy"),
            ("3", "the name of a policy"),
        ] {
            let error = serde_yaml::from_str::<Config>(text).unwrap_err().to_string();
            assert!(error.contains(fault), "{text}: {error}");
        }
    }

    #[test]
    fn the_schema_has_both_forms() {
        let schema = schemars::schema_for!(Config).to_value().to_string();
        assert!(schema.contains(r#""const":"round_robin""#), "{schema}");
        assert!(schema.contains("spread as evenly as can be."), "{schema}");
    }
}
