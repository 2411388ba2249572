//! Targeted cache control (RFC 9213): `CDN-Cache-Control` and fields like it speak to caches like us alone.
//!
//! The first field of the list that holds a dictionary of structured fields (RFC 9651) replaces `Cache-Control` and
//! `Expires`. One that is empty or no dictionary counts as absent (2.1), and so does one in which nothing that we know
//! has a value of the right type: then `Cache-Control` is the safer guess.

use std::borrow::Cow;
use std::convert::Infallible;

use http::header::{HeaderMap, HeaderName};
use sfv::visitor::{DictionaryVisitor, EntryVisitor, Ignored, InnerListVisitor, ItemVisitor};
use sfv::{BareItemFromInput, KeyRef, Parser, Version};

use super::directives::{Argument, Directives, MAX_SECONDS, Scope};

/// `CDN-Cache-Control`.
pub const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// What a response says to this cache: in the first valid field of `targets`, else in `Cache-Control`.
pub fn directives(headers: &HeaderMap, targets: &[HeaderName]) -> Directives {
    let found = targets.iter().find_map(|name| dictionary(headers, name));
    found.unwrap_or_else(|| Directives::of_response(headers))
}

fn dictionary(headers: &HeaderMap, name: &HeaderName) -> Option<Directives> {
    let mut lines = headers.get_all(name).iter().map(|line| line.as_bytes());
    let first = lines.next()?;
    // Lines of a dictionary are one text with commas between them (RFC 9651 4.2).
    let text = lines.fold(Cow::Borrowed(first), |text, line| Cow::Owned([&text, line].join(&b", "[..])));
    let reader = Parser::new(&*text).with_version(Version::Rfc8941);
    reader.parse_dictionary_with_visitor(Reader::default()).ok()?
}

#[derive(Default)]
struct Reader {
    members: Members,
    any: bool,
}

/// What was read so far. Of two members with one key the last counts (RFC 9651 4.2.2).
#[derive(Default)]
struct Members {
    found: Directives,
    understood: u32,
    misused: u32,
}

struct Entry<'a, 'de> {
    members: &'a mut Members,
    key: &'de str,
}

impl<'de> DictionaryVisitor<'de> for Reader {
    type Out = Option<Directives>;
    type Error = Infallible;

    fn entry(&mut self, key: &'de KeyRef) -> Result<impl EntryVisitor<'de>, Self::Error> {
        self.any = true;
        Ok(Entry { members: &mut self.members, key: key.as_str() })
    }

    fn finish(self) -> Result<Self::Out, Infallible> {
        let Members { found, understood, misused } = self.members;
        let is_valid = self.any && (understood > 0 || misused == 0);
        Ok(is_valid.then_some(Directives { targeted: true, ..found }))
    }
}

impl<'de> EntryVisitor<'de> for Entry<'_, 'de> {
    type Error = Infallible;

    fn item(self) -> Result<impl ItemVisitor<'de>, Infallible> {
        Ok(move |value: BareItemFromInput<'de>| {
            self.members.take(self.key, Some(&value));
            Ok::<_, Infallible>(Ignored)
        })
    }

    fn inner_list(self) -> Result<impl InnerListVisitor<'de>, Infallible> {
        self.members.take(self.key, None);
        Ok(Ignored)
    }
}

impl Members {
    /// Takes in one member if its value is of the type that it asks for (RFC 9213 2.1); `None` is a list.
    fn take(&mut self, key: &str, value: Option<&BareItemFromInput<'_>>) {
        let known = match key {
            "max-age" | "s-maxage" | "stale-while-revalidate" | "stale-if-error" => match value {
                Some(BareItemFromInput::Integer(number)) => {
                    // None is less than no time.
                    let seconds = u64::try_from(i64::from(*number)).unwrap_or(0).min(MAX_SECONDS);
                    *self.number(key) = Some(seconds);
                    true
                }
                _ => {
                    *self.number(key) = None;
                    false
                }
            },
            "no-cache" | "private" => match value {
                Some(BareItemFromInput::Boolean(true)) => self.found.take(key.as_bytes(), Argument::None),
                Some(BareItemFromInput::String(names)) => {
                    let text = Argument::Text(names.as_str().as_bytes());
                    *self.scope(key) = Scope::Nothing;
                    self.found.take(key.as_bytes(), text)
                }
                _ => false,
            },
            _ => match value {
                Some(BareItemFromInput::Boolean(true)) => {
                    self.found.take(key.as_bytes(), Argument::None);
                    true
                }
                _ => !Directives::default().take(key.as_bytes(), Argument::None),
            },
        };
        if known {
            self.understood += 1;
        } else {
            self.misused += 1;
        }
    }

