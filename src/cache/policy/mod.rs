//! `Caching`: the `cache` block of a route, compiled: which requests it is about, and what may be stored of a response.
//!
//! It puts the rules together with what the operator says. The order is: what the response says, without what is to be
//! ignored; the operator's lifetimes; the rules of the RFC; the fields that tell variants apart; the guard of types; tags.

mod lifetimes;
mod media;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use pingora::http::RequestHeader;
use smallvec::SmallVec;

use super::config::{self, SetCookie, Settings};
use super::key::{self, Around, KeyShape};
use super::record::Terms;
use super::rules::directives::{Directives, Wishes};
use super::rules::freshness::{self, Basis, Grace, Times};
use super::rules::list;
use super::rules::status::Forward;
use super::rules::storable::{self, Answer, Asked, Cookies, Options, Refusal, Storable};
use super::rules::targeted;
use super::rules::vary::Vary;
use super::tags;
use super::zone::Zone;
use crate::diag::Scope;
use crate::observe::RouteCacheStats;
use crate::units::CidrSet;
use lifetimes::Lifetimes;

/// How a route caches.
#[derive(Clone, Debug)]
pub struct Caching {
    /// Where responses are stored.
    pub zone: Arc<Zone>,
    /// What tells one stored response from another.
    pub key: KeyShape,
    /// A response is stored when it is asked for so many times; 1 or more.
    pub min_uses: u32,
    /// The largest body that is stored, in bytes; `None`: as large as the zone takes.
    pub max_object: Option<u64>,
    /// Bodies are fetched in slices of so many bytes; above 0.
    pub slice: Option<u64>,
    /// How long a request waits for the head of a response that another one fetches; zero: not at all.
    pub collapse: Duration,
    /// Whether responses say `Cache-Status`.
    pub status_header: bool,
    /// Whether clients get the fields that hold tags.
    pub keep_tags: bool,
    /// The fields of responses that hold tags.
    pub tag_fields: Box<[HeaderName]>,
    /// The networks from which `PURGE` is taken; `None`: nobody may.
    pub purge_from: Option<CidrSet>,
    /// Whether `Cache-Control` of requests counts for nothing.
    pub ignores_request: bool,
    /// What is counted of the route.
    pub stats: Arc<RouteCacheStats>,
    answers_head: bool,
    targets: Box<[HeaderName]>,
    ignores: Ignores,
    lifetimes: Lifetimes,
    match_type: bool,
    options: Options,
}

/// What of responses does not count.
#[derive(Clone, Debug, Default)]
struct Ignores {
    cache_control: bool,
    expires: bool,
    vary: Box<[HeaderName]>,
}

/// What a block needs of the rest of the document to be compiled.
#[derive(Clone, Debug)]
pub struct Parts<'a> {
    /// Where responses are stored.
    pub zone: Arc<Zone>,
    /// What the key depends on.
    pub around: Around<'a>,
    /// What is counted of the route.
    pub stats: Arc<RouteCacheStats>,
}

/// A response that may be stored.
#[derive(Clone, Debug)]
pub struct Approved {
    /// Its times and what it says of its use.
    pub terms: Terms,
    /// Whether its cookies go.
    pub how: Storable,
    /// What it says of caching, without what is ignored: `rules::stored_head` wants to know.
    pub directives: Directives,
    /// The request fields that tell its variants apart.
    pub vary: SmallVec<[HeaderName; 4]>,
    /// The hashes of its tags.
    pub tags: SmallVec<[u64; 4]>,
}

