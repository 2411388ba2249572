//! `Cache-Control` of responses and requests (RFC 9111 5.2, RFC 5861, RFC 8246), and `Pragma` of requests (5.4).
//!
//! Of two numbers for one directive the first counts (4.2.1). A lifetime that is no number means stale (4.2.1), any other
//! number that is none is left out. A directive that forbids counts even with an argument that it should not have.

use http::header::{CACHE_CONTROL, HeaderMap, HeaderName, PRAGMA};
use smallvec::SmallVec;

use super::list;

/// The greatest number of seconds that is told apart: 2^31 (RFC 9111 1.2.2).
pub const MAX_SECONDS: u64 = 1 << 31;

/// What a response says of caching.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// `max-age`, in seconds; 0 when it is no number.
    pub max_age: Option<u64>,
    /// `s-maxage`, in seconds; 0 when it is no number.
    pub s_maxage: Option<u64>,
    /// `stale-while-revalidate`, in seconds (RFC 5861 3).
    pub stale_while_revalidate: Option<u64>,
    /// `stale-if-error`, in seconds (RFC 5861 4).
    pub stale_if_error: Option<u64>,
    /// `no-cache`: not to be reused without asking.
    pub no_cache: Scope,
    /// `private`: not for a shared cache.
    pub private: Scope,
    /// `no-store`.
    pub no_store: bool,
    /// `public`.
    pub public: bool,
    /// `must-revalidate`.
    pub must_revalidate: bool,
    /// `proxy-revalidate`.
    pub proxy_revalidate: bool,
    /// `must-understand`.
    pub must_understand: bool,
    /// `immutable` (RFC 8246).
    pub immutable: bool,
    /// `no-transform`.
    pub no_transform: bool,
    /// They stood in a targeted field (RFC 9213): `Expires` does not count beside them.
    pub targeted: bool,
}

/// What `no-cache` or `private` is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// The directive is not there.
    #[default]
    Nothing,
    /// Only these fields: `no-cache="set-cookie"`.
    Fields(SmallVec<[HeaderName; 1]>),
    /// The whole response.
    Whole,
}

impl Scope {
    /// Whether the directive is about the whole response.
    pub fn is_whole(&self) -> bool {
        *self == Self::Whole
    }

    /// The fields it names, if it names any and is not about the whole.
    pub fn fields(&self) -> &[HeaderName] {
        match self {
            Self::Fields(names) => names,
            Self::Nothing | Self::Whole => &[],
        }
    }

    /// Takes in one more such directive: the wider one counts. A list in which anything is no field name is about the whole.
    pub(super) fn widen(&mut self, argument: Argument<'_>) {
        let names = match argument {
            Argument::Text(names) if *self != Self::Whole => names,
            _ => return *self = Self::Whole,
        };
        let mut fields = match std::mem::take(self) {
            Self::Fields(fields) => fields,
            Self::Nothing | Self::Whole => SmallVec::new(),
        };
        let mut any = false;
        for name in list::split(names).filter(|name| !name.is_empty()) {
            let Ok(name) = HeaderName::from_bytes(name) else { return *self = Self::Whole };
            fields.push(name);
            any = true;
        }
        *self = if any { Self::Fields(fields) } else { Self::Whole };
    }
}

/// What stands after the `=` of a directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Argument<'a> {
    /// Nothing, not even the `=`.
    None,
    /// A token, or what stands between quotes (RFC 9111 5.2: both forms are to be accepted).
    Text(&'a [u8]),
    /// What the grammar does not know: blanks about the `=`, half a string, an escape in one.
    Broken,
}

impl Argument<'_> {
    fn seconds(self) -> Option<u64> {
        match self {
            Self::Text(text) => list::digits(text, MAX_SECONDS),
            Self::None | Self::Broken => None,
        }
    }
}

