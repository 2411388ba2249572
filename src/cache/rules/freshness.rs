//! How old a response is, how long it is fresh, and who may have it when it no longer is (RFC 9111 4.2, RFC 5861).
//!
//! `Date`, `Age` and `Expires` count, not the moment of storing: what another cache kept for an hour is an hour old.

use std::time::{Duration, SystemTime};

use http::header::{AGE, DATE, EXPIRES, HeaderMap, LAST_MODIFIED};
use http::{HeaderName, StatusCode};

use super::date;
use super::directives::{Directives, MAX_SECONDS, Wishes};
use super::list;

/// When a request went to the origin, and when the head of its response was there.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The request was sent.
    pub requested: SystemTime,
    /// The response head had arrived.
    pub received: SystemTime,
}

/// `corrected_initial_age` (RFC 9111 4.2.3): how old a response was when it arrived.
///
/// `Date` has whole seconds, so the apparent age is taken against the time of the request: else each response that
/// arrives in the next second would begin with an age of 1.
pub fn initial_age(headers: &HeaderMap, times: &Times) -> Duration {
    let requested = date::seconds(times.requested);
    let apparent = field_date(headers, &DATE, requested).map_or(0, |sent| requested.saturating_sub(sent).max(0));
    let delay = times.received.duration_since(times.requested).unwrap_or_default();
    let corrected = Duration::from_secs(age_field(headers)) + delay;
    Duration::from_secs(apparent.unsigned_abs().min(MAX_SECONDS)).max(corrected)
}

/// `current_age` (RFC 9111 4.2.3): how old it is `now`.
pub fn current_age(initial: Duration, received: SystemTime, now: SystemTime) -> Duration {
    initial + now.duration_since(received).unwrap_or_default()
}

/// `Age`: the first member of the list, 0 when it is no number (RFC 9111 5.1).
fn age_field(headers: &HeaderMap) -> u64 {
    list::members(headers, AGE).next().and_then(|age| list::digits(age, MAX_SECONDS)).unwrap_or(0)
}

/// The date in a field; `None` when it is absent or none, or has lines that differ.
pub fn field_date(headers: &HeaderMap, name: &HeaderName, now: i64) -> Option<i64> {
    date::parse(list::single(headers, name)?, now)
}

/// What an operator says of lifetimes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ttl {
    /// Whatever the response says.
    pub force: Option<Duration>,
    /// When the response says nothing, in place of guessing.
    pub default: Option<Duration>,
}

/// What tells a lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The operator.
    Configured,
    /// `s-maxage`.
    SMaxage,
    /// `max-age`.
    MaxAge,
    /// `Expires`.
    Expires,
    /// A guess from `Last-Modified` (RFC 9111 4.2.2).
    Heuristic,
    /// Nothing: it is stale at once.
    Nothing,
}

/// How long a response is fresh, counted from age zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// How long.
    pub length: Duration,
    /// Who says so.
    pub basis: Basis,
}

/// A guess is a tenth of the time since the last change (RFC 9111 4.2.2) …
const HEURISTIC_PART: u64 = 10;
/// … and at most a day.
const HEURISTIC_MOST: u64 = 86_400;

/// How long a response is fresh (RFC 9111 4.2.1).
pub fn lifetime(status: StatusCode, headers: &HeaderMap, directives: &Directives, times: &Times, ttl: Ttl) -> Lifetime {
    let (seconds, basis) = match directives {
        _ if ttl.force.is_some() => (None, Basis::Configured),
        Directives { s_maxage: Some(seconds), .. } => (Some(*seconds), Basis::SMaxage),
        Directives { max_age: Some(seconds), .. } => (Some(*seconds), Basis::MaxAge),
        _ if !directives.targeted && headers.contains_key(EXPIRES) => {
            (Some(until_expiry(headers, times)), Basis::Expires)
        }
        _ if ttl.default.is_some() => (None, Basis::Configured),
        _ => {
            guess(status, headers, directives, times).map_or((Some(0), Basis::Nothing), |s| (Some(s), Basis::Heuristic))
        }
    };
    let length = seconds.map(Duration::from_secs).or(ttl.force).or(ttl.default).unwrap_or_default();
    Lifetime { length, basis }
}

/// When it was sent: `Date`, or when it came (RFC 9110 6.6.1).
fn sent(headers: &HeaderMap, times: &Times) -> i64 {
    let received = date::seconds(times.received);
    field_date(headers, &DATE, received).unwrap_or(received)
}

/// `Expires` − `Date`. What is no date, `0` above all, is long past (RFC 9111 5.3); so are lines that differ (4.2.1).
fn until_expiry(headers: &HeaderMap, times: &Times) -> u64 {
    let received = date::seconds(times.received);
    let left = field_date(headers, &EXPIRES, received).map_or(0, |end| end.saturating_sub(sent(headers, times)));
    left.max(0).unsigned_abs().min(MAX_SECONDS)
}

