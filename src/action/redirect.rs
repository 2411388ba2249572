//! `redirect`: answers with another address.
//!
//! Either the whole address (`to`), sent as it is written, or only the parts that change (`scheme`, `host`, `port`, `path`),
//! the rest being that of the request. A `Location` is visible ASCII whatever a client sent, and an address that is
//! written as a path stays on this host: it never begins with `//`.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::encode;
use crate::diag::Scope;
use crate::exchange::Facts;
use crate::reply::Reply;
use crate::template::{Moment, Template};

/// Answers with another address. Short form: the address as a text.
#[derive(Clone, Debug)]
pub struct Config(Fields);

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RedirectFields")]
struct Fields {
    /// The whole address: a URL, or a path on the same host; may hold `${…}`. Instead of `scheme`, `host`, `port`, `path`.
    to: Option<String>,
    /// 301, 302, 303, 307 or 308. Default: 308, permanent, and the method stays (RFC 9110 15.4).
    #[serde(default = "permanent")]
    #[schemars(extend("enum" = [301, 302, 303, 307, 308]))]
    status: u16,
    /// The scheme of the new address. Default: that of the request.
    scheme: Option<Scheme>,
    /// The host of the new address; may hold `${…}`, as in `www.${request.host}`. Default: that of the request.
    host: Option<String>,
    /// The port of the new address. Default: the scheme's own.
    port: Option<u16>,
    /// The path of the new address; may hold `${…}`. Default: that of the request. When no other part is given, the
    /// address is a path on the same host.
    path: Option<String>,
    /// Whether the query of the request is appended. Default: yes; but no with `to`, which is sent as it is written
    /// (`${request.query}` and `${request.uri}` may stand in it).
    keep_query: Option<bool>,
}

/// `http` or `https`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "RedirectScheme")]
enum Scheme {
    /// Plaintext.
    Http,
    /// TLS.
    Https,
}

fn permanent() -> u16 {
    308
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;
        impl<'de> Visitor<'de> for Forms {
            type Value = Fields;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address, or `to`, `status`, `host` and so on")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Fields, E> {
                Ok(Fields {
                    to: Some(text.to_owned()),
                    status: permanent(),
                    scheme: None,
                    host: None,
                    port: None,
                    path: None,
                    keep_query: None,
                })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Fields, A::Error> {
                Fields::deserialize(MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_any(Forms).map(Self)
    }
}

impl JsonSchema for Config {
    fn schema_name() -> Cow<'static, str> {
        "Redirect".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let fields = generator.subschema_for::<Fields>();
        json_schema!({
            "description": "Answers with another address. Short form: the address as a text.",
            "anyOf": [{ "type": "string" }, fields],
        })
    }
}

/// A redirect, compiled.
#[derive(Debug)]
pub struct Redirect {
    status: StatusCode,
    target: Target,
    keep_query: bool,
}

#[derive(Debug)]
enum Target {
    /// Always the same, ready to send.
    Fixed(HeaderValue),
    /// A whole address; `local`: it is written as a path.
    Whole {
        address: Template,
        local: bool,
    },
    Parts {
        origin: Option<Origin>,
        path: Option<Template>,
    },
}

/// The begin of an address, up to the path.
#[derive(Debug)]
struct Origin {
    scheme: Option<Scheme>,
    host: Option<Template>,
    port: Option<u16>,
}

impl Redirect {
    /// Compiles the redirect, where `captures` are the names that the route's path gives; reports what is wrong below `at`.
    pub fn build(config: &Config, captures: &[Box<str>], at: &Scope<'_>) -> Option<Self> {
        let Config(config) = config;
        let status = StatusCode::from_u16(config.status).ok();
        let status = status.filter(|status| matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308));
        if status.is_none() {
            at.key("status").error_hint(
                format!("`{}` is no redirect", config.status),
                "write 301 or 308 (permanent), 302 or 307 (temporary), or 303 (after a POST)",
            );
        }
        let has_parts =
            config.scheme.is_some() || config.host.is_some() || config.port.is_some() || config.path.is_some();
        let (target, keep_query) = match &config.to {
            Some(_) if has_parts => {
                at.key("to").error_hint(
                    "`to` is the whole address and cannot stand beside parts of one",
                    "keep either `to`, or `scheme`, `host`, `port` and `path`",
                );
                return None;
            }
            None if !has_parts => {
                at.error_hint("the redirect leads nowhere", "write the address as `to`, or the part that changes");
                return None;
            }
            Some(to) => {
                let keep_query = config.keep_query.unwrap_or(false);
                (Target::whole(to, captures, keep_query, &at.key("to")), keep_query)
            }
            None => (Target::parts(config, captures, at), config.keep_query.unwrap_or(true)),
        };
        Some(Self { status: status?, target: target?, keep_query })
    }

    /// The reply to this request.
    pub fn reply(&self, facts: &Facts<'_>) -> Reply {
        let location = match &self.target {
            Target::Fixed(location) => Some(location.clone()),
            Target::Whole { address, local } => {
                let mut rendered = Vec::with_capacity(128);
                address.render(facts, &mut rendered);
                let mut location = String::with_capacity(rendered.len() + 32);
                if *local || rendered.is_empty() {
                    location.push('/');
                    // Browsers read `\` as `/`; encoded below, it is harmless further behind.
                    let begin =
                        rendered.iter().position(|byte| !matches!(byte, b'/' | b'\\')).unwrap_or(rendered.len());
                    rendered.drain(..begin);
                }
                encode::uri(&rendered, &mut location);
                self.finish(location, facts)
            }
            Target::Parts { origin, path } => {
                let mut location = String::with_capacity(128);
                let led = origin.as_ref().is_none_or(|origin| origin.push(facts, &mut location));
                match path {
                    Some(path) => push_path(path, facts, &mut location),
                    None => location.push_str(&encode::path(facts.exchange.path(facts.request).as_bytes())),
                }
                led.then(|| self.finish(location, facts)).flatten()
            }
        };
        match location {
            Some(location) => {
                let reply = Reply { status: self.status, headers: Vec::new(), body: Some(Bytes::new()), close: false };
                reply.header(LOCATION, location)
            }
            // Without a host no address can be told (HTTP/1.0 needs none).
            None => Reply::error(StatusCode::BAD_REQUEST),
        }
    }

    /// Appends the query, if it is kept.
    fn finish(&self, mut location: String, facts: &Facts<'_>) -> Option<HeaderValue> {
        let query = facts.request.uri.query().filter(|query| self.keep_query && !query.is_empty());
        if let Some(query) = query {
            // A fragment stands behind the query.
            let fragment = location.find('#').map(|begin| location.split_off(begin)).unwrap_or_default();
            location.push(if location.contains('?') { '&' } else { '?' });
            encode::uri(query.as_bytes(), &mut location);
            location.push_str(&fragment);
        }
        HeaderValue::try_from(location).ok()
    }
}

