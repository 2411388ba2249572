//! `Object`: a stored response as requests see it, wherever its body lies.
//!
//! A million of them lie in memory, so each byte counts: what is small lies behind the text of its record.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use bytes::Bytes;
use http::header::{HeaderName, VARY};

use super::disk::{Blob, Found, FoundBody};
use super::fill;
use super::{Id, Kind, Record};

/// A response on its way.
pub type Fill = fill::Fill<Object>;
/// What one came to.
pub type Outcome = fill::Outcome<Object>;
/// Reads one.
pub type Reader = fill::Reader<Object>;

/// A stored response.
#[derive(Debug)]
pub struct Object {
    /// Under what it is stored.
    pub id: Id,
    /// What it is.
    pub record: Record,
    /// Its body, where that does not lie behind the text of the record.
    elsewhere: Option<Box<Body>>,
    /// The last sequence of purges that it was compared with, and in the lowest bit whether one made it stale. The highest bit
    /// of the sequence is lost: it would have to miss two milliards of purges, and not one more or less, to miss any.
    compared: AtomicU32,
    /// What the tier in memory notes of it.
    pub(super) place: AtomicU32,
}

/// Where a body lies.
#[derive(Clone, Debug)]
pub enum Body {
    /// In memory.
    Whole(Bytes),
    /// In a file of the disk tier.
    File(Arc<Blob>),
    /// On its way from the origin; its length, if that is known.
    Filling(Arc<Fill>, Option<u64>),
    /// To come by the fill that holds the object; its length, if that is known.
    Awaited(Option<u64>),
    /// None: these request fields tell variants apart (see [`Kind::Variants`]).
    Variants(Box<[HeaderName]>),
}

/// Reads a body piece by piece.
#[derive(Debug)]
pub enum BodyReader {
    /// One piece of memory, until it was read.
    Memory(Option<Bytes>),
    /// From this byte of a file on, up to that one.
    File(Arc<Blob>, u64, u64),
    /// Follows a fill.
    Fill(Reader),
}

/// How much of a file is read at once.
const READ: u64 = 128 << 10;

/// A larger body keeps its own allocation: it is not worth a copy, and what that takes is little beside it.
const JOINED: usize = 16 << 10;

impl Object {
    /// A stored response that was compared with no purge yet.
    pub fn new(id: Id, record: Record, body: Body) -> Self {
        let (record, elsewhere) = match body {
            Body::Whole(bytes) if bytes.len() <= JOINED => (record.with_body(&bytes), None),
            body => (record, Some(Box::new(body))),
        };
        Self { id, record, elsewhere, compared: AtomicU32::new(0), place: AtomicU32::new(0) }
    }

    /// What the disk tier found.
    pub fn found(id: Id, found: Found) -> Self {
        let body = match found.body {
            _ if found.record.kind() == Kind::Variants => Body::Variants(names(&found.record)),
            FoundBody::Inline(bytes) => Body::Whole(bytes),
            FoundBody::File(blob) => Body::File(blob),
        };
        Self::new(id, found.record, body)
    }

    /// Its body.
    pub fn body(&self) -> Body {
        match &self.elsewhere {
            None => Body::Whole(self.record.body()),
            Some(body) => (**body).clone(),
        }
    }

    /// How long its body is; `None`: that is not known yet.
    pub fn len(&self) -> Option<u64> {
        self.elsewhere.as_deref().map_or_else(|| Some(self.record.body_len() as u64), Body::len)
    }

    /// Whether its body has no byte, as far as that is known.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// Whether all of it is in memory.
    pub fn is_whole(&self) -> bool {
        matches!(self.elsewhere.as_deref(), None | Some(Body::Whole(_)))
    }

    /// The request fields that tell variants apart, if it is no response but says that.
    pub fn variants(&self) -> Option<&[HeaderName]> {
        match self.elsewhere.as_deref() {
            Some(Body::Variants(names)) => Some(names),
            _ => None,
        }
    }

    /// Reads its body from this byte on, up to that one. `None`: it is gone.
    pub fn read(&self, from: u64, to: Option<u64>) -> Option<BodyReader> {
        match &self.elsewhere {
            None => Body::Whole(self.record.body()).read(from, to),
            Some(body) => body.read(from, to),
        }
    }

    /// Whether it was compared with the purges of this sequence.
    pub(super) fn is_compared(&self, sequence: u64) -> bool {
        self.compared.load(Relaxed) >> 1 == sequence as u32 & (u32::MAX >> 1)
    }

    /// Notes that it was compared with the purges of this sequence, and whether one makes it stale.
    pub(super) fn note_compared(&self, sequence: u64, softened: bool) {
        let softened = softened || self.is_softened();
        self.compared.store((sequence as u32) << 1 | u32::from(softened), Relaxed);
    }

    /// Whether a soft purge made it stale.
    pub fn is_softened(&self) -> bool {
        self.compared.load(Relaxed) & 1 > 0
    }

    /// How many bytes it takes in memory, as `benches/cache_memory.rs` measures it.
    pub fn weight(&self) -> u64 {
        let elsewhere = self.elsewhere.as_deref().map_or(0, |body| {
            size_of::<Body>()
                + match body {
                    Body::Whole(bytes) => allocated(bytes.len()),
                    Body::Variants(names) => allocated(size_of_val::<[HeaderName]>(names)),
                    Body::File(_) | Body::Filling(..) | Body::Awaited(_) => 0,
                }
        });
        (size_of::<Self>() + OVERHEAD + allocated(self.record.weight() + self.record.body_len()) + elsewhere) as u64
    }
}

