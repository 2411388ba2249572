//! The answer to a POST that is what a GET of the same URL would get: it passes to its client like any other, and a copy of it
//! is stored (RFC 9110 9.3.3, RFC 9111 2).

use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use http::Method;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use super::invalidate::Place;
use super::tee::{MOST, Tee};
use super::{drive, record};
use crate::cache::rules::directives::Wishes;
use crate::cache::rules::freshness::Times;
use crate::cache::rules::invalidate::is_at_content_location;
use crate::cache::rules::storable::Asked;
use crate::cache::{Id, Tick};
use crate::proxy::Ctx;

/// Begins a copy of this response, if it is one that is stored.
pub(crate) fn begin(session: &Session, head: &ResponseHeader, ctx: &mut Ctx) {
    let request = session.req_header();
    if request.method == Method::POST && head.status.is_success() {
        ctx.tee = tee(session, head, ctx).map(Box::new);
    }
}

fn tee(session: &Session, head: &ResponseHeader, ctx: &Ctx) -> Option<Tee> {
    let request = session.req_header();
    let cached = ctx.route()?.cache.as_ref()?;
    let place = Place::of(request, ctx);
    if !is_at_content_location(&place.target(), &head.headers) || !cached.may_store(request, &ctx.exchange) {
        return None;
    }
    let caching = &cached.caching;
    let wishes = if caching.ignores_request { Wishes::default() } else { Wishes::of_request(&request.headers) };
    let asked =
        Asked { method: &request.method, headers: &request.headers, wishes: &wishes, is_at_content_location: true };
    let received = SystemTime::now();
    let requested = received.checked_sub(ctx.exchange.started.elapsed()).unwrap_or(received);
    let times = Times { requested, received };
    let approved = caching.judge(&asked, ctx.exchange.path(request), head.status, &head.headers, &times).ok()?;
    let length = drive::expected(head);
    if length.is_some_and(|length| length > MOST.min(caching.zone.most_in_memory())) {
        return None;
    }
    let mut get = request.clone();
    get.set_method(Method::GET);
    let facts = ctx.facts(&get, None);
    let mut key = Vec::new();
    caching.key.write(&facts, &mut key);
    let url = caching.key.url(&facts);
    let (record, _) = record::of(head.status, head.headers.clone(), &approved, Tick::now(), &url)?;
    let zone = Arc::clone(&caching.zone);
    let request = request.headers.clone();
    Some(Tee { zone, id: Id::of(&key), url, record, approved, request, length, body: BytesMut::new() })
}

/// Takes a piece of the body; when it was the last, stores the copy.
pub(crate) fn take(piece: Option<&Bytes>, ends: bool, ctx: &mut Ctx) {
    let Some(tee) = &mut ctx.tee else { return };
    if !tee.take(piece) {
        ctx.tee = None;
    } else if ends && let Some(tee) = ctx.tee.take() {
        tee.store();
    }
}