impl Target {
    fn whole(text: &str, captures: &[Box<str>], keep_query: bool, at: &Scope<'_>) -> Option<Self> {
        let text = text.trim();
        if !text.starts_with(['/', '?']) && !text.starts_with("${") && !has_scheme(text) {
            at.error_hint(
                format!("`{text}` is neither a URL nor a path"),
                format!("write `https://{text}`, or begin with `/` for a path on the same host"),
            );
            return None;
        }
        if let Some(name) = begin_of_client(text) {
            at.warn(
                format!("whoever makes a link can lead clients to any site by `${{{name}}}`"),
                "write the host, as in `https://example.com/…`, or begin with `/`",
            );
        }
        let address = Template::compile(text, captures, Moment::Request, at)?;
        match address.as_literal() {
            Some(literal) if !keep_query => {
                let mut location = String::new();
                encode::uri(literal.as_bytes(), &mut location);
                HeaderValue::try_from(location).ok().map(Self::Fixed)
            }
            _ => {
                let local = text.starts_with('/') && !text.starts_with("//");
                Some(Self::Whole { address, local })
            }
        }
    }

    fn parts(config: &Fields, captures: &[Box<str>], at: &Scope<'_>) -> Option<Self> {
        let host = config.host.as_deref().map(|text| host(text, captures, &at.key("host")));
        let path = config.path.as_deref().map(|text| {
            let at = at.key("path");
            if !text.starts_with('/') && !text.starts_with("${") {
                at.error_hint(format!("`{text}` is no path"), format!("begin it with `/`, as in `/{text}`"));
                return None;
            }
            Template::compile(text, captures, Moment::Request, &at)
        });
        if config.port == Some(0) {
            at.key("port").error_hint("`0` is no port", "write a port from 1 to 65535");
            return None;
        }
        let origin = config.scheme.is_some() || host.is_some() || config.port.is_some();
        // The outer `Option`: was it written; the inner: is it sound.
        let (host, path) =
            (host.map_or(Some(None), |host| host.map(Some)), path.map_or(Some(None), |path| path.map(Some)));
        let (host, path) = (host?, path?);
        let origin = origin.then_some(Origin { scheme: config.scheme, host, port: config.port });
        Some(Self::Parts { origin, path })
    }
}

