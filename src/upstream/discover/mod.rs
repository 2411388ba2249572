//! Discovery: where an upstream's servers are told by somebody else than the document: the list of sources, two lines
//! each.
//!
//! A [`source::Source`] tells a list of servers; [`names::Names`] knows the addresses of the names in a list, and in the
//! document, for as long as DNS says; [`follow::Follower`] joins both and asks again in the background. Whatever fails or
//! is wrong, the last good answer stays in use. [`load`] asks all sources once while a document is compiled.

pub mod ask;
pub mod asking;
pub mod dns;
#[cfg(test)]
mod dns_tests;
pub mod file;
pub mod follow;
pub mod form;
pub mod http;
pub mod list;
pub mod load;
pub mod names;
pub mod source;
pub mod srv;

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use crate::diag::{Issues, Scope};
use asking::Asking;
use source::{Given, Source};

/// Makes of the list the enum of the document, in which a source is its word and its settings, and the way to build what
/// runs.
macro_rules! sources {
    ($($(#[doc = $doc:literal])+ $variant:ident => $module:ident,)+) => {
        /// Who tells the servers, beside those under `servers`.
        #[derive(Clone, Debug)]
        pub enum Config {
            $($(#[doc = $doc])+ $variant($module::Config),)+
        }

        impl Config {
            const WORDS: &'static [&'static str] = &[$(stringify!($module)),+];

            /// Its word in the document.
            pub fn word(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => stringify!($module),)+
                }
            }

            /// Its word and what it asks, as in `dns:app.internal:8080`.
            pub fn label(&self) -> String {
                match self {
                    $(Self::$variant(config) => format!("{}:{}", stringify!($module), config.what()),)+
                }
            }

            /// Reports what cannot work.
            pub fn check(&self, at: &Scope<'_>) {
                match self {
                    $(Self::$variant(config) => config.check(&at.key(stringify!($module))),)+
                }
            }

            /// The source at work, with what it needs.
            pub fn build(&self, given: &Given<'_>) -> Box<dyn Source> {
                match self {
                    $(Self::$variant(config) => Box::new(config.build(given)),)+
                }
            }
        }

        impl<'de> Visitor<'de> for Choice {
            type Value = Config;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a source, as in `{ dns: app.internal:8080 }`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Config, A::Error> {
                let Some(word) = map.next_key::<Cow<'de, str>>()? else {
                    return Err(A::Error::invalid_length(0, &self));
                };
                let config = match &*word {
                    $(stringify!($module) => Config::$variant(map.next_value()?),)+
                    _ => return Err(A::Error::unknown_field(&word, Config::WORDS)),
                };
                match map.next_key::<Cow<'de, str>>()? {
                    None => Ok(config),
                    Some(word) => Err(A::Error::custom(format!(
                        "an upstream has one source, `{word}` is another; make another upstream of it"
                    ))),
                }
            }
        }

        impl JsonSchema for Config {
            fn schema_name() -> Cow<'static, str> {
                "Discover".into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "description": "Who tells the servers, beside those under `servers`.",
                    "anyOf": [$(
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

sources! {
    /// DNS tells the addresses of a name.
    Dns => dns,
    /// DNS tells the places of a service: names, ports, weights and priorities.
    Srv => srv,
    /// A file lists them.
    File => file,
    /// An HTTP endpoint lists them.
    Http => http,
}

struct Choice;

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Choice)
    }
}

impl Config {
    /// Whom the names among its servers are asked of.
    pub fn asking(&self) -> Asking {
        match self {
            Self::Dns(config) => config.asking(),
            Self::Srv(config) => config.asking(),
            Self::File(_) | Self::Http(_) => Asking::default(),
        }
    }

    /// Whether the servers that it tells may have limits of their own.
    pub fn tells_limits(&self) -> bool {
        matches!(self, Self::File(_) | Self::Http(_))
    }

    /// Whether [`Config::check`] finds nothing wrong.
    pub fn is_sound(&self) -> bool {
        let issues = Issues::default();
        self.check(&issues.root());
        !issues.has_errors()
    }

    /// What it is, so that the same source is known again after a reload.
    pub fn identity(&self, folder: &Path) -> String {
        format!("{}\n{self:?}", folder.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Result<Config, String> {
        serde_yaml::from_str(yaml).map_err(|error| error.to_string())
    }

    #[test]
    fn a_source_is_written_short_or_in_full() {
        for (short, full) in [
            ("dns: app.internal:8080", "dns: { name: app.internal, port: 8080, weight: 1, min_ttl: 1s, max_ttl: 5m }"),
            ("srv: _http._tcp.app.internal", "srv: { name: _http._tcp.app.internal }"),
            ("file: servers.yaml", "file: { path: servers.yaml, every: 1s }"),
            ("http: 'http://registry/a'", "http: { url: 'http://registry/a', every: 10s, timeout: 5s, headers: {} }"),
        ] {
            let (short, full) = (read(short).unwrap(), read(full).unwrap());
            let told = |config: &Config| format!("{config:?}").replace("short: true", "short: false");
            assert_eq!(told(&short), told(&full));
            let issues = Issues::default();
            short.check(&issues.root());
            full.check(&issues.root());
            assert_eq!(issues.into_vec(), [], "{full:?}");
        }
    }

    #[test]
    fn what_is_no_source_is_refused() {
        for (yaml, fault) in [
            ("dns", "a source, as in `{ dns: app.internal:8080 }`"),
            ("{}", "a source"),
            ("consul: x", "unknown field `consul`, expected one of `dns`, `srv`, `file`, `http`"),
            ("{ dns: 'app:80', file: x }", "one source, `file` is another"),
            ("dns: app.internal", "`app.internal` has no port"),
            ("dns: 10.0.0.1:80", "has no name that DNS could know"),
            ("dns: { name: app }", "missing field `port`"),
            ("dns: { name: app, port: 80, resolver: ns }", "`ns` is no name server"),
            ("file: [a]", "the path of a file, as in `servers.yaml`, or a mapping"),
            ("http: { url: x, evry: 1s }", "unknown field `evry`"),
        ] {
            let told = read(yaml).expect_err(yaml);
            assert!(told.contains(fault), "{yaml}: {told}");
        }
    }

    #[test]
    fn what_cannot_work_is_reported_at_its_place() {
        for (yaml, path, message) in [
            ("dns: { name: app, port: 0 }", "d.dns.port", "port 0"),
            ("dns: { name: 'a b', port: 80 }", "d.dns.name", "neither an IP address nor a host name"),
            ("dns: { name: app, port: 80, weight: 0 }", "d.dns.weight", "no server would take a request"),
            ("dns: { name: app, port: 80, min_ttl: 0 }", "d.dns.min_ttl", "cannot be asked every `0`"),
            (
                "srv: { name: app, min_ttl: 10s, max_ttl: 5s }",
                "d.srv.max_ttl",
                "shorter than `min_ttl`, which is `10s`",
            ),
            ("srv: 'app:80'", "d.srv", "cannot be the name of a service"),
            ("srv: { name: '' }", "d.srv.name", "cannot be the name of a service"),
            ("file: ''", "d.file", "the path is empty"),
            ("file: { path: '' }", "d.file.path", "the path is empty"),
            ("file: { path: x, every: 1ms }", "d.file.every", "cannot be read every `1ms`"),
            ("http: registry", "d.http", "begins neither with"),
            ("http: { url: 'ftp://x/' }", "d.http.url", "begins neither with"),
            ("http: { url: 'http://x/', every: 0 }", "d.http.every", "cannot be asked every `0`"),
            ("http: { url: 'http://x/', timeout: 0 }", "d.http.timeout", "no answer comes within `0`"),
            (
                "http: { url: 'http://x/', headers: { 'a b': c } }",
                "d.http.headers[\"a b\"]",
                "no name of a header field",
            ),
            ("http: { url: 'http://x/', headers: { a: \"b\\n\" } }", "d.http.headers.a", "a byte that"),
            ("http: { url: 'http://x/', headers: { Host: y } }", "d.http.headers.Host", "sets `host` by itself"),
        ] {
            let issues = Issues::default();
            read(yaml).unwrap().check(&issues.root().key("d"));
            let issues = issues.into_vec();
            assert_eq!(issues.len(), 1, "{yaml}: {issues:?}");
            assert_eq!(issues[0].path.to_string(), path, "{yaml}");
            assert!(issues[0].message.contains(message), "{yaml}: {}", issues[0].message);
            assert!(issues[0].hint.is_some(), "{yaml}");
        }
    }
}
