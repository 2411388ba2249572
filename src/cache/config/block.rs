//! `cache`: what of a site or a route is cached, as written.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::key::KeyConfig;
use super::ttl::TtlConfig;
use crate::diag::Scope;
use crate::units::{ByteSize, Cidr, HumanDuration, OneOrMany};

/// `cache`: `true`, `false`, the name of a zone, or a mapping; `C`: what a condition on requests is.
#[derive(Clone, Debug)]
pub struct CacheConfig<C> {
    /// What was written, and the defaults; `None`: nothing is cached.
    pub settings: Option<Settings<C>>,
    plain: bool,
}

/// Answers requests from what is stored of earlier responses, as RFC 9111 lets a shared cache do.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, bound(deserialize = "C: Deserialize<'de>"))]
#[schemars(rename = "CacheSettings")]
pub struct Settings<C> {
    /// Where responses are stored: the name of an entry of `caches`. Default: the only one there is; when there is none, one
    /// of 64 MiB of memory, named `default`.
    pub zone: Option<String>,
    /// What tells one stored response from another.
    pub key: KeyConfig,
    /// The methods that are answered from the cache: `GET`, and `HEAD`, which is answered from what a GET stored.
    /// Default: `[GET, HEAD]`.
    pub methods: Vec<Method>,
    /// How long a response is fresh that does not say it: a duration, or a mapping. Default: as RFC 9111 4.2.2 guesses.
    pub ttl: TtlConfig,
    /// For how long past its time a response is still served while it is fetched anew (RFC 5861 3); what a response says
    /// itself counts before this, and one with `s-maxage` is served stale only as far as it says so itself. Never, where it
    /// says `must-revalidate`, `proxy-revalidate` or `no-cache`. Default: 0.
    pub stale_while_revalidate: HumanDuration,
    /// For how long past its time a response is served when the origin answers 500, 502, 503 or 504 (RFC 5861 4); what a
    /// response says itself counts before this, and what forbids the one above forbids this too. Default: 0.
    pub stale_if_error: HumanDuration,
    /// For how long past its time a response is served when the origin cannot be reached (RFC 9111 4.2.4), unless it says
    /// `must-revalidate`, `proxy-revalidate`, `s-maxage` or `no-cache`. Default: `1h`.
    pub stale_if_disconnected: HumanDuration,
    /// Requests that the cache has nothing to do with, neither for answering nor for storing: conditions as `match` of a
    /// route has them, of which any is enough. As in `[{ header: { X-Preview: { present: true } } }]`. Default: none.
    pub bypass: Vec<C>,
    /// Requests whose responses are not stored, while they may be answered from the cache: conditions as above.
    /// Default: none.
    pub no_store: Vec<C>,
    /// Stores a response when it is asked for so many times. Default: 1.
    pub min_uses: u32,
    /// The largest body that is stored. Default: `1GiB` in a zone with a disk, else an eighth of the zone's memory. With
    /// `slice`, the largest of which slices are stored. Default then: any.
    pub max_object: Option<ByteSize>,
    /// What of requests and responses does not count. Each takes a word from the origin or its clients.
    pub ignore: Ignore,
    /// What is done with a response that sets a cookie: `refuse` does not store it, unless it says `public`, `s-maxage` or
    /// `no-cache="set-cookie"`; `strip` stores it without the cookie; `store` stores it as it is, so that all clients get the
    /// same cookie. Default: `refuse`.
    pub set_cookie: SetCookie,
    /// Fields like `CDN-Cache-Control` (RFC 9213): the first of them that a response has counts in place of `Cache-Control`
    /// and `Expires`. Default: `[Edgeway-Cache-Control, CDN-Cache-Control]`.
    pub targeted: OneOrMany<String>,
    /// Fetches and stores large bodies in slices of this size, each when it is asked for: for video and downloads of which
    /// clients take parts. Default: whole.
    pub slice: Option<ByteSize>,
    /// How long requests for a response that is being fetched wait for its head in place of fetching it too; 0: not at all.
    /// Default: `5s`.
    pub collapse: HumanDuration,
    /// Stores a response only if the ending of its path and its content type agree, where the ending is one of static files:
    /// `/account/x.css` with HTML in it is not stored (web cache deception). Default: `false`.
    pub match_type: bool,
    /// The tags of responses, by which they can be purged.
    pub tags: Tags,
    /// Whether responses say in `Cache-Status` (RFC 9211) what the cache did. Default: `true`.
    pub status_header: bool,
    /// Lets clients purge with the method `PURGE`, which the route must take. Default: nobody may.
    pub purge: Option<Purge>,
}

impl<C> Default for Settings<C> {
    fn default() -> Self {
        Self {
            zone: None,
            key: KeyConfig::default(),
            methods: vec![Method::Get, Method::Head],
            ttl: TtlConfig::default(),
            stale_while_revalidate: HumanDuration::default(),
            stale_if_error: HumanDuration::default(),
            stale_if_disconnected: HumanDuration::secs(3_600),
            bypass: Vec::new(),
            no_store: Vec::new(),
            min_uses: 1,
            max_object: None,
            ignore: Ignore::default(),
            set_cookie: SetCookie::default(),
            targeted: OneOrMany(["Edgeway-Cache-Control", "CDN-Cache-Control"].map(str::to_owned).into()),
            slice: None,
            collapse: HumanDuration::secs(5),
            match_type: false,
            tags: Tags::default(),
            status_header: true,
            purge: None,
        }
    }
}

