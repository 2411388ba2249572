//! `Tee`: a copy of a response that is made while the response passes.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::HeaderMap;

use crate::cache::policy::Approved;
use crate::cache::{Id, Record, Zone};

/// The largest body of which a copy is made, in bytes.
pub(super) const MOST: u64 = 1 << 20;

/// A copy under way.
pub struct Tee {
    pub(super) zone: Arc<Zone>,
    pub(super) id: Id,
    pub(super) url: String,
    pub(super) record: Record,
    pub(super) approved: Approved,
    pub(super) request: HeaderMap,
    pub(super) length: Option<u64>,
    pub(super) body: BytesMut,
}

impl Tee {
    /// Takes a piece. `false`: there are too many.
    pub(super) fn take(&mut self, piece: Option<&Bytes>) -> bool {
        if let Some(piece) = piece {
            self.body.extend_from_slice(piece);
        }
        self.body.len() as u64 <= MOST.min(self.zone.most_in_memory())
    }

    /// Stores the copy, if it is whole.
    pub(super) fn store(self) {
        let Self { zone, id, url, record, approved, request, body, length } = self;
        if length.is_some_and(|length| length != body.len() as u64) {
            return;
        }
        let body = body.freeze();
        if approved.vary.is_empty() {
            // At once: the client may ask for it as soon as it has the answer.
            zone.remember_whole(id, record.clone(), body.clone());
        }
        tokio::spawn(async move {
            if let Some(place) = zone.place(id, &url, &approved.vary, &request, record.asked).await {
                zone.put(place, record, body).await;
            }
        });
    }
}