impl Caching {
    /// Compiles a block; reports what is wrong with it at `at`.
    pub fn build<C>(settings: &Settings<C>, parts: Parts<'_>, at: &Scope<'_>) -> Option<Self> {
        check(settings, at);
        let ignore = at.key("ignore");
        let (everything, vary): (Vec<_>, Vec<_>) = settings.ignore.vary.iter().cloned().partition(|name| name == "*");
        let key = KeyShape::build(&settings.key, parts.around, &at.key("key"));
        let vary = key::names(&vary, &ignore.key("vary"));
        let targets = key::in_order(&settings.targeted, &at.key("targeted"));
        let tag_fields = key::names(&settings.tags.header, &at.key("tags").key("header"));
        let lifetimes = Lifetimes::build(&settings.ttl, &at.key("ttl"));
        Some(Self {
            zone: parts.zone,
            key: key?,
            min_uses: settings.min_uses,
            max_object: settings.max_object.map(|size| size.0),
            slice: settings.slice.map(|size| size.0),
            collapse: settings.collapse.0,
            status_header: settings.status_header,
            keep_tags: settings.tags.keep,
            tag_fields: tag_fields?,
            purge_from: settings.purge.as_ref().map(|purge| purge.from.iter().collect()),
            ignores_request: settings.ignore.request,
            stats: parts.stats,
            answers_head: settings.methods.contains(&config::Method::Head),
            targets: targets?,
            ignores: Ignores {
                cache_control: settings.ignore.cache_control,
                expires: settings.ignore.expires,
                vary: vary?,
            },
            lifetimes: lifetimes?,
            match_type: settings.match_type,
            options: Options {
                cookies: match settings.set_cookie {
                    SetCookie::Refuse => Cookies::Refuse,
                    SetCookie::Strip => Cookies::Strip,
                    SetCookie::Store => Cookies::Store,
                },
                parts: true,
                grace: Grace {
                    while_revalidate: settings.stale_while_revalidate.0,
                    if_error: settings.stale_if_error.0,
                    if_disconnected: settings.stale_if_disconnected.0,
                },
                ignores_vary: !everything.is_empty(),
            },
        })
    }

    /// Reports what is wrong with a block whose zone is not known.
    pub fn check<C>(settings: &Settings<C>, around: Around<'_>, at: &Scope<'_>) {
        let none = Arc::new(Zone::new("", 1 << 20, Arc::default()));
        Self::build(settings, Parts { zone: none, around, stats: Arc::default() }, at);
    }

    /// Whether the cache has to do with this request at all, and then what it wishes; else why not. A request with a body
    /// has nothing to do with it: the origin may answer by the body (RFC 9110 9.3.1), which is no part of a key.
    pub fn admits(&self, request: &RequestHeader) -> Result<Wishes, Forward> {
        let headers = &request.headers;
        match request.method {
            Method::GET => {}
            Method::HEAD if self.answers_head => {}
            _ => return Err(Forward::Method),
        }
        let is_empty = |length: &http::HeaderValue| list::digits(list::trim(length.as_bytes()), u64::MAX) == Some(0);
        let has_body = headers.contains_key(TRANSFER_ENCODING) || !headers.get_all(CONTENT_LENGTH).iter().all(is_empty);
        if has_body || is_upgrade(headers) || loses_fields(headers) {
            return Err(Forward::Bypass);
        }
        Ok(if self.ignores_request { Wishes::default() } else { Wishes::of_request(headers) })
    }

    /// Whether this response may be stored, and for how long; `path`: as the key has it.
    pub fn judge(
        &self,
        asked: &Asked<'_>,
        path: &str,
        status: StatusCode,
        headers: &HeaderMap,
        times: &Times,
    ) -> Result<Approved, Refusal> {
        let directives = self.directives(headers);
        let ttl = self.lifetimes.of(status, headers);
        let mut lifetime = freshness::lifetime(status, headers, &directives, times, ttl);
        if lifetime.basis == Basis::Configured && lifetime.length.is_zero() {
            return Err(Refusal::Rule);
        }
        self.lifetimes.bound(&mut lifetime);
        let answer = Answer { status, headers, directives: &directives, lifetime };
        let how = storable::check(asked, &answer, &self.options)?;
        let vary = self.vary(headers)?;
        if self.match_type && status.is_success() && !media::agree(path, headers) {
            return Err(Refusal::Type);
        }
        let initial_age = freshness::initial_age(headers, times);
        let terms = Terms::new(times.received, initial_age, lifetime.length, &directives);
        Ok(Approved { terms, how, directives, vary, tags: tags::read(headers, &self.tag_fields) })
    }

    /// What a response says of caching, without what is to be ignored.
    pub fn directives(&self, headers: &HeaderMap) -> Directives {
        let mut directives = targeted::directives(headers, &self.targets);
        if self.ignores.cache_control && !directives.targeted {
            directives = Directives::default();
        }
        // It is what a targeted field asks for too.
        directives.targeted |= self.ignores.expires;
        directives
    }