    fn number(&mut self, key: &str) -> &mut Option<u64> {
        match key {
            "max-age" => &mut self.found.max_age,
            "s-maxage" => &mut self.found.s_maxage,
            "stale-while-revalidate" => &mut self.found.stale_while_revalidate,
            _ => &mut self.found.stale_if_error,
        }
    }

    fn scope(&mut self, key: &str) -> &mut Scope {
        if key == "private" { &mut self.found.private } else { &mut self.found.no_cache }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::{CACHE_CONTROL, SET_COOKIE};
    use proptest::prelude::*;
    use smallvec::smallvec;

    use super::*;

    const MINE: HeaderName = HeaderName::from_static("mine-cache-control");

    fn read(fields: &[(&HeaderName, &str)]) -> Directives {
        let headers = fields.iter().map(|(name, value)| ((*name).clone(), value.parse().unwrap())).collect();
        directives(&headers, &[MINE, CDN_CACHE_CONTROL])
    }

    #[test]
    fn a_valid_targeted_field_replaces_cache_control() {
        // RFC 9213 2.2. Each beside `Cache-Control: max-age=1, no-store`; `None`: that is what counts.
        for (text, max_age) in [
            ("max-age=10", Some(Some(10))),
            ("max-age=0", Some(Some(0))),
            ("max-age=10;foo=bar, ext=(a b)", Some(Some(10))),
            ("max-age=999999999999999", Some(Some(MAX_SECONDS))),
            ("max-age=-5", Some(Some(0))),
            ("max-age=1, max-age=10", Some(Some(10))), // RFC 9651 4.2.2: the last
            ("public", Some(None)),
            ("unknown=5", Some(None)),
            ("unknown", Some(None)),
            ("public, max-age=\"10\"", Some(None)), // the wrong type is not consumed (2.1)
            ("public, max-age=1, max-age=\"10\"", Some(None)),
            ("max-age=\"10\"", None),
            ("max-age=1.5", None),
            ("max-age=(1 2)", None),
            ("max-age", None),
            ("no-store=?0", None),
            ("max-age=9999999999999999", None), // more than 15 digits is no integer
            ("max-age=10, &&&", None),
            ("Max-Age=10", None), // a key is lower case
            ("max-age=10,", None),
            ("no-cache=\"a", None),
            ("", None),
            ("  ", None),
        ] {
            let all = read(&[(&CDN_CACHE_CONTROL, text), (&CACHE_CONTROL, "max-age=1, no-store")]);
            assert_eq!(all.targeted, max_age.is_some(), "{text}");
            assert_eq!(all.no_store, max_age.is_none(), "{text}");
            assert_eq!(all.max_age, max_age.unwrap_or(Some(1)), "{text}");
        }
    }

    #[test]
    fn the_first_valid_field_of_the_list_counts() {
        let cdn = (&CDN_CACHE_CONTROL, "max-age=2");
        assert_eq!(read(&[(&MINE, "max-age=3"), cdn]).max_age, Some(3));
        assert_eq!(read(&[(&MINE, ""), cdn]).max_age, Some(2));
        assert_eq!(read(&[(&MINE, "!"), cdn]).max_age, Some(2));
        assert_eq!(read(&[(&HeaderName::from_static("other-cache-control"), "max-age=4"), cdn]).max_age, Some(2));
    }

    #[test]
    fn lines_are_one_dictionary() {
        let all = read(&[(&MINE, "max-age=1"), (&MINE, "no-store, max-age=2")]);
        assert_eq!((all.max_age, all.no_store), (Some(2), true));
    }

    #[test]
    fn every_directive_that_we_know_counts() {
        let all = read(&[(
            &MINE,
            "s-maxage=1, stale-while-revalidate=2, stale-if-error=3, no-cache=\"set-cookie\", private, public, \
             must-revalidate, proxy-revalidate, must-understand, immutable, no-transform",
        )]);
        let wanted = Directives {
            max_age: None,
            s_maxage: Some(1),
            stale_while_revalidate: Some(2),
            stale_if_error: Some(3),
            no_cache: Scope::Fields(smallvec![SET_COOKIE]),
            private: Scope::Whole,
            no_store: false,
            public: true,
            must_revalidate: true,
            proxy_revalidate: true,
            must_understand: true,
            immutable: true,
            no_transform: true,
            targeted: true,
        };
        assert_eq!(all, wanted);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<Vec<u8>>) {
            let values = bytes.iter().filter_map(|line| HeaderValue::from_bytes(line).ok());
            directives(&values.map(|value| (MINE, value)).collect(), &[MINE]);
        }
    }
}
