//! `KeyShape`: the key of a request, which tells one stored response from another.
//!
//! Each part stands behind its kind and its length, so no value can look like another part, and two keys are the same only
//! when all parts are. The query goes in as it was sent: what the origin might read otherwise is another key.
//!
//! What is left out of a key still reaches the origin, so what is left out must be what the origin reads that way too: a
//! parameter is chosen by its decoded name, and one with a `;` in it, which some origins take for two, is never left out.

use std::borrow::Cow;

use http::header::{COOKIE, HOST, HeaderName};
use pingora::http::RequestHeader;
use smallvec::SmallVec;

use super::config::{KeyConfig, Query};
use super::rules::vary;
use crate::diag::Scope;
use crate::exchange::{Facts, Scheme};
use crate::field;
use crate::template::{Moment, Template, cookies, decoded};

/// What of a request its key is made of.
#[derive(Clone, Debug)]
pub struct KeyShape {
    scheme: bool,
    host: bool,
    path: bool,
    raw_path: bool,
    query: Params,
    sorted: bool,
    headers: Box<[HeaderName]>,
    cookies: Box<[Box<str>]>,
    template: Option<Template>,
    apart: Option<Box<str>>,
}

/// What a key depends on beside what is written of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Around<'a> {
    /// The names that the route's path gives, for the template.
    pub captures: &'a [Box<str>],
    /// Whether the path is forwarded as it was sent.
    pub raw_path: bool,
    /// The name of the route, if it takes only some of the requests for its paths: others of the same URL go elsewhere.
    pub apart: Option<&'a str>,
}

/// Which parameters of the query go in.
#[derive(Clone, Debug)]
enum Params {
    All,
    None,
    Only(Box<[Glob]>),
    Ignore(Box<[Glob]>),
}

/// What a part of a key is.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Part {
    Scheme = 1,
    Authority,
    Path,
    Query,
    Headers,
    Cookies,
    Template,
    Route,
}

impl KeyShape {
    /// Compiles it; reports what is wrong with it at `at`.
    pub fn build(config: &KeyConfig, around: Around<'_>, at: &Scope<'_>) -> Option<Self> {
        let headers = names(&config.headers, &at.key("headers"));
        let template = config
            .template
            .as_ref()
            .map(|text| Template::compile(text, around.captures, Moment::Request, &at.key("template")));
        let is_cookie = |name: &&String| {
            let is_token = |byte: u8| byte.is_ascii_graphic() && !b"=;,\"\\".contains(&byte);
            let is_name = !name.is_empty() && name.bytes().all(is_token);
            if !is_name {
                at.key("cookies").error_hint(format!("`{name}` is no name of a cookie"), "write one as in `currency`");
            }
            is_name
        };
        let mut cookies: Vec<Box<str>> =
            config.cookies.iter().filter(is_cookie).map(|name| name.as_str().into()).collect();
        cookies.sort_unstable();
        cookies.dedup();
        let query = match &config.query {
            Query::All => Params::All,
            Query::None => Params::None,
            Query::Only(names) => Params::Only(Glob::all(names)),
            Query::Ignore(names) => Params::Ignore(Glob::all(names)),
        };
        let template = match template {
            Some(compiled) => Some(compiled?),
            None => None,
        };
        Some(Self {
            scheme: config.scheme,
            host: config.host,
            path: config.path,
            raw_path: around.raw_path,
            query,
            sorted: config.sort_query,
            headers: headers?,
            cookies: cookies.into(),
            template,
            apart: around.apart.map(Into::into),
        })
    }

    /// The header fields that count.
    pub fn headers(&self) -> &[HeaderName] {
        &self.headers
    }

    /// Whether the URL alone is the key: of two requests for one URL, both have the same.
    pub fn is_plain(&self) -> bool {
        self.headers.is_empty() && self.cookies.is_empty() && self.template.is_none() && self.apart.is_none()
    }