/// A method that may be answered from the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(rename = "CacheMethod")]
pub enum Method {
    /// GET.
    Get,
    /// HEAD.
    Head,
}

/// What of requests and responses does not count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "CacheIgnore")]
pub struct Ignore {
    /// `Cache-Control` and `Pragma` of requests: no client can make the gateway ask the origin. Default: `false`.
    pub request: bool,
    /// `Cache-Control` of responses, `no-store` and `private` with it: what is meant for one client can then reach others. Give
    /// a `ttl`. Targeted fields still count. Default: `false`.
    pub cache_control: bool,
    /// `Expires` of responses. Default: `false`.
    pub expires: bool,
    /// Fields that do not count in the `Vary` of responses, by name; `*`: no field does. Default: none.
    pub vary: OneOrMany<String>,
}

/// What is done with a response that sets a cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "CacheSetCookie")]
pub enum SetCookie {
    /// It is not stored, unless it says itself that others may have it.
    #[default]
    Refuse,
    /// It is stored without its cookies.
    Strip,
    /// It is stored as it is.
    Store,
}

/// The tags of responses.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "CacheTags")]
pub struct Tags {
    /// The fields of responses that hold tags, with commas or blanks between them. Default: `[Cache-Tag, Surrogate-Key]`.
    pub header: OneOrMany<String>,
    /// Whether clients get these fields. Default: `false`.
    pub keep: bool,
}

impl Default for Tags {
    fn default() -> Self {
        Self { header: OneOrMany(["Cache-Tag", "Surrogate-Key"].map(str::to_owned).into()), keep: false }
    }
}

/// Who may purge.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "CachePurge")]
pub struct Purge {
    /// The networks of the clients that may.
    pub from: OneOrMany<Cidr>,
}

impl<C> CacheConfig<C> {
    /// Whether anything is cached.
    pub fn is_on(&self) -> bool {
        self.settings.is_some()
    }

    /// Calls `act` with the place of the zone's name.
    pub fn at_zone<T>(&self, at: &Scope<'_>, act: impl FnOnce(&Scope<'_>) -> T) -> T {
        if self.plain { act(at) } else { act(&at.key("zone")) }
    }
}

impl<'de, C: Deserialize<'de>> Deserialize<'de> for CacheConfig<C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms<C>(PhantomData<C>);
        impl<'de, C: Deserialize<'de>> Visitor<'de> for Forms<C> {
            type Value = CacheConfig<C>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`true`, `false`, the name of a zone, or a mapping")
            }
            fn visit_bool<E: Error>(self, wanted: bool) -> Result<Self::Value, E> {
                Ok(CacheConfig { settings: wanted.then(Settings::default), plain: true })
            }
            fn visit_str<E: Error>(self, zone: &str) -> Result<Self::Value, E> {
                let settings = Settings { zone: Some(zone.to_owned()), ..Settings::default() };
                Ok(CacheConfig { settings: Some(settings), plain: true })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let settings = Deserialize::deserialize(MapAccessDeserializer::new(map))?;
                Ok(CacheConfig { settings: Some(settings), plain: false })
            }
        }
        deserializer.deserialize_any(Forms(PhantomData))
    }
}

impl<C: JsonSchema> JsonSchema for CacheConfig<C> {
    fn schema_name() -> Cow<'static, str> {
        "Cache".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let settings = generator.subschema_for::<Settings<C>>();
        json_schema!({
            "description": "Whether responses are cached: `true`, `false`, the name of a zone, or a mapping.",
            "anyOf": [{ "type": "boolean" }, { "type": "string", "examples": ["main"] }, settings],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Config = CacheConfig<String>;

    #[test]
    fn the_short_forms_are_the_mapping_with_defaults() {
        let read = |yaml: &str| serde_yaml::from_str::<Config>(yaml).unwrap().settings;
        assert!(read("false").is_none());
        for (yaml, zone) in [("true", None), ("{}", None), ("main", Some("main")), ("{ zone: main }", Some("main"))] {
            let settings = read(yaml).unwrap();
            assert_eq!(settings.zone.as_deref(), zone, "{yaml}");
            assert_eq!((settings.min_uses, settings.status_header), (1, true), "{yaml}");
            assert_eq!(settings.stale_if_disconnected, HumanDuration::secs(3_600), "{yaml}");
            assert_eq!(settings.collapse, HumanDuration::secs(5), "{yaml}");
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for (yaml, fault) in [
            ("[main]", "the name of a zone"),
            ("{ zoen: main }", "unknown field `zoen`"),
            ("{ methods: [POST] }", "unknown variant `POST`, expected `GET` or `HEAD`"),
            ("{ set_cookie: drop }", "unknown variant `drop`"),
            ("{ ignore: { all: true } }", "unknown field `all`"),
            ("{ tags: { headers: [a] } }", "unknown field `headers`"),
            ("{ purge: {} }", "missing field `from`"),
            ("{ purge: { from: [everybody] } }", "everybody"),
            ("{ key: { query: [v], sort: true } }", "unknown field `sort`"),
        ] {
            let error = serde_yaml::from_str::<Config>(yaml).unwrap_err().to_string();
            assert!(error.contains(fault), "{yaml}: {error}");
        }
    }
}