impl Directives {
    /// Reads all lines of `Cache-Control` of a response.
    pub fn of_response(headers: &HeaderMap) -> Self {
        let mut all = Self::default();
        for member in list::members(headers, CACHE_CONTROL) {
            let (name, argument) = parts(member);
            all.take(name, argument);
        }
        all
    }

    /// Takes in one directive; whether it is a known one.
    pub(super) fn take(&mut self, name: &[u8], argument: Argument<'_>) -> bool {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("max-age") {
            self.max_age.get_or_insert_with(|| argument.seconds().unwrap_or(0));
        } else if is("s-maxage") {
            self.s_maxage.get_or_insert_with(|| argument.seconds().unwrap_or(0));
        } else if is("stale-while-revalidate") {
            self.stale_while_revalidate = self.stale_while_revalidate.or_else(|| argument.seconds());
        } else if is("stale-if-error") {
            self.stale_if_error = self.stale_if_error.or_else(|| argument.seconds());
        } else if is("no-cache") {
            self.no_cache.widen(argument);
        } else if is("private") {
            self.private.widen(argument);
        } else if let Some(flag) = self.flag(&is) {
            *flag = true;
        } else {
            return false;
        }
        true
    }

    fn flag(&mut self, is: &impl Fn(&str) -> bool) -> Option<&mut bool> {
        Some(match () {
            () if is("no-store") => &mut self.no_store,
            () if is("public") => &mut self.public,
            () if is("must-revalidate") => &mut self.must_revalidate,
            () if is("proxy-revalidate") => &mut self.proxy_revalidate,
            () if is("must-understand") => &mut self.must_understand,
            () if is("immutable") => &mut self.immutable,
            () if is("no-transform") => &mut self.no_transform,
            () => return None,
        })
    }
}

/// How stale a response a request accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MaxStale {
    /// No stale one.
    #[default]
    No,
    /// One that is stale for at most so many seconds.
    Seconds(u64),
    /// Any.
    Any,
}

/// What a request says of caching (RFC 9111 5.2.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// `max-age`, in seconds; 0 when it is no number.
    pub max_age: Option<u64>,
    /// `max-stale`.
    pub max_stale: MaxStale,
    /// `min-fresh`, in seconds.
    pub min_fresh: Option<u64>,
    /// `stale-if-error`, in seconds (RFC 5861 4).
    pub stale_if_error: Option<u64>,
    /// `no-cache`, or `Pragma: no-cache` where there is no `Cache-Control` (5.4).
    pub no_cache: bool,
    /// `no-store`.
    pub no_store: bool,
    /// `only-if-cached`.
    pub only_if_cached: bool,
    /// `no-transform`.
    pub no_transform: bool,
}

impl Wishes {
    /// Reads all lines of `Cache-Control` of a request, and `Pragma`.
    pub fn of_request(headers: &HeaderMap) -> Self {
        let mut all = Self::default();
        if !headers.contains_key(CACHE_CONTROL) {
            all.no_cache = list::members(headers, PRAGMA).any(|member| member.eq_ignore_ascii_case(b"no-cache"));
            return all;
        }
        for member in list::members(headers, CACHE_CONTROL) {
            let (name, argument) = parts(member);
            all.take(name, argument);
        }
        all
    }

    fn take(&mut self, name: &[u8], argument: Argument<'_>) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("max-age") {
            self.max_age.get_or_insert_with(|| argument.seconds().unwrap_or(0));
        } else if is("max-stale") {
            if self.max_stale == MaxStale::No {
                self.max_stale = match argument {
                    Argument::None => MaxStale::Any,
                    _ => argument.seconds().map_or(MaxStale::No, MaxStale::Seconds),
                };
            }
        } else if is("min-fresh") {
            self.min_fresh = self.min_fresh.or_else(|| argument.seconds());
        } else if is("stale-if-error") {
            self.stale_if_error = self.stale_if_error.or_else(|| argument.seconds());
        } else if is("no-cache") {
            self.no_cache = true;
        } else if is("no-store") {
            self.no_store = true;
        } else if is("only-if-cached") {
            self.only_if_cached = true;
        } else if is("no-transform") {
            self.no_transform = true;
        }
    }
}

