//! Whether a shared cache may store this response to this request (RFC 9111 3), and if not, why, in a word.

use http::header::{
    AUTHORIZATION, CONTENT_RANGE, ETAG, HeaderMap, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE,
    LAST_MODIFIED, RANGE, SET_COOKIE, VARY,
};
use http::{Method, StatusCode};

use super::directives::{Directives, Wishes};
use super::freshness::{Basis, Grace, Lifetime, Need, is_heuristically_cacheable, stale_for};
use super::list;
use super::range::ContentRange;

/// What is done with a response that sets a cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cookies {
    /// It is stored as it is.
    Store,
    /// It is stored without its `Set-Cookie`.
    Strip,
    /// It is stored only if it says `public` or `s-maxage`, or keeps the field out of caches (`no-cache="set-cookie"`).
    #[default]
    Refuse,
}

/// What the operator lets be stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// What sets a cookie.
    pub cookies: Cookies,
    /// Parts (206), because the storage can tell them from wholes.
    pub parts: bool,
    /// Stale windows of the operator: what may be served stale is worth storing.
    pub grace: Grace,
    /// `Vary` counts for nothing.
    pub ignores_vary: bool,
}

/// The request, as far as it matters.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Its method, as the origin got it.
    pub method: &'a Method,
    /// Its fields.
    pub headers: &'a HeaderMap,
    /// Its directives; `Wishes::default()` where the operator ignores them.
    pub wishes: &'a Wishes,
    /// The response names the URL that was asked for in its `Content-Location` (RFC 9110 9.3.3).
    pub is_at_content_location: bool,
}

/// The response, as far as it matters.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: &'a HeaderMap,
    /// What it says of caching.
    pub directives: &'a Directives,
    /// How long it is fresh.
    pub lifetime: Lifetime,
}

/// How it may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storable {
    /// As it is.
    Whole,
    /// Without its `Set-Cookie`.
    WithoutCookies,
}

/// Why it may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The method's responses are not for other requests.
    Method,
    /// The status is no final one, is about the request's conditions only, or must not be stored.
    Status,
    /// It asks for `must-understand`, and the status is not understood.
    NotUnderstood,
    /// A part, and parts are not stored or cannot be told apart.
    Part,
    /// The response says `no-store`.
    NoStore,
    /// The request says `no-store`.
    RequestNoStore,
    /// `private`.
    Private,
    /// The request had `Authorization`, and nothing says that others may have the response.
    Authorization,
    /// It sets a cookie.
    SetCookie,
    /// `Vary: *`.
    VaryStar,
    /// Nothing says how long it is fresh, and it may not be guessed.
    NoFreshness,
    /// It could never be used again: stale at once, with nothing to ask the origin by.
    Useless,
    /// The operator does not want it stored.
    Rule,
    /// Its content type is not what the ending of its path promises.
    Type,
}

impl Refusal {
    /// A word for logs and for the `detail` of `Cache-Status`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Status => "status",
            Self::NotUnderstood => "must-understand",
            Self::Part => "partial",
            Self::NoStore => "no-store",
            Self::RequestNoStore => "request-no-store",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::SetCookie => "set-cookie",
            Self::VaryStar => "vary-star",
            Self::NoFreshness => "no-freshness",
            Self::Useless => "useless",
            Self::Rule => "rule",
            Self::Type => "type",
        }
    }
}

/// Whether, and how, this response may be stored.
pub fn check(asked: &Asked<'_>, answer: &Answer<'_>, options: &Options) -> Result<Storable, Refusal> {
    method(asked, answer)?;
    status(asked, answer, options)?;
    let Answer { headers, directives, .. } = *answer;
    // Where the status is understood, must-understand takes no-store's place (RFC 9111 5.2.2.3).
    if directives.no_store && !directives.must_understand {
        return Err(Refusal::NoStore);
    }
    if asked.wishes.no_store {
        return Err(Refusal::RequestNoStore);
    }
    if directives.private.is_whole() {
        return Err(Refusal::Private);
    }
    // RFC 9111 3.5.
    let is_for_all = directives.public || directives.s_maxage.is_some();
    if asked.headers.contains_key(AUTHORIZATION) && !is_for_all && !directives.must_revalidate {
        return Err(Refusal::Authorization);
    }
    if !options.ignores_vary && list::members(headers, VARY).any(|name| name == b"*") {
        return Err(Refusal::VaryStar);
    }
    usable(answer, options)?;
    if headers.contains_key(SET_COOKIE) {
        let kept_out = [&directives.no_cache, &directives.private];
        let is_kept_out = kept_out.iter().any(|scope| scope.fields().contains(&SET_COOKIE));
        match options.cookies {
            Cookies::Strip => return Ok(Storable::WithoutCookies),
            Cookies::Refuse if !is_for_all && !is_kept_out => return Err(Refusal::SetCookie),
            Cookies::Refuse | Cookies::Store => {}
        }
    }
    Ok(Storable::Whole)
}

