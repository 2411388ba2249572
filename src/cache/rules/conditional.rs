//! Conditional requests, answered from a stored response (RFC 9110 13, RFC 9111 4.3.2).
//!
//! `If-Match` and `If-Unmodified-Since` are the origin's to judge (RFC 9111 4.3.2), and a cache may ignore them (RFC 9110
//! 13.1.1, 13.1.4). A gateway that speaks for the origin may be told to judge them too.

use std::time::SystemTime;

use http::header::{
    CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG, HeaderMap, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, TRANSFER_ENCODING,
};
use http::{HeaderName, Method, StatusCode};

use super::date;
use super::freshness::field_date;
use super::list::{single, trim};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It gets the stored response.
    Pass,
    /// It gets a 304.
    NotModified,
    /// It gets a 412.
    PreconditionFailed,
}

/// The stored response, as far as it matters.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: &'a HeaderMap,
    /// When it arrived.
    pub received: SystemTime,
}

/// Judges the conditions of a request in the order of RFC 9110 13.2.2.
///
/// With `as_origin` those that are the origin's to judge too; without they are ignored.
pub fn evaluate(method: &Method, request: &HeaderMap, stored: &Stored<'_>, as_origin: bool) -> Outcome {
    // Conditions are about a representation: a redirect or an error has none (RFC 9110 13.2.1, RFC 9111 4.3.2).
    if !stored.status.is_success() {
        return Outcome::Pass;
    }
    let is_read = method == Method::GET || method == Method::HEAD;
    if as_origin && !origin_agrees(request, stored) {
        return Outcome::PreconditionFailed;
    }
    if request.contains_key(IF_NONE_MATCH) {
        let matches = names_any(request, &IF_NONE_MATCH, stored.headers, weak_equal);
        return match matches {
            true if is_read => Outcome::NotModified,
            true => Outcome::PreconditionFailed,
            false => Outcome::Pass,
        };
    }
    if is_read && is_unmodified_since(request, stored) { Outcome::NotModified } else { Outcome::Pass }
}

/// Steps 1 and 2 of RFC 9110 13.2.2.
fn origin_agrees(request: &HeaderMap, stored: &Stored<'_>) -> bool {
    if request.contains_key(IF_MATCH) {
        return names_any(request, &IF_MATCH, stored.headers, strong_equal);
    }
    let now = date::seconds(stored.received);
    let since = field_date(request, &IF_UNMODIFIED_SINCE, now);
    let changed = field_date(stored.headers, &LAST_MODIFIED, now);
    // 13.1.4: ignored when it is no date, or nothing is known of the last change.
    since.zip(changed).is_none_or(|(since, changed)| changed <= since)
}

/// RFC 9111 4.3.2: by `Last-Modified`, else by `Date`, else by when it arrived.
fn is_unmodified_since(request: &HeaderMap, stored: &Stored<'_>) -> bool {
    let received = date::seconds(stored.received);
    let Some(since) = field_date(request, &IF_MODIFIED_SINCE, received) else { return false };
    let date = |name| field_date(stored.headers, name, received);
    date(&LAST_MODIFIED).or_else(|| date(&DATE)).unwrap_or(received) <= since
}

/// Whether a `Range` is to be heard: there is no `If-Range`, or it names just this representation (RFC 9110 13.1.5).
pub fn is_range_heard(request: &HeaderMap, stored: &Stored<'_>) -> bool {
    if !request.contains_key(IF_RANGE) {
        return true;
    }
    let Some(text) = single(request, IF_RANGE) else { return false };
    if text.ends_with(b"\"") || text.starts_with(b"W/") {
        return etag(stored.headers).is_some_and(|own| strong_equal(text, own));
    }
    let received = date::seconds(stored.received);
    let stored = |name| field_date(stored.headers, name, received);
    let (Some(since), Some(changed), Some(sent)) = (date::parse(text, received), stored(&LAST_MODIFIED), stored(&DATE))
    else {
        return false;
    };
    // A date is strong only when no second change can have happened in the same second (RFC 9110 8.8.2.2).
    since == changed && sent > changed
}

