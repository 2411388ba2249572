//! `Record`: what is stored of a response beside its body, small enough for a million of them.
//!
//! In memory it is a few numbers and one text, in which also lie the numbers that few responses have, and behind which a
//! small body may lie, so that both take one allocation. On disk the same bytes lie one after the other. The format is a part
//! of what lies on disk: a change raises [`FORMAT`], and what has another one is forgotten.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf as _, BufMut as _, Bytes};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::rules::directives::{Directives, Scope};
use super::tick::Tick;

/// The number of the format.
pub const FORMAT: u8 = 2;

/// The most bytes that the fields of a response may have together.
pub const MAX_FIELDS: usize = 256 << 10;

/// What is stored of a response beside its body.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// When its request, or the one that confirmed it, went out. It tells two records of one id apart, and a purge of a
    /// later moment makes it void.
    pub asked: Tick,
    /// In milliseconds since 1970.
    received: u64,
    /// In milliseconds.
    initial_age: u32,
    /// In seconds.
    lifetime: u32,
    /// Where the text ends, and the body begins that lies behind it, if one does.
    end: u32,
    /// The status.
    pub status: u16,
    form: Form,
    flags: Flags,
    /// The numbers that only some have, the URL, the tags and the fields, one after the other.
    text: Bytes,
}

/// [`Kind`] without its numbers, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Form {
    Whole,
    Part,
    Variants,
    Sliced,
}

/// What a response says in a bit each. The last two: there is a number for it in the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Flags(u8);

impl Flags {
    const NEVER_STALE: u8 = 1;
    const ALWAYS_ASK: u8 = 2;
    const STALE_AS_SAID: u8 = 4;
    const WHILE_REVALIDATE: u8 = 8;
    const IF_ERROR: u8 = 16;

    fn of(terms: &Terms) -> Self {
        let bit = |is_set: bool, bit: u8| u8::from(is_set) * bit;
        Self(
            bit(terms.never_stale, Self::NEVER_STALE)
                | bit(terms.always_ask, Self::ALWAYS_ASK)
                | bit(terms.stale_as_said, Self::STALE_AS_SAID)
                | bit(terms.stale_while_revalidate.is_some(), Self::WHILE_REVALIDATE)
                | bit(terms.stale_if_error.is_some(), Self::IF_ERROR),
        )
    }

    const fn has(self, bit: u8) -> bool {
        self.0 & bit > 0
    }
}

/// What a record stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole response.
    Whole,
    /// A part of one, from a 206: from this byte on, of so many in all (`None`: not told).
    Part(u64, Option<u64>),
    /// No response: which request fields tell the variants of this id apart. Its only field is `Vary`.
    Variants,
    /// No response: what this id stands for is stored in slices of so many bytes, and has so many in all. Its fields are the
    /// validators.
    Sliced(u64, u64),
}

/// The times of a stored response, and what it says of its use (see `rules::directives`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// When it arrived, in milliseconds since 1970.
    pub received: u64,
    /// Its age then, in milliseconds (RFC 9111 4.2.3).
    pub initial_age: u64,
    /// For how many seconds of age it is fresh.
    pub lifetime: u32,
    /// `stale-while-revalidate`, in seconds.
    pub stale_while_revalidate: Option<u32>,
    /// `stale-if-error`, in seconds.
    pub stale_if_error: Option<u32>,
    /// `must-revalidate` or `proxy-revalidate`: never served stale.
    pub never_stale: bool,
    /// `s-maxage`: served stale only as far as the response itself allows it.
    pub stale_as_said: bool,
    /// `no-cache`: never served without asking.
    pub always_ask: bool,
}

