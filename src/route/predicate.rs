//! `match`: which requests a route takes, as it is written and as it is tested.
//!
//! The paths of a route are the table's business. All else is a [`Predicate`]: tests that must all hold, read from the
//! request's head without allocating.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use http::header::COOKIE;
use http::{HeaderName, Method};
use pingora::http::RequestHeader;

use super::condition::{Check, Condition, unescaped};
use super::path::Pattern;
use crate::diag::Scope;
use crate::exchange::Exchange;
use crate::template::cookie;
use crate::units::OneOrMany;
use schemars::{JsonSchema, Schema, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::{Deserialize, Deserializer, de};

/// Which requests a route takes: a path, a list of paths, or a mapping of conditions that must all hold. An empty mapping
/// takes every request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, remote = "Self")]
#[schemars(transform = short_forms)]
pub struct Match {
    /// The path, or several of which one must match. `/a/b` is that path alone; `/a/*` is `/a`, `/a/` and all below;
    /// `/adm*` is every path that begins so; `{id}` takes one segment and `/*rest` the rest, for `${id}` and `${rest}` in
    /// templates; `/*` is every path (the default). Paths are compared in their normal form (RFC 3986 6.2.2): case
    /// matters, `%41` is `A`, `//` is `/`, dot segments are gone, and `%2F` is no slash. All paths of a route must give
    /// the same names in the same order.
    pub path: OneOrMany<String>,
    /// A regular expression that must be found in the normal form of the path, or several. It is anchored only by `^` and
    /// `$`; its named groups, as in `(?<id>\d+)`, are captures. With `path` too, either may match.
    pub path_regex: OneOrMany<String>,
    /// The method, or several of which one must be the request's. Case matters (RFC 9110 9.1), and `GET` does not
    /// include `HEAD`.
    pub method: OneOrMany<String>,
    /// What must hold for header fields, by name. Of a repeated field, one value that fits is enough.
    pub header: BTreeMap<String, Condition>,
    /// What must hold for parameters of the query, by name; names and values are compared decoded (`%41` is `A`, `+` is a
    /// space). Of a repeated parameter, one value that fits is enough.
    pub query: BTreeMap<String, Condition>,
    /// What must hold for cookies, by name (RFC 6265 4.2.1); case matters.
    pub cookie: BTreeMap<String, Condition>,
    /// Matches of which at least one must hold. Captures in their paths are not available to templates.
    pub any: Vec<Self>,
    /// A match that must not hold. Captures in its paths are not available to templates.
    pub not: Option<Box<Self>>,
}

fn short_forms(schema: &mut Schema) {
    let mapping = std::mem::take(schema);
    let description = mapping.get("description").cloned();
    let text = json_schema!({ "type": "string" });
    *schema = json_schema!({ "anyOf": [text, { "type": "array", "items": text }, mapping] });
    if let Some(description) = description {
        schema.insert("description".into(), description);
    }
}

impl<'de> Deserialize<'de> for Match {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;
        impl<'de> de::Visitor<'de> for Forms {
            type Value = Match;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a path, a list of paths, or a mapping of conditions")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Match, E> {
                Ok(Match { path: OneOrMany(vec![text.to_owned()]), ..Match::default() })
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, items: A) -> Result<Match, A::Error> {
                let path = OneOrMany(Vec::deserialize(SeqAccessDeserializer::new(items))?);
                Ok(Match { path, ..Match::default() })
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Match, A::Error> {
                // By `remote`, the derived deserializer is a function of the type itself, not of the trait.
                Match::deserialize(MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_any(Forms)
    }
}

impl Match {
    /// Whether requests for one URL may fall on both sides of it.
    pub(super) fn is_by_more_than_path_and_method(&self) -> bool {
        let Self { path: _, path_regex: _, method: _, header, query, cookie, any, not } = self;
        !(header.is_empty() && query.is_empty() && cookie.is_empty() && any.is_empty() && not.is_none())
    }

    /// Compiles the paths and expressions, with `at` as the place of this match; all paths when none are written. `None`
    /// when one is wrong, which is reported.
    pub(super) fn patterns(&self, at: &Scope<'_>) -> Option<Vec<Pattern>> {
        if self.path.is_empty() && self.path_regex.is_empty() {
            return Some(vec![Pattern::all()]);
        }
        self.written_patterns(at)
    }

    fn written_patterns(&self, at: &Scope<'_>) -> Option<Vec<Pattern>> {
        let paths = items(&self.path, &at.key("path"), Pattern::parse);
        let regexes = items(&self.path_regex, &at.key("path_regex"), Pattern::parse_regex);
        Some([paths?, regexes?].concat())
    }
}

/// Compiles each item, each with its own place when there are several; reports all faults.
fn items<T>(texts: &[String], at: &Scope<'_>, compile: impl Fn(&str, &Scope<'_>) -> Option<T>) -> Option<Vec<T>> {
    let compiled: Vec<Option<T>> = match texts {
        [only] => vec![compile(only, at)],
        _ => texts.iter().enumerate().map(|(index, text)| compile(text, &at.index(index))).collect(),
    };
    compiled.into_iter().collect()
}

/// What must hold for a request besides its path. Without tests, everything passes.
#[derive(Clone, Debug, Default)]
pub struct Predicate {
    tests: Box<[Test]>,
}

/// One test, with the text that identifies it whatever the order in the document.
#[derive(Clone, Debug)]
struct Test {
    text: Box<str>,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Method(Box<[Method]>),
    Header(HeaderName, Check),
    Query(Box<str>, Check),
    Cookie(Box<str>, Check),
    Path(Box<[Pattern]>),
    Any(Box<[Predicate]>),
    Not(Predicate),
}

impl Predicate {
    /// Compiles all of a route's match but its paths, with `at` as the place of the match. `None` when something is
    /// wrong, which is reported.
    pub fn build(matching: &Match, at: &Scope<'_>) -> Option<Self> {
        // Every test is built before any missing one is missed, so that all faults are told.
        let tests: Vec<Option<Kind>> = tests(matching, at);
        tests.into_iter().collect::<Option<Vec<Kind>>>().map(Self::new)
    }

    /// A match within a match, where paths are tests like others.
    pub(super) fn nested(matching: &Match, at: &Scope<'_>) -> Option<Self> {
        if *matching == Match::default() {
            at.error_hint("an empty match holds for every request", "write a condition, or leave it out");
            return None;
        }
        let mut tests = tests(matching, at);
        match matching.written_patterns(at) {
            Some(patterns) if patterns.is_empty() => {}
            patterns => tests.push(patterns.map(|patterns| Kind::Path(patterns.into()))),
        }
        tests.into_iter().collect::<Option<Vec<Kind>>>().map(Self::new)
    }

    fn new(kinds: Vec<Kind>) -> Self {
        let mut tests: Vec<Test> = kinds.into_iter().map(Test::new).collect();
        tests.sort_by(|a, b| a.text.cmp(&b.text));
        tests.dedup_by(|a, b| a.text == b.text);
        Self { tests: tests.into() }
    }

    /// How many tests there are: the methods count as one, and so does each header, parameter and cookie, `any` and `not`.
    pub fn count(&self) -> usize {
        self.tests.len()
    }

    /// The text that tells it from others: the same for the same tests, in whatever order they were written.
    pub fn canonical(&self) -> String {
        let texts: Vec<&str> = self.tests.iter().map(|test| &*test.text).collect();
        texts.join(" and ")
    }

    /// Which of two is tried first on the same path: the one with more tests, then the canonical text decides.
    pub fn precedence(&self, other: &Self) -> Ordering {
        let (texts, others) = (self.tests.iter().map(|test| &test.text), other.tests.iter().map(|test| &test.text));
        other.count().cmp(&self.count()).then_with(|| texts.cmp(others))
    }

    /// Whether it takes every request that `other` takes, as far as can be seen: each of its tests is one of the other's.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.tests.iter().all(|test| other.tests.binary_search_by(|known| known.text.cmp(&test.text)).is_ok())
    }

    /// Whether all tests hold.
    pub fn matches(&self, head: &RequestHeader, exchange: &Exchange) -> bool {
        self.tests.iter().all(|test| test.kind.holds(head, exchange))
    }

    /// The first test that does not hold, in words.
    pub fn explain(&self, head: &RequestHeader, exchange: &Exchange) -> Option<String> {
        let failed = self.tests.iter().find(|test| !test.kind.holds(head, exchange))?;
        Some(failed.kind.explain(head, exchange))
    }
}

/// The tests of a match, without its paths; `None` for each that is wrong.
fn tests(matching: &Match, at: &Scope<'_>) -> Vec<Option<Kind>> {
    let mut tests = Vec::new();
    if !matching.method.is_empty() {
        let methods = items(&matching.method, &at.key("method"), method);
        tests.push(methods.map(|methods| Kind::Method(methods.into())));
    }
    for (name, condition) in &matching.header {
        let fields = at.key("header");
        let place = fields.key(name);
        let check = Check::build(condition, &place);
        let header = HeaderName::from_bytes(name.as_bytes());
        if header.is_err() {
            place.error_key(format!("`{name}` is no header name"), None);
        }
        tests.push(header.ok().zip(check).map(|(name, check)| Kind::Header(name, check)));
    }
    for (name, condition) in &matching.query {
        let check = Check::build(condition, &at.key("query").key(name));
        tests.push(check.map(|check| Kind::Query(name.as_str().into(), check)));
    }
    for (name, condition) in &matching.cookie {
        let check = Check::build(condition, &at.key("cookie").key(name));
        tests.push(check.map(|check| Kind::Cookie(name.as_str().into(), check)));
    }
    if !matching.any.is_empty() {
        let any = at.key("any");
        let branches = matching.any.iter().enumerate();
        let branches: Vec<_> = branches.map(|(index, branch)| Predicate::nested(branch, &any.index(index))).collect();
        tests.push(branches.into_iter().collect::<Option<Box<[Predicate]>>>().map(Kind::Any));
    }
    if let Some(not) = &matching.not {
        tests.push(Predicate::nested(not, &at.key("not")).map(Kind::Not));
    }
    tests
}

fn method(text: &str, at: &Scope<'_>) -> Option<Method> {
    let upper = text.to_ascii_uppercase();
    match Method::from_bytes(text.as_bytes()) {
        Ok(method) if upper == text => return Some(method),
        Ok(_) => at.error_hint(format!("`{text}` is no method: case matters"), format!("write `{upper}`")),
        Err(_) => at.error_hint(format!("`{text}` is no method"), "write one as in `GET` or `[GET, HEAD]`"),
    }
    None
}

impl Test {
    fn new(mut kind: Kind) -> Self {
        let text = match &mut kind {
            Kind::Method(methods) => {
                let mut sorted = methods.to_vec();
                sorted.sort_by(|a, b| a.as_str().cmp(b.as_str()));
                sorted.dedup();
                *methods = sorted.into();
                format!("method {}", joined(methods))
            }
            Kind::Header(name, check) => format!("header {name} {check}"),
            Kind::Query(name, check) => format!("query {name:?} {check}"),
            Kind::Cookie(name, check) => format!("cookie {name:?} {check}"),
            Kind::Path(patterns) => {
                patterns.sort_by(Pattern::precedence);
                patterns.iter().fold("path".to_owned(), |mut text, pattern| {
                    let kind = if matches!(pattern, Pattern::Regex(_)) { "~" } else { "" };
                    // Writing to a String cannot fail.
                    let _ = write!(text, " {kind}{:?}", pattern.shape());
                    text
                })
            }
            Kind::Any(branches) => {
                branches.sort_by_cached_key(Predicate::canonical);
                let texts: Vec<String> = branches.iter().map(|branch| format!("({})", branch.canonical())).collect();
                format!("any {}", texts.join(" or "))
            }
            Kind::Not(predicate) => format!("not ({})", predicate.canonical()),
        };
        Self { text: text.into(), kind }
    }
}

fn joined(methods: &[Method]) -> String {
    methods.iter().map(Method::as_str).collect::<Vec<_>>().join("|")
}

impl Kind {
    fn holds(&self, head: &RequestHeader, exchange: &Exchange) -> bool {
        match self {
            Self::Method(methods) => methods.contains(&head.method),
            Self::Header(name, check) => check.any(header_values(head, name)),
            Self::Query(name, check) => check.any_escaped(query_values(head, name)),
            Self::Cookie(name, check) => check.any(cookie_values(head, name)),
            Self::Path(patterns) => patterns.iter().any(|pattern| pattern.matches(exchange.path(head))),
            Self::Any(branches) => branches.iter().any(|branch| branch.matches(head, exchange)),
            Self::Not(predicate) => !predicate.matches(head, exchange),
        }
    }

    /// Why it does not hold.
    fn explain(&self, head: &RequestHeader, exchange: &Exchange) -> String {
        match self {
            Self::Method(methods) => format!("method is {}, not {}", head.method, joined(methods)),
            Self::Header(name, check) => check.explain(&format!("header `{name}`"), header_values(head, name)),
            Self::Query(name, check) => {
                let values: Vec<Cow<'_, [u8]>> = query_values(head, name).map(unescaped).collect();
                check.explain(&format!("query parameter `{name}`"), values.iter().map(|value| &**value))
            }
            Self::Cookie(name, check) => check.explain(&format!("cookie `{name}`"), cookie_values(head, name)),
            Self::Path(patterns) => {
                let texts: Vec<String> = patterns.iter().map(|pattern| format!("`{pattern}`")).collect();
                format!("path is `{}`, not {}", exchange.path(head), texts.join(" or "))
            }
            Self::Any(branches) => {
                let why: Vec<String> = branches.iter().filter_map(|branch| branch.explain(head, exchange)).collect();
                format!("none of `any` holds: {}", why.join("; "))
            }
            Self::Not(predicate) => format!("`not` holds: {}", predicate.canonical()),
        }
    }
}

fn header_values<'a>(head: &'a RequestHeader, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    head.headers.get_all(name).iter().map(http::HeaderValue::as_bytes)
}

