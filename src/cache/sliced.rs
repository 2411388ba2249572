//! `Sliced`: a representation that is stored in slices of one size.
//!
//! Under the id of its URL, or of its variant, lies a mark: a record without a body that says how long the representation is and
//! by which validators it is known. The ids of the slices depend on when the mark was made, so all of them are out of reach
//! once it was removed, purged or replaced.

use std::ops::Range;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, DATE, ETAG, LAST_MODIFIED};

use super::rules::conditional::{etag, is_weak};
use super::rules::date;
use super::rules::freshness::field_date;
use super::rules::list::{digits, single};
use super::rules::range::ContentRange;
use super::{Body, Id, Kind, Object, Record, Terms, Tick, Zone};

/// A slice, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Which one, from 0 on.
    pub index: u64,
    /// How many bytes each but the last has; above 0.
    pub size: u64,
}

impl Slice {
    /// Its bytes, if there are so many.
    pub fn range(self) -> Range<u64> {
        let start = self.index.saturating_mul(self.size);
        start..start.saturating_add(self.size)
    }

    /// Whether the head of a 206 is that of this slice, and tells enough to join it with others; then how many bytes there
    /// are in all.
    pub fn total_of(self, headers: &HeaderMap) -> Option<u64> {
        let ContentRange { range: Some(range), length: Some(total) } = ContentRange::of(headers)? else { return None };
        let wanted = self.range();
        let length = single(headers, CONTENT_LENGTH).map(|text| digits(text, u64::MAX));
        let fits = range == (wanted.start..wanted.end.min(total))
            && length.is_none_or(|length| length == Some(range.end - range.start))
            && is_known_for_certain(headers);
        fits.then_some(total)
    }
}

/// A representation that is stored in slices.
#[derive(Clone, Debug)]
pub struct Sliced {
    /// Under which id its mark lies.
    pub id: Id,
    /// The size of its slices.
    pub size: u64,
    /// How many bytes it has.
    pub total: u64,
    /// Its validators.
    pub headers: HeaderMap,
    asked: Tick,
}

impl Sliced {
    /// What a mark tells; `None`: the object is something else.
    pub fn of(object: &Object) -> Option<Self> {
        let Kind::Sliced(size, total) = object.record.kind() else { return None };
        Some(Self { id: object.id, size, total, headers: object.record.headers(), asked: object.record.asked })
    }

    /// Under which id a slice of it lies.
    pub fn slice(&self, index: u64) -> Id {
        let mut key = Vec::with_capacity(32);
        key.extend_from_slice(b"\0slice");
        for number in [self.asked.0, self.size, index] {
            key.extend_from_slice(&number.to_le_bytes());
        }
        self.id.with(&key)
    }

    /// The mark under `id` of the representation that this part, one of its slices, is of: made where there is none, or one of
    /// another representation.
    pub async fn enter(zone: &Zone, id: Id, part: &Record, size: u64) -> Option<Self> {
        let Kind::Part(_, Some(total)) = part.kind() else { return None };
        let headers = part.headers();
        // Two slices that arrive at the same time shall have one mark.
        let _alone = zone.slicing.lock().await;
        let known = zone.find(id).await.and_then(|object| Self::of(&object));
        if let Some(known) = known.filter(|known| known.size == size && known.is_of(&headers, total)) {
            return Some(known);
        }
        let validators: HeaderMap = [ETAG, LAST_MODIFIED, DATE]
            .into_iter()
            .filter_map(|name| headers.get(&name).map(|value| (name.clone(), value.clone())))
            .collect();
        let what = (0, Kind::Sliced(size, total));
        let record = Record::new(part.asked, Terms::default(), what, part.url(), &[], &validators).ok()?;
        zone.mark(id, record, Body::Whole(Bytes::new())).await;
        Some(Self { id, size, total, headers: validators, asked: part.asked })
    }

    /// Whether a part with these fields, of so many bytes in all, is of the same representation.
    pub fn is_of(&self, headers: &HeaderMap, total: u64) -> bool {
        self.total == total && is_same(&self.headers, headers)
    }
}

/// Whether both are of one representation for certain (RFC 9110 8.8.1, 15.3.7.3).
pub fn is_same(one: &HeaderMap, other: &HeaderMap) -> bool {
    let has_same = |name| single(one, &name) == single(other, &name);
    match (etag(one), etag(other)) {
        (Some(one), Some(other)) if !is_weak(one) => one == other,
        _ => is_known_for_certain(one) && is_known_for_certain(other) && has_same(ETAG) && has_same(LAST_MODIFIED),
    }
}

