//! The limits of an upstream as a request meets them: its circuit, its queue, and what those are told that find no place.

use std::time::Instant;

use http::StatusCode;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use super::Ctx;
use crate::listen;
use crate::upstream::{Held, Lease, Outcome, Refusal, Upstream, clock};

/// Whether a request that finds all backends of this upstream full waits for one.
pub(super) fn has(upstream: &Upstream) -> bool {
    upstream.limits().is_some_and(|limits| limits.has_queue())
}

/// Takes a place at an upstream that has limits, and at one of its backends; waits for it where there is a queue.
pub(super) async fn enter(session: &mut Session, ctx: &mut Ctx, upstream: &Upstream) -> Result<Lease> {
    let mut held = std::mem::take(&mut ctx.held);
    let entered = enter_with(&mut held, session, ctx, upstream).await;
    ctx.held = held;
    entered
}

async fn enter_with(held: &mut Held, session: &mut Session, ctx: &mut Ctx, upstream: &Upstream) -> Result<Lease> {
    let Some(limits) = upstream.limits() else { return Err(refused(Refusal::NoBackend, ctx, upstream)) };
    // A request that is tried again was let in already.
    let admitted = if ctx.exchange.tries == 0 { limits.admit(held) } else { Ok(()) };
    let entered = admitted.and_then(|()| {
        let facts = ctx.facts(session.req_header(), None);
        limits.enter(held, || upstream.pick(&facts, &ctx.tried, Instant::now()))
    });
    let refusal = match entered {
        Ok(lease) => return Ok(lease),
        Err(Refusal::Full) if limits.has_queue() => {
            // The session watches the client meanwhile, and cannot lend its head.
            let head = session.req_header().clone();
            let facts = ctx.facts(&head, None);
            let end = ctx.deadline.map(Into::into);
            let choosy = !ctx.tried.is_empty() || upstream.has_session(&facts);
            let pick = || upstream.pick(&facts, &ctx.tried, Instant::now());
            tokio::select! {
                biased;
                waited = limits.wait(held, end, choosy, pick) => match waited {
                    Ok(lease) => return Ok(lease),
                    Err(refusal) => refusal,
                },
                () = listen::client_left(session.as_downstream_mut()) => {
                    return Err(Error::explain(ErrorType::ConnectionClosed, "the client left the queue").into_down());
                }
            }
        }
        Err(refusal) => refusal,
    };
    Err(refused(refusal, ctx, upstream))
}

/// No backend takes the request.
pub(super) fn refused(refusal: Refusal, ctx: &mut Ctx, upstream: &Upstream) -> Box<Error> {
    refusal.count(upstream.stats());
    ctx.retry_after = match upstream.limits() {
        Some(limits) => limits.retry_after(refusal, clock::now()),
        // Only servers that a discovery tells have limits.
        None => (refusal == Refusal::Full).then_some(1),
    };
    let status = StatusCode::SERVICE_UNAVAILABLE.as_u16();
    Error::explain(ErrorType::CustomCode(refusal.word(), status), "no backend takes the request")
}

/// The circuit learns of a response that the client gets.
pub(super) fn settle(outcome: Outcome, ctx: &mut Ctx) {
    if let Some(limits) = ctx.upstream.as_ref().and_then(|upstream| upstream.limits()) {
        limits.settle(&mut ctx.held, outcome.is_gateway_failure());
    }
}

/// The circuit learns of a request that has failed for good by the fault of its backend, which had not answered before.
pub(super) fn settle_failure(ctx: &mut Ctx) {
    if let Some(limits) = ctx.upstream.as_ref().and_then(|upstream| upstream.limits()) {
        limits.settle(&mut ctx.held, true);
    }
}
