//! Where a route's requests go: one upstream, or several by weight.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::context::Context;
use crate::diag::Scope;
use crate::upstream::{self, Upstream, looks_like_address};

/// `proxy`: the name of an upstream, an address, a list of addresses, or an upstream written in place.
#[derive(Clone, Debug)]
pub enum ProxyConfig {
    /// The name of an upstream, or one address.
    Text(String),
    /// An upstream in place.
    InPlace(Box<upstream::Config>),
}

impl<'de> Deserialize<'de> for ProxyConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;
        impl<'de> Visitor<'de> for Forms {
            type Value = ProxyConfig;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of an upstream, an address, a list of addresses, or an upstream in place")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<ProxyConfig, E> {
                Ok(ProxyConfig::Text(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<ProxyConfig, A::Error> {
                let config = upstream::Config::deserialize(SeqAccessDeserializer::new(items))?;
                Ok(ProxyConfig::InPlace(Box::new(config)))
            }
            fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<ProxyConfig, A::Error> {
                let config = upstream::Config::deserialize(MapAccessDeserializer::new(entries))?;
                Ok(ProxyConfig::InPlace(Box::new(config)))
            }
        }
        deserializer.deserialize_any(Forms)
    }
}

impl JsonSchema for ProxyConfig {
    fn schema_name() -> Cow<'static, str> {
        "Proxy".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let in_place = generator.subschema_for::<upstream::Config>();
        json_schema!({
            "description": "The name of an upstream, an address, a list of addresses, or an upstream written in place.",
            "anyOf": [{ "type": "string" }, in_place]
        })
    }
}

impl ProxyConfig {
    pub(super) fn build(&self, context: &mut Context<'_>, at: &Scope<'_>) -> Option<Target> {
        let upstream = match self {
            Self::Text(name) if !looks_like_address(name) => context.upstream(name, at)?,
            Self::Text(address) => (context.in_place)(address, &upstream::Config::address(address), at)?,
            Self::InPlace(config) => (context.in_place)(&label(config), config, at)?,
        };
        Some(Target { shares: Box::new([(1, upstream)]), total: 1 })
    }

    /// The upstream that is written in place, if one is.
    pub fn in_place(&self) -> Option<Cow<'_, upstream::Config>> {
        match self {
            Self::Text(text) => looks_like_address(text).then(|| Cow::Owned(upstream::Config::address(text))),
            Self::InPlace(config) => Some(Cow::Borrowed(config)),
        }
    }
}

/// The name of an upstream in place: its addresses and who tells more, so that metrics and logs tell it from others.
fn label(config: &upstream::Config) -> String {
    let servers = &config.settings.servers;
    let told = config.settings.discover.as_ref().map(upstream::discover::Config::label);
    let mut label: Vec<&str> = told.as_deref().into_iter().collect();
    label.extend(servers.iter().take(3).map(|server| server.settings.address.as_str()));
    let more = format!("+{}", servers.len().saturating_sub(3));
    if servers.len() > 3 {
        label.push(&more);
    }
    label.join(",")
}

/// `split`: several upstreams, each with its share of the requests.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitConfig {
    /// The names of the upstreams (or addresses), each with its weight: `{ api: 95, api-canary: 5 }`.
    pub to: BTreeMap<String, u32>,
}

impl SplitConfig {
    /// The upstreams that are written in place, as addresses.
    pub fn in_place(&self) -> impl Iterator<Item = upstream::Config> {
        self.to.keys().filter(|name| looks_like_address(name)).map(|name| upstream::Config::address(name))
    }

    pub(super) fn build(&self, context: &mut Context<'_>, at: &Scope<'_>) -> Option<Target> {
        let to = at.key("to");
        let shares: Vec<_> = self
            .to
            .iter()
            .filter_map(|(name, weight)| {
                let place = to.key(name);
                let upstream = if looks_like_address(name) {
                    (context.in_place)(name, &upstream::Config::address(name), &place)
                } else {
                    context.upstream(name, &place)
                };
                Some((*weight, upstream?))
            })
            .collect();
        let total = self.to.values().try_fold(0_u32, |sum, weight| sum.checked_add(*weight));
        match total {
            None => to.error("the weights add up to more than 4294967295"),
            Some(0) if self.to.is_empty() => {
                to.error_hint("no upstream is named", "name at least one, as in `{ api: 95, canary: 5 }`")
            }
            Some(0) => to.error_hint("a weight of 0 everywhere", "give at least one upstream a weight above 0"),
            Some(total) if shares.len() == self.to.len() => return Some(Target { shares: shares.into(), total }),
            Some(_) => {}
        }
        None
    }
}

/// The upstreams of a route, with their weights.
pub struct Target {
    shares: Box<[(u32, Arc<Upstream>)]>,
    total: u32,
}

impl Target {
    /// Who takes this request: drawn at random by weight, so that no order among requests favours one.
    pub fn pick(&self) -> &Arc<Upstream> {
        let shares = &self.shares;
        if shares.len() == 1 {
            return &shares[0].1;
        }
        let mut draw = fastrand::u32(..self.total);
        for (weight, upstream) in shares {
            if draw < *weight {
                return upstream;
            }
            draw -= weight;
        }
        &shares[0].1
    }

    /// All upstreams with their weights, for `explain`.
    pub fn shares(&self) -> impl Iterator<Item = (u32, &Arc<Upstream>)> {
        self.shares.iter().map(|(weight, upstream)| (*weight, upstream))
    }
}