impl Origin {
    /// Appends `scheme://host:port`; false when no host is known.
    fn push(&self, facts: &Facts<'_>, out: &mut String) -> bool {
        let scheme = match self.scheme {
            Some(Scheme::Http) => "http",
            Some(Scheme::Https) => "https",
            None => facts.exchange.scheme.as_str(),
        };
        let mut host = Vec::new();
        match &self.host {
            Some(template) => template.render(facts, &mut host),
            None => host.extend_from_slice(facts.exchange.host.as_bytes()),
        }
        if host.is_empty() || !host.iter().all(|byte| is_host(*byte)) {
            return false;
        }
        out.push_str(scheme);
        out.push_str("://");
        out.extend(host.into_iter().map(char::from));
        let own_port = if scheme == "https" { 443 } else { 80 };
        if let Some(port) = self.port.filter(|port| *port != own_port) {
            out.push(':');
            out.push_str(itoa::Buffer::new().format(port));
        }
        true
    }
}

/// Appends the rendered path, made sound, and the query that may be written behind it.
fn push_path(template: &Template, facts: &Facts<'_>, out: &mut String) {
    let mut rendered = Vec::new();
    template.render(facts, &mut rendered);
    let end = rendered.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(rendered.len());
    out.push_str(&encode::path(&rendered[..end]));
    encode::uri(&rendered[end..], out);
}

const fn is_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'[' | b']' | b':')
}

fn host(text: &str, captures: &[Box<str>], at: &Scope<'_>) -> Option<Template> {
    let template = Template::compile(text, captures, Moment::Request, at)?;
    let is_named = |host: &str| {
        let has_port = !host.starts_with('[') && host.contains(':');
        !host.is_empty() && !has_port && host.bytes().all(is_host)
    };
    if template.as_literal().is_some_and(|host| !is_named(host)) {
        at.error_hint(format!("`{text}` is no host name"), "write the name alone, as in `www.example.com`");
        return None;
    }
    Some(template)
}

/// Whether the text begins with `scheme://` (RFC 3986 3.1).
fn has_scheme(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, _)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
    })
}

