//! `respond`: answers with a fixed reply.
//!
//! A status of 400 or more without a body is answered by the error page of that status, as the client accepts it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderValue, StatusCode};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use crate::diag::Scope;
use crate::exchange::Facts;
use crate::field::{self, Value};
use crate::reply::Reply;
use crate::template::{Moment, Template};

/// Answers with a fixed reply. Short forms: a number is the status, a text is the body of a 200.
#[derive(Clone, Debug)]
pub struct Config(Fields);

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RespondFields")]
struct Fields {
    /// The status, from 200 to 599. Default: 200.
    #[schemars(range(min = 200, max = 599))]
    #[serde(default = "ok")]
    status: u16,
    /// The body; may hold `${…}`. Without one, a status of 400 or more gets its error page; others have an empty body.
    /// What `${…}` brings in is not escaped: leave it out of HTML.
    body: Option<String>,
    /// The media type of the body. Default: `text/plain; charset=utf-8`.
    content_type: Option<String>,
    /// Further header fields; values may hold `${…}`.
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

fn ok() -> u16 {
    200
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;
        impl<'de> Visitor<'de> for Forms {
            type Value = Fields;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a status, a text, or `status`, `body` and so on")
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Fields, E> {
                let status = u16::try_from(number).map_err(|_| E::custom(format!("`{number}` is no status")))?;
                Ok(Fields { status, body: None, content_type: None, headers: BTreeMap::new() })
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Fields, E> {
                self.visit_u64(u64::try_from(number).map_err(|_| E::custom(format!("`{number}` is no status")))?)
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Fields, E> {
                Ok(Fields { status: 200, body: Some(text.to_owned()), content_type: None, headers: BTreeMap::new() })
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
        "Respond".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let fields = generator.subschema_for::<Fields>();
        json_schema!({
            "description": "Answers with a fixed reply. Short forms: a number is the status, a text is the body of a 200.",
            "anyOf": [{ "type": "integer", "minimum": 200, "maximum": 599 }, { "type": "string" }, fields],
        })
    }
}

/// A fixed reply, compiled.
#[derive(Debug)]
pub struct Respond {
    /// The reply, but for what varies.
    reply: Reply,
    body: Option<Template>,
    headers: Box<[(HeaderName, Value)]>,
}

impl Respond {
    /// Compiles the reply, where `captures` are the names that the route's path gives; reports what is wrong below `at`.
    pub fn build(config: &Config, captures: &[Box<str>], at: &Scope<'_>) -> Option<Self> {
        let Config(config) = config;
        let status = StatusCode::from_u16(config.status).ok().filter(|_| (200..=599).contains(&config.status));
        if status.is_none() {
            let place = at.key("status");
            place.error_hint(format!("`{}` ends no request", config.status), "write a status from 200 to 599");
        }
        let body = config.body.as_deref();
        if matches!(config.status, 204 | 205 | 304) && body.is_some_and(|body| !body.is_empty()) {
            at.key("body").error_hint(
                format!("a response with status {} has no body", config.status),
                "leave the body out, or answer with status 200",
            );
            return None;
        }
        let template = match body {
            Some(body) => Some(Template::compile(body, captures, Moment::Request, &at.key("body"))?),
            None => None,
        };
        let headers = headers(config, captures, at);
        let content_type = content_type(config, at);

        let literal = template.as_ref().map_or(Some(""), Template::as_literal);
        let is_error_page = body.is_none() && config.status >= 400;
        let bytes = literal.filter(|_| !is_error_page).map(|text| Bytes::copy_from_slice(text.as_bytes()));
        let mut reply = Reply { status: status?, headers: Vec::new(), body: bytes, close: false };
        if let (Some(content_type), true) = (content_type?, body.is_some_and(|body| !body.is_empty())) {
            reply.headers.push((CONTENT_TYPE, content_type));
        }
        Some(Self { reply, body: template.filter(|template| template.as_literal().is_none()), headers: headers? })
    }

    /// The reply to this request.
    pub fn reply(&self, facts: &Facts<'_>) -> Reply {
        let mut reply = self.reply.clone();
        let mut scratch = Vec::new();
        for (name, value) in &self.headers {
            if let Some(value) = value.render(facts, &mut scratch) {
                reply.headers.push((name.clone(), value));
            }
        }
        if let Some(template) = &self.body {
            let mut body = Vec::new();
            template.render(facts, &mut body);
            reply.body = Some(body.into());
        }
        reply
    }
}

fn headers(config: &Fields, captures: &[Box<str>], at: &Scope<'_>) -> Option<Box<[(HeaderName, Value)]>> {
    let headers_at = at.key("headers");
    let built = config.headers.iter().map(|(name, value)| {
        let at = headers_at.key(name);
        let (name, value) = (field::key(name, &at), Value::compile(value, captures, Moment::Request, &at));
        Some((name?, value?))
    });
    // First all, so that every fault is told.
    built.collect::<Vec<_>>().into_iter().collect()
}

/// The value of `Content-Type`, if it is not among the headers; the outer `None` is a fault.
fn content_type(config: &Fields, at: &Scope<'_>) -> Option<Option<HeaderValue>> {
    let among_headers = config.headers.keys().any(|name| name.eq_ignore_ascii_case(CONTENT_TYPE.as_str()));
    match &config.content_type {
        None if among_headers => Some(None),
        None => Some(Some(HeaderValue::from_static("text/plain; charset=utf-8"))),
        Some(_) if among_headers => {
            at.key("content_type").error_hint("the headers have a `Content-Type` too", "keep one of the two");
            None
        }
        Some(text) => field::media_type(text, &at.key("content_type")).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Issues;
    use crate::exchange::Exchange;
    use pingora::http::RequestHeader;

    fn build(json: &str) -> (Option<Respond>, Vec<String>) {
        let config: Config = serde_json::from_str(json).unwrap();
        let issues = Issues::default();
        let respond = Respond::build(&config, &["slug".into()], &issues.root());
        (respond, issues.into_vec().iter().map(|issue| format!("{}: {}", issue.path, issue.message)).collect())
    }

    #[test]
    fn a_reply_is_fixed_or_speaks_of_the_request() {
        for (json, status, headers, body) in [
            ("204", 204, "", Some("")),
            ("404", 404, "", None),
            (r#""hello""#, 200, "content-type: text/plain; charset=utf-8\n", Some("hello")),
            (r#""hello ${slug}""#, 200, "content-type: text/plain; charset=utf-8\n", Some("hello hello")),
            (r#"{"status": 503, "body": ""}"#, 503, "", Some("")),
            (
                r#"{"status": 503, "body": "{}", "content_type": "application/json", "headers": {"Retry-After": "5"}}"#,
                503,
                "content-type: application/json\nretry-after: 5\n",
                Some("{}"),
            ),
            (
                r#"{"body": "<p>", "headers": {"Content-Type": "text/html", "X-Path": "${request.path}"}}"#,
                200,
                "content-type: text/html\nx-path: /blog/hello\n",
                Some("<p>"),
            ),
            (r#"{"status": 429, "headers": {"Retry-After": "9"}}"#, 429, "retry-after: 9\n", None),
            (r#"{"status": 304, "headers": {"ETag": "\"x\""}}"#, 304, "etag: \"x\"\n", Some("")),
        ] {
            let (respond, told) = build(json);
            let respond = respond.unwrap_or_else(|| panic!("{json}: {told:?}"));
            let head = RequestHeader::build("GET", b"/blog/hello", None).unwrap();
            let mut exchange = Exchange::new();
            exchange.captures.push((6, 11));
            let facts =
                Facts { request: &head, exchange: &exchange, response: None, route: "", upstream: "", backend: "" };
            let reply = respond.reply(&facts);
            let told: String = reply.headers.iter().map(|(n, v)| format!("{n}: {}\n", v.to_str().unwrap())).collect();
            assert_eq!((reply.status.as_u16(), &*told), (status, headers), "{json}");
            assert_eq!(reply.body.as_deref(), body.map(str::as_bytes), "{json}");
        }
    }

    #[test]
    fn a_reply_that_cannot_be_sent_is_a_fault() {
        for (json, faults) in [
            ("100", &["status: `100` ends no request"][..]),
            (r#"{"status": 204, "body": "x"}"#, &["body: a response with status 204 has no body"]),
            (r#"{"status": 304, "body": "x"}"#, &["body: a response with status 304 has no body"]),
            (r#"{"body": "${response.status}"}"#, &["body: `${response.status}` is not known yet here"]),
            (r#"{"content_type": "html"}"#, &["content_type: `html` is no media type"]),
            (
                r#"{"status": 600, "headers": {"TE": "x", "A B": "c"}}"#,
                &[
                    "status: `600` ends no request",
                    "headers[\"A B\"]: `A B` is no header name",
                    "headers.TE: `TE` belongs to the connection and cannot be changed",
                ],
            ),
            (
                r#"{"content_type": "a/b", "headers": {"content-type": "a/c"}}"#,
                &["content_type: the headers have a `Content-Type` too"],
            ),
        ] {
            let (respond, told) = build(json);
            assert!(respond.is_none(), "{json}");
            assert_eq!(told, faults, "{json}");
        }
        for json in ["-1", "70000", "true", r#"{"text": "x"}"#] {
            assert!(serde_json::from_str::<Config>(json).is_err(), "{json}");
        }
    }
}
