//! `cache.key`: what tells one stored response from another, as written.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::units::OneOrMany;

/// What of a request tells one stored response from another. Whatever the origin's answer depends on must be part of it,
/// or stand in the answer's `Vary`: else one client gets what was meant for another.
///
/// A route that matches by more than path and method keeps its responses apart from those of other routes by itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "CacheKey")]
pub struct KeyConfig {
    /// Whether `http` and `https` are told apart. Default: `true`.
    pub scheme: bool,
    /// Whether hosts are told apart, and their ports where other than the scheme's own. Default: `true`.
    pub host: bool,
    /// Whether paths are told apart, in the form in which they are forwarded (before a `rewrite`). Default: `true`.
    pub path: bool,
    /// The parameters of the query that count: `all`; `none`; a list of names, as in `[v, page]`; or all but some, as in
    /// `{ ignore: [utm_*, fbclid] }`. `*` in a name stands for any characters. All parameters reach the origin: leave out
    /// only those that change nothing in its answer. Default: `all`.
    pub query: Query,
    /// Whether parameters in another order are the same: they are sorted by name. Default: `false`.
    pub sort_query: bool,
    /// Header fields of the request that count, by name. Better than this is a `Vary` in the response, where the origin
    /// writes one. Default: none.
    pub headers: OneOrMany<String>,
    /// Cookies that count, by name. Default: none.
    pub cookies: OneOrMany<String>,
    /// A template whose text counts too, as in `${client.ip}`. Default: none.
    pub template: Option<String>,
}

impl Default for KeyConfig {
    fn default() -> Self {
        Self {
            scheme: true,
            host: true,
            path: true,
            query: Query::All,
            sort_query: false,
            headers: OneOrMany::default(),
            cookies: OneOrMany::default(),
            template: None,
        }
    }
}

/// Which parameters of the query count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Query {
    /// All, and their order.
    #[default]
    All,
    /// None.
    None,
    /// These.
    Only(Vec<String>),
    /// All but these.
    Ignore(Vec<String>),
}

/// All parameters of the query but some.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "CacheKeyQuery")]
struct AllBut {
    /// The parameters that do not count, by name; `*` stands for any characters.
    ignore: OneOrMany<String>,
}

impl<'de> Deserialize<'de> for Query {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;
        impl<'de> Visitor<'de> for Forms {
            type Value = Query;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`all`, `none`, a list of parameters, or a mapping with `ignore`")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Query, E> {
                match text {
                    "all" => Ok(Query::All),
                    "none" => Ok(Query::None),
                    _ => Err(E::custom(format!("write `all`, `none`, or a list of parameters, as in `[{text}]`"))),
                }
            }
            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Query, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(items)).map(Query::Only)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Query, A::Error> {
                let AllBut { ignore } = Deserialize::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Query::Ignore(ignore.0))
            }
        }
        deserializer.deserialize_any(Forms)
    }
}

impl JsonSchema for Query {
    fn schema_name() -> Cow<'static, str> {
        "CacheQuery".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let all_but = generator.subschema_for::<AllBut>();
        json_schema!({
            "anyOf": [
                { "type": "string", "enum": ["all", "none"] },
                { "type": "array", "items": { "type": "string" } },
                all_but,
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_written_as_one_says_it() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        for (yaml, query) in [
            ("all", Query::All),
            ("none", Query::None),
            ("[v, page]", Query::Only(names(&["v", "page"]))),
            ("[]", Query::Only(Vec::new())),
            ("{ ignore: [utm_*] }", Query::Ignore(names(&["utm_*"]))),
            ("{ ignore: fbclid }", Query::Ignore(names(&["fbclid"]))),
        ] {
            assert_eq!(serde_yaml::from_str::<Query>(yaml).unwrap(), query, "{yaml}");
        }
        for (yaml, fault) in [
            ("some", "as in `[some]`"),
            ("{ only: [v] }", "unknown field `only`"),
            ("{}", "missing field `ignore`"),
            ("1", "a list of parameters"),
        ] {
            let error = serde_yaml::from_str::<Query>(yaml).unwrap_err().to_string();
            assert!(error.contains(fault), "{yaml}: {error}");
        }
        assert_eq!(serde_yaml::from_str::<KeyConfig>("{}").unwrap(), KeyConfig::default());
    }
}
