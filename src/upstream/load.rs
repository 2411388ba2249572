//! `Load`: how busy a backend is; atomics only.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use super::clock::Micros;

/// How busy a backend is.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Load {
    inflight: AtomicU32,
}

impl Load {
    /// Counts a request that begins; tells how many are under way with it.
    pub fn begin(&self) -> u32 {
        self.inflight.fetch_add(1, Relaxed) + 1
    }

    /// Counts a request that begins, unless `most` are under way already.
    pub fn try_begin(&self, most: u32) -> bool {
        let next = |inflight| (inflight < most).then_some(inflight + 1);
        self.inflight.fetch_update(Relaxed, Relaxed, next).is_ok()
    }

    /// Counts a request that has ended.
    pub fn end(&self) {
        self.inflight.fetch_sub(1, Relaxed);
    }

    /// Requests under way.
    pub fn inflight(&self) -> u32 {
        self.inflight.load(Relaxed)
    }

    /// Learns how long a response took to begin.
    pub fn observe(&self, _latency: Duration, _now: Micros) {}
}
