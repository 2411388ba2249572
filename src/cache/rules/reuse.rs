//! Whether a stored response may answer this request now (RFC 9111 4, 5.2.1; RFC 5861 3).

use std::time::Duration;

use super::directives::{Directives, MaxStale, Wishes};
use super::freshness::{Grace, Need, is_stale_forbidden, stale_for, staleness};

/// What becomes of a request that a response is stored for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// It gets the stored response, which is fresh.
    Fresh,
    /// It gets the stored response, which is as stale as the client accepts.
    Stale,
    /// It gets the stored response, which is stale, and which is refreshed behind.
    StaleWhileRevalidate,
    /// The origin is asked first.
    Revalidate(Why),
    /// It may not go to the origin: 504 (RFC 9111 5.2.1.7).
    GatewayTimeout,
}

/// Why the origin is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The response is stale.
    Stale,
    /// The response says `no-cache`.
    NoCache,
    /// The request asks for it: `no-cache`, or a `max-age` or `min-fresh` that the response does not meet.
    Request,
}

/// Whether the stored response, of this age and lifetime, may answer a request with these wishes.
///
/// Where the operator ignores what requests say, the wishes are `Wishes::default()`.
pub fn decide(age: Duration, lifetime: Duration, directives: &Directives, wishes: &Wishes, grace: &Grace) -> Reuse {
    let reuse = without_limits(age, lifetime, directives, wishes, grace);
    match reuse {
        Reuse::Revalidate(_) if wishes.only_if_cached => Reuse::GatewayTimeout,
        _ => reuse,
    }
}

/// The same for a request that nothing is stored for: whether it may go to the origin.
pub fn may_be_fetched(wishes: &Wishes) -> bool {
    !wishes.only_if_cached
}