fn guess(status: StatusCode, headers: &HeaderMap, directives: &Directives, times: &Times) -> Option<u64> {
    if !is_heuristically_cacheable(status) && !directives.public {
        return None;
    }
    let sent = sent(headers, times);
    let changed = field_date(headers, &LAST_MODIFIED, date::seconds(times.received))?;
    Some((sent.saturating_sub(changed).max(0).unsigned_abs() / HEURISTIC_PART).min(HEURISTIC_MOST))
}

/// Whether a response may be given a lifetime by guessing (RFC 9110 15.1).
pub fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// Why somebody would get a stale response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It is being refreshed behind.
    Refreshing,
    /// The origin cannot be reached, or breaks off.
    Disconnected,
    /// The origin answers with this status.
    Failed(StatusCode),
}

/// How long operators let stale responses be served where a response itself does not say it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grace {
    /// While it is refreshed.
    pub while_revalidate: Duration,
    /// When the origin fails with 500, 502, 503 or 504.
    pub if_error: Duration,
    /// When the origin cannot be reached.
    pub if_disconnected: Duration,
}

/// Whether neither an operator nor a client may have a response served stale (RFC 9111 4.2.4, 5.2.2.2, 5.2.2.4, 5.2.2.8,
/// 5.2.2.10).
pub fn is_stale_forbidden(directives: &Directives) -> bool {
    is_always_forbidden(directives) || directives.s_maxage.is_some()
}

/// Whether it must never be served stale, whatever else it says. `s-maxage` forbids it too, but for the windows that the
/// same response gives: who writes `s-maxage=60, stale-while-revalidate=30` for shared caches means both (RFC 5861 3 and 4
/// are about any cache), and RFC 9111 4.2.4 lets what is explicitly allowed be served.
fn is_always_forbidden(directives: &Directives) -> bool {
    directives.must_revalidate || directives.proxy_revalidate || directives.no_cache.is_whole()
}

/// How long past its lifetime a response may be served in this need.
pub fn stale_for(directives: &Directives, need: Need, grace: &Grace) -> Duration {
    if is_always_forbidden(directives) {
        return Duration::ZERO;
    }
    // The operator may not allow what s-maxage forbids (RFC 9111 5.2.2.10).
    let grace = if directives.s_maxage.is_some() { Grace::default() } else { *grace };
    let said = |seconds: Option<u64>, grace| seconds.map_or(grace, Duration::from_secs);
    match need {
        Need::Refreshing => said(directives.stale_while_revalidate, grace.while_revalidate),
        Need::Failed(status) if is_error(status) => said(directives.stale_if_error, grace.if_error),
        Need::Failed(_) => Duration::ZERO,
        // A lost connection is an error too (RFC 5861 4), and may be longer lived through (RFC 9111 4.2.4).
        Need::Disconnected => said(directives.stale_if_error, Duration::ZERO).max(grace.if_disconnected),
    }
}

/// Whether a response of this age may be served in this need to a request with these wishes. A fresh one always may.
pub fn may_serve(
    age: Duration,
    lifetime: Duration,
    directives: &Directives,
    wishes: &Wishes,
    need: Need,
    grace: &Grace,
) -> bool {
    let Some(late) = staleness(age, lifetime) else { return true };
    let is_failure = match need {
        Need::Refreshing => false,
        Need::Disconnected => true,
        Need::Failed(status) => is_error(status),
    };
    // The client may accept more than the response offers (RFC 5861 4), but not what it forbids.
    let accepted = wishes.stale_if_error.filter(|_| is_failure && !is_stale_forbidden(directives)).unwrap_or(0);
    late < stale_for(directives, need, grace).max(Duration::from_secs(accepted))
}

/// For how long it has been stale; `None` while it is fresh (RFC 9111 4.2: fresh while the lifetime is greater than the age).
pub fn staleness(age: Duration, lifetime: Duration) -> Option<Duration> {
    age.checked_sub(lifetime)
}

