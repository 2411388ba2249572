//! `mirror`: a share of a route's requests is copied to another upstream, whose answers nobody gets.
//!
//! Which requests, where to, and within which bounds; the copying itself is `proxy/mirror.rs`.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::context::Context;
use crate::diag::Scope;
use crate::http_client::HttpClient;
use crate::observe::MirrorStats;
use crate::units::{ByteSize, HumanDuration, Percent};
use crate::upstream::{self, Upstream, looks_like_address};

/// `mirror`: the name of an upstream or an address, or a mapping.
#[derive(Clone, Debug)]
pub struct Config {
    settings: Settings,
    plain: bool,
}

/// Copies a share of the requests to another upstream. Its answers are read and forgotten: neither they nor their absence
/// change anything for the client.
///
/// A copy has the head that the first backend got, but for its `Host` where the mirror's upstream says `host`. It is sent
/// once the whole request has arrived, by a thread that serves no clients, and is not tried again. Requests that ask for an
/// upgrade are not copied.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "MirrorSettings")]
pub struct Settings {
    /// Where copies go: the name of an upstream, or an address.
    pub to: String,
    /// The share of the requests that is copied. Default: `100%`.
    #[serde(default = "all")]
    pub share: Percent,
    /// The largest request body that is copied: larger requests go to their own upstream alone. Default: `64KiB`.
    #[serde(default = "default_body")]
    pub body: ByteSize,
    /// How many copies may be under way at once; those above that are not made. Default: 100.
    #[serde(default = "default_max")]
    pub max: u32,
    /// How long a copy may take, its answer included. Default: `10s`.
    #[serde(default = "default_timeout")]
    pub timeout: HumanDuration,
}

fn all() -> Percent {
    Percent::new(100)
}

fn default_body() -> ByteSize {
    ByteSize(64 << 10)
}

fn default_max() -> u32 {
    100
}

fn default_timeout() -> HumanDuration {
    HumanDuration::secs(10)
}

/// Who gets copies of a route's requests.
pub struct Mirror {
    /// Where they go.
    pub upstream: Arc<Upstream>,
    /// The share of the requests that is copied.
    pub share: Percent,
    /// The largest body that is copied, in bytes.
    pub body: usize,
    /// How many may be under way at once.
    pub max: u32,
    /// How long one may take.
    pub timeout: Duration,
    /// Sends them.
    pub client: Arc<HttpClient>,
    /// What is counted of them.
    pub stats: Arc<MirrorStats>,
}

impl Mirror {
    /// Whether this request is one of those to be copied: drawn at random.
    pub fn draws(&self) -> bool {
        self.share == all() || fastrand::f64() < self.share.fraction()
    }
}

impl Config {
    /// The upstream that is written in place, as an address.
    pub fn in_place(&self) -> Option<upstream::Config> {
        let to = &self.settings.to;
        looks_like_address(to).then(|| upstream::Config::address(to))
    }

    /// Compiles the mirror of the route whose counters are kept under `key`.
    pub(super) fn build(&self, key: &str, context: &mut Context<'_>, at: &Scope<'_>) -> Option<Mirror> {
        let Settings { to, share, body, max, timeout } = &self.settings;
        if share.is_zero() {
            at.key("share").warn("no request is copied", "write the share of requests to copy, as in `1%`");
        }
        if *max == 0 {
            at.key("max").error_hint("with none under way no copy is ever made", "write 1 or more");
        }
        if timeout.0.is_zero() {
            at.key("timeout").error_hint("a timeout of 0 fails every copy", "write how long one may take, as in `10s`");
        }
        let to_key = at.key("to");
        let place = if self.plain { at } else { &to_key };
        let upstream = if looks_like_address(to) {
            (context.in_place)(to, &upstream::Config::address(to), place)?
        } else {
            context.upstream(to, place)?
        };
        Some(Mirror {
            upstream,
            share: *share,
            body: body.as_usize(),
            max: *max,
            timeout: timeout.0,
            // The one of all requests that the gateway makes of its own accord.
            client: context.keep.get_or("", HttpClient::new),
            stats: context.keep.get_or(key, MirrorStats::default),
        })
    }
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;
        impl<'de> Visitor<'de> for Forms {
            type Value = Config;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of an upstream, an address, or a mapping with `to`")
            }
            fn visit_str<E: Error>(self, to: &str) -> Result<Config, E> {
                let (to, share, body) = (to.to_owned(), all(), default_body());
                let settings = Settings { to, share, body, max: default_max(), timeout: default_timeout() };
                Ok(Config { settings, plain: true })
            }
            fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Config, A::Error> {
                let settings = Deserialize::deserialize(MapAccessDeserializer::new(entries))?;
                Ok(Config { settings, plain: false })
            }
        }
        deserializer.deserialize_any(Forms)
    }
}