    /// Appends the key of this request.
    pub fn write(&self, facts: &Facts<'_>, key: &mut Vec<u8>) {
        let (head, exchange) = (facts.request, facts.exchange);
        let path = self.path_of(facts);
        let query = head.uri.query();
        // In the default shape, five parts of five bytes each, a scheme and a port: one allocation, if any.
        key.reserve(40 + exchange.host.len() + path.len() + query.map_or(0, str::len));
        if self.scheme {
            frame(key, Part::Scheme, |key| key.push(u8::from(exchange.scheme == Scheme::Https)));
        }
        if self.host {
            frame(key, Part::Authority, |key| {
                key.extend_from_slice(exchange.host.as_bytes());
                if let Some(port) = port(head, exchange.scheme) {
                    key.push(b':');
                    key.extend_from_slice(port.as_bytes());
                }
            });
        }
        if self.path {
            frame(key, Part::Path, |key| key.extend_from_slice(path.as_bytes()));
        }
        if let Some(query) = query.and_then(|query| self.keyed(query)) {
            frame(key, Part::Query, |key| key.extend_from_slice(query.as_bytes()));
        }
        if !self.headers.is_empty() {
            frame(key, Part::Headers, |key| vary::write_key(&self.headers, &head.headers, key));
        }
        if !self.cookies.is_empty() {
            frame(key, Part::Cookies, |key| self.write_cookies(head, key));
        }
        if let Some(template) = &self.template {
            frame(key, Part::Template, |key| template.render(facts, key));
        }
        if let Some(apart) = &self.apart {
            frame(key, Part::Route, |key| key.extend_from_slice(apart.as_bytes()));
        }
    }

    /// Each cookie that counts: how often the client sent it, and each value behind its length.
    fn write_cookies(&self, head: &RequestHeader, key: &mut Vec<u8>) {
        let fields = head.headers.get_all(COOKIE);
        for name in &self.cookies {
            write_length(key, name.len());
            key.extend_from_slice(name.as_bytes());
            let values = || fields.iter().flat_map(|field| cookies(field.as_bytes(), name.as_bytes()));
            write_length(key, values().count());
            for value in values() {
                write_length(key, value.len());
                key.extend_from_slice(value);
            }
        }
    }

    fn path_of<'a>(&self, facts: &Facts<'a>) -> &'a str {
        if self.raw_path { facts.request.uri.path() } else { facts.exchange.path(facts.request) }
    }

    /// The URL, for purges and for operators, with the parameters that count. A scheme that does not count is left out,
    /// as in `//example.com/a`; a host or a path is `*`.
    pub fn url(&self, facts: &Facts<'_>) -> String {
        let (head, exchange) = (facts.request, facts.exchange);
        let mut url = String::with_capacity(16 + exchange.host.len() + head.uri.path().len());
        if self.scheme {
            url.push_str(exchange.scheme.as_str());
            url.push(':');
        }
        url.push_str("//");
        if self.host {
            url.push_str(&authority(facts));
        } else {
            url.push('*');
        }
        url.push_str(if self.path { self.path_of(facts) } else { "/*" });
        if let Some(query) = head.uri.query().and_then(|query| self.keyed(query)) {
            url.push('?');
            url.push_str(&query);
        }
        url
    }

    /// What of the query counts; `None`: nothing does, as if there were none.
    pub fn keyed<'a>(&self, query: &'a str) -> Option<Cow<'a, str>> {
        let counts = |pair: &str| match &self.query {
            Params::All => true,
            Params::None => false,
            _ if pair.contains(';') => true,
            Params::Only(names) => names.iter().any(|name| name.takes_decoded(pair)),
            Params::Ignore(names) => !names.iter().any(|name| name.takes_decoded(pair)),
        };
        match self.query {
            Params::All if !self.sorted => return Some(Cow::Borrowed(query)),
            Params::None => return None,
            _ => {}
        }
        let pairs = query.split('&').filter(|pair| !pair.is_empty() && counts(pair));
        let mut pairs: SmallVec<[&str; 16]> = pairs.collect();
        if self.sorted {
            // Values of one name keep their order, in which they may mean something.
            pairs.sort_by_key(|pair| name_of(pair));
        }
        (!pairs.is_empty()).then(|| Cow::Owned(pairs.join("&")))
    }

    /// In words, for `explain`: what counts.
    pub fn describe(&self) -> String {
        let mut parts: Vec<String> = [(self.scheme, "scheme"), (self.host, "host"), (self.path, "path")]
            .into_iter()
            .filter(|(counts, _)| *counts)
            .map(|(_, part)| part.to_owned())
            .collect();
        let globs = |globs: &[Glob]| globs.iter().map(|glob| &*glob.0).collect::<Vec<_>>().join(", ");
        let sorted = if self.sorted { ", sorted" } else { "" };
        match &self.query {
            Params::All => parts.push(format!("query{sorted}")),
            Params::None => {}
            Params::Only(names) => parts.push(format!("query of {}{sorted}", globs(names))),
            Params::Ignore(names) => parts.push(format!("query without {}{sorted}", globs(names))),
        }
        parts.extend(self.headers.iter().map(|name| format!("header {name}")));
        parts.extend(self.cookies.iter().map(|name| format!("cookie {name}")));
        parts.extend(self.template.as_ref().map(|_| "template".to_owned()));
        parts.extend(self.apart.as_ref().map(|_| "route".to_owned()));
        if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
    }
}