    fn vary(&self, headers: &HeaderMap) -> Result<SmallVec<[HeaderName; 4]>, Refusal> {
        match Vary::of(headers) {
            _ if self.options.ignores_vary => Ok(SmallVec::new()),
            Vary::Everything => Err(Refusal::VaryStar),
            Vary::On(mut names) => {
                names.retain(|name| !self.ignores.vary.contains(name));
                Ok(names)
            }
        }
    }

    /// How long stale responses may be served where they do not say it themselves.
    pub fn grace(&self) -> &Grace {
        &self.options.grace
    }

    /// The request fields that are a part of the key: they must reach the origin as they are.
    pub fn keyed_headers(&self) -> &[HeaderName] {
        self.key.headers()
    }

    /// Whether this client may purge.
    pub fn lets_purge(&self, client: IpAddr) -> bool {
        self.purge_from.as_ref().is_some_and(|networks| networks.contains(client))
    }
}

/// Whether the connection is to become something else (RFC 9110 7.8).
fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
        && list::members(headers, CONNECTION).any(|option| option.eq_ignore_ascii_case(b"upgrade"))
}

/// Whether a field goes no further because `Connection` names it (RFC 9110 7.6.1): the origin would not see what the key,
/// or the choice of a variant, is made of.
pub fn loses_fields(headers: &HeaderMap) -> bool {
    let is_option = |name: &HeaderName| {
        matches!(name.as_str(), "close" | "keep-alive" | "te" | "upgrade" | "http2-settings" | "proxy-connection")
    };
    let listed = list::members(headers, CONNECTION).filter_map(|name| HeaderName::from_bytes(name).ok());
    listed.into_iter().any(|name| !is_option(&name) && headers.contains_key(name))
}

/// Reports numbers that make no sense, alone or together.
fn check<C>(settings: &Settings<C>, at: &Scope<'_>) {
    if !settings.methods.contains(&config::Method::Get) {
        at.key("methods").error_hint(
            "without `GET` nothing is ever stored",
            "write `[GET, HEAD]`, or leave `methods` out; `cache: false` caches nothing",
        );
    }
    if settings.min_uses == 0 {
        at.key("min_uses").error_hint("a response is asked for at least once", "write 1 or more");
    }
    if settings.max_object.is_some_and(|size| size.0 == 0) {
        at.key("max_object").error_hint("no body is stored", "write a size, as in `100MiB`");
    }
    if let Some(slice) = settings.slice {
        let at = at.key("slice");
        if slice.0 < LEAST_SLICE {
            at.error_hint(
                format!("slices of {slice} cost the origin more requests than they are worth"),
                "write a size of 64KiB or more, as in `1MiB`",
            );
        } else if settings.max_object.is_some_and(|largest| slice > largest) {
            at.error_hint(
                format!("no slice is stored: `{slice}` is more than `max_object`"),
                "make `slice` smaller, or `max_object` larger",
            );
        }
    }
    let tags = &settings.tags;
    if tags.header.is_empty() && tags.keep {
        at.key("tags").key("keep").warn("no field holds tags", "name the fields in `header`, or remove `keep`");
    }
    if settings.purge.as_ref().is_some_and(|purge| purge.from.is_empty()) {
        at.key("purge")
            .key("from")
            .warn("no client may purge", "write the networks of those who may, as in `[127.0.0.1]`, or remove `purge`");
    }
    // What would the lifetimes be, when nothing says them?
    if settings.ignore.cache_control && settings.ignore.expires && settings.ttl.is_silent() {
        at.key("ignore").warn(
            "what responses say of their lifetime is ignored, and nothing is said in its place",
            "add a `ttl`, as in `ttl: 10m`",
        );
    }
}