/// What an allocator takes for so many bytes: its sizes are four to the doubling, and pages that are not touched take nothing.
fn allocated(bytes: usize) -> usize {
    bytes.next_multiple_of((bytes.next_power_of_two() / 8).clamp(16, 4096))
}

/// The fields that a record of variants names.
fn names(record: &Record) -> Box<[HeaderName]> {
    let fields = record.fields().filter(|(name, _)| *name == VARY);
    fields.filter_map(|(_, value)| HeaderName::from_bytes(value.as_bytes()).ok()).collect()
}

/// What two counts of who shares it and the memory tier add for each object that was used, in bytes.
const OVERHEAD: usize = 16 + 32 + 28;

impl fill::Filled for Object {
    fn filled_by(&self, fill: &Arc<Fill>) -> Self {
        Self::new(self.id, self.record.clone(), Body::Filling(Arc::clone(fill), self.body().len()))
    }
}

impl Body {
    /// How long it is; `None`: that is not known yet.
    pub fn len(&self) -> Option<u64> {
        match self {
            Self::Whole(bytes) => Some(bytes.len() as u64),
            Self::File(blob) => Some(blob.len()),
            Self::Filling(_, length) | Self::Awaited(length) => *length,
            Self::Variants(_) => Some(0),
        }
    }

    /// Whether it has no byte, as far as that is known.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// Reads it from this byte on, up to that one. `None`: it is gone.
    pub fn read(&self, from: u64, to: Option<u64>) -> Option<BodyReader> {
        Some(match self {
            Self::Whole(bytes) => {
                let end = to.map_or(bytes.len() as u64, |to| to.min(bytes.len() as u64));
                // Both lie within what is in memory.
                BodyReader::Memory(Some(bytes.slice(from.min(end) as usize..end as usize)))
            }
            Self::File(blob) => BodyReader::File(Arc::clone(blob), from, to.unwrap_or(blob.len()).min(blob.len())),
            Self::Filling(fill, _) => BodyReader::Fill(fill.read(from, to)?),
            Self::Variants(_) | Self::Awaited(_) => return None,
        })
    }
}

impl BodyReader {
    /// The next piece; `None`: there is no more.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        match self {
            Self::Memory(piece) => Ok(piece.take().filter(|piece| !piece.is_empty())),
            Self::File(_, from, to) if *from >= *to => Ok(None),
            Self::File(blob, from, to) => {
                // At most READ.
                let most = (*to - *from).min(READ) as usize;
                let piece = match blob.read_now(*from, most) {
                    Some(read) => read?,
                    None => blob.read(*from, most).await?,
                };
                if piece.is_empty() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                *from += piece.len() as u64;
                Ok(Some(piece))
            }
            Self::Fill(reader) => reader.next().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Terms, Tick};

    fn object(body: Body) -> Object {
        let record = Record::new(Tick(1), Terms::default(), (200, Kind::Whole), "u", &[], &http::HeaderMap::new());
        Object::new(Id::of(b"a"), record.unwrap(), body)
    }

    /// With the two counts of its `Arc` it just fills 112 bytes, one of the sizes of an allocator; the next one is 128.
    #[test]
    fn an_object_is_small() {
        assert!(size_of::<Object>() <= 96, "{}", size_of::<Object>());
    }

    #[tokio::test]
    async fn a_body_is_read_the_same_wherever_it_lies() {
        for size in [0, 1, JOINED, JOINED + 1] {
            let bytes: Bytes = (0..size).map(|at| at as u8).collect();
            let object = object(Body::Whole(bytes.clone()));
            assert_eq!(object.elsewhere.is_none(), size <= JOINED);
            assert!(object.is_whole() && object.variants().is_none());
            assert!(matches!(object.body(), Body::Whole(body) if body == bytes));
            assert_eq!((object.len(), object.is_empty()), (Some(size as u64), size == 0));
            for (from, to) in [(0, None), (0, Some(1)), (1, None), (size as u64, None), (5, Some(3))] {
                let end = to.map_or(size, |to| size.min(to as usize));
                let read = object.read(from, to).unwrap().next().await.unwrap().unwrap_or_default();
                assert_eq!(read, bytes[end.min(from as usize)..end], "{size}: {from} to {to:?}");
            }
        }
    }

    #[test]
    fn what_a_soft_purge_made_stale_stays_so() {
        let object = object(Body::Whole(Bytes::new()));
        for (sequence, softened, is_softened) in
            [(1, false, false), (1 << 31, true, true), (7, false, true), (u64::MAX, false, true)]
        {
            assert!(!object.is_compared(sequence), "{sequence}");
            object.note_compared(sequence, softened);
            assert!(object.is_compared(sequence), "{sequence}");
            assert_eq!(object.is_softened(), is_softened, "{sequence}");
        }
    }

    #[test]
    fn a_fill_and_what_it_stores_do_not_hold_one_another() {
        let (id, tick) = (Id::of(b"a"), crate::cache::Tick(1));
        let what = (200, Kind::Whole);
        let record = Record::new(tick, crate::cache::Terms::default(), what, "http://a/", &[], &http::HeaderMap::new());
        let fill = Fill::new(id, id, tick);
        fill.tell(Outcome::Stored(Arc::new(Object::new(id, record.unwrap(), Body::Awaited(Some(1)))), None));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let Outcome::Stored(object, _) = runtime.block_on(fill.outcome()) else { panic!("it is stored") };
        assert!(object.body().read(0, None).is_some());
        fill.end(true, None);
        let weak = Arc::downgrade(&fill);
        drop((fill, object));
        assert!(weak.upgrade().is_none());
    }
}