/// The names of header fields, sorted, each once; reports what is none.
pub(super) fn names(texts: &[String], at: &Scope<'_>) -> Option<Box<[HeaderName]>> {
    let mut names = in_order(texts, at)?.into_vec();
    names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    Some(names.into())
}

/// The names of header fields in the order in which they are written; reports what is none.
pub(super) fn in_order(texts: &[String], at: &Scope<'_>) -> Option<Box<[HeaderName]>> {
    let read = |(index, text): (usize, &String)| {
        let item = at.index(index);
        let place = if texts.len() == 1 { at } else { &item };
        field::name(text).map_err(|(fault, mend)| place.error_hint(fault, mend)).ok()
    };
    // All are read before one that is wrong is missed, so that all faults are told.
    let names: Vec<Option<HeaderName>> = texts.iter().enumerate().map(read).collect();
    names.into_iter().collect()
}

/// Writes a part: its kind, its length, and what `write` does.
fn frame(key: &mut Vec<u8>, part: Part, write: impl FnOnce(&mut Vec<u8>)) {
    key.push(part as u8);
    let begin = key.len();
    key.extend_from_slice(&[0; 4]);
    write(key);
    // No head of a request is 4 GiB.
    let length = u32::try_from(key.len() - begin - 4).unwrap_or(u32::MAX);
    key[begin..begin + 4].copy_from_slice(&length.to_be_bytes());
}

fn write_length(key: &mut Vec<u8>, length: usize) {
    key.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

/// The authority that is asked: the host in the form in which all its spellings are one, and the port where it is not the
/// scheme's own.
pub fn authority<'a>(facts: &Facts<'a>) -> Cow<'a, str> {
    let host = facts.exchange.host.as_str();
    match port(facts.request, facts.exchange.scheme) {
        Some(port) => Cow::Owned(format!("{host}:{port}")),
        None => Cow::Borrowed(host),
    }
}

/// The port that was asked for, where it is not the scheme's own (RFC 9110 4.2.3).
fn port(head: &RequestHeader, scheme: Scheme) -> Option<&str> {
    let authority = match head.headers.get(HOST) {
        Some(host) => host.to_str().ok()?,
        None => head.uri.authority()?.as_str(),
    };
    let (host, port) = authority.rsplit_once(':')?;
    // Within brackets it is a piece of an IPv6 address.
    let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) && !is_half_literal(host);
    let port = port.trim_start_matches('0');
    let own = match scheme {
        Scheme::Http => "80",
        Scheme::Https => "443",
    };
    (is_port && port != own).then_some(port)
}

fn is_half_literal(host: &str) -> bool {
    host.starts_with('[') && !host.ends_with(']')
}

fn name_of(pair: &str) -> &str {
    pair.split('=').next().unwrap_or_default()
}

/// A name in which `*` stands for any characters.
#[derive(Clone, Debug)]
struct Glob(Box<str>);

impl Glob {
    fn all(names: &[String]) -> Box<[Self]> {
        names.iter().map(|name| Self(name.as_str().into())).collect()
    }

