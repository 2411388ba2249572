//! `Form`: the settings of a source, or the one text that says it all: `file: servers.yaml`.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use crate::diag::Scope;

/// The settings of a source, in whatever form they were written.
#[derive(Clone, Debug)]
pub struct Form<T> {
    /// What was written, and the defaults.
    pub settings: T,
    /// Whether it was one text: it decides the place of a fault.
    short: bool,
}

/// Settings that one text can stand for.
pub trait Short: Sized {
    /// What that text is, for a sentence.
    const WHAT: &'static str;
    /// One such text.
    const EXAMPLE: &'static str;

    /// The settings that a text stands for. The error has its hint behind `; `.
    fn from_text(text: &str) -> Result<Self, String>;
}

impl<T> Form<T> {
    /// The place of what the short form says, which the mapping has under `key`.
    pub fn at<R>(&self, at: &Scope<'_>, key: &str, act: impl FnOnce(&Scope<'_>) -> R) -> R {
        if self.short { act(at) } else { act(&at.key(key)) }
    }
}

impl<'de, T: Short + Deserialize<'de>> Deserialize<'de> for Form<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms<T>(PhantomData<T>);
        impl<'de, T: Short + Deserialize<'de>> Visitor<'de> for Forms<T> {
            type Value = Form<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}, as in `{}`, or a mapping", T::WHAT, T::EXAMPLE)
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Form<T>, E> {
                Ok(Form { settings: T::from_text(text).map_err(E::custom)?, short: true })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Form<T>, A::Error> {
                let settings = T::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Form { settings, short: false })
            }
        }
        deserializer.deserialize_any(Forms(PhantomData))
    }
}

impl<T: Short + JsonSchema> JsonSchema for Form<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("{}OrText", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let settings = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [{ "type": "string", "examples": [T::EXAMPLE] }, settings] })
    }
}