/// The failures that `stale-if-error` is about (RFC 5861 4).
pub fn is_error(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use http::header::CACHE_CONTROL;
    use proptest::prelude::*;

    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT.
    const NOW: u64 = 784_111_777;
    const DATE_NOW: (&str, &str) = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");

    fn head(fields: &[(&str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        fields.iter().map(field).collect()
    }

    /// The request goes 300 ms after `NOW`, the response comes `delay` later.
    fn times(delay: u64) -> Times {
        let requested = UNIX_EPOCH + Duration::from_millis(NOW * 1_000 + 300);
        Times { requested, received: requested + Duration::from_millis(delay) }
    }

    #[test]
    fn age_counts_what_others_and_the_way_took() {
        // RFC 9111 4.2.3 and 5.1.
        for (fields, delay, millis) in [
            (&[][..], 0, 0),
            (&[DATE_NOW], 900, 900),
            (&[DATE_NOW, ("age", "10")], 900, 10_900),
            (&[("date", "Sun, 06 Nov 1994 08:48:37 GMT")], 0, 60_000),
            (&[("date", "Sun, 06 Nov 1994 08:48:37 GMT"), ("age", "10")], 0, 60_000),
            (&[("date", "Sun, 06 Nov 1994 08:48:37 GMT"), ("age", "70")], 500, 70_500),
            (&[("date", "Sun, 06 Nov 1994 09:49:37 GMT")], 0, 0),
            (&[("date", "yesterday")], 0, 0),
            (&[("age", "10, 20")], 0, 10_000),
            (&[("age", "10"), ("age", "20")], 0, 10_000),
            (&[("age", ", 10")], 0, 10_000),
            (&[("age", "-10")], 0, 0),
            (&[("age", "10.5")], 0, 0),
            (&[("age", "10;a")], 0, 0),
            (&[("age", "ten, 10")], 0, 0),
            (&[("age", "99999999999999999999999")], 0, MAX_SECONDS * 1_000),
        ] {
            assert_eq!(initial_age(&head(fields), &times(delay)), Duration::from_millis(millis), "{fields:?}");
        }
        let received = times(0).received;
        let age = |now| current_age(Duration::from_secs(5), received, now);
        assert_eq!(age(received + Duration::from_secs(2)), Duration::from_secs(7));
        assert_eq!(age(received - Duration::from_secs(2)), Duration::from_secs(5), "a clock that was set back");
    }

    #[test]
    fn the_lifetime_is_what_the_nearest_word_says() {
        // RFC 9111 4.2.1 and 4.2.2; 5.3 for Expires.
        let expires = |text| ("expires", text);
        let modified = |text| ("last-modified", text);
        let minute = "Sun, 06 Nov 1994 08:50:37 GMT";
        for (fields, status, seconds, basis) in [
            (&[][..], 200, 0, Basis::Nothing),
            (&[("cache-control", "s-maxage=1, max-age=2"), expires(minute)], 200, 1, Basis::SMaxage),
            (&[("cache-control", "max-age=2"), expires(minute)], 200, 2, Basis::MaxAge),
            (&[("cache-control", "max-age=2")], 599, 2, Basis::MaxAge),
            (&[("cache-control", "max-age=x"), expires(minute)], 200, 0, Basis::MaxAge),
            (&[DATE_NOW, expires(minute)], 200, 60, Basis::Expires),
            (&[expires(minute)], 200, 60, Basis::Expires),
            (&[("date", "Sun, 06 Nov 1994 08:40:37 GMT"), expires(minute)], 200, 600, Basis::Expires),
            (&[("date", minute), expires("Sun, 06 Nov 1994 08:49:37 GMT")], 200, 0, Basis::Expires),
            (&[expires("0"), modified("Sun, 06 Nov 1994 07:49:37 GMT")], 200, 0, Basis::Expires),
            (&[expires(minute), expires(minute)], 200, 60, Basis::Expires),
            (&[expires(minute), expires("Sun, 06 Nov 1994 08:51:37 GMT")], 200, 0, Basis::Expires),
            (&[DATE_NOW, modified("Sun, 06 Nov 1994 08:39:37 GMT")], 200, 60, Basis::Heuristic),
            (&[modified("Sun, 06 Nov 1994 08:39:37 GMT")], 404, 60, Basis::Heuristic),
            (&[modified("Sun, 06 Nov 1904 08:39:37 GMT")], 200, 86_400, Basis::Heuristic),
            (&[DATE_NOW, modified("Sun, 06 Nov 1994 09:39:37 GMT")], 200, 0, Basis::Heuristic),
            (&[modified("Sun, 06 Nov 1994 08:39:37 GMT")], 302, 0, Basis::Nothing),
            (&[modified("Sun, 06 Nov 1994 08:39:37 GMT"), ("cache-control", "public")], 302, 60, Basis::Heuristic),
        ] {
            let (head, status) = (head(fields), StatusCode::from_u16(status).unwrap());
            let life = lifetime(status, &head, &Directives::of_response(&head), &times(0), Ttl::default());
            assert_eq!(life, Lifetime { length: Duration::from_secs(seconds), basis }, "{fields:?}");
        }
    }

    #[test]
    fn expires_does_not_count_beside_a_targeted_field() {
        // RFC 9213 2.2.
        let head = head(&[("expires", "Sun, 06 Nov 1994 08:50:37 GMT")]);
        let directives = Directives { targeted: true, ..Directives::default() };
        let life = lifetime(StatusCode::OK, &head, &directives, &times(0), Ttl::default());
        assert_eq!(life.basis, Basis::Nothing);
    }

    #[test]
    fn operators_may_overrule_or_fill_in() {
        let second = Duration::from_secs;
        let ttl =
            |force: Option<u64>, default: Option<u64>| Ttl { force: force.map(second), default: default.map(second) };
        for (text, ttl, seconds) in [
            ("max-age=1", ttl(Some(7), None), 7),
            ("max-age=1", ttl(None, Some(7)), 1),
            ("", ttl(None, Some(7)), 7),
            ("", ttl(Some(8), Some(7)), 8),
        ] {
            let head = head(&[("cache-control", text)]);
            let life = lifetime(StatusCode::OK, &head, &Directives::of_response(&head), &times(0), ttl);
            assert_eq!(life.length, second(seconds), "{text} {ttl:?}");
        }
    }

    #[test]
    fn stale_is_served_only_as_far_as_the_response_and_the_operator_let() {
        // RFC 9111 4.2.4; RFC 5861 3 and 4. Seconds for: refreshing, disconnected, 503, 404.
        let grace = Grace {
            while_revalidate: Duration::from_secs(1),
            if_error: Duration::from_secs(2),
            if_disconnected: Duration::from_secs(3),
        };
        for (text, seconds) in [
            ("max-age=1", [1, 3, 2, 0]),
            ("max-age=1, stale-while-revalidate=10", [10, 3, 2, 0]),
            ("max-age=1, stale-if-error=20", [1, 20, 20, 0]),
            ("stale-while-revalidate=0, stale-if-error=0", [0, 3, 0, 0]),
            ("no-cache=\"set-cookie\"", [1, 3, 2, 0]),
            ("must-revalidate, stale-while-revalidate=9", [0; 4]),
            ("proxy-revalidate, stale-if-error=9", [0; 4]),
            ("s-maxage=1", [0; 4]), // RFC 9111 5.2.2.10
            ("s-maxage=1, stale-if-error=9", [0, 9, 9, 0]),
            ("s-maxage=1, stale-while-revalidate=8", [8, 0, 0, 0]),
            ("s-maxage=1, stale-while-revalidate=8, proxy-revalidate", [0; 4]),
            ("no-cache, stale-if-error=9", [0; 4]),
        ] {
            let directives = Directives::of_response(&head(&[("cache-control", text)]));
            let needs = [
                Need::Refreshing,
                Need::Disconnected,
                Need::Failed(StatusCode::SERVICE_UNAVAILABLE),
                Need::Failed(StatusCode::NOT_FOUND),
            ];
            assert_eq!(needs.map(|need| stale_for(&directives, need, &grace).as_secs()), seconds, "{text}");
        }
    }

    #[test]
    fn a_request_may_accept_more_after_a_failure_but_not_what_is_forbidden() {
        // RFC 5861 4. A lifetime of 5 seconds, and a grace of 3.
        let second = Duration::from_secs;
        let grace = Grace { if_disconnected: second(3), if_error: second(3), while_revalidate: second(3) };
        let failed = Need::Failed(StatusCode::BAD_GATEWAY);
        for (age, control, request, need, wanted) in [
            (4, "", "", Need::Disconnected, true),
            (5, "", "", Need::Disconnected, true),
            (7, "", "", Need::Disconnected, true),
            (8, "", "", Need::Disconnected, false),
            (8, "", "stale-if-error=4", Need::Disconnected, true),
            (8, "", "stale-if-error=4", failed, true),
            (9, "", "stale-if-error=4", failed, false),
            (8, "", "stale-if-error=4", Need::Failed(StatusCode::NOT_FOUND), false),
            (8, "", "stale-if-error=4", Need::Refreshing, false),
            (8, "must-revalidate", "stale-if-error=4", failed, false),
            (8, "s-maxage=5", "stale-if-error=4", failed, false),
            (8, "s-maxage=5, stale-if-error=4", "", failed, true),
            (4, "must-revalidate", "", failed, true),
        ] {
            let directives = Directives::of_response(&head(&[("cache-control", control)]));
            let wishes = Wishes::of_request(&head(&[("cache-control", request)]));
            let may = may_serve(second(age), second(5), &directives, &wishes, need, &grace);
            assert_eq!(may, wanted, "{age} {control} {request} {need:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_sent_makes_it_panic(age: u64, offset: i32, text in "[ -~]{0,40}") {
            let mut head = head(&[DATE_NOW, ("age", &age.to_string()), ("expires", &text), ("last-modified", &text)]);
            head.insert(CACHE_CONTROL, format!("max-age={age}").parse().unwrap());
            let mut times = times(0);
            times.received = UNIX_EPOCH + Duration::from_secs(u64::from(offset.unsigned_abs()));
            initial_age(&head, &times);
            lifetime(StatusCode::OK, &head, &Directives::of_response(&head), &times, Ttl::default());
        }
    }
}
