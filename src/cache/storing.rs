//! `Storing`: the writing side of a response that is being stored, in both tiers of its zone.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use super::disk::Writer;
use super::object::Fill;
use super::{Object, Zone};

/// The largest body that is stored where the document says nothing, in bytes.
const MOST: u64 = 1 << 30;

/// A response that is being stored.
pub struct Storing {
    zone: Arc<Zone>,
    fill: Arc<Fill>,
    object: Arc<Object>,
    writer: Option<Writer>,
    /// What it holds of the zone's memory for fills.
    held: u64,
    most: u64,
    stopped: bool,
}

impl Storing {
    /// Begins to store a body of this length, if it is known; of more than `most` bytes none is. `None`: there is no room.
    pub async fn begin(
        zone: &Arc<Zone>,
        fill: &Arc<Fill>,
        object: Arc<Object>,
        length: Option<u64>,
        most: Option<u64>,
    ) -> Option<Self> {
        let most = most.unwrap_or(MOST).min(zone.most());
        if length.is_some_and(|length| length > most) {
            return None;
        }
        let writer = match zone.disk() {
            Some(disk) => disk.create(object.id, length).await.ok(),
            None => None,
        };
        let needs_file = length.is_some_and(|length| length > zone.most_in_memory());
        if writer.is_none() && needs_file {
            return None;
        }
        let (zone, fill) = (Arc::clone(zone), Arc::clone(fill));
        Some(Self { zone, fill, object, writer, held: 0, most, stopped: false })
    }

    /// The origin has sent a piece. `false`: nobody wants any more.
    pub async fn push(&mut self, piece: Bytes) -> bool {
        if piece.is_empty() {
            return true;
        }
        let len = self.fill.len() + piece.len() as u64;
        if !self.stopped && (len > self.most || !self.store(&piece, len).await) {
            self.stop();
        }
        self.fill.push(piece);
        if let (Some(writer), false) = (&self.writer, self.stopped) {
            self.fill.flushed(&writer.blob(), len);
        }
        self.fill.wait_for_room().await
    }

    async fn store(&mut self, piece: &Bytes, len: u64) -> bool {
        if let Some(writer) = &mut self.writer {
            if writer.append(piece.clone()).await.is_ok() {
                return true;
            }
            self.zone.stats.fill_errors.inc();
            self.writer = None;
            // What came so far may be in the file alone.
            if len > piece.len() as u64 && self.fill.gathered().is_none() {
                return false;
            }
        }
        len <= self.zone.most_in_memory() && self.hold(piece.len() as u64)
    }

    /// Takes room for so many bytes more of what is only in memory yet.
    fn hold(&mut self, bytes: u64) -> bool {
        let before = self.zone.filling.fetch_add(bytes, Relaxed);
        self.held += bytes;
        before + bytes <= self.zone.most_filling()
    }

    /// It is not stored: who reads it gets it all the same.
    fn stop(&mut self) {
        self.stopped = true;
        self.writer = None;
        self.zone.fills.leave(&self.fill.id, &self.fill);
        self.zone.fills.leave(&self.object.id, &self.fill);
        self.fill.stop_storing();
    }

    /// The origin has sent all, or has broken off: only what is whole is kept. Readers hear of the end as soon as others would
    /// find what they read.
    pub async fn end(mut self, whole: bool) {
        if whole && !self.stopped && !self.fill.is_void() {
            self.keep().await;
        } else if !whole {
            self.zone.stats.fill_errors.inc();
        }
        // Only now: who comes between finds the fill or what it became.
        self.zone.fills.leave(&self.fill.id, &self.fill);
        self.zone.fills.leave(&self.object.id, &self.fill);
        self.fill.end(whole, None);
    }

    async fn keep(&mut self) {
        let (id, record) = (self.object.id, &self.object.record);
        let gathered = self.fill.gathered().filter(|body| body.len() as u64 <= self.zone.most_in_memory());
        if let Some(body) = gathered {
            self.zone.remember_whole(id, record.clone(), body);
            self.fill.end(true, None);
        } else {
            // What was there before is obsolete.
            self.zone.memory.remove(&id);
        }
        self.zone.stats.stored.inc();
        let committed = match self.writer.take() {
            Some(writer) => writer.commit(record).await.map_err(|_| self.zone.stats.fill_errors.inc()).is_ok(),
            None => false,
        };
        if let Some(disk) = self.zone.disk().filter(|_| !committed) {
            disk.remove(&id, None).await;
        }
        if self.fill.is_void() {
            self.zone.remove(&id).await;
        }
    }
}

impl Drop for Storing {
    fn drop(&mut self) {
        self.zone.filling.fetch_sub(self.held, Relaxed);
    }
}