    /// Whether it is the name of this parameter, as the origin reads it.
    fn takes_decoded(&self, pair: &str) -> bool {
        let name = name_of(pair).as_bytes();
        if !name.iter().any(|byte| matches!(byte, b'%' | b'+')) {
            return self.takes(name);
        }
        let decoded: SmallVec<[u8; 32]> = decoded(name).collect();
        self.takes(&decoded)
    }

    fn takes(&self, name: &[u8]) -> bool {
        let glob = self.0.as_bytes();
        let (mut at, mut seen) = (0, 0);
        // Where to go on when what follows the last `*` does not fit: it takes one more character.
        let mut again = None;
        while seen < name.len() {
            match glob.get(at) {
                Some(b'*') => {
                    again = Some((at + 1, seen));
                    at += 1;
                }
                Some(byte) if *byte == name[seen] => (at, seen) = (at + 1, seen + 1),
                _ => {
                    let Some((after, taken)) = again else { return false };
                    again = Some((after, taken + 1));
                    (at, seen) = (after, taken + 1);
                }
            }
        }
        glob[at..].iter().all(|byte| *byte == b'*')
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::diag::Issues;
    use crate::exchange::Exchange;

    fn shape(yaml: &str) -> KeyShape {
        shape_around(yaml, Around::default())
    }

    fn shape_around(yaml: &str, around: Around<'_>) -> KeyShape {
        let issues = Issues::default();
        let config: KeyConfig = serde_yaml::from_str(yaml).unwrap();
        let shape = KeyShape::build(&config, around, &issues.root());
        assert!(!issues.has_errors(), "{issues:?}");
        shape.unwrap()
    }

    /// A request: `https://Example.com:8080/a?b`, then fields.
    struct Asked {
        head: RequestHeader,
        exchange: Exchange,
    }

    fn asked(url: &str, fields: &[(&str, &str)]) -> Asked {
        let (scheme, rest) = url.split_once("://").unwrap();
        let (authority, path) = rest.split_at(rest.find('/').unwrap());
        let mut head = RequestHeader::build("GET", path.as_bytes(), None).unwrap();
        head.insert_header("host", authority).unwrap();
        for (name, value) in fields {
            head.append_header((*name).to_owned(), *value).unwrap();
        }
        let mut exchange = Exchange::new();
        exchange.host = authority.rsplit_once(':').map_or(authority, |(host, _)| host).to_lowercase();
        if authority.ends_with(']') {
            exchange.host = authority.to_lowercase();
        }
        if scheme == "https" {
            exchange.scheme = Scheme::Https;
        }
        Asked { head, exchange }
    }

    impl Asked {
        fn facts(&self) -> Facts<'_> {
            let (request, exchange) = (&self.head, &self.exchange);
            Facts { request, exchange, response: None, route: "r", upstream: "", backend: "" }
        }

        fn key(&self, shape: &KeyShape) -> Vec<u8> {
            let mut key = Vec::new();
            shape.write(&self.facts(), &mut key);
            key
        }
    }