/// The stored entity tag.
pub fn etag(headers: &HeaderMap) -> Option<&[u8]> {
    single(headers, ETAG).filter(|tag| !tag.is_empty())
}

/// Whether both are the same and neither is weak (RFC 9110 8.8.3.2).
pub fn strong_equal(one: &[u8], other: &[u8]) -> bool {
    one == other && !is_weak(one)
}

/// Whether both are the same, weak or not.
pub fn weak_equal(one: &[u8], other: &[u8]) -> bool {
    let opaque = |tag| if is_weak(tag) { &tag[2..] } else { tag };
    opaque(one) == opaque(other)
}

/// Whether this entity tag is a weak one.
pub fn is_weak(tag: &[u8]) -> bool {
    tag.starts_with(b"W/")
}

/// Whether the field is `*` or lists the stored entity tag.
fn names_any(request: &HeaderMap, name: &HeaderName, stored: &HeaderMap, equal: fn(&[u8], &[u8]) -> bool) -> bool {
    let own = etag(stored);
    request.get_all(name).iter().any(|line| {
        let line = trim(line.as_bytes());
        line == b"*" || own.is_some_and(|own| tags(line).any(|tag| equal(tag, own)))
    })
}

/// The entity tags of a line. Inside one, a backslash means nothing (RFC 9110 8.8.3), other than in a quoted string.
fn tags(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = line;
    std::iter::from_fn(move || {
        loop {
            rest = trim(rest);
            if let Some(after) = rest.strip_prefix(b",") {
                rest = after;
                continue;
            }
            if rest.is_empty() {
                return None;
            }
            let open = if is_weak(rest) { 2 } else { 0 };
            let closed = (rest.get(open) == Some(&b'"'))
                .then(|| rest[open + 1..].iter().position(|byte| *byte == b'"'))
                .flatten()
                .map(|at| open + 1 + at + 1);
            // Some origins write tags without quotes, and clients repeat them.
            let end = closed.unwrap_or_else(|| rest.iter().position(|byte| *byte == b',').unwrap_or(rest.len()));
            let tag;
            (tag, rest) = rest.split_at(end);
            return Some(trim(tag));
        }
    })
}

