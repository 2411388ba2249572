//! The two ends of an errand: it takes over what is known of its request, and tells what it met with.

use std::sync::Arc;

use pingora::proxy::Session;

use super::errand::{Errand, Met};
use crate::proxy::Ctx;

/// The request of a subrequest is the errand's, with all that is known of the client's.
pub(crate) fn begin(errand: &Arc<Errand>, session: &mut Session, ctx: &mut Ctx) {
    *session.req_header_mut() = errand.head.clone();
    ctx.snapshot = Arc::clone(&errand.snapshot);
    ctx.route = Some(errand.route);
    ctx.connection.clone_from(&errand.connection);
    ctx.exchange = errand.exchange.clone();
    ctx.errand = Some(Arc::clone(errand));
}

/// Notes what the errand of this context met with.
pub(crate) fn note(ctx: &Ctx, change: impl FnOnce(&mut Met)) {
    let Some(errand) = &ctx.errand else { return };
    errand.note(|met| {
        met.upstream.clone_from(&ctx.upstream);
        met.backend = ctx.attempt.as_ref().map(|attempt| Arc::clone(attempt.lease.backend().label()));
        met.tries = ctx.exchange.tries;
        met.connect_time = ctx.exchange.connect_time;
        met.first_byte = ctx.exchange.first_byte;
        change(met);
    });
}

/// What the errand met with is what its request met with.
pub(super) fn end(errand: &Errand, ctx: &mut Ctx) {
    let met = errand.met();
    ctx.upstream = met.upstream;
    ctx.asked = met.backend;
    ctx.exchange.tries = met.tries;
    ctx.exchange.connect_time = met.connect_time;
    ctx.exchange.first_byte = met.first_byte;
}
