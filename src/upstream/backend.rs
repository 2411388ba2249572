//! `Backend`: one server of an upstream: its address, its weight, and what is known of it; atomics only.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::HeaderValue;
use pingora::upstreams::peer::HttpPeer;
use smallvec::SmallVec;

use super::health::state::{Health, Status};
use super::limits::connections::Connections;
use super::limits::{Gate, OfServer};
use super::load::Load;
use super::peer::PeerTemplate;
use crate::keep::Keep;
use crate::observe::{BackendStats, OpenConnections};

/// What a backend is made from: a server of the document, or of a discovery, at one address.
#[derive(Clone, Debug)]
pub struct Seat {
    /// See [`Backend::label`].
    pub label: String,
    /// See [`Backend::weight`].
    pub weight: u32,
    /// See [`Backend::tier`].
    pub tier: u32,
    /// See [`Backend::zone`].
    pub zone: Option<Arc<str>>,
    /// Whether it takes no new sessions, as the document says.
    pub drains: bool,
    /// See [`Backend::is_spare`].
    pub spare: bool,
    /// See [`Backend::authority`].
    pub authority: HeaderValue,
    /// How to connect to it.
    pub template: PeerTemplate,
    /// How much it takes at once.
    pub limits: OfServer,
}

/// One server of an upstream.
#[derive(Debug)]
pub struct Backend {
    label: Arc<str>,
    weight: u32,
    tier: u32,
    zone: Option<Arc<str>>,
    drains: bool,
    spare: bool,
    authority: HeaderValue,
    template: PeerTemplate,
    /// How many requests may be under way here.
    most: Option<u32>,
    /// Where it is heard that one more may be.
    gate: Option<Arc<Gate>>,
    state: Arc<BackendState>,
}

impl Backend {
    /// The backend of `upstream` in this seat; what was known of it before a reload is found again in `keep`. `fresh` is the
    /// health of one that nothing is known of; `gate`: where the requests of an upstream with limits enter.
    pub fn new(
        upstream: &str,
        seat: Seat,
        fresh: impl FnOnce() -> Health,
        gate: Option<&Arc<Gate>>,
        keep: &Keep,
    ) -> Self {
        let Seat { label, weight, tier, zone, drains, spare, authority, mut template, limits } = seat;
        let key = BackendStats::key(upstream, &label);
        // Before the state: `Keep` lets nobody in while it makes a thing.
        let stats = keep.get_or(&key, BackendStats::default);
        let state = keep.get_or(&key, || BackendState::new(stats, fresh()));
        if let Some(most) = limits.connections {
            let open = keep.get_or(&key, OpenConnections::default);
            template.limit(keep.get_or(&key, || Connections::new(open)), most, &key);
        }
        let (label, most, gate) = (label.into(), limits.most(), gate.map(Arc::clone));
        Self { label, weight, tier, zone, drains, spare, authority, template, most, gate, state }
    }

    /// Its name in metrics and logs: the address that connections go to, as in `10.0.0.1:8080` or `unix:/run/app.sock`.
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// Its share of the requests, relative to the others' weights. 0: it takes none.
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// Its tier: those of tier 0 take the requests while they can, then those of the next.
    pub fn tier(&self) -> u32 {
        self.tier
    }

    /// Where it stands.
    pub fn zone(&self) -> Option<&Arc<str>> {
        self.zone.as_ref()
    }

