//! Where a route's requests go: one upstream, or several by weight.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::HeaderValue;
use pingora::http::RequestHeader;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::branches::Branches;
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
        Some(Target::of(vec![(1, upstream)], 1, None))
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

/// The upstreams of a route, with their weights.
pub struct Target {
    shares: Box<[(u32, Arc<Upstream>)]>,
    total: u32,
    branches: Option<Branches>,
}

impl Target {
    /// Several upstreams by weight; `total`: the sum of the weights, above 0.
    pub(super) fn of(shares: Vec<(u32, Arc<Upstream>)>, total: u32, branches: Option<Branches>) -> Self {
        Self { shares: shares.into(), total, branches }
    }

    /// Who takes this request: whom its client had before, where that is wanted; else drawn at random by weight, so that
    /// no order among requests favours one.
    pub fn pick(&self, head: &RequestHeader) -> &Arc<Upstream> {
        let shares = &self.shares;
        if shares.len() == 1 {
            return &shares[0].1;
        }
        if let Some(known) = self.known(head) {
            return known;
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

    /// The upstream that the client of this request had before, as long as it has a share.
    fn known(&self, head: &RequestHeader) -> Option<&Arc<Upstream>> {
        let share = self.shares.get(self.branches.as_ref()?.find(head)?)?;
        (share.0 > 0).then_some(&share.1)
    }

    /// The `Set-Cookie` field that makes the client of this request stay with this upstream; `None`: it does already, or
    /// need not.
    pub fn session_cookie(&self, head: &RequestHeader, upstream: &Arc<Upstream>, https: bool) -> Option<&HeaderValue> {
        let branches = self.branches.as_ref()?;
        let position = self.shares.iter().position(|(_, known)| Arc::ptr_eq(known, upstream))?;
        (branches.find(head) != Some(position)).then(|| branches.cookie(position, https))?
    }

    /// All upstreams with their weights, for `explain`.
    pub fn shares(&self) -> impl Iterator<Item = (u32, &Arc<Upstream>)> {
        self.shares.iter().map(|(weight, upstream)| (*weight, upstream))
    }
}
