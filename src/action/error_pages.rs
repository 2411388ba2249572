//! `errors`: what the body of an error reply is: the operator's own pages, or a small page made here.
//!
//! The page made here is HTML, JSON (which is also a problem document, RFC 9457) or plain text, as the client accepts. It tells
//! the status and the request's id, and nothing of what is inside.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use crate::diag::Scope;
use crate::field;

/// Pages for the errors that the gateway itself answers with: by status (`502`), by class (`4xx`, `5xx`), or `default`;
/// the most exact one is taken. A route's block adds to that of its site, and wins where both have the same key.
pub type Config = BTreeMap<Key, Page>;

/// Which errors a page is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// One status.
    Status(u16),
    /// All statuses with this first digit.
    Class(u16),
    /// All errors.
    Default,
}

impl Key {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "default" => Some(Self::Default),
            "4xx" => Some(Self::Class(4)),
            "5xx" => Some(Self::Class(5)),
            _ => text.parse().ok().filter(|status| (400..=599).contains(status)).map(Self::Status),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{status}"),
            Self::Class(class) => write!(f, "{class}xx"),
            Self::Default => f.write_str("default"),
        }
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Key;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a status from 400 to 599, `4xx`, `5xx` or `default`")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Key, E> {
                let fault = || format!("`{text}` is none of: a status from 400 to 599, `4xx`, `5xx`, `default`");
                Key::parse(text).ok_or_else(|| E::custom(fault()))
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Key, E> {
                self.visit_str(itoa::Buffer::new().format(number))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

impl JsonSchema for Key {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "ErrorKey".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^([45][0-9][0-9]|4xx|5xx|default)$" })
    }
}

/// An error page. Short form: the path of a file.
#[derive(Clone, Debug)]
pub enum Page {
    /// The file is read once, when the document is read, and may have 1 MiB. Its ending says what it is: `.html`, `.json`
    /// or `.txt`. A path that is not absolute begins at the folder of the document.
    File(String),
    /// A page in place.
    Inline(Inline),
}

/// A page in place.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ErrorPageInline")]
pub struct Inline {
    /// The body, as it is sent.
    pub body: String,
    /// Its media type. Default: `text/html; charset=utf-8`.
    #[serde(default = "html")]
    pub content_type: String,
}

fn html() -> String {
    HTML_TYPE.to_owned()
}

impl<'de> Deserialize<'de> for Page {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;
        impl<'de> Visitor<'de> for Forms {
            type Value = Page;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the path of a file, or `body` and `content_type`")
            }
            fn visit_str<E: Error>(self, path: &str) -> Result<Page, E> {
                Ok(Page::File(path.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Page, A::Error> {
                Inline::deserialize(MapAccessDeserializer::new(map)).map(Page::Inline)
            }
        }
        deserializer.deserialize_any(Forms)
    }
}

impl JsonSchema for Page {
    fn schema_name() -> Cow<'static, str> {
        "ErrorPage".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let inline = generator.subschema_for::<Inline>();
        json_schema!({
            "description": "An error page: the path of a file (.html, .json or .txt, 1 MiB at most), or the page in place.",
            "anyOf": [{ "type": "string" }, inline],
        })
    }
}

/// The operator's error pages of one site or route, ready to send.
#[derive(Clone, Debug, Default)]
pub struct ErrorPages(BTreeMap<Key, (HeaderValue, Bytes)>);

/// The largest file that may be a page, in bytes.
const MAX_FILE: u64 = 1 << 20;

const HTML_TYPE: &str = "text/html; charset=utf-8";
const TEXT_TYPE: &str = "text/plain; charset=utf-8";

impl ErrorPages {
    /// Reads the pages; paths that are not absolute begin at `folder`. Reports what is wrong below `at`.
    pub fn build(config: &Config, folder: &Path, at: &Scope<'_>) -> Option<Self> {
        let built = config.iter().map(|(key, page)| {
            let name = key.to_string();
            let at = at.key(&name);
            let page = match page {
                Page::Inline(Inline { body, content_type }) => {
                    (field::media_type(content_type, &at.key("content_type"))?, Bytes::copy_from_slice(body.as_bytes()))
                }
                Page::File(path) => read(path, folder, &at)?,
            };
            Some((*key, page))
        });
        // First all, so that every fault is told.
        built.collect::<Vec<_>>().into_iter().collect::<Option<_>>().map(Self)
    }

    /// These pages of a route, and those of its site for keys that the route has none for.
    #[must_use]
    pub fn over(&self, site: &Self) -> Self {
        let mut pages = site.0.clone();
        pages.extend(self.0.clone());
        Self(pages)
    }