/// The first name in the address, if it stands before any host or path and is whatever the client wrote.
fn begin_of_client(text: &str) -> Option<&str> {
    let behind = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).unwrap_or(text);
    let name = behind.strip_prefix("${")?.split('}').next()?;
    let families = ["request.query", "request.headers.", "request.cookies.", "request.uri"];
    families.iter().any(|family| name.starts_with(family)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Issues;
    use crate::exchange::Exchange;
    use pingora::http::RequestHeader;
    use proptest::prelude::*;

    fn build(json: &str) -> (Option<Redirect>, Vec<String>) {
        let config: Config = serde_json::from_str(json).unwrap();
        let issues = Issues::default();
        let redirect = Redirect::build(&config, &["slug".into()], &issues.root());
        (redirect, issues.into_vec().iter().map(|issue| format!("{}: {}", issue.path, issue.message)).collect())
    }

    /// The status and `Location` for a request whose capture `slug` is all behind `/blog/`.
    fn location(redirect: &Redirect, host: &str, slug: &str, query: &str) -> (u16, String) {
        let target = format!("/sent{}{query}", if query.is_empty() { "" } else { "?" });
        let head = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
        let mut exchange = Exchange::new();
        exchange.host = host.to_owned();
        let path = format!("/blog/{slug}");
        exchange.captures.push((6, path.len() as u32));
        exchange.normal_path = Some(path);
        let facts = Facts { request: &head, exchange: &exchange, response: None, route: "", upstream: "", backend: "" };
        let reply = redirect.reply(&facts);
        let found = reply.headers.iter().find(|(name, _)| name == LOCATION);
        (reply.status.as_u16(), found.map_or("", |(_, value)| value.to_str().unwrap()).to_owned())
    }

    #[test]
    fn a_client_is_led_elsewhere() {
        for (json, query, status, leads_to) in [
            (r#""https://x.org/${slug}""#, "a=1", 308, "https://x.org/hello"),
            (r#""https://x.org/""#, "a=1", 308, "https://x.org/"),
            (r#"{"to": "https://x.org/", "keep_query": true}"#, "a=1", 308, "https://x.org/?a=1"),
            (r#"{"to": "https://x.org/?b=2#top", "keep_query": true}"#, "a=1", 308, "https://x.org/?b=2&a=1#top"),
            (r#"{"to": "https://x.org${request.uri}", "status": 301}"#, "a=1", 301, "https://x.org/sent?a=1"),
            (r#"{"to": "/new/${slug}", "status": 302}"#, "", 302, "/new/hello"),
            (r#""/a b""#, "", 308, "/a%20b"),
            (r#"{"scheme": "https"}"#, "a=1", 308, "https://example.com/blog/hello?a=1"),
            (r#"{"scheme": "https", "keep_query": false}"#, "a=1", 308, "https://example.com/blog/hello"),
            (r#"{"scheme": "https", "port": 443}"#, "", 308, "https://example.com/blog/hello"),
            (r#"{"scheme": "https", "port": 8443}"#, "", 308, "https://example.com:8443/blog/hello"),
            (r#"{"host": "www.${request.host}"}"#, "", 308, "http://www.example.com/blog/hello"),
            (r#"{"host": "a.org", "path": "/p/${slug}"}"#, "a=1", 308, "http://a.org/p/hello?a=1"),
            (r#"{"path": "/p?x=y"}"#, "a=1", 308, "/p?x=y&a=1"),
            (r#"{"path": "/p/${slug}", "status": 303}"#, "", 303, "/p/hello"),
        ] {
            let (redirect, told) = build(json);
            let redirect = redirect.unwrap_or_else(|| panic!("{json}: {told:?}"));
            assert_eq!(location(&redirect, "example.com", "hello", query), (status, leads_to.to_owned()), "{json}");
        }
    }

    #[test]
    fn a_path_stays_on_this_host() {
        for (json, slug, query, leads_to) in [
            (r#""/${slug}""#, "/evil.com", "", "/evil.com"),
            (r#""/${slug}""#, "\\evil.com", "", "/evil.com"),
            (r#""/${request.query.u}""#, "", "u=//evil.com", "/evil.com"),
            (r#"{"path": "/${request.query.u}"}"#, "", "u=//evil.com", "/evil.com?u=//evil.com"),
            (r#"{"path": "${request.query.u}", "keep_query": false}"#, "", "u=https://evil.com", "/https:/evil.com"),
            (r#"{"path": "/a/${request.query.u}", "keep_query": false}"#, "", "u=../../b", "/b"),
            (r#""${request.query.none}""#, "", "", "/"),
        ] {
            let redirect = build(json).0.unwrap();
            assert_eq!(location(&redirect, "example.com", slug, query).1, leads_to, "{json}");
        }
    }

    #[test]
    fn without_a_host_no_url_can_be_told() {
        let redirect = build(r#"{"scheme": "https"}"#).0.unwrap();
        for host in ["", "a/b", "a@b", "a b"] {
            assert_eq!(location(&redirect, host, "x", ""), (400, String::new()), "{host}");
        }
    }

    #[test]
    fn a_redirect_that_leads_nowhere_is_a_fault() {
        for (json, fault) in [
            ("{}", ": the redirect leads nowhere"),
            (r#"{"status": 308, "keep_query": true}"#, ": the redirect leads nowhere"),
            (r#"{"to": "/", "status": 200}"#, "status: `200` is no redirect"),
            (r#"{"to": "/", "host": "a"}"#, "to: `to` is the whole address and cannot stand beside parts of one"),
            (r#""example.com/x""#, "to: `example.com/x` is neither a URL nor a path"),
            (r#""localhost:3000/x""#, "to: `localhost:3000/x` is neither a URL nor a path"),
            (r#""/${slog}""#, "to: nothing is named `${slog}`"),
            (r#"{"host": "a.org:80"}"#, "host: `a.org:80` is no host name"),
            (r#"{"host": "https://a.org"}"#, "host: `https://a.org` is no host name"),
            (r#"{"path": "a"}"#, "path: `a` is no path"),
            (r#"{"port": 0}"#, "port: `0` is no port"),
        ] {
            let (redirect, told) = build(json);
            assert!(redirect.is_none(), "{json}");
            assert_eq!(told, [fault], "{json}");
        }
        let (redirect, told) = build(r#""${request.query.next}""#);
        assert!(redirect.is_some());
        assert_eq!(told, ["to: whoever makes a link can lead clients to any site by `${request.query.next}`"]);
    }

    proptest! {
        #[test]
        fn a_location_is_one_visible_line(slug in "[ -~\r\n\u{0}é/\\\\]{0,30}") {
            for json in [
                r#""/${slug}""#, r#""https://x.org/${slug}""#, r#"{"path": "/${slug}"}"#, r#"{"host": "a.org", "path": "${slug}"}"#,
            ] {
                let (status, location) = location(&build(json).0.unwrap(), "example.com", &slug, "");
                prop_assert_eq!(status, 308);
                prop_assert!(location.bytes().all(|byte| byte.is_ascii_graphic()), "{}", location);
                prop_assert!(!location.starts_with("//"), "{}", location);
                let path = location.strip_prefix("http://a.org").unwrap_or(&location);
                prop_assert!(path.starts_with('/') || path.starts_with("https://x.org/"), "{}", location);
            }
        }
    }
}