const LEAST_SLICE: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::diag::Issues;

    fn built(yaml: &str) -> (Option<Caching>, Vec<(String, String)>) {
        let settings: Settings<String> = serde_yaml::from_str(yaml).unwrap();
        let issues = Issues::default();
        let parts = Parts {
            zone: Arc::new(Zone::new("main", 1 << 20, Arc::default())),
            around: Around::default(),
            stats: Arc::new(RouteCacheStats::default()),
        };
        let caching = Caching::build(&settings, parts, &issues.root().key("cache"));
        let told = issues.into_vec().into_iter().map(|issue| (issue.path.to_string(), issue.message));
        (caching, told.collect())
    }

    #[track_caller]
    fn caching(yaml: &str) -> Caching {
        let (caching, told) = built(yaml);
        assert_eq!(told, [], "{yaml}");
        caching.unwrap()
    }

    fn head(fields: &[(&str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        fields.iter().map(field).collect()
    }

    fn judged(yaml: &str, path: &str, status: u16, fields: &[(&str, &str)]) -> Result<Approved, Refusal> {
        let (request, wishes) = (HeaderMap::new(), Wishes::default());
        let asked = Asked { method: &Method::GET, headers: &request, wishes: &wishes, is_at_content_location: false };
        let at = UNIX_EPOCH + Duration::from_secs(784_111_777);
        let status = StatusCode::from_u16(status).unwrap();
        caching(yaml).judge(&asked, path, status, &head(fields), &Times { requested: at, received: at })
    }

    /// For how many seconds a response is stored.
    fn stored(yaml: &str, status: u16, fields: &[(&str, &str)]) -> Result<u32, Refusal> {
        judged(yaml, "/", status, fields).map(|approved| approved.terms.lifetime)
    }

    #[test]
    fn requests_that_may_be_answered_are_looked_up() {
        for (yaml, method, fields, wanted) in [
            ("{}", "GET", &[][..], None),
            ("{}", "HEAD", &[], None),
            ("{ methods: [GET] }", "HEAD", &[], Some(Forward::Method)),
            ("{}", "POST", &[], Some(Forward::Method)),
            ("{}", "PURGE", &[], Some(Forward::Method)),
            ("{}", "get", &[], Some(Forward::Method)), // RFC 9110 9.1: case matters
            ("{}", "GET", &[("content-length", "0")], None),
            ("{}", "GET", &[("content-length", "1")], Some(Forward::Bypass)),
            ("{}", "GET", &[("content-length", "x")], Some(Forward::Bypass)),
            ("{}", "GET", &[("content-length", "0"), ("content-length", "5")], Some(Forward::Bypass)),
            ("{}", "HEAD", &[("transfer-encoding", "chunked")], Some(Forward::Bypass)),
            ("{}", "GET", &[("upgrade", "websocket"), ("connection", "Upgrade")], Some(Forward::Bypass)),
            ("{}", "GET", &[("upgrade", "h2c")], None),
            ("{}", "GET", &[("connection", "keep-alive, te"), ("te", "trailers")], None),
            ("{}", "GET", &[("connection", "close, x-a, HTTP2-Settings"), ("http2-settings", "")], None),
            ("{}", "GET", &[("connection", "close, X-A"), ("x-a", "1")], Some(Forward::Bypass)),
        ] {
            let mut request = RequestHeader::build(method, b"/", None).unwrap();
            for (name, value) in fields {
                request.append_header(*name, *value).unwrap();
            }
            assert_eq!(caching(yaml).admits(&request).err(), wanted, "{yaml} {method} {fields:?}");
        }
    }

    #[test]
    fn what_requests_wish_may_be_ignored() {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        request.insert_header("cache-control", "no-cache").unwrap();
        assert!(caching("{}").admits(&request).unwrap().no_cache);
        assert!(!caching("{ ignore: { request: true } }").admits(&request).unwrap().no_cache);
    }

    #[test]
    fn lifetimes_are_what_the_response_says_unless_the_operator_says_more() {
        let control = |text| [("cache-control", text)];
        let expires = ("expires", "Sun, 06 Nov 1994 08:50:37 GMT");
        let png = ("content-type", "image/png; a=b");
        let ttl = "{ ttl: { default: 1h, 404: 10s, 5xx: 1s, 502: 0, types: { image/*: 1d, image/gif: 2d } } }";
        for (yaml, status, fields, wanted) in [
            ("{}", 200, &control("max-age=5")[..], Ok(5)),
            ("{}", 200, &[expires], Ok(60)),
            ("{}", 200, &[], Err(Refusal::NoFreshness)),
            ("{ ttl: 10m }", 200, &[], Ok(600)),
            ("{ ttl: 10m }", 200, &control("max-age=5"), Ok(5)),
            ("{ ttl: 10m }", 200, &control("no-store"), Err(Refusal::NoStore)),
            ("{ ttl: 10m }", 500, &[], Err(Refusal::NoFreshness)),
            ("{ ttl: 10m }", 302, &[], Err(Refusal::NoFreshness)),
            ("{ ttl: { 302: 10m } }", 302, &[], Ok(600)),
            (ttl, 200, &[], Ok(3_600)),
            (ttl, 404, &[], Ok(10)),
            (ttl, 404, &[png], Ok(10)),
            (ttl, 503, &[], Ok(1)),
            (ttl, 503, &control("max-age=5"), Ok(5)),
            (ttl, 502, &[], Err(Refusal::Rule)),
            (ttl, 502, &control("max-age=5"), Ok(5)),
            (ttl, 200, &[png], Ok(86_400)),
            (ttl, 200, &[("content-type", "IMAGE/GIF")], Ok(172_800)),
            (ttl, 200, &[("content-type", "text/html")], Ok(3_600)),
            // What is forced counts against what the response says of its lifetime, and of nothing else.
            ("{ ttl: { default: 1h, force: true } }", 200, &control("max-age=5"), Ok(3_600)),
            ("{ ttl: { default: 1h, force: true } }", 200, &control("no-store"), Err(Refusal::NoStore)),
            ("{ ttl: { default: 1h, force: true } }", 500, &control("max-age=5"), Ok(5)),
            ("{ ttl: { 404: 0, force: true } }", 404, &control("max-age=5"), Err(Refusal::Rule)),
            // Bounds.
            ("{ ttl: { min: 10s, max: 20s } }", 200, &control("max-age=5"), Ok(10)),
            ("{ ttl: { min: 10s, max: 20s } }", 200, &control("max-age=15"), Ok(15)),
            ("{ ttl: { min: 10s, max: 20s } }", 200, &control("s-maxage=50"), Ok(20)),
            ("{ ttl: { min: 10s } }", 200, &control("max-age=0"), Ok(10)),
            ("{ ttl: { min: 10s } }", 200, &[("etag", "\"a\"")], Ok(0)),
            // What is ignored.
            ("{ ignore: { cache_control: true } }", 200, &[("cache-control", "private"), expires], Ok(60)),
            ("{ ignore: { cache_control: true }, ttl: 9s }", 200, &control("no-store"), Ok(9)),
            (
                "{ ignore: { cache_control: true }, ttl: 9s }",
                200,
                &[("cdn-cache-control", "no-store")],
                Err(Refusal::NoStore),
            ),
            ("{ ignore: { expires: true }, ttl: 9s }", 200, &[expires], Ok(9)),
            ("{ ignore: { expires: true }, ttl: 9s }", 200, &[expires, ("cache-control", "max-age=5")], Ok(5)),
            // Targeted fields, RFC 9213.
            ("{}", 200, &[("cdn-cache-control", "max-age=7"), ("cache-control", "no-store")], Ok(7)),
            ("{}", 200, &[("cdn-cache-control", "max-age=7"), ("edgeway-cache-control", "max-age=8")], Ok(8)),
            ("{ targeted: [] }", 200, &[("cdn-cache-control", "max-age=7")], Err(Refusal::NoFreshness)),
            ("{ targeted: [My-Control] }", 200, &[("my-control", "max-age=7")], Ok(7)),
        ] {
            assert_eq!(stored(yaml, status, fields), wanted, "{yaml} {status} {fields:?}");
        }
    }

    #[test]
    fn cookies_are_dealt_with_as_told() {
        let fields = [("cache-control", "max-age=5"), ("set-cookie", "a=b")];
        for (yaml, wanted) in [
            ("{}", Err(Refusal::SetCookie)),
            ("{ set_cookie: strip }", Ok(Storable::WithoutCookies)),
            ("{ set_cookie: store }", Ok(Storable::Whole)),
            ("{ ignore: { cache_control: true }, ttl: 5s }", Err(Refusal::SetCookie)),
        ] {
            assert_eq!(judged(yaml, "/", 200, &fields).map(|approved| approved.how), wanted, "{yaml}");
        }
    }

    #[test]
    fn variants_depend_on_what_counts() {
        for (yaml, vary, wanted) in [
            ("{}", "Accept-Encoding, Cookie", Ok(&["accept-encoding", "cookie"][..])),
            ("{ ignore: { vary: [Cookie] } }", "Accept-Encoding, Cookie", Ok(&["accept-encoding"])),
            ("{ ignore: { vary: [Cookie] } }", "*", Err(Refusal::VaryStar)),
            ("{ ignore: { vary: ['*'] } }", "Accept-Encoding", Ok(&[])),
            ("{ ignore: { vary: ['*'] } }", "*", Ok(&[])),
            ("{}", "a b", Err(Refusal::VaryStar)),
        ] {
            let approved = judged(yaml, "/", 200, &[("cache-control", "max-age=5"), ("vary", vary)]);
            let names =
                approved.as_ref().map(|approved| approved.vary.iter().map(HeaderName::as_str).collect::<Vec<_>>());
            assert_eq!(names.map_err(|refusal| *refusal), wanted.map(<[&str]>::to_vec), "{yaml} {vary}");
        }
    }

    #[test]
    fn a_path_that_lies_about_its_type_is_not_stored_where_that_is_minded() {
        let fresh = ("cache-control", "max-age=5");
        let html = [fresh, ("content-type", "text/html")];
        assert!(judged("{}", "/account/x.css", 200, &html).is_ok());
        let yaml = "{ match_type: true }";
        assert_eq!(judged(yaml, "/account/x.css", 200, &html).unwrap_err(), Refusal::Type);
        assert!(judged(yaml, "/account/x.css", 404, &html).is_ok());
        assert!(judged(yaml, "/account/x.css", 200, &[fresh, ("content-type", "text/css")]).is_ok());
        assert!(judged(yaml, "/account", 200, &html).is_ok());
    }

    #[test]
    fn what_is_stored_keeps_its_age_its_windows_and_its_tags() {
        let approved = judged(
            "{ tags: { header: [X-Tags] } }",
            "/",
            200,
            &[
                ("cache-control", "max-age=60, stale-while-revalidate=7, must-revalidate"),
                ("age", "10"),
                ("x-tags", "a,b"),
                ("cache-tag", "c"),
            ],
        )
        .unwrap();
        let terms = approved.terms;
        assert_eq!((terms.lifetime, terms.initial_age, terms.received), (60, 10_000, 784_111_777_000));
        assert_eq!((terms.stale_while_revalidate, terms.never_stale), (Some(7), true));
        assert_eq!(approved.tags.len(), 2);
    }

    #[test]
    fn who_may_purge_is_told() {
        let caching = caching("{ purge: { from: [10.0.0.0/8] } }");
        assert!(caching.lets_purge("10.1.1.1".parse().unwrap()) && !caching.lets_purge("11.1.1.1".parse().unwrap()));
        assert!(!super::tests::caching("{}").lets_purge("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn a_fault_is_told_at_its_place() {
        for (yaml, path, message) in [
            ("{ methods: [HEAD] }", "cache.methods", "without `GET`"),
            ("{ methods: [] }", "cache.methods", "without `GET`"),
            ("{ min_uses: 0 }", "cache.min_uses", "at least once"),
            ("{ max_object: 0 }", "cache.max_object", "no body is stored"),
            ("{ slice: 1KiB }", "cache.slice", "more requests than they are worth"),
            ("{ slice: 1MiB, max_object: 512KiB }", "cache.slice", "no slice is stored"),
            ("{ tags: { header: [], keep: true } }", "cache.tags.keep", "no field holds tags"),
            ("{ tags: { header: a b } }", "cache.tags.header", "no header name"),
            ("{ targeted: [a b] }", "cache.targeted", "no header name"),
            ("{ ignore: { vary: [a b] } }", "cache.ignore.vary", "no header name"),
            ("{ ignore: { cache_control: true, expires: true } }", "cache.ignore", "nothing is said in its place"),
            ("{ purge: { from: [] } }", "cache.purge.from", "no client may purge"),
            ("{ key: { headers: [a b] } }", "cache.key.headers", "no header name"),
            ("{ ttl: { force: true } }", "cache.ttl.force", "no lifetime is given"),
            ("{ ttl: { min: 2s, max: 1s } }", "cache.ttl.min", "more than `max`"),
            ("{ ttl: { default: 2s, max: 1s } }", "cache.ttl.default", "more than `max`"),
            ("{ ttl: { default: 1500ms } }", "cache.ttl.default", "whole seconds"),
            ("{ ttl: { 404: 1s, 404-404: 2s } }", "cache.ttl.404", "twice"),
            ("{ ttl: { types: { image: 1s } } }", "cache.ttl.types.image", "no media type"),
        ] {
            let told = built(yaml).1;
            assert_eq!(told.len(), 1, "{yaml}: {told:?}");
            assert_eq!(told[0].0, path, "{yaml}");
            assert!(told[0].1.contains(message), "{yaml}: {told:?}");
        }
    }
}