fn without_limits(age: Duration, lifetime: Duration, directives: &Directives, wishes: &Wishes, grace: &Grace) -> Reuse {
    if directives.no_cache.is_whole() {
        return Reuse::Revalidate(Why::NoCache);
    }
    let is_too_old = wishes.max_age.is_some_and(|most| age > Duration::from_secs(most));
    if wishes.no_cache || is_too_old {
        return Reuse::Revalidate(Why::Request);
    }
    let Some(late) = staleness(age, lifetime) else {
        let is_too_short = wishes.min_fresh.is_some_and(|least| lifetime - age < Duration::from_secs(least));
        return if is_too_short { Reuse::Revalidate(Why::Request) } else { Reuse::Fresh };
    };
    let is_accepted = match wishes.max_stale {
        MaxStale::No => false,
        MaxStale::Seconds(most) => late <= Duration::from_secs(most),
        MaxStale::Any => true,
    };
    // A min-fresh, or a max-age without max-stale, says that nothing stale is wanted (RFC 9111 5.2.1.1, 5.2.1.3).
    let is_refused = wishes.min_fresh.is_some() || (wishes.max_age.is_some() && wishes.max_stale == MaxStale::No);
    let is_within_window = late < stale_for(directives, Need::Refreshing, grace);
    match () {
        () if is_refused => Reuse::Revalidate(Why::Request),
        () if is_within_window => Reuse::StaleWhileRevalidate,
        () if is_accepted && !is_stale_forbidden(directives) => Reuse::Stale,
        () => Reuse::Revalidate(Why::Stale),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::CACHE_CONTROL;

    use super::*;

    fn decided(age: u64, response: &str, request: &str) -> Reuse {
        let head = |text: &str| HeaderMap::from_iter([(CACHE_CONTROL, text.parse().unwrap())]);
        let directives = Directives::of_response(&head(response));
        let wishes = Wishes::of_request(&head(request));
        decide(Duration::from_secs(age), Duration::from_secs(10), &directives, &wishes, &Grace::default())
    }

    #[test]
    fn what_is_stored_answers_as_long_as_both_sides_let_it() {
        use Reuse::{Fresh, GatewayTimeout, Revalidate, Stale, StaleWhileRevalidate};
        // A lifetime of 10 seconds.
        for (age, response, request, wanted) in [
            (0, "", "", Fresh),
            (9, "", "", Fresh),
            (10, "", "", Revalidate(Why::Stale)),          // RFC 9111 4.2
            (0, "no-cache", "", Revalidate(Why::NoCache)), // 5.2.2.4
            (0, "no-cache", "max-stale", Revalidate(Why::NoCache)),
            (0, "no-cache=\"set-cookie\"", "", Fresh),
            (0, "immutable", "no-cache", Revalidate(Why::Request)), // RFC 8246 2
            (0, "must-revalidate", "", Fresh),
            // Requests, RFC 9111 5.2.1.
            (0, "", "no-cache", Revalidate(Why::Request)),
            (5, "", "max-age=5", Fresh),
            (6, "", "max-age=5", Revalidate(Why::Request)),
            (6, "", "max-age=5, max-stale", Revalidate(Why::Request)),
            (0, "", "max-age=0", Fresh),
            (1, "", "max-age=0", Revalidate(Why::Request)),
            (5, "", "min-fresh=5", Fresh),
            (6, "", "min-fresh=5", Revalidate(Why::Request)),
            (12, "", "min-fresh=5, max-stale", Revalidate(Why::Request)),
            (12, "", "max-stale", Stale),
            (12, "", "max-stale=2", Stale),
            (13, "", "max-stale=2", Revalidate(Why::Stale)),
            (12, "", "max-stale=5, max-age=20", Stale),
            (12, "must-revalidate", "max-stale", Revalidate(Why::Stale)),
            (12, "proxy-revalidate", "max-stale", Revalidate(Why::Stale)),
            (12, "s-maxage=10", "max-stale", Revalidate(Why::Stale)),
            (12, "s-maxage=10, stale-while-revalidate=3", "", StaleWhileRevalidate),
            (14, "s-maxage=10, stale-while-revalidate=3", "max-stale", Revalidate(Why::Stale)),
            (0, "", "no-store", Fresh), // 5.2.1.5: about storing only
            // RFC 5861 3.
            (12, "stale-while-revalidate=3", "", StaleWhileRevalidate),
            (13, "stale-while-revalidate=3", "", Revalidate(Why::Stale)),
            (13, "stale-while-revalidate=3", "max-stale=9", Stale),
            (12, "stale-while-revalidate=3", "max-age=20", Revalidate(Why::Request)),
            (12, "stale-while-revalidate=3", "min-fresh=1", Revalidate(Why::Request)),
            (12, "stale-while-revalidate=3, must-revalidate", "", Revalidate(Why::Stale)),
            // RFC 9111 5.2.1.7.
            (0, "", "only-if-cached", Fresh),
            (12, "", "only-if-cached", GatewayTimeout),
            (0, "no-cache", "only-if-cached", GatewayTimeout),
            (12, "", "only-if-cached, max-stale", Stale),
            (12, "stale-while-revalidate=3", "only-if-cached", StaleWhileRevalidate),
        ] {
            assert_eq!(decided(age, response, request), wanted, "{age} {response} {request}");
        }
    }

    #[test]
    fn an_operators_window_counts_like_the_responses_own() {
        let grace = Grace { while_revalidate: Duration::from_secs(3), ..Grace::default() };
        let second = Duration::from_secs;
        let decided = |age| decide(second(age), second(10), &Directives::default(), &Wishes::default(), &grace);
        assert_eq!(decided(12), Reuse::StaleWhileRevalidate);
        assert_eq!(decided(13), Reuse::Revalidate(Why::Stale));
    }

    #[test]
    fn what_is_not_stored_may_be_fetched_unless_the_request_forbids_it() {
        assert!(may_be_fetched(&Wishes::default()));
        assert!(!may_be_fetched(&Wishes { only_if_cached: true, ..Wishes::default() }));
    }
}