impl Terms {
    /// The terms of a response with these directives.
    pub fn new(received: SystemTime, initial_age: Duration, lifetime: Duration, directives: &Directives) -> Self {
        let seconds = |seconds: Option<u64>| seconds.map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX));
        let received = received.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            received: millis(received),
            initial_age: millis(initial_age),
            lifetime: u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX),
            stale_while_revalidate: seconds(directives.stale_while_revalidate),
            stale_if_error: seconds(directives.stale_if_error),
            never_stale: directives.must_revalidate || directives.proxy_revalidate,
            stale_as_said: directives.s_maxage.is_some(),
            always_ask: directives.no_cache.is_whole(),
        }
    }

    /// When it arrived.
    pub fn received(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.received)
    }

    /// Its age at this time (RFC 9111 4.2.3).
    pub fn age(&self, now: SystemTime) -> Duration {
        let resident = now.duration_since(self.received()).unwrap_or_default();
        Duration::from_millis(self.initial_age).saturating_add(resident)
    }

    /// For which age it is fresh.
    pub fn lifetime(&self) -> Duration {
        Duration::from_secs(self.lifetime.into())
    }

    /// The directives that say how it may be used: enough for `rules::reuse` and `rules::freshness::may_serve`.
    pub fn directives(&self) -> Directives {
        Directives {
            stale_while_revalidate: self.stale_while_revalidate.map(u64::from),
            stale_if_error: self.stale_if_error.map(u64::from),
            must_revalidate: self.never_stale,
            s_maxage: self.stale_as_said.then_some(self.lifetime.into()),
            no_cache: if self.always_ask { Scope::Whole } else { Scope::Nothing },
            ..Directives::default()
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// What a record cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

impl Record {
    /// A record of these fields. `url`: the URL in full, for purges and for operators; `tags`: hashes of its tags.
    pub fn new(
        asked: Tick,
        terms: Terms,
        (status, kind): (u16, Kind),
        url: &str,
        tags: &[u64],
        fields: &HeaderMap,
    ) -> Result<Self, TooLarge> {
        let size = fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>();
        if size > MAX_FIELDS || url.len() > MAX_FIELDS || tags.len() > usize::from(u16::MAX) {
            return Err(TooLarge);
        }
        let mut text = Vec::with_capacity(MOST_NUMBERS + size + url.len() + tags.len() * 8 + 6);
        let form = match kind {
            Kind::Whole => Form::Whole,
            Kind::Part(start, total) => {
                text.put_u64_le(start);
                text.put_u64_le(total.unwrap_or(u64::MAX));
                Form::Part
            }
            Kind::Variants => Form::Variants,
            Kind::Sliced(size, total) => {
                text.put_u64_le(size);
                text.put_u64_le(total);
                Form::Sliced
            }
        };
        let seconds = [terms.stale_while_revalidate, terms.stale_if_error];
        seconds.into_iter().flatten().for_each(|seconds| text.put_u32_le(seconds));
        text.put_u32_le(url.len() as u32);
        text.put_slice(url.as_bytes());
        text.put_u16_le(tags.len() as u16);
        tags.iter().for_each(|tag| text.put_u64_le(*tag));
        for (name, value) in fields {
            write_name(name, &mut text)?;
            text.put_u16_le(u16::try_from(value.len()).map_err(|_| TooLarge)?);
            text.put_slice(value.as_bytes());
        }
        // The text of a high age says the same as one that arrived earlier with a lower one.
        let initial_age = u32::try_from(terms.initial_age).unwrap_or(u32::MAX);
        Ok(Self {
            asked,
            received: terms.received.saturating_sub(terms.initial_age - u64::from(initial_age)),
            initial_age,
            lifetime: terms.lifetime,
            end: u32::try_from(text.len()).map_err(|_| TooLarge)?,
            status,
            form,
            flags: Flags::of(&terms),
            // An allocator may leave a text that became shorter in its larger place.
            text: Bytes::copy_from_slice(&text),
        })
    }

    /// Its times and what it says of its use.
    pub fn terms(&self) -> Terms {
        let mut numbers = &self.text()[self.form.numbers()..];
        let mut seconds = |bit| self.flags.has(bit).then(|| numbers.get_u32_le());
        Terms {
            received: self.received,
            initial_age: self.initial_age.into(),
            lifetime: self.lifetime,
            stale_while_revalidate: seconds(Flags::WHILE_REVALIDATE),
            stale_if_error: seconds(Flags::IF_ERROR),
            never_stale: self.flags.has(Flags::NEVER_STALE),
            stale_as_said: self.flags.has(Flags::STALE_AS_SAID),
            always_ask: self.flags.has(Flags::ALWAYS_ASK),
        }
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        match self.form {
            Form::Whole => Kind::Whole,
            Form::Part => {
                let mut numbers = self.text();
                let (start, total) = (numbers.get_u64_le(), numbers.get_u64_le());
                Kind::Part(start, Some(total).filter(|total| *total != u64::MAX))
            }
            Form::Variants => Kind::Variants,
            Form::Sliced => {
                let mut numbers = self.text();
                Kind::Sliced(numbers.get_u64_le(), numbers.get_u64_le())
            }
        }
    }

    fn text(&self) -> &[u8] {
        &self.text[..self.end as usize]
    }

    /// How many bytes of the text are numbers.
    fn numbers(&self) -> usize {
        let seconds = [Flags::WHILE_REVALIDATE, Flags::IF_ERROR];
        self.form.numbers() + 4 * seconds.into_iter().filter(|bit| self.flags.has(*bit)).count()
    }

    /// The same record with a body behind its text, in one allocation.
    pub(super) fn with_body(&self, body: &[u8]) -> Self {
        let joined = [self.text(), body].concat();
        Self { text: joined.into(), ..*self }
    }

    /// The body that lies behind the text.
    pub(super) fn body(&self) -> Bytes {
        self.text.slice(self.end as usize..)
    }

    /// How long that is.
    pub(super) fn body_len(&self) -> usize {
        self.text.len() - self.end as usize
    }

    /// The URL in full.
    pub fn url(&self) -> &str {
        self.split().0
    }

    /// The hashes of its tags.
    pub fn tags(&self) -> impl Iterator<Item = u64> {
        self.split().1.chunks_exact(8).map(|mut tag| tag.get_u64_le())
    }

    fn split(&self) -> (&str, &[u8], usize) {
        let numbers = self.numbers();
        let mut rest = &self.text()[numbers..];
        let length = rest.get_u32_le() as usize;
        let (url, mut rest) = rest.split_at(length);
        let tags = usize::from(rest.get_u16_le()) * 8;
        (std::str::from_utf8(url).unwrap_or_default(), &rest[..tags], numbers + 4 + length + 2 + tags)
    }

    /// Each field, with its value as a piece of the record, which costs no copy.
    pub fn fields(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let mut at = self.split().2;
        std::iter::from_fn(move || {
            let mut rest = self.text().get(at..).filter(|rest| !rest.is_empty())?;
            let before = rest.len();
            let name = read_name(&mut rest)?;
            let length = usize::from(rest.try_get_u16_le().ok()?);
            let begin = at + (before - rest.len());
            at = begin + length;
            let value = (at <= self.text().len()).then(|| self.text.slice(begin..at))?;
            Some((name, HeaderValue::from_maybe_shared(value).ok()?))
        })
    }

    /// The fields as a map.
    pub fn headers(&self) -> HeaderMap {
        self.fields().collect()
    }

    /// How many bytes its text has.
    pub fn weight(&self) -> usize {
        self.end as usize
    }

    /// Appends the record as bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(self.form as u8);
        out.put_u8(self.flags.0);
        out.put_u16_le(self.status);
        out.put_u32_le(self.initial_age);
        out.put_u32_le(self.lifetime);
        out.put_u64_le(self.asked.0);
        out.put_u64_le(self.received);
        out.put_slice(self.text());
    }

    /// How many bytes `encode` appends.
    pub fn encoded_len(&self) -> usize {
        FIXED + self.weight()
    }

    /// Reads what `encode` wrote; `None`: it is no record. The bytes are kept.
    pub fn decode(mut bytes: Bytes) -> Option<Self> {
        if bytes.len() < FIXED {
            return None;
        }
        let form = match bytes.get_u8() {
            0 => Form::Whole,
            1 => Form::Part,
            2 => Form::Variants,
            3 => Form::Sliced,
            _ => return None,
        };
        let flags = Flags(bytes.get_u8());
        let status = bytes.get_u16_le();
        let (initial_age, lifetime) = (bytes.get_u32_le(), bytes.get_u32_le());
        let (asked, received) = (Tick(bytes.get_u64_le()), bytes.get_u64_le());
        let end = u32::try_from(bytes.len()).ok()?;
        let record = Self { asked, received, initial_age, lifetime, end, status, form, flags, text: bytes };
        record.is_sound().then_some(record)
    }

    /// Whether the text holds what reading it expects. The checksum of a file says the same, unless we wrote it wrong.
    fn is_sound(&self) -> bool {
        let Some(mut rest) = self.text().get(self.numbers()..) else { return false };
        let Ok(length) = rest.try_get_u32_le() else { return false };
        let Some((url, mut rest)) = rest.split_at_checked(length as usize) else { return false };
        let Ok(tags) = rest.try_get_u16_le() else { return false };
        std::str::from_utf8(url).is_ok() && rest.len() >= usize::from(tags) * 8
    }
}

impl Form {
    /// How many bytes of numbers its text begins with.
    const fn numbers(self) -> usize {
        if let Self::Part | Self::Sliced = self { 16 } else { 0 }
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = f.debug_struct("Record");
        told.field("asked", &self.asked).field("terms", &self.terms()).field("status", &self.status);
        told.field("kind", &self.kind()).field("url", &self.url()).finish_non_exhaustive()
    }
}

/// What a record has on disk before its text.
const FIXED: usize = 1 + 1 + 2 + 2 * 4 + 2 * 8;

/// So many bytes of numbers may lie in a text.
const MOST_NUMBERS: usize = 16 + 2 * 4;

/// The names that are written as one byte: their position and 1. New ones come at the end.
static NAMES: [HeaderName; 30] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::DATE,
    header::CACHE_CONTROL,
    header::ETAG,
    header::LAST_MODIFIED,
    header::EXPIRES,
    header::VARY,
    header::CONTENT_ENCODING,
    header::ACCEPT_RANGES,
    header::SERVER,
    header::CONTENT_LANGUAGE,
    header::CONTENT_RANGE,
    header::CONTENT_DISPOSITION,
    header::CONTENT_LOCATION,
    header::LOCATION,
    header::SET_COOKIE,
    header::LINK,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
    header::STRICT_TRANSPORT_SECURITY,
    header::X_CONTENT_TYPE_OPTIONS,
    header::X_FRAME_OPTIONS,
    header::CONTENT_SECURITY_POLICY,
    header::REFERRER_POLICY,
    header::VIA,
    header::ALT_SVC,
];

