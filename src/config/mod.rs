//! `Config`: the whole YAML document as types. Each feature owns the type of its own block.

mod fault;
pub mod load;
mod parse;
pub mod process;
#[cfg(test)]
mod sample;
pub mod schema;
pub mod value;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{cache, listen, observe, route, upstream};

/// The document: one file, or several joined by `include`.
///
/// Text in it may name the environment, `${NAME}` or `${NAME:-default}`, where NAME is in capitals.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The process as a whole.
    pub runtime: process::Runtime,
    /// Where operators look in.
    pub admin: process::Admin,
    /// Diagnostics and access log.
    pub log: observe::Config,
    /// Where clients come in.
    pub listeners: crate::units::OneOrMany<listen::Config>,
    /// Groups of backends, by name.
    pub upstreams: BTreeMap<String, upstream::Config>,
    /// Where responses are stored, by name, for the routes that cache.
    pub caches: BTreeMap<String, cache::config::ZoneConfig>,
    /// Which requests go where.
    pub sites: Vec<route::SiteConfig>,
    /// More files of the same shape, by path or glob, relative to this file. Lists are appended, maps are joined.
    pub include: crate::units::OneOrMany<String>,
}

impl Config {
    /// The JSON schema of the document (draft 2020-12).
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(Self).to_value()
    }

    /// The reference page in Markdown, made from the schema.
    pub fn reference() -> String {
        schema::markdown(&Self::schema())
    }
}
