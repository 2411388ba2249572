//! `Condition`: what must hold for one header field, query parameter or cookie.

use std::borrow::Cow;
use std::fmt;

use regex::bytes::Regex;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::path::regex_fault;
use crate::diag::Scope;
use crate::template::decoded;

/// What must hold for a value: a text that it must equal, or a mapping with one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// `equals`: the value is this text. Case matters.
    Equals(String),
    /// `prefix`: the value begins with this text. Case matters.
    Prefix(String),
    /// `regex`: this regular expression is found in the value; `^` and `$` anchor it, `(?i)` ignores case.
    Regex(String),
    /// `present`: whether there must be such a field, parameter or cookie at all, whatever its value.
    Present(bool),
}

/// The keys of the long form.
#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    Equals,
    Prefix,
    Regex,
    Present,
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;
        impl<'de> Visitor<'de> for Forms {
            type Value = Condition;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or one of `equals`, `prefix`, `regex` and `present` with its value")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Condition, E> {
                Ok(Condition::Equals(text.to_owned()))
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Condition, E> {
                Ok(Condition::Equals(number.to_string()))
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Condition, E> {
                Ok(Condition::Equals(number.to_string()))
            }
            fn visit_bool<E: Error>(self, truth: bool) -> Result<Condition, E> {
                Err(E::custom(format!("write `{{ present: {truth} }}`, or the text in quotes: `\"{truth}\"`")))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Condition, A::Error> {
                let Some(key) = map.next_key()? else {
                    return Err(A::Error::custom("a condition has one of `equals`, `prefix`, `regex` and `present`"));
                };
                let condition = match key {
                    Key::Equals => Condition::Equals(map.next_value()?),
                    Key::Prefix => Condition::Prefix(map.next_value()?),
                    Key::Regex => Condition::Regex(map.next_value()?),
                    Key::Present => Condition::Present(map.next_value()?),
                };
                if map.next_key::<IgnoredAny>()?.is_some() {
                    return Err(A::Error::custom(
                        "a condition has only one of `equals`, `prefix`, `regex` and `present`; a regex can say more",
                    ));
                }
                Ok(condition)
            }
        }
        deserializer.deserialize_any(Forms)
    }
}

impl JsonSchema for Condition {
    fn schema_name() -> Cow<'static, str> {
        "Condition".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let form = |key: &str, kind: &str, about: &str| {
            json_schema!({
                "type": "object",
                "properties": { key: { "type": kind, "description": about } },
                "required": [key],
                "additionalProperties": false
            })
        };
        json_schema!({
            "description": "What must hold for a value: a text that it must equal, or a mapping with one key.",
            "anyOf": [
                { "type": ["string", "integer"] },
                form("equals", "string", "The value is this text. Case matters."),
                form("prefix", "string", "The value begins with this text. Case matters."),
                form("regex", "string", "This regular expression is found in the value; `^` and `$` anchor it, `(?i)` ignores case."),
                form("present", "boolean", "Whether there must be such a field, parameter or cookie at all, whatever its value.")
            ]
        })
    }
}

/// A condition, compiled.
#[derive(Clone, Debug)]
pub(super) enum Check {
    Equals(Box<[u8]>),
    Prefix(Box<[u8]>),
    Regex(Regex),
    Present(bool),
}

impl Check {
    pub(super) fn build(condition: &Condition, at: &Scope<'_>) -> Option<Self> {
        Some(match condition {
            Condition::Equals(text) => Self::Equals(text.as_bytes().into()),
            Condition::Prefix(text) => Self::Prefix(text.as_bytes().into()),
            Condition::Regex(text) => match Regex::new(text) {
                Ok(regex) => Self::Regex(regex),
                Err(fault) => {
                    regex_fault(text, &fault, at);
                    return None;
                }
            },
            Condition::Present(wanted) => Self::Present(*wanted),
        })
    }

    /// Whether one of the values will do.
    pub(super) fn any<'a>(&self, mut values: impl Iterator<Item = &'a [u8]>) -> bool {
        match self {
            Self::Equals(text) => values.any(|value| *value == **text),
            Self::Prefix(text) => values.any(|value| value.starts_with(text)),
            Self::Regex(regex) => values.any(|value| regex.is_match(value)),
            Self::Present(wanted) => values.next().is_some() == *wanted,
        }
    }

    /// Whether one of the values will do once its escapes are undone.
    pub(super) fn any_escaped<'a>(&self, mut values: impl Iterator<Item = &'a [u8]>) -> bool {
        match self {
            Self::Equals(text) => values.any(|value| Self::same_escaped(value, text)),
            Self::Prefix(text) => values.any(|value| {
                let mut value = decoded(value);
                text.iter().all(|byte| value.next() == Some(*byte))
            }),
            // An expression needs the value in one piece: only one with escapes costs an allocation.
            Self::Regex(regex) => values.any(|value| regex.is_match(&unescaped(value))),
            Self::Present(wanted) => values.next().is_some() == *wanted,
        }
    }

    /// Whether `escaped` stands for `plain`.
    pub(super) fn same_escaped(escaped: &[u8], plain: &[u8]) -> bool {
        decoded(escaped).eq(plain.iter().copied())
    }

    /// Why none of the values of `what` will do.
    pub(super) fn explain<'a>(&self, what: &str, values: impl Iterator<Item = &'a [u8]>) -> String {
        let values: Vec<String> = values.map(|value| format!("`{}`", String::from_utf8_lossy(value))).collect();
        if values.is_empty() {
            return format!("{what} is absent");
        }
        let values = values.join(" and ");
        match self {
            Self::Equals(text) => format!("{what} is {values}, not `{}`", String::from_utf8_lossy(text)),
            Self::Prefix(text) => {
                format!("{what} is {values}, which does not begin with `{}`", String::from_utf8_lossy(text))
            }
            Self::Regex(regex) => format!("{what} is {values}, which `{regex}` does not match"),
            Self::Present(_) => format!("{what} is present"),
        }
    }
}

/// The text by which conditions are told apart.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equals(text) => write!(f, "= {:?}", String::from_utf8_lossy(text)),
            Self::Prefix(text) => write!(f, "^= {:?}", String::from_utf8_lossy(text)),
            Self::Regex(regex) => write!(f, "~ {:?}", regex.as_str()),
            Self::Present(true) => f.write_str("is present"),
            Self::Present(false) => f.write_str("is absent"),
        }
    }
}

/// The bytes that a query's name or value stands for, in one piece.
pub(super) fn unescaped(text: &[u8]) -> Cow<'_, [u8]> {
    if text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        Cow::Owned(decoded(text).collect())
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_in_a_query_are_undone_once() {
        for (text, wanted) in [
            ("", ""),
            ("abc", "abc"),
            ("a+b", "a b"),
            ("%61%2B%2b", "a++"),
            ("%2561", "%61"),
            ("100%", "100%"),
            ("%z%4", "%z%4"),
            ("%%41", "%A"),
        ] {
            assert_eq!(unescaped(text.as_bytes()), wanted.as_bytes(), "{text}");
            assert!(Check::same_escaped(text.as_bytes(), wanted.as_bytes()), "{text}");
        }
    }
}