/// Whether something says, other than by guessing, how long it is fresh.
fn is_explicit(lifetime: Lifetime) -> bool {
    !matches!(lifetime.basis, Basis::Heuristic | Basis::Nothing)
}

fn method(asked: &Asked<'_>, answer: &Answer<'_>) -> Result<(), Refusal> {
    match *asked.method {
        Method::GET => Ok(()),
        // RFC 9110 9.3.3: then it is what a GET of this URL would get.
        Method::POST if asked.is_at_content_location && is_explicit(answer.lifetime) && answer.status.is_success() => {
            Ok(())
        }
        _ => Err(Refusal::Method),
    }
}

fn status(asked: &Asked<'_>, answer: &Answer<'_>, options: &Options) -> Result<(), Refusal> {
    let status = answer.status;
    if answer.directives.must_understand && !is_understood(status) {
        return Err(Refusal::NotUnderstood);
    }
    match status.as_u16() {
        // Not final (RFC 9110 15.2), or no response of its own (15.4.5).
        ..200 | 304 => Err(Refusal::Status),
        206 => {
            let is_single = ContentRange::of(answer.headers).is_some_and(|part| part.range.is_some());
            let can = options.parts && asked.method == Method::GET && is_single;
            if can { Ok(()) } else { Err(Refusal::Part) }
        }
        412 if [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE]
            .iter()
            .any(|name| has(asked, name)) =>
        {
            Err(Refusal::Status)
        }
        416 if has(asked, &RANGE) || answer.headers.contains_key(CONTENT_RANGE) => Err(Refusal::Status),
        // RFC 6585 3 to 6.
        428 | 429 | 431 | 511 => Err(Refusal::Status),
        _ => Ok(()),
    }
}

fn has(asked: &Asked<'_>, name: &http::HeaderName) -> bool {
    asked.headers.contains_key(name)
}

/// Whether we know what caching this status asks for (RFC 9110 15, RFC 6585, RFC 7725, RFC 8297, RFC 8470).
fn is_understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=206 | 300..=305 | 307 | 308 | 400..=417 | 421 | 422 | 425 | 426 | 428 | 429 | 431 | 451 | 500..=505 | 511
    )
}