    /// Whether it is tried only when all others of its upstream were: the IPv6 address of a name with IPv4 ones too.
    pub fn is_spare(&self) -> bool {
        self.spare
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

    /// Whether it finishes what it has, and takes nothing new: the document or an operator says so.
    pub fn is_draining(&self) -> bool {
        self.drains || self.state.health.is_draining()
    }

    /// Whether it may take a request: well, and not draining.
    pub fn is_usable(&self) -> bool {
        !self.drains && self.state.health.is_usable()
    }

    /// Whether it may go on with a session that it has: well, be it draining or not.
    pub fn keeps_sessions(&self) -> bool {
        self.state.health.is_well()
    }

    /// What all that is known of it adds up to.
    pub fn status(&self) -> Status {
        if self.drains { Status::Draining } else { self.state.health.status() }
    }

    /// The peer for one try of a request. See [`PeerTemplate::peer`].
    pub fn peer(&self, remaining: Option<Duration>, per_try: Option<Duration>, upgrade: bool) -> Box<HttpPeer> {
        self.template.peer(remaining, per_try, upgrade)
    }

    /// Counts a request as under way at this backend until the lease ends. `None`: it has as many as it may.
    pub fn lease(self: &Arc<Self>) -> Option<Lease> {
        match self.most {
            None => {
                self.state.load.begin();
            }
            Some(most) if self.state.load.try_begin(most) => {}
            Some(_) => return None,
        }
        self.state.stats.active.inc();
        Some(Lease { backend: Arc::clone(self), under_way: true })
    }
}

/// What is known of a backend. Kept over reloads by the names of upstream and backend.
pub struct BackendState {
    id: u64,
    /// How busy it is.
    pub load: Arc<Load>,
    /// Whether it may take requests.
    pub health: Health,
    /// What is counted of it.
    pub stats: Arc<BackendStats>,
}

impl BackendState {
    fn new(stats: Arc<BackendStats>, health: Health) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { id: NEXT.fetch_add(1, Relaxed), load: Arc::default(), health, stats }
    }

    /// Requests under way.
    pub fn inflight(&self) -> u32 {
        self.load.inflight()
    }
}

impl fmt::Debug for BackendState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendState").field("id", &self.id).field("inflight", &self.inflight()).finish_non_exhaustive()
    }
}

/// A request under way at a backend, until it ends or is dropped, on whatever path.
#[derive(Debug)]
#[must_use]
pub struct Lease {
    backend: Arc<Backend>,
    under_way: bool,
}

impl Lease {
    /// Where the request is, or was.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// The request is no longer under way here.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.under_way) {
            self.backend.state.load.end();
            self.backend.state.stats.active.dec();
            if let Some(gate) = &self.backend.gate {
                gate.freed();
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.end();
    }
}

/// The backends that a request was tried on in vain.
#[derive(Clone, Debug, Default)]
pub struct Tried(SmallVec<[u64; 4]>);

impl Tried {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Remembers one more.
    pub fn insert(&mut self, backend: &Backend) {
        if !self.contains(backend) {
            self.0.push(backend.state.id);
        }
    }

    /// Whether this one was tried.
    pub fn contains(&self, backend: &Backend) -> bool {
        self.0.contains(&backend.state.id)
    }

    /// Whether none was tried.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::peer::{Keepalive, Timeouts};

    fn backend(keep: &Keep) -> Arc<Backend> {
        limited(OfServer::default(), keep)
    }

    fn limited(limits: OfServer, keep: &Keep) -> Arc<Backend> {
        let seat = Seat {
            label: "10.0.0.1:80".to_owned(),
            weight: 1,
            tier: 0,
            zone: None,
            drains: false,
            spare: false,
            authority: HeaderValue::from_static("10.0.0.1"),
            template: PeerTemplate::tcp("10.0.0.1:80".parse().unwrap(), Timeouts::default(), Keepalive::default()),
            limits,
        };
        Arc::new(Backend::new("api", seat, Health::default, None, keep))
    }

    #[test]
    fn a_request_is_counted_for_as_long_as_its_lease_lives() {
        let backend = backend(&Keep::default());
        let (mut first, second) = (backend.lease().unwrap(), backend.lease().unwrap());
        assert_eq!((backend.state().inflight(), backend.stats().active.get()), (2, 2));
        first.end();
        assert_eq!(backend.state().inflight(), 1);
        drop((first, second));
        assert_eq!((backend.state().inflight(), backend.stats().active.get()), (0, 0));
    }

    #[test]
    fn no_more_requests_are_under_way_than_may_be() {
        for (requests, connections, most) in
            [(Some(3), None, 3), (None, Some(2), 2), (Some(3), Some(2), 2), (Some(1), Some(2), 1)]
        {
            let backend = limited(OfServer { requests, connections }, &Keep::default());
            let mut leases: Vec<_> = std::iter::from_fn(|| backend.lease()).collect();
            assert_eq!(leases.len(), most, "{requests:?} {connections:?}");
            leases.pop();
            assert!(backend.lease().is_some());
        }
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
