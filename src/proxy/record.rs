//! The end of a request: counters and access log.

use pingora::proxy::Session;

use super::Ctx;
use crate::gateway::Gateway;
use crate::upstream::Held;

/// Counts and logs a finished request.
pub(super) fn request(gateway: &Gateway, session: &Session, ctx: &mut Ctx) {
    let response = session.response_written();
    // A 1xx that nothing followed is no answer, unless it was the last word of HTTP.
    let answer = response.filter(|head| !head.status.is_informational() || head.status.as_u16() == 101);
    ctx.exchange.status = answer.map_or(0, |head| head.status.as_u16());
    ctx.exchange.bytes_sent = session.body_bytes_sent() as u64;
    ctx.exchange.bytes_received = session.body_bytes_read() as u64;
    if let Some(attempt) = &mut ctx.attempt {
        if let Some(upstream) = ctx.upstream.as_ref().filter(|_| attempt.answered && !attempt.failed) {
            upstream.went_well(attempt.lease.backend());
        }
        attempt.lease.end();
    }
    // A request that waits for its place need not wait for the log.
    ctx.held = Held::default();
    ctx.retry = None;
    if ctx.errand.is_some() {
        // The request that it was for is counted.
        return;
    }
    if let Some(connection) = &ctx.connection {
        connection.end_by(None);
    }
    ctx.exchange.cache = ctx.told.map_or("", |told| told.word());
    match ctx.route() {
        Some(route) => {
            route.stats.requests.count(ctx.exchange.status);
            route.stats.duration.observe(ctx.exchange.started.elapsed());
            route.stats.received.add(ctx.exchange.bytes_received);
            route.stats.sent.add(ctx.exchange.bytes_sent);
            if let (Some(cached), Some(told)) = (&route.cache, &ctx.told) {
                told.counter(&cached.caching.stats).inc();
                told.counter(&cached.caching.zone.stats.answers).inc();
            }
        }
        None => gateway.stats.unrouted.count(ctx.exchange.status),
    }
    ctx.snapshot.access_log.record(&ctx.facts(session.req_header(), response));
}
