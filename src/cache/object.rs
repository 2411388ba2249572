//! `Object`: a stored response as requests see it, wherever its body lies.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

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
    /// Its body.
    pub body: Body,
    /// The sequence of purges that it was last compared with.
    pub(super) checked: AtomicU64,
    /// Whether a soft purge made it stale.
    pub(super) softened: AtomicBool,
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

impl Object {
    /// A stored response that was compared with no purge yet.
    pub fn new(id: Id, record: Record, body: Body) -> Self {
        Self { id, record, body, checked: AtomicU64::new(0), softened: AtomicBool::new(false) }
    }

    /// What the disk tier found.
    pub fn found(id: Id, found: Found) -> Self {
        let body = match found.body {
            _ if found.record.kind == Kind::Variants => Body::Variants(names(&found.record)),
            FoundBody::Inline(bytes) => Body::Whole(bytes),
            FoundBody::File(blob) => Body::File(blob),
        };
        Self::new(id, found.record, body)
    }

    /// Whether a soft purge made it stale.
    pub fn is_softened(&self) -> bool {
        self.softened.load(Relaxed)
    }

    /// How many bytes it takes in memory.
    pub fn weight(&self) -> u64 {
        let body = match &self.body {
            Body::Whole(bytes) => bytes.len(),
            Body::Variants(names) => size_of_val::<[HeaderName]>(names),
            Body::File(_) | Body::Filling(..) => 0,
        };
        (body + self.record.weight() + size_of::<Self>() + OVERHEAD) as u64
    }
}

/// The fields that a record of variants names.
fn names(record: &Record) -> Box<[HeaderName]> {
    let fields = record.fields().filter(|(name, _)| *name == VARY);
    fields.filter_map(|(_, value)| HeaderName::from_bytes(value.as_bytes()).ok()).collect()
}

/// What the allocator, the table, and the counts of who shares its bytes add for each object that was used, in bytes, as
/// `benches/cache_memory.rs` measures it.
const OVERHEAD: usize = 192;

impl Body {
    /// How long it is; `None`: that is not known yet.
    pub fn len(&self) -> Option<u64> {
        match self {
            Self::Whole(bytes) => Some(bytes.len() as u64),
            Self::File(blob) => Some(blob.len()),
            Self::Filling(_, length) => *length,
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
            Self::Variants(_) => return None,
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
