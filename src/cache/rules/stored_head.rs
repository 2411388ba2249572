//! Which fields of a response are stored, and which are sent when it is used again (RFC 9111 3.1, 5.1; RFC 9110 7.6.1).
//!
//! `Date` is not touched anywhere: it is the origin's (RFC 9110 6.6.1).

use std::time::Duration;

use http::header::{
    AGE, CONNECTION, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use smallvec::SmallVec;

use super::directives::{Directives, MAX_SECONDS};
use super::list;
use super::storable::Storable;

/// Fields of one connection, or of one proxy's dealings with it (RFC 9110 7.6.1, RFC 9111 3.1). `Trailer` announces what
/// is not stored.
const NOT_STORED: [HeaderName; 10] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-authentication-info"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Whether the field is one of a connection, or is named in `Connection` of this head.
pub fn is_hop_by_hop(name: &HeaderName, headers: &HeaderMap) -> bool {
    NOT_STORED.contains(name)
        || list::members(headers, CONNECTION).any(|listed| listed.eq_ignore_ascii_case(name.as_str().as_bytes()))
}

/// Leaves the fields of this one connection out. A response that has none is not touched.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let listed = list::members(headers, CONNECTION).filter_map(|name| HeaderName::from_bytes(name).ok());
        for name in listed.collect::<SmallVec<[HeaderName; 4]>>() {
            headers.remove(name);
        }
    }
    for name in &NOT_STORED {
        headers.remove(name);
    }
}

/// Makes the head of a response into what is stored of it. `Age` goes: it is told anew whenever it is used.
pub fn reduce(headers: &mut HeaderMap, directives: &Directives, how: Storable) {
    remove_hop_by_hop(headers);
    headers.remove(AGE);
    // RFC 9111 5.2.2.7: a shared cache must not store these.
    remove_all(headers, directives.private.fields());
    if how == Storable::WithoutCookies {
        headers.remove(SET_COOKIE);
    }
}

/// Makes a copy of a stored head into that of a response to a request which the origin was not asked about.
pub fn reuse(headers: &mut HeaderMap, directives: &Directives, age: Duration) {
    // RFC 9111 5.2.2.4: not without asking.
    remove_all(headers, directives.no_cache.fields());
    write_age(headers, age);
}

/// Writes `Age`, in whole seconds (RFC 9111 5.1).
pub fn write_age(headers: &mut HeaderMap, age: Duration) {
    headers.insert(AGE, HeaderValue::from(age.as_secs().min(MAX_SECONDS)));
}

fn remove_all(headers: &mut HeaderMap, names: &[HeaderName]) {
    for name in names {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        fields.iter().map(field).collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_belongs_to_the_connection_is_not_stored() {
        // RFC 9110 7.6.1, RFC 9111 3.1.
        let mut headers = head(&[
            ("connection", "X-One, keep-alive"),
            ("connection", "x-two,, not a name"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("proxy-authenticate", "Basic"),
            ("proxy-authentication-info", "x"),
            ("proxy-authorization", "x"),
            ("proxy-status", "other; error=x"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("date", "today"),
            ("set-cookie", "a=b"),
            ("age", "5"),
        ]);
        assert!(is_hop_by_hop(&HeaderName::from_static("x-two"), &headers));
        assert!(is_hop_by_hop(&TE, &headers));
        assert!(!is_hop_by_hop(&AGE, &headers));
        reduce(&mut headers, &Directives::default(), Storable::Whole);
        assert_eq!(names(&headers), ["date", "proxy-status", "set-cookie", "x-three"]);
        reduce(&mut headers, &Directives::default(), Storable::WithoutCookies);
        assert_eq!(names(&headers), ["date", "proxy-status", "x-three"]);
    }

    #[test]
    fn private_fields_are_not_stored_and_no_cache_fields_not_used_again() {
        // RFC 9111 5.2.2.4 and 5.2.2.7.
        let mut headers = head(&[
            ("cache-control", "private=\"x-one\", no-cache=\"x-two, set-cookie\""),
            ("x-one", "1"),
            ("x-two", "2"),
            ("set-cookie", "a=b"),
        ]);
        let directives = Directives::of_response(&headers);
        reduce(&mut headers, &directives, Storable::Whole);
        assert_eq!(names(&headers), ["cache-control", "set-cookie", "x-two"]);
        reuse(&mut headers, &directives, Duration::from_millis(7_900));
        assert_eq!(names(&headers), ["age", "cache-control"]);
        assert_eq!(headers[AGE], "7");
    }
}