/// Whether it has a validator that changes with every change: a strong tag, or a date that is so old that a second change
/// cannot have had the same (RFC 9110 8.8.2.2).
fn is_known_for_certain(headers: &HeaderMap) -> bool {
    if etag(headers).is_some_and(|tag| !is_weak(tag)) {
        return true;
    }
    let now = date::seconds(std::time::SystemTime::now());
    let at = |name| field_date(headers, &name, now);
    at(LAST_MODIFIED).zip(at(DATE)).is_some_and(|(changed, sent)| sent > changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::ZoneStats;

    const OLD: &str = "Sun, 06 Nov 1994 08:00:00 GMT";
    const LATE: &str = "Sun, 06 Nov 1994 10:00:00 GMT";

    fn head(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_a_slice_that_can_be_joined_fits() {
        let slice = Slice { index: 1, size: 10 };
        let tag = ("etag", "\"a\"");
        for (fields, total) in [
            (&[("content-range", "bytes 10-19/25"), tag][..], Some(25)),
            (&[("content-range", "bytes 10-14/15"), tag], Some(15)),
            (&[("content-range", "bytes 10-19/25"), ("content-length", "10"), tag], Some(25)),
            (&[("content-range", "bytes 10-19/25"), ("last-modified", OLD), ("date", LATE)], Some(25)),
            (&[("content-range", "bytes 10-19/25"), ("content-length", "9"), tag], None),
            (&[("content-range", "bytes 10-18/25"), tag], None),
            (&[("content-range", "bytes 0-9/25"), tag], None),
            (&[("content-range", "bytes 10-19/*"), tag], None),
            (&[("content-range", "bytes 10-19/25"), ("etag", "W/\"a\"")], None),
            (&[("content-range", "bytes 10-19/25"), ("last-modified", OLD), ("date", OLD)], None),
            (&[("content-range", "bytes 10-19/25")], None),
            (&[tag], None),
        ] {
            assert_eq!(slice.total_of(&head(fields)), total, "{fields:?}");
        }
    }

    #[test]
    fn representations_are_the_same_only_for_certain() {
        let changed = [("last-modified", OLD), ("date", LATE)];
        for (one, other, same) in [
            (&[("etag", "\"a\"")][..], &[("etag", "\"a\"")][..], true),
            (&[("etag", "\"a\"")], &[("etag", "\"b\"")], false),
            (&[("etag", "W/\"a\"")], &[("etag", "W/\"a\"")], false),
            (&[("etag", "\"a\"")], &[], false),
            (&[("etag", "\"a\"")], &changed, false),
            (&changed, &changed, true),
            (&changed, &[("last-modified", LATE), ("date", LATE)], false),
            (&[("last-modified", OLD)], &[("last-modified", OLD)], false),
            (&[], &[], false),
        ] {
            assert_eq!(is_same(&head(one), &head(other)), same, "{one:?} {other:?}");
            assert_eq!(is_same(&head(other), &head(one)), same, "{other:?} {one:?}");
        }
    }

    #[tokio::test]
    async fn slices_of_one_representation_have_one_mark_and_those_of_another_a_new_one() {
        let zone = Zone::new("main", 1 << 20, std::sync::Arc::<ZoneStats>::default());
        let id = Id::of(b"url");
        let part = |tag: &str, start, total| {
            let what = (206, Kind::Part(start, Some(total)));
            Record::new(Tick::now(), Terms::default(), what, "http://a/", &[], &head(&[("etag", tag)])).unwrap()
        };
        let first = Sliced::enter(&zone, id, &part("\"a\"", 10, 25), 10).await.unwrap();
        let second = Sliced::enter(&zone, id, &part("\"a\"", 0, 25), 10).await.unwrap();
        assert_eq!(first.slice(0), second.slice(0));
        assert_ne!(first.slice(0), first.slice(1));
        for other in [part("\"b\"", 0, 25), part("\"b\"", 0, 26)] {
            let changed = Sliced::enter(&zone, id, &other, 10).await.unwrap();
            assert_ne!(changed.slice(0), first.slice(0));
            let found = Sliced::of(&zone.find(id).await.unwrap()).unwrap();
            assert_eq!((found.slice(0), found.total), (changed.slice(0), changed.total));
        }
    }
}
