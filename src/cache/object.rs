//! `Object`: a stored response as it lies in memory.

use std::sync::atomic::{AtomicBool, AtomicU64};

use bytes::Bytes;

use super::{Id, Record};

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
}

impl Object {
    /// A stored response that was compared with no purge yet.
    pub fn new(id: Id, record: Record, body: Body) -> Self {
        Self { id, record, body, checked: AtomicU64::new(0), softened: AtomicBool::new(false) }
    }

    /// How many bytes it takes in memory.
    pub fn weight(&self) -> u64 {
        let body = match &self.body {
            Body::Whole(bytes) => bytes.len(),
        };
        (body + self.record.weight() + size_of::<Self>() + OVERHEAD) as u64
    }
}

/// What the allocator and the table add for each object, in bytes.
const OVERHEAD: usize = 96;
