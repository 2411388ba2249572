//! The copy of a request that the mirror of its route gets.
//!
//! The head is taken as it goes to the first backend, the body piece by piece as it passes; when all of it has passed, the
//! copy is handed over to the background and the request goes on without it. What can fail, fails there.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderMap, TRANSFER_ENCODING};
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use super::Ctx;
use super::ctx::{Copy, Copying};
use super::upgrade::Upgrade;
use crate::gateway::Gateway;
use crate::http_client::{Fault, Limits, Step};
use crate::route::mirror::Mirror;
use crate::upstream::{Held, Lease, Outcome, Refusal, Tried};

/// As much of an answer is read so that its connection can be used again; what is larger is cut off.
const ANSWER: usize = 1 << 20;

/// Begins a copy of the request that goes out with this head, if it is one of those to be copied.
pub(super) fn begin(session: &Session, head: &RequestHeader, ctx: &mut Ctx) {
    let Some(mirror) = ctx.route().and_then(|route| route.mirror.as_ref()) else { return };
    ctx.copy = match &ctx.copy {
        Copying::Done => return,
        Copying::Undrawn => draw(mirror, session, head),
        // Tried again: the body is sent once more, from its beginning.
        Copying::Begun(copy) => {
            let body = copy.body.as_ref().map(|_| BytesMut::new());
            Copying::Begun(Box::new(Copy { head: copy.head.clone(), body }))
        }
    };
}

fn draw(mirror: &Mirror, session: &Session, head: &RequestHeader) -> Copying {
    if Upgrade::of(session.req_header()).passes() || !mirror.draws() {
        return Copying::Done;
    }
    if announced(&head.headers) > mirror.body as u64 {
        mirror.stats.too_large.inc();
        return Copying::Done;
    }
    let has_body = [CONTENT_LENGTH, TRANSFER_ENCODING].iter().any(|name| head.headers.contains_key(name));
    Copying::Begun(Box::new(Copy { head: head.clone(), body: has_body.then(BytesMut::new) }))
}

/// The length of the body, as far as it is told beforehand.
fn announced(headers: &HeaderMap) -> u64 {
    headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(0)
}

/// Adds a piece of the body; hands the copy over when all has passed.
pub(super) fn gather(gateway: &Gateway, session: &Session, piece: Option<&Bytes>, ends: bool, ctx: &mut Ctx) {
    let Copying::Begun(copy) = &mut ctx.copy else { return };
    let route = ctx.route.and_then(|index| ctx.snapshot.route(index));
    let Some(mirror) = route.and_then(|route| route.mirror.as_ref()) else { return };
    if let Some(piece) = piece {
        let body = copy.body.get_or_insert_default();
        if body.len() + piece.len() > mirror.body {
            mirror.stats.too_large.inc();
            ctx.copy = Copying::Done;
            return;
        }
        body.extend_from_slice(piece);
    }
    if ends {
        let mirror = Arc::clone(mirror);
        if let Copying::Begun(copy) = std::mem::replace(&mut ctx.copy, Copying::Done) {
            hand_over(gateway, &mirror, *copy, session, ctx);
        }
    }
}

/// Finds a place for the copy, and leaves it to the background. Nothing here waits.
fn hand_over(gateway: &Gateway, mirror: &Arc<Mirror>, copy: Copy, session: &Session, ctx: &Ctx) {
    let Some(under_way) = UnderWay::begin(mirror) else { return mirror.stats.dropped.inc() };
    let mut held = Held::default();
    let upstream = &mirror.upstream;
    let facts = ctx.facts(session.req_header(), None);
    let pick = || upstream.pick(&facts, &Tried::new(), Instant::now());
    let picked = match upstream.limits() {
        None => pick(),
        Some(limits) => limits.admit(&mut held).and_then(|()| limits.enter(&mut held, pick)),
    };
    match picked {
        Ok(lease) => drop(gateway.background().spawn(under_way.send(copy, lease, held))),
        Err(refusal) => under_way.refused(refusal),
    }
}

/// A copy under way, until it is dropped.
struct UnderWay(Arc<Mirror>);

impl UnderWay {
    /// Counts one more; `None`: there are enough.
    fn begin(mirror: &Arc<Mirror>) -> Option<Self> {
        let one = Self(Arc::clone(mirror));
        (mirror.stats.under_way.inc() <= mirror.max.into()).then_some(one)
    }

    fn refused(self, refusal: Refusal) {
        refusal.count(self.0.upstream.stats());
        self.0.stats.failed.inc();
    }

    async fn send(self, copy: Copy, lease: Lease, mut held: Held) {
        let Self(mirror) = &self;
        let (upstream, backend) = (&mirror.upstream, lease.backend());
        let Copy { mut head, body } = copy;
        // The whole body is here: nobody has to ask for it.
        head.remove_header(&EXPECT);
        if let Some(host) = upstream.host_field(backend) {
            // Only a map that is full refuses one, and then the copy names the host that the request named.
            let _ = head.insert_header(HOST, host.clone());
        }
        let began = Instant::now();
        let peer = backend.peer(Some(mirror.timeout), None, false);
        let limits = Limits { total: mirror.timeout, max_body: ANSWER };
        let sent = mirror.client.deliver(&peer, head, body.map(BytesMut::freeze), limits).await;
        let took = began.elapsed();
        let outcome = match &sent {
            Ok(head) => {
                backend.stats().requests.count(head.status.as_u16());
                mirror.stats.answered.inc();
                Outcome::Status(head.status.as_u16())
            }
            Err(fault) => {
                tracing::debug!(upstream = &**upstream.name(), backend = &**backend.label(), %fault, "a copy failed");
                mirror.stats.failed.inc();
                failed(fault, took >= mirror.timeout)
            }
        };
        if outcome == Outcome::Connect {
            backend.stats().connect_errors.inc();
        }
        if !upstream.learn(backend, outcome, took) {
            upstream.went_well(backend);
        }
        if let Some(limits) = upstream.limits() {
            limits.settle(&mut held, outcome.is_gateway_failure());
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.stats.under_way.dec();
    }
}

fn failed(fault: &Fault, overdue: bool) -> Outcome {
    match fault.step {
        Step::Exchange if overdue => Outcome::Timeout,
        Step::Exchange => Outcome::Reset,
        Step::Url | Step::Lookup | Step::Connect => Outcome::Connect,
    }
}