    #[test]
    fn what_counts_tells_requests_apart_and_what_does_not_count_does_not() {
        const A: &str = "http://a/x?b=1&c=2";
        for (yaml, one, other, same) in [
            ("{}", A, A, true),
            ("{}", A, "https://a/x?b=1&c=2", false),
            ("{ scheme: false }", A, "https://a/x?b=1&c=2", true),
            ("{}", A, "http://b/x?b=1&c=2", false),
            ("{}", A, "http://A:80/x?b=1&c=2", true), // RFC 9110 4.2.3
            ("{}", A, "http://a:0080/x?b=1&c=2", true),
            ("{}", A, "http://a:443/x?b=1&c=2", false),
            ("{}", "https://a/", "https://a:443/", true),
            ("{}", "http://[::1]/", "http://[::1]:80/", true),
            ("{}", "http://[::1]:81/", "http://[::1]/", false),
            ("{ host: false }", A, "http://b:81/x?b=1&c=2", true),
            ("{}", A, "http://a/y?b=1&c=2", false),
            ("{ path: false }", A, "http://a/y?b=1&c=2", true),
            ("{}", A, "http://a/x?c=2&b=1", false),
            ("{ sort_query: true }", A, "http://a/x?c=2&b=1", true),
            ("{ sort_query: true }", "http://a/x?b=1&b=2", "http://a/x?b=2&b=1", false),
            ("{ sort_query: true }", "http://a/x?b=1&&c", "http://a/x?c&b=1", true),
            ("{}", "http://a/x", "http://a/x?", false),
            ("{}", "http://a/x?%62=1", "http://a/x?b=1", false),
            ("{ query: none }", A, "http://a/x", true),
            ("{ query: none }", A, "http://a/x?d", true),
            ("{ query: [b] }", A, "http://a/x?b=1", true),
            ("{ query: [b] }", A, "http://a/x?z&b=1", true),
            ("{ query: [b] }", A, "http://a/x?b=2&c=2", false),
            ("{ query: [b] }", A, "http://a/x?b=1&b=2", false),
            ("{ query: [] }", A, "http://a/x", true),
            // What an origin may take for the chosen one counts, however it is written.
            ("{ query: [b] }", A, "http://a/x?b=1&%62=2", false),
            ("{ query: [b] }", A, "http://a/x?b=1&c=2;b=3", false),
            ("{ query: { ignore: [c] } }", A, "http://a/x?b=1", true),
            ("{ query: { ignore: [c] } }", A, "http://a/x?b=1&%63=4", true),
            ("{ query: { ignore: [c] } }", A, "http://a/x?b=1&c=2;b=3", false),
            ("{ query: { ignore: ['utm_*'] } }", "http://a/x?utm_a=1&utm_b", "http://a/x", true),
            ("{ query: { ignore: ['*_id'] } }", "http://a/x?f_id=1&f_idx=1", "http://a/x?f_idx=1", true),
            ("{ query: { ignore: ['a*b*c'] } }", "http://a/x?aXbYbc=1&abcd", "http://a/x?abcd", true),
        ] {
            let shape = shape(yaml);
            let (one_key, other_key) = (asked(one, &[]).key(&shape), asked(other, &[]).key(&shape));
            assert_eq!(one_key == other_key, same, "{yaml}: {one} and {other}");
        }
    }

    #[test]
    fn fields_and_cookies_count_by_name() {
        let field = |name: &'static str, value: &'static str| vec![(name, value)];
        for (yaml, one, other, same) in [
            ("{}", field("accept-language", "de"), field("accept-language", "en"), true),
            ("{ headers: [Accept-Language] }", field("accept-language", "de"), field("accept-language", "en"), false),
            (
                "{ headers: [Accept-Language] }",
                field("accept-language", "de, en"),
                field("accept-language", "DE,en"),
                true,
            ),
            ("{ headers: [x] }", field("x", "a, b"), vec![("x", "a"), ("x", "b")], true),
            ("{ headers: [x] }", field("x", ""), vec![], false),
            ("{ headers: [x, y] }", field("x", "a"), field("y", "a"), false),
            ("{ cookies: [c] }", field("cookie", "c=1; d=2"), field("cookie", "d=3; c=1"), true),
            ("{ cookies: [c] }", field("cookie", "c=1"), field("cookie", "c=2"), false),
            ("{ cookies: [c] }", field("cookie", "c=1"), field("cookie", "c=1; c=2"), false),
            ("{ cookies: [c] }", field("cookie", "c="), field("cookie", "d=1"), false),
            ("{ cookies: [c, d] }", field("cookie", "c=1"), field("cookie", "d=1"), false),
            ("{ cookies: [c] }", field("cookie", "c=1"), vec![("cookie", "d=2"), ("cookie", "c=1")], true),
            ("{ template: '${request.headers.x}' }", field("x", "a"), field("x", "b"), false),
        ] {
            let shape = shape(yaml);
            let (one_key, other_key) = (asked("http://a/", &one).key(&shape), asked("http://a/", &other).key(&shape));
            assert_eq!(one_key == other_key, same, "{yaml}: {one:?} and {other:?}");
            assert_eq!(shape.is_plain(), yaml == "{}", "{yaml}");
        }
    }