fn cookie_values<'a>(head: &'a RequestHeader, name: &str) -> impl Iterator<Item = &'a [u8]> {
    head.headers.get_all(COOKIE).iter().filter_map(|field| cookie(field.as_bytes(), name.as_bytes()))
}

/// The values of a parameter of the query, as they were sent.
fn query_values<'a>(head: &'a RequestHeader, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let query = head.uri.query().unwrap_or_default();
    query.split('&').filter(|pair| !pair.is_empty()).filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Check::same_escaped(key.as_bytes(), name.as_bytes()).then_some(value.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Issues;

    fn parse(yaml: &str) -> Match {
        serde_yaml::from_str(yaml).unwrap_or_else(|fault| panic!("{yaml}: {fault}"))
    }

    fn predicate(yaml: &str) -> Predicate {
        let issues = Issues::default();
        Predicate::build(&parse(yaml), &issues.root()).unwrap_or_else(|| panic!("{yaml}: {issues:?}"))
    }

    fn request(method: &str, target: &str, headers: &[(&'static str, &str)]) -> RequestHeader {
        let mut head = RequestHeader::build(method, target.as_bytes(), None).expect("a request");
        for (name, value) in headers {
            head.append_header(*name, *value).expect("a header");
        }
        head
    }

    #[test]
    fn a_match_has_short_forms() {
        assert_eq!(parse("/a"), parse("{ path: /a }"));
        assert_eq!(parse("[/a, /b]"), parse("{ path: [/a, /b] }"));
        assert_eq!(parse("{}"), Match::default());
        let long = "{ header: { a: { equals: x } }, any: [{ path: [/b] }], not: { path: [/c] } }";
        assert_eq!(parse("{ header: { a: x }, any: [/b], not: /c }"), parse(long));
        for (yaml, told) in [
            ("{ paths: /a }", "unknown field `paths`"),
            ("7", "expected a path, a list of paths"),
            ("{ header: { a: { equal: x } } }", "equal"),
            ("{ header: { a: { equals: x, prefix: y } } }", "only one"),
            ("{ header: { a: {} } }", "one of"),
            ("{ header: { a: true } }", "present: true"),
            ("{ any: /a }", "sequence"),
        ] {
            let fault = serde_yaml::from_str::<Match>(yaml).expect_err(yaml).to_string();
            assert!(fault.contains(told), "{yaml}: {fault}");
        }
    }

    #[test]
    fn the_schema_knows_the_short_forms() {
        let schema = serde_json::to_value(schemars::schema_for!(Match)).expect("json");
        let forms = schema["anyOf"].as_array().expect("forms");
        assert_eq!(forms.len(), 3, "{schema:#}");
        assert!(forms[2]["properties"]["header"].is_object(), "{schema:#}");
        assert_eq!(forms[2]["additionalProperties"], false);
        assert!(schema["$defs"]["Condition"]["anyOf"].is_array(), "{schema:#}");
    }

    #[test]
    fn a_request_passes_or_the_first_test_that_fails_is_told() {
        let head = request(
            "GET",
            "/a/b?v=2&q=a+b%21&flag&v=3&%6e=1",
            &[
                ("x-beta", "no"),
                ("x-beta", "yes"),
                ("accept", "text/html"),
                ("cookie", "a=1; s=abc"),
                ("cookie", "t=9"),
            ],
        );
        let exchange = Exchange::new();
        for (yaml, why) in [
            ("{}", None),
            ("/other", None),
            ("{ method: GET }", None),
            ("{ method: [POST, PUT] }", Some("method is GET, not POST|PUT")),
            ("{ header: { X-Beta: yes } }", None),
            ("{ header: { x-beta: maybe } }", Some("header `x-beta` is `no` and `yes`, not `maybe`")),
            ("{ header: { x-none: a } }", Some("header `x-none` is absent")),
            ("{ header: { accept: { prefix: text/ } } }", None),
            (
                "{ header: { accept: { prefix: image/ } } }",
                Some("header `accept` is `text/html`, which does not begin with `image/`"),
            ),
            ("{ header: { accept: { regex: 'h.ml$' } } }", None),
            (
                "{ header: { accept: { regex: '^h' } } }",
                Some("header `accept` is `text/html`, which `^h` does not match"),
            ),
            ("{ header: { accept: { present: true } } }", None),
            ("{ header: { accept: { present: false } } }", Some("header `accept` is present")),
            ("{ header: { nope: { present: false } } }", None),
            ("{ query: { v: 3 } }", None),
            ("{ query: { v: '2' } }", None),
            ("{ query: { v: '4' } }", Some("query parameter `v` is `2` and `3`, not `4`")),
            ("{ query: { q: 'a b!' } }", None),
            ("{ query: { q: { prefix: 'a ' } } }", None),
            ("{ query: { q: { regex: ' b!$' } } }", None),
            ("{ query: { flag: '' } }", None),
            ("{ query: { flag: { present: true } } }", None),
            ("{ query: { n: '1' } }", None),
            ("{ query: { fla: { present: true } } }", Some("query parameter `fla` is absent")),
            ("{ cookie: { s: abc } }", None),
            ("{ cookie: { t: '9' } }", None),
            ("{ cookie: { S: abc } }", Some("cookie `S` is absent")),
            ("{ any: [{ method: POST }, { query: { v: '2' } }] }", None),
            (
                "{ any: [/x, { method: POST }] }",
                Some("none of `any` holds: method is GET, not POST; path is `/a/b`, not `/x`"),
            ),
            ("{ any: ['/a/*'] }", None),
            ("{ not: /a/b }", Some("`not` holds: path \"/a/b\"")),
            ("{ not: { path_regex: '^/a' } }", Some("`not` holds: path ~\"^/a\"")),
            ("{ not: { path: /a/b, method: POST } }", None),
            ("{ not: { not: { method: GET } } }", None),
            ("{ method: POST, header: { x-beta: yes } }", Some("method is GET, not POST")),
        ] {
            let predicate = predicate(yaml);
            assert_eq!(predicate.explain(&head, &exchange).as_deref(), why, "{yaml}");
            assert_eq!(predicate.matches(&head, &exchange), why.is_none(), "{yaml}");
        }
    }

    #[test]
    fn the_same_tests_are_the_same_in_any_order() {
        for (one, other) in [
            ("{ method: [GET, POST], header: { a: x } }", "{ header: { A: { equals: x } }, method: [POST, GET, GET] }"),
            ("{ any: [/a, { method: GET }] }", "{ any: [{ method: GET }, /a] }"),
            ("{ not: [/a, /b] }", "{ not: { path: [/b, '/%61'] } }"),
        ] {
            assert_eq!(predicate(one).canonical(), predicate(other).canonical());
            assert_eq!(predicate(one).precedence(&predicate(other)), Ordering::Equal);
        }
        for (one, other) in [
            ("{ header: { a: x } }", "{ query: { a: x } }"),
            ("{ header: { a: x } }", "{ header: { a: { prefix: x } } }"),
            ("{ header: { a: 'present' } }", "{ header: { a: { present: true } } }"),
            ("{ not: /a }", "{ any: [/a] }"),
            ("{ not: { path: /a } }", "{ not: { path_regex: /a } }"),
        ] {
            assert_ne!(predicate(one).canonical(), predicate(other).canonical());
        }
        let counts = [
            ("{}", 0),
            ("{ method: [GET, PUT], header: { a: x, b: y }, cookie: { c: z } }", 4),
            ("{ any: [/a, /b], not: /c }", 2),
        ];
        for (yaml, count) in counts {
            assert_eq!(predicate(yaml).count(), count, "{yaml}");
        }
        assert!(predicate("{ method: GET }").covers(&predicate("{ method: GET, header: { a: x } }")));
        assert!(!predicate("{ method: GET }").covers(&predicate("{ header: { a: x } }")));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (yaml, place, told) in [
            ("{ method: get }", "method", "write `GET`"),
            ("{ method: [GET, 'P T'] }", "method[1]", "is no method"),
            ("{ header: { 'a b': x } }", "header[\"a b\"]", "no header name"),
            ("{ header: { a: { regex: '(' } } }", "header.a", "unclosed group"),
            ("{ any: [{ not: { method: get } }] }", "any[0].not.method", "write `GET`"),
            ("{ any: ['/a/**'] }", "any[0].path", "takes everything below"),
            ("{ any: [/a, {}] }", "any[1]", "holds for every request"),
            ("{ not: {} }", "not", "holds for every request"),
        ] {
            let issues = Issues::default();
            assert!(Predicate::build(&parse(yaml), &issues.root()).is_none(), "{yaml}");
            let issues = issues.into_vec();
            assert_eq!(issues.len(), 1, "{yaml}: {issues:?}");
            assert_eq!(issues[0].path.to_string(), place, "{yaml}");
            let whole = format!("{} {}", issues[0].message, issues[0].hint.as_deref().unwrap_or_default());
            assert!(whole.contains(told), "{yaml}: {whole}");
        }
    }
}
