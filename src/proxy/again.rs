//! Whether a request is tried again, and at which backend.

use std::time::{Duration, Instant};

use http::StatusCode;
use pingora::Error;
use pingora::proxy::Session;

use super::Ctx;
use super::ctx::Next;
use super::{forward, queue};
use crate::upstream::retry::Cause;
use crate::upstream::{Outcome, Refusal, Tried};

/// How long the only backend of an upstream is left alone before it gets another try; twice as long with each.
const PAUSE: Duration = Duration::from_millis(25);

/// Whether only a kept connection turned out to be dead, for a request that may be repeated (RFC 9110 9.2.2), with a body
/// that is still at hand.
pub(super) fn died_unseen(session: &Session, error: &mut Error, reused: bool) -> bool {
    if !is_repeatable(session) {
        return false;
    }
    error.retry.decide_reuse(reused);
    reused && error.retry()
}

fn is_repeatable(session: &Session) -> bool {
    session.req_header().method.is_idempotent() && !session.as_ref().retry_buffer_truncated()
}

/// A response whose status may ask for another try; true: one follows, and the client does not get this response.
pub(super) fn by_status(session: &Session, ctx: &mut Ctx, status: StatusCode) -> bool {
    let cause = Cause::Status(status.as_u16());
    // Looked up first: hardly any response has such a status.
    let Some(upstream) = &ctx.upstream else { return false };
    if !forward::retry(ctx, upstream).allows(cause, ctx.failed_tries + 1, None) {
        return false;
    }
    let tried = ctx.tried.clone();
    if let Some(attempt) = &ctx.attempt {
        ctx.tried.insert(attempt.lease.backend());
    }
    ctx.failed_tries += 1;
    let again = try_again(session, ctx, cause);
    if again {
        end_try(ctx);
    } else {
        ctx.tried = tried;
    }
    again
}

/// The try that is under way has failed: so the next choice learns of it, and health if it says something of the backend.
pub(super) fn fail_try(ctx: &mut Ctx, outcome: Option<Outcome>) {
    ctx.failed_tries += 1;
    if let (Some(upstream), Some(attempt)) = (&ctx.upstream, &ctx.attempt) {
        ctx.tried.insert(attempt.lease.backend());
        if let Some(outcome) = outcome {
            upstream.learn(attempt.lease.backend(), outcome, attempt.began.elapsed());
        }
    }
    end_try(ctx);
}

/// A response broke off after the client got its head: that it began well is not believed, whoever broke it off.
pub(super) fn learn_break(ctx: &mut Ctx, outcome: Option<Outcome>) {
    let (Some(upstream), Some(attempt)) = (&ctx.upstream, &mut ctx.attempt) else { return };
    // Its status may have counted against the backend already.
    let counted = std::mem::replace(&mut attempt.failed, true);
    if let Some(outcome) = outcome.filter(|_| !counted) {
        upstream.learn(attempt.lease.backend(), outcome, attempt.began.elapsed());
    }
}

pub(super) fn end_try(ctx: &mut Ctx) {
    if let Some(attempt) = &mut ctx.attempt {
        attempt.lease.end();
    }
}

/// Whether another try follows upon a failure; then its place is taken.
pub(super) fn try_again(session: &Session, ctx: &mut Ctx, cause: Cause) -> bool {
    let Some(upstream) = &ctx.upstream else { return false };
    let retry = forward::retry(ctx, upstream);
    let remaining = ctx.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let at_hand = !session.as_ref().retry_buffer_truncated();
    let safe = cause == Cause::Connect || at_hand && (retry.repeats_all() || is_repeatable(session));
    if !(safe && retry.allows(cause, ctx.failed_tries, remaining)) {
        return false;
    }
    // The leave for the retry before, if this is not the first, is given back only now: it would be gone in between.
    let Some(leave) = upstream.take_retry(retry.budget()) else { return false };
    let again = reserve(session, ctx, cause);
    if again {
        ctx.retry = Some(leave);
    }
    again
}

/// Takes a place for the next try: at a backend that was not tried, or, where none is left, at one that was.
pub(super) fn reserve(session: &Session, ctx: &mut Ctx, cause: Cause) -> bool {
    let Some(upstream) = &ctx.upstream else { return false };
    let facts = ctx.facts(session.req_header(), None);
    let now = Instant::now();
    let next = match upstream.pick(&facts, &ctx.tried, now) {
        Ok(lease) => Ok(Next { lease, pause: Duration::ZERO }),
        Err(Refusal::Full) if !matches!(cause, Cause::Status(_)) && queue::has(upstream) => {
            // Others are left, and full: it waits for one of them. See `forward::choose`.
            count_retry(ctx);
            return true;
        }
        Err(_) if cause.may_pass() => {
            let pause = PAUSE * 2_u32.pow(ctx.failed_tries.clamp(1, 4) - 1);
            // The answer at hand is worth more than a try that the total would end.
            if ctx.deadline.is_some_and(|deadline| now + pause >= deadline) {
                return false;
            }
            upstream.pick(&facts, &Tried::new(), now).map(|lease| Next { lease, pause })
        }
        Err(refusal) => Err(refusal),
    };
    let Ok(next) = next else { return false };
    count_retry(ctx);
    ctx.next = Some(next);
    true
}

fn count_retry(ctx: &Ctx) {
    if let Some(attempt) = &ctx.attempt {
        attempt.lease.backend().stats().retries.inc();
    }
}
