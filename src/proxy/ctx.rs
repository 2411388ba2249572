//! `Ctx`: what one request carries through the callbacks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use pingora::http::{RequestHeader, ResponseHeader};

use super::caching::tee::Tee;
use super::caching::{Errand, Told};
use crate::exchange::{Exchange, Facts};
use crate::gateway::snapshot::Snapshot;
use crate::listen::Connection;
use crate::route::Route;
use crate::upstream::limits::budget::RetryPermit;
use crate::upstream::{Held, Lease, Tried, Upstream};

/// One request under way.
pub struct Ctx {
    /// The snapshot it began under.
    pub snapshot: Arc<Snapshot>,
    /// Its connection; `None` only where a test hands in a bare session.
    pub connection: Option<Arc<Connection>>,
    /// Its route, as a position in the snapshot.
    pub route: Option<u32>,
    /// The facts that filters, templates and logs read.
    pub exchange: Exchange,
    /// Where it goes, once that is decided.
    pub upstream: Option<Arc<Upstream>>,
    /// The try at a backend that is under way, or was last.
    pub attempt: Option<Attempt>,
    /// The backends that were tried in vain.
    pub tried: Tried,
    /// How many tries failed, those apart that only found a kept connection dead.
    pub failed_tries: u32,
    /// Whether one did, so that the others get new ones: there may be more dead than tries left.
    pub kept_was_dead: bool,
    /// The next try, once it is decided on.
    pub next: Option<Next>,
    /// What it holds of the limits of its upstream.
    pub held: Held,
    /// Leave for the retry that is under way, until it is answered.
    pub retry: Option<RetryPermit>,
    /// In how many seconds the client had better ask again, when no backend takes the request.
    pub retry_after: Option<u64>,
    /// The copy that the route's mirror gets.
    pub copy: Copying,
    /// When the whole exchange must be over. `None`: not proxied, or upgraded.
    pub deadline: Option<Instant>,
    /// Whether a piece of the response's body has passed.
    pub body_began: bool,
    /// The errand of the cache that this is, if it is one.
    pub errand: Option<Arc<Errand>>,
    /// The copy of the response that is stored, if one is made.
    pub tee: Option<Box<Tee>>,
    /// What the cache did for the request.
    pub told: Option<Told>,
    /// The backend that an errand for the request tried last.
    pub asked: Option<Arc<str>>,
}

/// One try at a backend.
pub struct Attempt {
    /// The backend, and the mark that the request is under way there.
    pub lease: Lease,
    /// When it began.
    pub began: Instant,
    /// Whether the response has begun that the client gets.
    pub answered: bool,
    /// Whether it counts against the backend, or at least not for it.
    pub failed: bool,
}

/// A try to come. Its place at the backend is taken already, so that nothing can keep it from being made.
pub struct Next {
    /// The backend.
    pub lease: Lease,
    /// How long to wait before.
    pub pause: Duration,
}

/// How far the copy of a request is.
#[derive(Default)]
pub enum Copying {
    /// Not begun, and not drawn yet.
    #[default]
    Undrawn,
    /// Made, or not to be made.
    Done,
    /// Under way: this much has passed.
    Begun(Box<Copy>),
}

/// The copy of a request as far as it has passed.
pub struct Copy {
    /// As it goes to the first backend.
    pub head: RequestHeader,
    /// What has passed; `None`: the request has none.
    pub body: Option<BytesMut>,
}

impl Ctx {
    pub(super) fn new(snapshot: Arc<Snapshot>) -> Self {
        Self {
            snapshot,
            connection: None,
            route: None,
            exchange: Exchange::new(),
            upstream: None,
            attempt: None,
            tried: Tried::default(),
            failed_tries: 0,
            kept_was_dead: false,
            next: None,
            held: Held::default(),
            retry: None,
            retry_after: None,
            copy: Copying::default(),
            deadline: None,
            body_began: false,
            errand: None,
            tee: None,
            told: None,
            asked: None,
        }
    }

    /// The route taken.
    pub fn route(&self) -> Option<&Route> {
        self.snapshot.route(self.route?)
    }

    /// The label of the backend that was tried last.
    pub fn backend(&self) -> &str {
        match &self.attempt {
            Some(attempt) => attempt.lease.backend().label(),
            None => self.asked.as_deref().unwrap_or_default(),
        }
    }

    /// All that templates and logs may speak of.
    pub fn facts<'a>(&'a self, request: &'a RequestHeader, response: Option<&'a ResponseHeader>) -> Facts<'a> {
        Facts {
            request,
            exchange: &self.exchange,
            response,
            route: self.route().map_or("", |route| &route.name),
            upstream: self.upstream.as_ref().map_or("", |upstream| upstream.name()),
            backend: self.backend(),
        }
    }
}