/// Makes a copy of the head that a 200 would have into that of a 304 (RFC 9110 15.4.5): without what describes a body
/// that is not sent.
pub fn reduce_to_not_modified(headers: &mut HeaderMap) {
    for name in [CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, TRANSFER_ENCODING] {
        headers.remove(name);
    }
    if headers.contains_key(ETAG) {
        headers.remove(LAST_MODIFIED);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const EARLY: &str = "Sun, 06 Nov 1994 08:00:00 GMT";
    const MIDDLE: &str = "Sun, 06 Nov 1994 09:00:00 GMT";
    const LATE: &str = "Sun, 06 Nov 1994 10:00:00 GMT";

    fn head(fields: &[(&str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        fields.iter().map(field).collect()
    }

    fn stored(headers: &HeaderMap) -> Stored<'_> {
        // 1994-11-06 09:30.
        Stored { status: StatusCode::OK, headers, received: UNIX_EPOCH + Duration::from_secs(784_114_200) }
    }

    #[test]
    fn conditions_are_judged_in_order() {
        // RFC 9110 13.1.2 (weak comparison), 13.1.3, 13.2.2; RFC 9111 4.3.2.
        let (inm, ims) = (|tags| ("if-none-match", tags), |date| ("if-modified-since", date));
        let (strong, weak, modified) = (("etag", "\"a\""), ("etag", "W/\"a\""), ("last-modified", MIDDLE));
        for (request, response, outcome) in [
            (&[][..], &[strong, modified][..], Outcome::Pass),
            (&[inm("\"a\"")], &[strong], Outcome::NotModified),
            (&[inm("W/\"a\"")], &[strong], Outcome::NotModified),
            (&[inm("\"a\"")], &[weak], Outcome::NotModified),
            (&[inm("\"b\" , \"a\"")], &[strong], Outcome::NotModified),
            (&[inm("\"b\""), inm("\"a\"")], &[strong], Outcome::NotModified),
            (&[inm("\"b, \"a\"")], &[strong], Outcome::Pass),
            (&[inm("\"x,\\\"a\"")], &[strong], Outcome::Pass),
            (&[inm("\"A\"")], &[strong], Outcome::Pass),
            (&[inm("a")], &[strong], Outcome::Pass),
            (&[inm("a, b")], &[("etag", "b")], Outcome::NotModified),
            (&[inm("*")], &[strong], Outcome::NotModified),
            (&[inm("*")], &[], Outcome::NotModified),
            (&[inm("\"a\"")], &[], Outcome::Pass),
            (&[inm("\"a\"")], &[("etag", "")], Outcome::Pass),
            (&[inm("\"\"")], &[("etag", "\"\"")], Outcome::NotModified),
            (&[ims(MIDDLE)], &[modified], Outcome::NotModified),
            (&[ims(LATE)], &[modified], Outcome::NotModified),
            (&[ims(EARLY)], &[modified], Outcome::Pass),
            (&[ims("yesterday")], &[modified], Outcome::Pass),
            (&[ims(LATE)], &[("date", MIDDLE)], Outcome::NotModified),
            (&[ims(EARLY)], &[("date", MIDDLE)], Outcome::Pass),
            (&[ims(LATE)], &[], Outcome::NotModified),
            (&[ims(MIDDLE)], &[], Outcome::Pass),
            // If-None-Match goes first.
            (&[inm("\"b\""), ims(LATE)], &[strong, modified], Outcome::Pass),
            (&[inm("\"a\""), ims(EARLY)], &[strong, modified], Outcome::NotModified),
            // The origin's own.
            (&[("if-match", "\"b\"")], &[strong], Outcome::Pass),
            (&[("if-unmodified-since", EARLY)], &[modified], Outcome::Pass),
        ] {
            let (request, headers) = (head(request), head(response));
            let judged = evaluate(&Method::GET, &request, &stored(&headers), false);
            assert_eq!(judged, outcome, "{request:?} {response:?}");
        }
    }

    #[test]
    fn a_gateway_may_judge_for_the_origin() {
        // RFC 9110 13.1.1 (strong comparison), 13.1.4, 13.2.2.
        let (strong, weak, modified) = (("etag", "\"a\""), ("etag", "W/\"a\""), ("last-modified", MIDDLE));
        for (request, response, outcome) in [
            (&[("if-match", "\"a\"")][..], &[strong][..], Outcome::Pass),
            (&[("if-match", "*")], &[], Outcome::Pass),
            (&[("if-match", "\"b\"")], &[strong], Outcome::PreconditionFailed),
            (&[("if-match", "W/\"a\"")], &[weak], Outcome::PreconditionFailed),
            (&[("if-match", "\"a\""), ("if-none-match", "\"a\"")], &[strong], Outcome::NotModified),
            (&[("if-match", "\"b\""), ("if-none-match", "\"a\"")], &[strong], Outcome::PreconditionFailed),
            (&[("if-unmodified-since", EARLY)], &[modified], Outcome::PreconditionFailed),
            (&[("if-unmodified-since", MIDDLE)], &[modified], Outcome::Pass),
            (&[("if-unmodified-since", "never")], &[modified], Outcome::Pass),
            (&[("if-unmodified-since", EARLY)], &[strong], Outcome::Pass),
            (&[("if-match", "\"a\""), ("if-unmodified-since", EARLY)], &[strong, modified], Outcome::Pass),
        ] {
            let (request, headers) = (head(request), head(response));
            let judged = evaluate(&Method::GET, &request, &stored(&headers), true);
            assert_eq!(judged, outcome, "{request:?} {response:?}");
        }
    }

    #[test]
    fn only_reading_gets_a_304_and_only_a_representation_has_conditions() {
        // RFC 9110 13.1.2, 13.1.3, 13.2.1.
        let headers = head(&[("etag", "\"a\"")]);
        let request = head(&[("if-none-match", "\"a\"")]);
        for (method, status, outcome) in [
            (Method::HEAD, StatusCode::OK, Outcome::NotModified),
            (Method::POST, StatusCode::OK, Outcome::PreconditionFailed),
            (Method::GET, StatusCode::FOUND, Outcome::Pass),
            (Method::GET, StatusCode::NOT_FOUND, Outcome::Pass),
        ] {
            let stored = Stored { status, ..stored(&headers) };
            assert_eq!(evaluate(&method, &request, &stored, false), outcome, "{method} {status}");
        }
        let since = head(&[("if-modified-since", LATE)]);
        assert_eq!(evaluate(&Method::POST, &since, &stored(&headers), false), Outcome::Pass);
    }

    #[test]
    fn if_range_wants_just_this_representation() {
        // RFC 9110 13.1.5 and 8.8.2.2.
        let strong = ("etag", "\"a\"");
        let (modified, date) = (("last-modified", MIDDLE), ("date", LATE));
        for (condition, response, is_heard) in [
            ("\"a\"", &[strong][..], true),
            ("\"b\"", &[strong], false),
            ("W/\"a\"", &[strong], false),
            ("W/\"a\"", &[("etag", "W/\"a\"")], false),
            ("\"a\"", &[], false),
            (MIDDLE, &[modified, date], true),
            ("Sunday, 06-Nov-94 09:00:00 GMT", &[modified, date], true),
            (LATE, &[modified, date], false),
            (MIDDLE, &[modified, ("date", MIDDLE)], false),
            (MIDDLE, &[modified], false),
            (MIDDLE, &[strong], false),
            ("nonsense", &[strong, modified, date], false),
            ("", &[strong], false),
        ] {
            let (request, headers) = (head(&[("if-range", condition)]), head(response));
            assert_eq!(is_range_heard(&request, &stored(&headers)), is_heard, "{condition} {response:?}");
        }
        let headers = head(&[strong]);
        assert!(is_range_heard(&HeaderMap::new(), &stored(&headers)));
    }

    #[test]
    fn a_304_tells_nothing_of_the_body() {
        // RFC 9110 15.4.5.
        let mut headers = head(&[
            ("cache-control", "max-age=1"),
            ("content-location", "/a"),
            ("content-length", "5"),
            ("content-type", "text/plain"),
            ("content-encoding", "gzip"),
            ("date", MIDDLE),
            ("etag", "\"a\""),
            ("expires", MIDDLE),
            ("last-modified", EARLY),
            ("vary", "accept"),
            ("age", "1"),
        ]);
        reduce_to_not_modified(&mut headers);
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["age", "cache-control", "content-location", "date", "etag", "expires", "vary"]);
        let mut headers = head(&[("last-modified", EARLY)]);
        reduce_to_not_modified(&mut headers);
        assert!(headers.contains_key(LAST_MODIFIED));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            prop_assert!(tags(&bytes).count() <= bytes.len());
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let headers = HeaderMap::from_iter([(ETAG, value.clone())]);
                for name in [IF_MATCH, IF_NONE_MATCH, IF_RANGE, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE] {
                    let request = HeaderMap::from_iter([(name, value.clone())]);
                    evaluate(&Method::GET, &request, &stored(&headers), true);
                    is_range_heard(&request, &stored(&headers));
                }
            }
        }

        #[test]
        fn a_tag_is_found_in_any_list(before in "(\"[!#-~]{0,5}\" ?, ?){0,3}", tag in "\"[!#-~]{0,9}\"") {
            let line = format!("{before}{tag}");
            prop_assert_eq!(tags(line.as_bytes()).last(), Some(tag.as_bytes()));
        }
    }
}