    /// The content type and body for this status: the operator's page, or the one made here as the client accepts.
    pub fn page(&self, status: StatusCode, accept: Option<&HeaderValue>, request_id: &str) -> (HeaderValue, Bytes) {
        let keys = [Key::Status(status.as_u16()), Key::Class(status.as_u16() / 100), Key::Default];
        match keys.iter().find_map(|key| self.0.get(key)) {
            Some(page) => page.clone(),
            None => page(status, accept, request_id),
        }
    }
}

fn read(path: &str, folder: &Path, at: &Scope<'_>) -> Option<(HeaderValue, Bytes)> {
    let file = folder.join(path);
    let content_type = match file.extension().and_then(|ending| ending.to_str()) {
        Some("html" | "htm") => HTML_TYPE,
        Some("json") => "application/json",
        Some("txt") => TEXT_TYPE,
        _ => {
            at.error_hint(
                format!("`{path}` does not say by its ending what it is"),
                "name the file .html, .json or .txt, or write `body` and `content_type` in place",
            );
            return None;
        }
    };
    if std::fs::metadata(&file).is_ok_and(|found| !found.is_file()) {
        // Opening a pipe would wait for a writer.
        at.error_hint(format!("`{path}` is not a file"), "name a plain file");
        return None;
    }
    let mut body = Vec::new();
    // One byte more than may be, to know that there is more; a size asked for beforehand could change.
    let read = std::fs::File::open(&file).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut body));
    if let Err(error) = read {
        at.error_hint(
            format!("cannot read `{}`: {error}", file.display()),
            "check the path, and who may read the file",
        );
        return None;
    }
    if body.len() as u64 > MAX_FILE {
        at.error_hint(format!("`{path}` has more than 1 MiB"), "an error page is small; let it load what is large");
        return None;
    }
    Some((HeaderValue::from_static(content_type), body.into()))
}

/// What a page made here can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Html,
    Json,
    Problem,
}

/// The content type and body of the page that is made here for this status.
pub fn page(status: StatusCode, accept: Option<&HeaderValue>, request_id: &str) -> (HeaderValue, Bytes) {
    let kind = preferred(accept.and_then(|accept| accept.to_str().ok()).unwrap_or_default());
    let (content_type, pieces) = match kind {
        Kind::Text => (TEXT_TYPE, &TEXT),
        Kind::Html => (HTML_TYPE, &HTML),
        Kind::Json => ("application/json", &JSON),
        Kind::Problem => ("application/problem+json", &JSON),
    };
    let reason = status.canonical_reason().unwrap_or("Error");
    let length = pieces.iter().map(|piece| if let Piece::Text(text) = piece { text.len() } else { 36 }).sum();
    let mut body = Vec::with_capacity(length);
    for piece in *pieces {
        match piece {
            Piece::Text(text) => body.extend_from_slice(text.as_bytes()),
            Piece::Status => body.extend_from_slice(status.as_str().as_bytes()),
            Piece::Reason => body.extend_from_slice(reason.as_bytes()),
            Piece::Id => push_id(request_id, kind, &mut body),
        }
    }
    (HeaderValue::from_static(content_type), body.into())
}

