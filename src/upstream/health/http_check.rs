//! `http` of active checks: what is asked for, and which answers are a success.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT};
use http::uri::{Authority, PathAndQuery};
use http::{Method, StatusCode};
use pingora::http::RequestHeader;
use regex::bytes::Regex;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::probe::HttpProbe;
use crate::diag::Scope;
use crate::field;
use crate::http_client::AGENT;
use crate::units::{OneOrMany, StatusRange};

/// What to ask for by HTTP: a path, or a mapping.
#[derive(Clone, Debug)]
pub struct Http {
    settings: HttpSettings,
    short: bool,
}

/// What to ask for by HTTP, and which answers are a success. At most 1 MiB of body is taken.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "HttpCheck")]
pub struct HttpSettings {
    /// The path, and query if need be. Default: `/`.
    pub path: String,
    /// The method. Default: `GET`.
    pub method: String,
    /// The `Host` field. Default: the server's address.
    pub host: Option<String>,
    /// Further header fields.
    pub headers: BTreeMap<String, String>,
    /// The statuses that are a success: one or a list of numbers, classes (`2xx`) and ranges (`200-299`).
    /// Default: `200-399`.
    pub status: OneOrMany<StatusRange>,
    /// A regular expression that must be found in the body, too.
    pub body: Option<String>,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            path: "/".to_owned(),
            method: "GET".to_owned(),
            host: None,
            headers: BTreeMap::new(),
            status: OneOrMany(vec![StatusRange::new(200, 399)]),
            body: None,
        }
    }
}

impl Http {
    /// Compiles it; reports at `at` what is wrong.
    pub(super) fn build(&self, at: &Scope<'_>) -> Option<Box<HttpProbe>> {
        let settings = &self.settings;
        let path = match self.short {
            true => path(&settings.path, at),
            false => path(&settings.path, &at.key("path")),
        };
        let method = method(&settings.method, &at.key("method"));
        let host = match &settings.host {
            None => Some(None),
            Some(text) => host(text, &at.key("host")).map(Some),
        };
        let fields = fields(&settings.headers, &at.key("headers"));
        let statuses = statuses(&settings.status, &at.key("status"));
        let body = match &settings.body {
            None => Some(None),
            Some(pattern) => {
                self.check_body(&at.key("body"));
                regex(pattern, &at.key("body")).map(Some)
            }
        };
        let (path, method, host) = (path?, method?, host?);
        let mut head = RequestHeader::build(method, path.as_str().as_bytes(), None).ok()?;
        let own = [(USER_AGENT, HeaderValue::from_static(AGENT)), (CONNECTION, HeaderValue::from_static("close"))];
        for (name, value) in own.into_iter().chain(fields?) {
            head.insert_header(name, value).ok()?;
        }
        Some(Box::new(HttpProbe { head, host, statuses: statuses?, body: body? }))
    }

    /// Whether an answer can have a body at all.
    fn check_body(&self, at: &Scope<'_>) {
        let bodiless = [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::NOT_MODIFIED];
        let single = |range: &StatusRange| bodiless.iter().any(|only| range.is(*only));
        if self.settings.method == "HEAD" {
            at.error_hint("the answer to a HEAD request has no body", "leave `body` out, or ask by `GET`");
        } else if !self.settings.status.is_empty() && self.settings.status.iter().all(single) {
            at.error_hint("an answer with such a `status` has no body", "leave `body` out, or allow other statuses");
        }
    }
}

fn path(text: &str, at: &Scope<'_>) -> Option<PathAndQuery> {
    let path = text.parse::<PathAndQuery>().ok().filter(|_| text.starts_with('/') && !text.contains('#'));
    if path.is_none() {
        at.error_hint(
            format!("`{text}` is no path"),
            "write one that begins with `/`, as in `/healthz`; to make only a connection, write `tcp: true`",
        );
    }
    path
}

fn method(text: &str, at: &Scope<'_>) -> Option<Method> {
    let usual = [Method::GET, Method::HEAD, Method::OPTIONS, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    let method = usual.into_iter().find(|method| method.as_str() == text);
    if method.is_none() {
        at.error_hint(format!("`{text}` is no method to check by"), "write `GET`, `HEAD`, `OPTIONS` or `POST`");
    }
    method
}

fn host(text: &str, at: &Scope<'_>) -> Option<HeaderValue> {
    let authority = text.parse::<Authority>().is_ok() && !text.contains('@');
    let value = HeaderValue::try_from(text).ok().filter(|_| authority);
    if value.is_none() {
        at.error_hint(format!("`{text}` cannot be the host of a request"), "write a host name, as in `app.internal`");
    }
    value
}

fn fields(fields: &BTreeMap<String, String>, at: &Scope<'_>) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let field = |(name, value): (&String, &String)| {
        let at = at.key(name);
        let name = field::key(name, &at)?;
        if name == HOST {
            at.error_hint("the host has a key of its own", "write it under `host`, beside `headers`");
            return None;
        }
        let read = HeaderValue::from_str(value).ok();
        if read.is_none() {
            at.error_hint(format!("`{value}` cannot be the value of a header field"), "write visible characters only");
        }
        Some((name, read?))
    };
    // All faults are told, not only the first.
    fields.iter().map(field).collect::<Vec<_>>().into_iter().collect()
}

fn statuses(ranges: &[StatusRange], at: &Scope<'_>) -> Option<Box<[StatusRange]>> {
    if ranges.is_empty() {
        at.error_hint("no status would be a success", "list at least one, as in `[200]`");
    } else if ranges.iter().all(|range| range.last() < 200) {
        at.error_hint("no answer ends with such a status", "list statuses from 200 on");
    } else {
        return Some(ranges.into());
    }
    None
}

fn regex(pattern: &str, at: &Scope<'_>) -> Option<Regex> {
    let fault = match Regex::new(pattern) {
        Ok(regex) => return Some(regex),
        Err(fault) => fault.to_string(),
    };
    let last = fault.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
    at.error_hint(
        format!("`{pattern}` is no regular expression: {last}"),
        "write a Rust regular expression in single quotes, as in '\"status\": *\"ok\"'",
    );
    None
}

impl Http {
    /// This path, and nothing else.
    pub(super) fn plain(path: &str) -> Self {
        Self { settings: HttpSettings { path: path.to_owned(), ..HttpSettings::default() }, short: true }
    }
}

impl<'de> Deserialize<'de> for Http {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;
        impl<'de> Visitor<'de> for Forms {
            type Value = Http;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path, as in `/healthz`, or a mapping with `path`")
            }
            fn visit_str<E: Error>(self, path: &str) -> Result<Http, E> {
                Ok(Http::plain(path))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Http, A::Error> {
                Ok(Http { settings: Deserialize::deserialize(MapAccessDeserializer::new(map))?, short: false })
            }
        }
        deserializer.deserialize_any(Forms)
    }
}

impl JsonSchema for Http {
    fn schema_name() -> Cow<'static, str> {
        "HttpCheckForms".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let settings = generator.subschema_for::<HttpSettings>();
        json_schema!({
            "description": "What to ask for by HTTP: the path, or a mapping.",
            "anyOf": [{ "type": "string", "examples": ["/healthz"] }, settings],
        })
    }
}