/// A name: its position in the table, or 0, its length and itself.
fn write_name(name: &HeaderName, text: &mut Vec<u8>) -> Result<(), TooLarge> {
    if let Some(position) = NAMES.iter().position(|known| known == name) {
        text.put_u8(position as u8 + 1);
        return Ok(());
    }
    text.put_u8(0);
    text.put_u8(u8::try_from(name.as_str().len()).map_err(|_| TooLarge)?);
    text.put_slice(name.as_str().as_bytes());
    Ok(())
}

fn read_name(rest: &mut &[u8]) -> Option<HeaderName> {
    let code = rest.try_get_u8().ok()?;
    if code > 0 {
        return NAMES.get(usize::from(code) - 1).cloned();
    }
    let length = usize::from(rest.try_get_u8().ok()?);
    let (name, after) = rest.split_at_checked(length)?;
    *rest = after;
    HeaderName::from_bytes(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let mut fields = HeaderMap::new();
        fields.append("content-type", "text/plain".parse().unwrap());
        fields.append("x-own", "1".parse().unwrap());
        fields.append("set-cookie", "a=b".parse().unwrap());
        fields.append("set-cookie", "c=d".parse().unwrap());
        fields.append("x-latin", HeaderValue::from_bytes(b"caf\xe9").unwrap());
        let terms = Terms { received: 5, initial_age: 6, lifetime: 7, stale_if_error: Some(8), ..Terms::default() };
        Record::new(Tick(9), terms, (206, Kind::Part(3, Some(10))), "http://a/b", &[1, u64::MAX], &fields).unwrap()
    }

    #[test]
    fn what_was_written_can_be_read() {
        let record = record();
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        assert_eq!(bytes.len(), record.encoded_len());
        let read = Record::decode(bytes.into()).unwrap();
        assert_eq!(read, record);
        assert_eq!(read.url(), "http://a/b");
        assert_eq!(read.tags().collect::<Vec<_>>(), [1, u64::MAX]);
        let headers = read.headers();
        assert_eq!(headers.len(), 5);
        assert_eq!(headers["x-own"], "1");
        assert_eq!(headers.get_all("set-cookie").iter().collect::<Vec<_>>(), ["a=b", "c=d"]);
        assert_eq!(headers["x-latin"].as_bytes(), b"caf\xe9");
    }

    #[test]
    fn what_is_asked_of_it_is_what_it_was_made_of() {
        let most = Terms {
            received: 1 << 50,
            initial_age: 1 << 40,
            lifetime: u32::MAX,
            stale_while_revalidate: Some(u32::MAX),
            stale_if_error: Some(0),
            never_stale: true,
            stale_as_said: true,
            always_ask: true,
        };
        let one = Terms { received: 3, initial_age: u64::from(u32::MAX), stale_if_error: Some(4), ..Terms::default() };
        for terms in [Terms::default(), one, most] {
            for kind in [
                Kind::Whole,
                Kind::Part(0, None),
                Kind::Part(1 << 40, Some(1 << 41)),
                Kind::Variants,
                Kind::Sliced(5, 1 << 40),
            ] {
                let record = Record::new(Tick(9), terms, (206, kind), "u", &[7], &HeaderMap::new()).unwrap();
                let record = record.with_body(b"body");
                let (told, now) = (record.terms(), UNIX_EPOCH + Duration::from_millis(1 << 51));
                assert_eq!((record.kind(), record.url(), record.body()), (kind, "u", Bytes::from_static(b"body")));
                assert_eq!((told.age(now), told.directives()), (terms.age(now), terms.directives()));
                let is_high = terms.initial_age > u64::from(u32::MAX);
                assert_eq!(told.received + u64::from(is_high) * ((1 << 40) - u64::from(u32::MAX)), terms.received);
                let mut bytes = Vec::new();
                record.encode(&mut bytes);
                let read = Record::decode(bytes.into()).unwrap();
                assert_eq!((read.terms(), read.kind(), read.body_len()), (told, kind, 0));
            }
        }
    }

    #[test]
    fn what_is_no_record_is_refused_and_never_panics() {
        let mut bytes = Vec::new();
        record().encode(&mut bytes);
        for end in 0..bytes.len() {
            if let Some(cut) = Record::decode(Bytes::copy_from_slice(&bytes[..end])) {
                assert!(cut.fields().count() <= 5 && cut.tags().count() <= 2);
            }
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0xff;
            if let Some(changed) = Record::decode(changed.into()) {
                let _ = (changed.url().len(), changed.tags().count(), changed.fields().count());
                let _ = (changed.terms(), changed.kind());
            }
        }
    }

    #[test]
    fn a_value_or_a_url_that_is_too_long_is_not_stored() {
        let mut fields = HeaderMap::new();
        fields.insert("x", "v".repeat(70_000).parse().unwrap());
        let new = |url: &str, fields| Record::new(Tick(1), Terms::default(), (200, Kind::Whole), url, &[], fields);
        assert_eq!(new("u", &fields), Err(TooLarge));
        assert_eq!(new(&"u".repeat(MAX_FIELDS + 1), &HeaderMap::new()), Err(TooLarge));
    }
}