/// The name of a directive and its argument.
fn parts(member: &[u8]) -> (&[u8], Argument<'_>) {
    let Some(at) = member.iter().position(|byte| *byte == b'=') else { return (member, Argument::None) };
    let (name, text) = (&member[..at], &member[at + 1..]);
    let argument = match text {
        _ if name.last().is_none_or(|byte| matches!(byte, b' ' | b'\t')) => Argument::Broken,
        [b'"', inner @ .., b'"'] if !inner.iter().any(|byte| matches!(byte, b'"' | b'\\')) => Argument::Text(inner),
        _ if text.iter().any(|byte| matches!(byte, b'"' | b' ' | b'\t')) => Argument::Broken,
        _ => Argument::Text(text),
    };
    (list::trim(name), argument)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::{AUTHORIZATION, SET_COOKIE};
    use proptest::prelude::*;
    use smallvec::smallvec;

    use super::*;

    fn lines(lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (CACHE_CONTROL, line.parse().unwrap())).collect()
    }

    fn response(text: &str) -> Directives {
        Directives::of_response(&lines(&[text]))
    }

    fn request(text: &str) -> Wishes {
        Wishes::of_request(&lines(&[text]))
    }

    #[test]
    fn numbers_are_read_leniently_only_where_the_rfc_says_so() {
        for (text, max_age) in [
            ("max-age=10", Some(10)),
            ("MaX-aGe=10", Some(10)),
            ("public, , max-age=010 ,foo", Some(10)),
            ("max-age=\"10\"", Some(10)),               // RFC 9111 5.2: both forms
            ("max-age=99999999999", Some(MAX_SECONDS)), // RFC 9111 1.2.2
            ("max-age=99999999999999999999999999999999", Some(MAX_SECONDS)),
            ("max-age=10, max-age=20", Some(10)), // RFC 9111 4.2.1: the first
            ("max-age=x, max-age=20", Some(0)),
            ("max-age", Some(0)), // RFC 9111 4.2.1: invalid is stale
            ("max-age=", Some(0)),
            ("max-age=-1", Some(0)),
            ("max-age=1.5", Some(0)),
            ("max-age='10'", Some(0)),
            ("max-age=10a", Some(0)),
            ("max-age =10", Some(0)),
            ("max-age= 10", Some(0)),
            ("foo=\"max-age=10\"", None),
            ("foo=\"x, max-age=10\"", None),
            ("xmax-age=10", None),
            ("max-age-x=10", None),
            ("=10", None),
            ("", None),
        ] {
            assert_eq!(response(text).max_age, max_age, "{text}");
            let shared = response(&text.to_ascii_lowercase().replace("max-age", "s-maxage"));
            assert_eq!(shared.s_maxage, max_age, "{text}");
        }
    }

    #[test]
    fn windows_that_are_no_number_are_left_out() {
        let all = response("stale-while-revalidate=5, stale-if-error=x, stale-if-error=7");
        assert_eq!((all.stale_while_revalidate, all.stale_if_error), (Some(5), Some(7)));
        assert_eq!(response("stale-while-revalidate").stale_while_revalidate, None);
    }

    #[test]
    fn flags_count_in_any_case_and_with_any_argument() {
        let all = response(
            "NO-STORE, public=1, Must-Revalidate, proxy-revalidate, must-understand, immutable, no-transform =\"x\"",
        );
        assert!(all.no_store && all.public && all.must_revalidate && all.proxy_revalidate);
        assert!(all.must_understand && all.immutable && all.no_transform);
        assert_eq!(response("nostore, no-storex, foo=\"a, no-store\""), Directives::default());
    }

    #[test]
    fn a_quote_that_never_ends_hides_nothing() {
        let all = response("foo=\"a, no-store, max-age=1");
        assert!(all.no_store);
        assert_eq!(all.max_age, Some(1));
    }

    #[test]
    fn no_cache_and_private_may_be_about_fields_only() {
        // RFC 9111 5.2.2.4 and 5.2.2.7.
        let both = || Scope::Fields(smallvec![SET_COOKIE, AUTHORIZATION]);
        for (text, scope) in [
            ("no-cache", Scope::Whole),
            ("no-cache=\"Set-Cookie, authorization\"", both()),
            ("no-cache=\"set-cookie\", no-cache=\"authorization\"", both()),
            ("no-cache=set-cookie", Scope::Fields(smallvec![SET_COOKIE])),
            ("no-cache=\"set-cookie\", no-cache", Scope::Whole),
            ("no-cache, no-cache=\"set-cookie\"", Scope::Whole),
            ("no-cache=\"\"", Scope::Whole),
            ("no-cache=", Scope::Whole),
            ("no-cache=\"a b\"", Scope::Whole),
            ("no-cache=\"set\\-cookie\"", Scope::Whole),
            ("no-cache=\"set-cookie", Scope::Whole),
            ("no-cache =\"set-cookie\"", Scope::Whole),
            ("max-age=1", Scope::Nothing),
        ] {
            assert_eq!(response(text).no_cache, scope, "{text}");
            assert_eq!(response(&text.replace("no-cache", "private")).private, scope, "{text}");
        }
    }

    #[test]
    fn lines_add_up() {
        let all = Directives::of_response(&lines(&["max-age=1", "no-store", "s-maxage=2"]));
        assert_eq!((all.max_age, all.no_store, all.s_maxage), (Some(1), true, Some(2)));
    }

    #[test]
    fn requests_have_their_own_directives() {
        // RFC 9111 5.2.1.
        for (text, wishes) in [
            ("", Wishes::default()),
            ("max-age=0", Wishes { max_age: Some(0), ..Wishes::default() }),
            ("max-age=x", Wishes { max_age: Some(0), ..Wishes::default() }),
            ("max-stale", Wishes { max_stale: MaxStale::Any, ..Wishes::default() }),
            ("Max-Stale=60", Wishes { max_stale: MaxStale::Seconds(60), ..Wishes::default() }),
            ("max-stale=x", Wishes::default()),
            ("min-fresh=5", Wishes { min_fresh: Some(5), ..Wishes::default() }),
            ("min-fresh", Wishes::default()),
            ("no-cache=x", Wishes { no_cache: true, ..Wishes::default() }),
            (
                "no-store, only-if-cached, no-transform",
                Wishes { no_store: true, only_if_cached: true, no_transform: true, ..Wishes::default() },
            ),
            ("stale-if-error=9", Wishes { stale_if_error: Some(9), ..Wishes::default() }),
        ] {
            assert_eq!(request(text), wishes, "{text}");
        }
    }

    #[test]
    fn pragma_counts_only_without_cache_control() {
        // RFC 9111 5.4.
        let mut headers = HeaderMap::new();
        headers.insert(PRAGMA, "foo, No-Cache".parse().unwrap());
        assert!(Wishes::of_request(&headers).no_cache);
        headers.insert(CACHE_CONTROL, "max-age=5".parse().unwrap());
        assert!(!Wishes::of_request(&headers).no_cache);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<Vec<u8>>) {
            let values = bytes.iter().filter_map(|line| HeaderValue::from_bytes(line).ok());
            let headers: HeaderMap = values.map(|value| (CACHE_CONTROL, value)).collect();
            Directives::of_response(&headers);
            Wishes::of_request(&headers);
        }

        #[test]
        fn no_store_is_found_wherever_it_stands(before in "[a-z0-9=, -]{0,20}", after in "[ -~]{0,20}") {
            let text = format!("{before},no-store,{after}");
            prop_assert!(response(&text).no_store, "{}", text);
        }
    }
}
