//! `Record`: what is stored of a response beside its body, small enough for a million of them.
//!
//! In memory it is a few numbers and one text; on disk the same bytes lie one after the other. The format is a part of what
//! lies on disk: a change raises [`FORMAT`], and what has another one is forgotten.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf as _, BufMut as _, Bytes};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::rules::directives::{Directives, Scope};
use super::tick::Tick;

/// The number of the format.
pub const FORMAT: u8 = 1;

/// The most bytes that the fields of a response may have together.
pub const MAX_FIELDS: usize = 256 << 10;

/// What is stored of a response beside its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When its request, or the one that confirmed it, went out. It tells two records of one id apart, and a purge of a
    /// later moment makes it void.
    pub asked: Tick,
    /// Its times and what it says of its use.
    pub terms: Terms,
    /// The status.
    pub status: u16,
    /// What it is.
    pub kind: Kind,
    /// The URL, the tags and the fields, one after the other.
    text: Bytes,
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
        let mut text = Vec::with_capacity(size + url.len() + tags.len() * 8 + 6);
        text.put_u32_le(url.len() as u32);
        text.put_slice(url.as_bytes());
        text.put_u16_le(tags.len() as u16);
        tags.iter().for_each(|tag| text.put_u64_le(*tag));
        for (name, value) in fields {
            write_name(name, &mut text)?;
            text.put_u16_le(u16::try_from(value.len()).map_err(|_| TooLarge)?);
            text.put_slice(value.as_bytes());
        }
        // An allocator may leave a text that became shorter in its larger place.
        Ok(Self { asked, terms, status, kind, text: Bytes::copy_from_slice(&text) })
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
        let mut rest = &self.text[..];
        let length = rest.get_u32_le() as usize;
        let (url, mut rest) = rest.split_at(length);
        let tags = usize::from(rest.get_u16_le()) * 8;
        (std::str::from_utf8(url).unwrap_or_default(), &rest[..tags], 4 + length + 2 + tags)
    }

    /// Each field, with its value as a piece of the record, which costs no copy.
    pub fn fields(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let mut at = self.split().2;
        std::iter::from_fn(move || {
            let mut rest = self.text.get(at..).filter(|rest| !rest.is_empty())?;
            let before = rest.len();
            let name = read_name(&mut rest)?;
            let length = usize::from(rest.try_get_u16_le().ok()?);
            let begin = at + (before - rest.len());
            at = begin + length;
            let value = (at <= self.text.len()).then(|| self.text.slice(begin..at))?;
            Some((name, HeaderValue::from_maybe_shared(value).ok()?))
        })
    }

    /// The fields as a map.
    pub fn headers(&self) -> HeaderMap {
        self.fields().collect()
    }

    /// How many bytes its text has: what it weighs in memory beside its own size.
    pub fn weight(&self) -> usize {
        self.text.len()
    }

    /// Appends the record as bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let Terms { received, initial_age, lifetime, stale_while_revalidate, stale_if_error, .. } = self.terms;
        let (kind, start, total) = match self.kind {
            Kind::Whole => (0, 0, None),
            Kind::Part(start, total) => (1, start, total),
            Kind::Variants => (2, 0, None),
            Kind::Sliced(size, total) => (3, size, Some(total)),
        };
        out.put_u8(kind);
        let flags = [self.terms.never_stale, self.terms.always_ask, self.terms.stale_as_said];
        out.put_u8(flags.iter().rev().fold(0, |bits, flag| bits << 1 | u8::from(*flag)));
        out.put_u16_le(self.status);
        out.put_u32_le(lifetime);
        out.put_u32_le(stale_while_revalidate.map_or(u32::MAX, |seconds| seconds.min(u32::MAX - 1)));
        out.put_u32_le(stale_if_error.map_or(u32::MAX, |seconds| seconds.min(u32::MAX - 1)));
        for number in [self.asked.0, received, initial_age, start, total.unwrap_or(u64::MAX)] {
            out.put_u64_le(number);
        }
        out.put_slice(&self.text);
    }

    /// How many bytes `encode` appends.
    pub fn encoded_len(&self) -> usize {
        FIXED + self.text.len()
    }

    /// Reads what `encode` wrote; `None`: it is no record. The bytes are kept.
    pub fn decode(mut bytes: Bytes) -> Option<Self> {
        if bytes.len() < FIXED {
            return None;
        }
        let kind = bytes.get_u8();
        let flags = bytes.get_u8();
        let status = bytes.get_u16_le();
        let lifetime = bytes.get_u32_le();
        let mut seconds = || Some(bytes.get_u32_le()).filter(|seconds| *seconds != u32::MAX);
        let (stale_while_revalidate, stale_if_error) = (seconds(), seconds());
        let [asked, received, initial_age, start, total] = std::array::from_fn(|_| bytes.get_u64_le());
        let kind = match kind {
            0 => Kind::Whole,
            1 => Kind::Part(start, Some(total).filter(|total| *total != u64::MAX)),
            2 => Kind::Variants,
            3 => Kind::Sliced(start, total),
            _ => return None,
        };
        let terms = Terms {
            received,
            initial_age,
            lifetime,
            stale_while_revalidate,
            stale_if_error,
            never_stale: flags & 1 > 0,
            always_ask: flags & 2 > 0,
            stale_as_said: flags & 4 > 0,
        };
        let record = Self { asked: Tick(asked), terms, status, kind, text: bytes };
        record.is_sound().then_some(record)
    }

    /// Whether the text holds what reading it expects. The checksum of a file says the same, unless we wrote it wrong.
    fn is_sound(&self) -> bool {
        let mut rest = &self.text[..];
        let Ok(length) = rest.try_get_u32_le() else { return false };
        let Some((url, mut rest)) = rest.split_at_checked(length as usize) else { return false };
        let Ok(tags) = rest.try_get_u16_le() else { return false };
        std::str::from_utf8(url).is_ok() && rest.len() >= usize::from(tags) * 8
    }
}

/// What a record has on disk before its text.
const FIXED: usize = 1 + 1 + 2 + 3 * 4 + 5 * 8;

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