/// Whether it may be stored by what it says of its lifetime (the end of RFC 9111 3), and could ever be used.
fn usable(answer: &Answer<'_>, options: &Options) -> Result<(), Refusal> {
    let Answer { status, headers, directives, lifetime } = *answer;
    let has_validator = headers.contains_key(ETAG) || headers.contains_key(LAST_MODIFIED);
    if !is_explicit(lifetime) && !directives.public && !is_heuristically_cacheable(status) {
        return Err(Refusal::NoFreshness);
    }
    let needs = [Need::Refreshing, Need::Disconnected, Need::Failed(StatusCode::SERVICE_UNAVAILABLE)];
    let is_fresh = !lifetime.length.is_zero() && !directives.no_cache.is_whole();
    let is_served_stale = || needs.iter().any(|need| !stale_for(directives, *need, &options.grace).is_zero());
    if is_fresh || has_validator {
        return Ok(());
    }
    match lifetime.basis {
        Basis::Nothing => Err(Refusal::NoFreshness),
        _ if is_served_stale() => Ok(()),
        _ => Err(Refusal::Useless),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use http::HeaderName;

    use super::super::freshness::{Times, Ttl, lifetime};
    use super::*;

    const OK: Result<Storable, Refusal> = Ok(Storable::Whole);

    fn head(fields: &[(&str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        fields.iter().map(field).collect()
    }

    fn store(
        method: &Method,
        request: &[(&str, &str)],
        status: u16,
        response: &[(&str, &str)],
        options: &Options,
    ) -> Result<Storable, Refusal> {
        let (request, headers, status) = (head(request), head(response), StatusCode::from_u16(status).unwrap());
        let wishes = Wishes::of_request(&request);
        let directives = Directives::of_response(&headers);
        let times = Times { requested: UNIX_EPOCH, received: UNIX_EPOCH };
        let lifetime = lifetime(status, &headers, &directives, &times, Ttl::default());
        let is_at_content_location = headers.contains_key("content-location");
        let asked = Asked { method, headers: &request, wishes: &wishes, is_at_content_location };
        check(&asked, &Answer { status, headers: &headers, directives: &directives, lifetime }, options)
    }

    fn get(status: u16, control: &str) -> Result<Storable, Refusal> {
        store(&Method::GET, &[], status, &[("cache-control", control)], &Options::default())
    }

    #[test]
    fn what_the_response_says_counts() {
        for (control, wanted) in [
            ("max-age=1", OK),
            ("s-maxage=1", OK),
            ("no-store, max-age=1", Err(Refusal::NoStore)), // RFC 9111 3
            ("private, max-age=1", Err(Refusal::Private)),
            ("private=\"x-user\", max-age=1", OK), // RFC 9111 5.2.2.7
            ("no-cache, max-age=1", Err(Refusal::Useless)),
            ("no-cache=\"x-user\", max-age=1", OK),
            ("no-store, must-understand, max-age=1", OK), // RFC 9111 5.2.2.3
            ("max-age=0", Err(Refusal::Useless)),
            ("max-age=0, stale-while-revalidate=5", OK),
            ("max-age=0, stale-if-error=5, must-revalidate", Err(Refusal::Useless)),
            ("public", Err(Refusal::NoFreshness)),
            ("", Err(Refusal::NoFreshness)),
        ] {
            assert_eq!(get(200, control), wanted, "{control}");
        }
    }

    #[test]
    fn any_final_status_with_explicit_freshness_is_stored_but_for_a_few() {
        // RFC 9111 3; RFC 9110 15.2, 15.4.5; RFC 6585 says of four that they must not.
        for status in [200, 203, 204, 299, 301, 302, 307, 308, 400, 404, 410, 416, 499, 500, 503, 599] {
            assert_eq!(get(status, "max-age=1"), OK, "{status}");
        }
        for status in [100, 103, 304, 428, 429, 431, 511] {
            assert_eq!(get(status, "max-age=1"), Err(Refusal::Status), "{status}");
        }
        for status in [299, 418, 499, 599] {
            assert_eq!(get(status, "max-age=1, must-understand"), Err(Refusal::NotUnderstood), "{status}");
        }
        for (status, wanted) in
            [(200, OK), (404, OK), (302, Err(Refusal::NoFreshness)), (500, Err(Refusal::NoFreshness))]
        {
            let modified = [("last-modified", "Wed, 01 Jan 1969 00:00:00 GMT")];
            let stored = store(&Method::GET, &[], status, &modified, &Options::default());
            assert_eq!(stored, wanted, "{status}");
        }
    }

    #[test]
    fn a_validator_is_worth_storing_without_freshness() {
        for fields in [
            &[("etag", "\"a\"")][..],
            &[("etag", "\"a\""), ("cache-control", "no-cache")],
            &[("etag", "\"a\""), ("cache-control", "max-age=0, must-revalidate")],
            &[("last-modified", "garbage"), ("cache-control", "max-age=0")],
        ] {
            assert_eq!(store(&Method::GET, &[], 200, fields, &Options::default()), OK, "{fields:?}");
        }
    }

    #[test]
    fn an_operators_grace_makes_what_is_stale_at_once_useful() {
        let options = Options {
            grace: Grace { if_disconnected: Duration::from_secs(9), ..Grace::default() },
            ..Options::default()
        };
        let stored = |control| store(&Method::GET, &[], 200, &[("cache-control", control)], &options);
        assert_eq!(stored("max-age=0"), OK);
        assert_eq!(stored("max-age=0, must-revalidate"), Err(Refusal::Useless));
    }

    #[test]
    fn responses_to_get_are_stored_and_few_others() {
        // RFC 9110 9.2.3 and 9.3.3.
        let at = ("content-location", "/x");
        let fresh = ("cache-control", "max-age=1");
        for (method, fields, wanted) in [
            (Method::HEAD, &[fresh][..], Err(Refusal::Method)),
            (Method::POST, &[fresh], Err(Refusal::Method)),
            (Method::POST, &[fresh, at], OK),
            (Method::POST, &[at, ("etag", "\"a\"")], Err(Refusal::Method)),
            (Method::PUT, &[fresh, at], Err(Refusal::Method)),
            (Method::OPTIONS, &[fresh], Err(Refusal::Method)),
        ] {
            assert_eq!(store(&method, &[], 200, fields, &Options::default()), wanted, "{method} {fields:?}");
        }
    }

    #[test]
    fn what_needed_authorization_is_stored_only_when_told() {
        // RFC 9111 3.5.
        for (control, wanted) in [
            ("max-age=1", Err(Refusal::Authorization)),
            ("max-age=1, proxy-revalidate", Err(Refusal::Authorization)),
            ("max-age=1, public", OK),
            ("max-age=1, must-revalidate", OK),
            ("s-maxage=1", OK),
        ] {
            let request = [("authorization", "Basic eDp5")];
            let stored = store(&Method::GET, &request, 200, &[("cache-control", control)], &Options::default());
            assert_eq!(stored, wanted, "{control}");
        }
    }

    #[test]
    fn a_cookie_keeps_a_response_out_unless_somebody_wants_it_in() {
        use Cookies::{Refuse, Store, Strip};
        for (control, cookies, wanted) in [
            ("max-age=1", Refuse, Err(Refusal::SetCookie)),
            ("max-age=1, public", Refuse, OK),
            ("s-maxage=1", Refuse, OK),
            ("max-age=1, no-cache=\"set-cookie\"", Refuse, OK),
            ("max-age=1, private=\"set-cookie\"", Refuse, OK),
            ("max-age=1, private=\"x-user\"", Refuse, Err(Refusal::SetCookie)),
            ("max-age=1", Store, OK),
            ("max-age=1", Strip, Ok(Storable::WithoutCookies)),
            ("no-store", Strip, Err(Refusal::NoStore)),
        ] {
            let fields = [("set-cookie", "a=b"), ("cache-control", control)];
            let options = Options { cookies, ..Options::default() };
            assert_eq!(store(&Method::GET, &[], 200, &fields, &options), wanted, "{control} {cookies:?}");
        }
    }

    #[test]
    fn a_star_in_any_line_of_vary_is_never_stored() {
        // RFC 9111 4.1.
        for vary in [&[("vary", "*")][..], &[("vary", "a, *")], &[("vary", "a"), ("vary", " *")]] {
            let fields = [vary, &[("cache-control", "max-age=1")]].concat();
            let stored = store(&Method::GET, &[], 200, &fields, &Options::default());
            assert_eq!(stored, Err(Refusal::VaryStar), "{vary:?}");
        }
    }

    #[test]
    fn parts_are_stored_only_where_they_can_be_told_apart() {
        // RFC 9111 3.3.
        let fresh = ("cache-control", "max-age=1");
        let with = Options { parts: true, ..Options::default() };
        for (fields, options, wanted) in [
            (&[fresh, ("content-range", "bytes 0-1/5")][..], Options::default(), Err(Refusal::Part)),
            (&[fresh, ("content-range", "bytes 0-1/5")], with, OK),
            (&[fresh, ("content-range", "lines 0-1/5")], with, Err(Refusal::Part)),
            (&[fresh], with, Err(Refusal::Part)),
        ] {
            assert_eq!(store(&Method::GET, &[], 206, fields, &options), wanted, "{fields:?}");
        }
    }

    #[test]
    fn what_the_request_says_counts() {
        let fresh = [("cache-control", "max-age=1")];
        for (request, status, wanted) in [
            (("cache-control", "no-store"), 200, Err(Refusal::RequestNoStore)), // RFC 9111 5.2.1.5
            (("cache-control", "no-cache"), 200, OK),
            (("if-match", "\"a\""), 412, Err(Refusal::Status)),
            (("range", "bytes=9-"), 416, Err(Refusal::Status)),
            (("range", "bytes=9-"), 200, OK),
        ] {
            assert_eq!(store(&Method::GET, &[request], status, &fresh, &Options::default()), wanted, "{request:?}");
        }
    }
}