/// A page, cut where the facts of the request are put in.
enum Piece {
    Text(&'static str),
    Status,
    Reason,
    Id,
}

const TEXT: &[Piece] =
    &[Piece::Status, Piece::Text(" "), Piece::Reason, Piece::Text("\nrequest id: "), Piece::Id, Piece::Text("\n")];

const JSON: &[Piece] = &[
    Piece::Text("{\"status\":"),
    Piece::Status,
    Piece::Text(",\"error\":\""),
    Piece::Reason,
    Piece::Text("\",\"request_id\":\""),
    Piece::Id,
    Piece::Text("\"}\n"),
];

const HTML: &[Piece] = &[
    Piece::Text("<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>"),
    Piece::Status,
    Piece::Text(" "),
    Piece::Reason,
    Piece::Text(
        "</title>\n<meta name=\"viewport\" content=\"width=device-width\">\n<meta name=\"robots\" content=\"noindex\">\n\
         <style>:root{color-scheme:light dark}body{font:1rem/1.5 system-ui,sans-serif;margin:20vh auto;max-width:32rem;\
         padding:0 1rem}h1{font-weight:500}small{opacity:.6}</style>\n<h1>",
    ),
    Piece::Status,
    Piece::Text(" "),
    Piece::Reason,
    Piece::Text("</h1>\n<p><small>Request <code>"),
    Piece::Id,
    Piece::Text("</code></small>\n</html>\n"),
];

/// Appends the id. Ids are plain already; whatever might end the text around one is escaped all the same.
fn push_id(id: &str, kind: Kind, out: &mut Vec<u8>) {
    for byte in id.bytes() {
        match (byte, kind) {
            (b'<', Kind::Html) => out.extend_from_slice(b"&lt;"),
            (b'>', Kind::Html) => out.extend_from_slice(b"&gt;"),
            (b'&', Kind::Html) => out.extend_from_slice(b"&amp;"),
            (b'"', Kind::Html) => out.extend_from_slice(b"&quot;"),
            (b'"' | b'\\', Kind::Json | Kind::Problem) => out.extend_from_slice(&[b'\\', byte]),
            (..b' ' | 0x7f, _) => out.push(b' '),
            _ => out.push(byte),
        }
    }
}

/// What the client likes best (RFC 9110 12.5.1): by weight, then by how exactly it named it, then by what it named first.
/// Whoever takes anything, as curl does, gets a line of text.
fn preferred(accept: &str) -> Kind {
    let ranges: Vec<(&str, u16)> = accept.split(',').map(range).collect();
    let mut best = (Kind::Text, (0, 0, 0));
    for kind in [Kind::Text, Kind::Html, Kind::Json, Kind::Problem] {
        let named = ranges.iter().enumerate().map(|(position, (range, weight))| (fit(range, kind), position, *weight));
        // The most exact range that speaks of this kind says its weight.
        let said = named.filter(|(fit, _, _)| *fit > 0).max_by_key(|(fit, position, _)| (*fit, usize::MAX - position));
        let Some((fit, position, weight)) = said else { continue };
        let rank = (weight, fit, usize::MAX - position);
        if weight > 0 && rank > best.1 {
            best = (kind, rank);
        }
    }
    best.0
}

/// One media range with its weight in thousandths.
fn range(text: &str) -> (&str, u16) {
    let mut parts = text.split(';');
    let name = parts.next().unwrap_or_default().trim();
    let weight = parts.find_map(|part| {
        let (key, value) = part.split_once('=')?;
        key.trim().eq_ignore_ascii_case("q").then(|| value.trim().parse::<f32>().unwrap_or(0.0))
    });
    (name, (weight.unwrap_or(1.0).clamp(0.0, 1.0) * 1000.0) as u16)
}

/// How exactly the range names the kind: 0 not at all, 1 `*/*`, 2 the type, 3 a relative, 4 by name.
fn fit(range: &str, kind: Kind) -> u8 {
    let is = |name: &str| range.eq_ignore_ascii_case(name);
    match kind {
        _ if is("*/*") => 1,
        Kind::Text | Kind::Html if is("text/*") => 2,
        Kind::Json if is("application/*") => 2,
        Kind::Text if is("text/plain") => 4,
        Kind::Html if is("text/html") => 4,
        Kind::Html if is("application/xhtml+xml") => 3,
        Kind::Json if is("application/json") => 4,
        Kind::Problem if is("application/problem+json") => 4,
        // Whoever asks for some JSON of its own reads JSON.
        Kind::Json
            if range.get(range.len().saturating_sub(5)..).is_some_and(|end| end.eq_ignore_ascii_case("+json")) =>
        {
            3
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Issues;

    #[test]
    fn a_client_gets_what_it_likes_best() {
        for (accept, kind) in [
            ("", Kind::Text),
            ("*/*", Kind::Text),
            ("text/*", Kind::Text),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Kind::Html),
            ("application/json", Kind::Json),
            ("application/json, text/plain, */*", Kind::Json),
            ("text/plain, application/json", Kind::Text),
            ("text/html;q=0.5, application/json", Kind::Json),
            ("text/html;q=0.9, application/json;q=0.2", Kind::Html),
            ("APPLICATION/JSON;Q=1.0", Kind::Json),
            ("application/*", Kind::Json),
            ("application/problem+json", Kind::Problem),
            ("application/json, application/problem+json", Kind::Json),
            ("application/problem+json, application/json;q=0.9", Kind::Problem),
            ("application/vnd.shop+json", Kind::Json),
            ("*/*, text/plain;q=0", Kind::Html),
            ("text/html;q=0", Kind::Text),
            ("image/png", Kind::Text),
            ("text/html;q=x, ;;,=,é", Kind::Text),
            ("xé+json", Kind::Json),
        ] {
            assert_eq!(preferred(accept), kind, "{accept}");
        }
    }

    fn text(status: u16, accept: &'static str, id: &str) -> (String, String) {
        let (content_type, body) =
            page(StatusCode::from_u16(status).unwrap(), Some(&HeaderValue::from_static(accept)), id);
        (content_type.to_str().unwrap().to_owned(), String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn the_page_tells_the_status_and_the_id_and_no_more() {
        let (content_type, json) = text(502, "application/json", "a-1");
        assert_eq!(content_type, "application/json");
        assert_eq!(json, "{\"status\":502,\"error\":\"Bad Gateway\",\"request_id\":\"a-1\"}\n");
        assert_eq!(text(599, "*/*", "a-1"), (TEXT_TYPE.into(), "599 Error\nrequest id: a-1\n".into()));
        assert_eq!(text(404, "application/problem+json", "a").0, "application/problem+json");
        let (content_type, html) = text(404, "text/html", "a-1");
        assert_eq!(content_type, HTML_TYPE);
        assert!(html.contains("<h1>404 Not Found</h1>") && html.contains("<code>a-1</code>"), "{html}");
        assert!(html.len() < 700 && !html.contains(env!("CARGO_PKG_NAME")), "{}", html.len());
        assert_eq!(page(StatusCode::NOT_FOUND, None, "").0, TEXT_TYPE);
    }

    #[test]
    fn an_id_cannot_leave_its_place() {
        let id = "<b>&\"\\\n";
        assert!(text(404, "text/html", id).1.contains("<code>&lt;b&gt;&amp;&quot;\\ </code>"));
        let json: serde_json::Value = serde_json::from_str(&text(404, "application/json", id).1).unwrap();
        assert_eq!(json["request_id"], "<b>&\"\\ ");
    }

    fn pages(json: &str, folder: &Path) -> (Option<ErrorPages>, Vec<String>) {
        let config: Config = serde_json::from_str(json).unwrap();
        let issues = Issues::default();
        let pages = ErrorPages::build(&config, folder, &issues.root().key("errors"));
        (pages, issues.into_vec().iter().map(|issue| format!("{}: {}", issue.path, issue.message)).collect())
    }

    #[test]
    fn the_most_exact_page_is_taken_and_the_route_wins() {
        let nowhere = Path::new("");
        let site = pages(
            r#"{"502": {"body": "site 502"}, "5xx": {"body": "site 5xx"}, "default": {"body": "{}", "content_type": "application/json"}}"#,
            nowhere,
        );
        let route = pages(r#"{"502": {"body": "route 502"}, "404": {"body": "route 404"}}"#, nowhere);
        let both = route.0.unwrap().over(&site.0.unwrap());
        for (status, content_type, body) in [
            (502, HTML_TYPE, "route 502"),
            (503, HTML_TYPE, "site 5xx"),
            (404, HTML_TYPE, "route 404"),
            (403, "application/json", "{}"),
        ] {
            let page = both.page(StatusCode::from_u16(status).unwrap(), None, "id");
            assert_eq!(page, (HeaderValue::from_static(content_type), Bytes::from_static(body.as_bytes())), "{status}");
        }
        let made = ErrorPages::default().page(StatusCode::NOT_FOUND, None, "id");
        assert_eq!(made.1, "404 Not Found\nrequest id: id\n");
    }

    #[test]
    fn a_page_is_read_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.json"), "{}").unwrap();
        std::fs::write(folder.path().join("big.html"), vec![b'x'; (1 << 20) + 1]).unwrap();
        let (read, told) = pages(r#"{"4xx": "a.json"}"#, folder.path());
        assert_eq!(read.unwrap_or_else(|| panic!("{told:?}")).page(StatusCode::GONE, None, "").1, "{}");
        let (read, told) = pages(
            r#"{"500": "big.html", "501": "none.html", "5xx": "a.php", "default": {"body": "", "content_type": "x"}}"#,
            folder.path(),
        );
        assert!(read.is_none());
        for (told, begins) in told.iter().zip([
            "errors.500: `big.html` has more than 1 MiB",
            "errors.501: cannot read",
            "errors.5xx: `a.php` does not say by its ending what it is",
            "errors.default.content_type: `x` is no media type",
        ]) {
            assert!(told.starts_with(begins), "{told}");
        }
        assert_eq!(told.len(), 4);
    }

    #[test]
    fn only_errors_have_pages() {
        for (key, sound) in [
            ("502", true),
            ("4xx", true),
            ("default", true),
            ("200", false),
            ("600", false),
            ("3xx", false),
            ("", false),
        ] {
            let config = serde_json::from_str::<Config>(&format!("{{\"{key}\": \"a.html\"}}"));
            assert_eq!(config.is_ok(), sound, "{key}");
        }
        let numbers: Result<Config, _> = serde_yaml::from_str("502: /a.html\n5xx: { body: x }\n");
        assert_eq!(numbers.unwrap().len(), 2);
    }
}