    #[test]
    fn the_order_in_the_document_is_no_part_of_the_key() {
        let request = asked("http://a/", &[("x", "1"), ("y", "2"), ("cookie", "c=3; d=4")]);
        let keys = ["{ headers: [x, y], cookies: [c, d] }", "{ headers: [Y, X, x], cookies: [d, c, d] }"]
            .map(|yaml| request.key(&shape(yaml)));
        assert_eq!(keys[0], keys[1]);
    }

    #[test]
    fn a_route_that_takes_only_some_requests_keeps_to_itself() {
        let request = asked("http://a/", &[]);
        let routes = [None, Some("site\nbeta"), Some("site\ngamma")]
            .map(|apart| request.key(&shape_around("{}", Around { apart, ..Around::default() })));
        assert!(routes[0] != routes[1] && routes[1] != routes[2] && routes[0] != routes[2]);
    }

    #[test]
    fn the_path_counts_as_it_is_forwarded() {
        let mut request = asked("http://a/x/../y", &[]);
        request.exchange.normal_path = Some("/y".to_owned());
        let (normal, raw) = (shape("{}"), shape_around("{}", Around { raw_path: true, ..Around::default() }));
        assert_eq!(request.key(&normal), asked("http://a/y", &[]).key(&normal));
        assert_ne!(request.key(&raw), asked("http://a/y", &[]).key(&raw));
        assert_eq!(
            (normal.url(&request.facts()), raw.url(&request.facts())),
            ("http://a/y".into(), "http://a/x/../y".into())
        );
    }

    #[test]
    fn the_url_tells_what_counts() {
        for (yaml, asked_for, url) in [
            ("{}", "https://Example.com:8443/a?b=1&utm_x=2", "https://example.com:8443/a?b=1&utm_x=2"),
            ("{}", "http://a:80/", "http://a/"),
            ("{ query: { ignore: ['utm_*'] } }", "http://a/x?b=1&utm_x=2", "http://a/x?b=1"),
            ("{ query: { ignore: ['utm_*'] } }", "http://a/x?utm_x=2", "http://a/x"),
            ("{ sort_query: true }", "http://a/x?b&a", "http://a/x?a&b"),
            ("{ scheme: false }", "https://a/x", "//a/x"),
            ("{ host: false }", "https://a/x", "https://*/x"),
            ("{ path: false }", "https://a/x?y", "https://a/*?y"),
        ] {
            assert_eq!(shape(yaml).url(&asked(asked_for, &[]).facts()), url, "{yaml} {asked_for}");
        }
    }

    #[test]
    fn a_wrong_name_is_told_at_its_place() {
        for (yaml, path) in [
            ("{ headers: [a b] }", "key.headers"),
            ("{ headers: [a, Connection] }", "key.headers[1]"),
            ("{ cookies: [a=b] }", "key.cookies"),
            ("{ template: '${request.hots}' }", "key.template"),
        ] {
            let issues = Issues::default();
            let config: KeyConfig = serde_yaml::from_str(yaml).unwrap();
            KeyShape::build(&config, Around::default(), &issues.root().key("key"));
            let paths: Vec<_> = issues.into_vec().iter().map(|issue| issue.path.to_string()).collect();
            assert_eq!(paths, [path], "{yaml}");
        }
    }

    proptest! {
        /// No value can forge another part: what differs in anything that counts has another key.
        #[test]
        fn keys_are_the_same_only_when_all_parts_are(
            paths in ["/[a-c\\x01-\\x08]{0,3}", "/[a-c\\x01-\\x08]{0,3}"],
            fields in [["[a-c,]{0,3}", "[a-c,]{0,3}"], ["[a-c,]{0,3}", "[a-c,]{0,3}"]],
        ) {
            let shape = shape("{ headers: [x, y], template: '${request.path}' }");
            let requests = [0, 1].map(|n| {
                let mut request = asked("http://a/", &[("x", &fields[n][0]), ("y", &fields[n][1])]);
                request.exchange.normal_path = Some(paths[n].clone());
                request
            });
            let keys = requests.each_ref().map(|request| request.key(&shape));
            let same = paths[0] == paths[1] && fields[0] == fields[1];
            prop_assert_eq!(keys[0] == keys[1], same, "{:?} {:?}", paths, fields);
        }
    }
}