impl JsonSchema for Config {
    fn schema_name() -> Cow<'static, str> {
        "Mirror".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let settings = generator.subschema_for::<Settings>();
        json_schema!({
            "description": "The name of an upstream or an address that gets copies of requests, or a mapping.",
            "anyOf": [{ "type": "string", "examples": ["api-canary"] }, settings]
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;

    use super::*;
    use crate::diag::{Issues, Severity};
    use crate::keep::Keep;

    fn build(yaml: &str) -> (Option<Mirror>, Vec<(String, Severity, String)>) {
        let config: Config = serde_yaml::from_str(yaml).unwrap();
        let (issues, keep) = (Issues::default(), Arc::new(Keep::default()));
        let resolved = upstream::Resolver::system().resolve(Vec::new(), &keep);
        let make = |name: &str, config: &upstream::Config, at: &Scope<'_>| {
            Upstream::build(name, config, &resolved, &keep, at).map(Arc::new)
        };
        let canary = make("canary", &upstream::Config::address("10.0.0.1:80"), &issues.root());
        let upstreams = BTreeMap::from([("canary".to_owned(), canary)]);
        let mut in_place = make;
        let mut context = Context {
            upstreams: &upstreams,
            in_place: &mut in_place,
            used: BTreeSet::new(),
            zones: &BTreeMap::new(),
            used_zones: BTreeSet::new(),
            keep: &keep,
            folder: Path::new(""),
        };
        let built = config.build("site\nroute", &mut context, &issues.root().key("mirror"));
        let told = issues.into_vec().into_iter().map(|issue| (issue.path.to_string(), issue.severity, issue.message));
        (built, told.collect())
    }

    #[test]
    fn the_short_form_is_the_mapping_with_defaults() {
        for (yaml, name) in [("canary", "canary"), ("{ to: canary }", "canary"), ("10.0.0.2:80", "10.0.0.2:80")] {
            let (built, told) = build(yaml);
            assert_eq!(told, [], "{yaml}");
            let mirror = built.unwrap();
            assert_eq!(&**mirror.upstream.name(), name);
            assert_eq!((mirror.body, mirror.max, mirror.timeout), (65_536, 100, Duration::from_secs(10)));
            assert!(mirror.draws());
        }
        let mirror = build("{ to: canary, share: 0.5%, body: 1KiB, max: 7, timeout: 250ms }").0.unwrap();
        assert_eq!((mirror.body, mirror.max, mirror.timeout), (1024, 7, Duration::from_millis(250)));
    }

    #[test]
    fn a_share_of_the_requests_is_drawn() {
        for (share, expected) in [("1%", 1_000), ("30%", 30_000), ("100%", 100_000), ("0%", 0)] {
            let mirror = build(&format!("{{ to: canary, share: {share} }}")).0.unwrap();
            let drawn = (0..100_000).filter(|_| mirror.draws()).count();
            assert!(drawn.abs_diff(expected) <= expected / 4 + 500 * usize::from(expected > 0 && expected < 100_000));
        }
    }

    #[test]
    fn a_fault_is_told_at_its_place() {
        use Severity::{Error, Warning};
        for (yaml, path, severity, message) in [
            ("cannary", "mirror", Error, "no upstream is named `cannary`"),
            ("{ to: cannary }", "mirror.to", Error, "no upstream is named `cannary`"),
            ("10.0.0.1:0", "mirror", Error, "port 0"),
            ("{ to: '10.0.0.1:0' }", "mirror.to", Error, "port 0"),
            ("{ to: canary, share: 0% }", "mirror.share", Warning, "no request is copied"),
            ("{ to: canary, max: 0 }", "mirror.max", Error, "no copy is ever made"),
            ("{ to: canary, timeout: 0 }", "mirror.timeout", Error, "fails every copy"),
        ] {
            let told = build(yaml).1;
            assert_eq!(told.len(), 1, "{yaml}: {told:?}");
            assert_eq!((told[0].0.as_str(), told[0].1), (path, severity), "{yaml}");
            assert!(told[0].2.contains(message), "{yaml}: {told:?}");
        }
        for (yaml, fault) in [
            ("{ share: 1% }", "missing field `to`"),
            ("{ to: a, shares: 1% }", "unknown field `shares`"),
            ("[a]", "the name of an upstream, an address"),
        ] {
            let error = serde_yaml::from_str::<Config>(yaml).unwrap_err().to_string();
            assert!(error.contains(fault), "{yaml}: {error}");
        }
    }
}
