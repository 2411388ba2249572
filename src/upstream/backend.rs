//! `Backend`: one server of an upstream: its address, its weight, and what is known of it; atomics only.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use http::HeaderValue;
use pingora::upstreams::peer::HttpPeer;

use super::peer::PeerTemplate;
use crate::keep::Keep;
use crate::observe::BackendStats;

/// One server of an upstream.
#[derive(Debug)]
pub struct Backend {
    label: Arc<str>,
    weight: u32,
    authority: HeaderValue,
    template: PeerTemplate,
    state: Arc<BackendState>,
}

impl Backend {
    /// The backend `label` of `upstream`; what was known of it before a reload is found again in `keep`.
    pub fn new(
        upstream: &str,
        label: &str,
        weight: u32,
        authority: HeaderValue,
        template: PeerTemplate,
        keep: &Keep,
    ) -> Self {
        // Both are kept under the same names; the state holds the counters, so a lease is one handle.
        let key = BackendStats::key(upstream, label);
        let stats = keep.get_or(&key, BackendStats::default);
        let state = keep.get_or(&key, || BackendState { inflight: AtomicU32::new(0), stats });
        Self { label: label.into(), weight, authority, template, state }
    }

    /// Its name in metrics and logs: the address that connections go to, as in `10.0.0.1:8080` or `unix:/run/app.sock`.
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// Its share of the requests, relative to the others' weights. 0: it takes none.
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// What a `Host` field says when it is to name this server.
    pub fn authority(&self) -> &HeaderValue {
        &self.authority
    }

    /// What is known of it, over reloads.
    pub fn state(&self) -> &Arc<BackendState> {
        &self.state
    }

    /// What is counted of it, over reloads.
    pub fn stats(&self) -> &Arc<BackendStats> {
        &self.state.stats
    }

    /// The peer for one try of a request. See [`PeerTemplate::peer`].
    pub fn peer(&self, remaining: Option<Duration>, upgrade: bool) -> Box<HttpPeer> {
        self.template.peer(remaining, upgrade)
    }

    /// Counts a request as under way at this backend until the lease is dropped.
    pub fn lease(&self) -> Lease {
        self.state.inflight.fetch_add(1, Relaxed);
        self.state.stats.active.inc();
        Lease(self.state.clone())
    }
}

/// What is known of a backend. Kept over reloads by the names of upstream and backend.
#[derive(Debug)]
pub struct BackendState {
    inflight: AtomicU32,
    stats: Arc<BackendStats>,
}

impl BackendState {
    /// Requests under way.
    pub fn inflight(&self) -> u32 {
        self.inflight.load(Relaxed)
    }
}

/// A request under way at a backend: dropped, on whatever path, it no longer is.
#[derive(Debug)]
#[must_use]
pub struct Lease(Arc<BackendState>);

impl Lease {
    /// What is counted of the backend.
    pub fn stats(&self) -> &BackendStats {
        &self.0.stats
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.inflight.fetch_sub(1, Relaxed);
        self.0.stats.active.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::peer::{Keepalive, Timeouts};

    fn backend(keep: &Keep) -> Backend {
        let template = PeerTemplate::tcp("10.0.0.1:80".parse().unwrap(), Timeouts::default(), Keepalive::default());
        Backend::new("api", "10.0.0.1:80", 1, HeaderValue::from_static("10.0.0.1"), template, keep)
    }

    #[test]
    fn a_request_is_counted_for_as_long_as_its_lease_lives() {
        let backend = backend(&Keep::default());
        let (first, second) = (backend.lease(), backend.lease());
        assert_eq!((backend.state().inflight(), backend.stats().active.get()), (2, 2));
        drop((first, second));
        assert_eq!((backend.state().inflight(), backend.stats().active.get()), (0, 0));
    }

    #[test]
    fn a_reload_finds_the_requests_under_way() {
        let keep = Keep::default();
        let old = backend(&keep);
        let lease = old.lease();
        let new = backend(&keep);
        drop(old);
        assert_eq!((new.state().inflight(), new.stats().active.get()), (1, 1));
        drop(lease);
        assert_eq!((new.state().inflight(), new.stats().active.get()), (0, 0));
    }
}
