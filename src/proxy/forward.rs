//! The way to a backend: who takes the request, what head it gets, how long all may take.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{CONTENT_LENGTH, HOST};
use http::request::Parts;
use http::{StatusCode, Uri, Version};
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, OrErr as _, Result};

use super::Ctx;
use super::ctx::Attempt;
use super::upgrade::Upgrade;
use super::{framing, queue};
use crate::route::Action;
use crate::upstream::Upstream;
use crate::upstream::peer::set_apart;
use crate::upstream::retry::Retry;

/// Chooses the backend for this try.
pub(super) async fn choose(session: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
    let upgrade = Upgrade::of(session.req_header()).passes();
    let upstream = target(session.req_header(), ctx, upgrade)?;
    let lease = match ctx.next.take() {
        Some(next) => {
            if !next.pause.is_zero() {
                tokio::time::sleep(next.pause).await;
            }
            next.lease
        }
        None => {
            if upstream.limits().is_some() {
                queue::enter(session, ctx, &upstream).await?
            } else {
                let facts = ctx.facts(session.req_header(), None);
                let picked = upstream.pick(&facts, &ctx.tried, Instant::now());
                picked.map_err(|refusal| queue::refused(refusal, ctx, &upstream))?
            }
        }
    };
    let now = Instant::now();
    let remaining = ctx.deadline.map(|deadline| deadline.saturating_duration_since(now));
    if remaining == Some(Duration::ZERO) {
        return Error::e_explain(
            ErrorType::CustomCode("read_timeout", StatusCode::GATEWAY_TIMEOUT.as_u16()),
            "the time for the request is up",
        );
    }
    ctx.exchange.tries += 1;
    let mut peer = lease.backend().peer(remaining, retry(ctx, &upstream).per_try(), upgrade);
    if ctx.kept_was_dead {
        set_apart(&mut peer);
    }
    ctx.attempt = Some(Attempt { lease, began: now, answered: false, failed: false });
    Ok(peer)
}

/// When this request is tried again: its route says so, or its upstream.
pub(super) fn retry<'a>(ctx: &'a Ctx, upstream: &'a Upstream) -> &'a Retry {
    ctx.route().and_then(|route| route.retry.as_ref()).unwrap_or_else(|| upstream.retry())
}

/// The upstream of the request: drawn once, kept for its retries.
fn target(head: &RequestHeader, ctx: &mut Ctx, upgrade: bool) -> Result<Arc<Upstream>> {
    if let Some(upstream) = &ctx.upstream {
        return Ok(Arc::clone(upstream));
    }
    let Some(Action::Proxy(target)) = ctx.route().map(|route| &route.action) else {
        return Error::e_explain(ErrorType::InternalError, "a request without an upstream was forwarded");
    };
    let upstream = Arc::clone(target.pick(head));
    ctx.deadline = (!upgrade).then(|| ctx.exchange.started + upstream.total());
    if let (Some(connection), None) = (&ctx.connection, &ctx.errand) {
        connection.end_by(ctx.deadline);
    }
    ctx.upstream = Some(Arc::clone(&upstream));
    Ok(upstream)
}

/// Notes how long connecting took.
pub(super) fn connected(reused: bool, ctx: &mut Ctx) {
    let Some(attempt) = &ctx.attempt else { return };
    if reused {
        ctx.exchange.connect_time = Some(Duration::ZERO);
        return;
    }
    let took = attempt.began.elapsed();
    ctx.exchange.connect_time = Some(took);
    attempt.lease.backend().stats().connect.observe(took);
}

/// Makes the head that the backend gets out of the client's.
///
/// Its names go out in lower case (but for the commonest), as HTTP/2 has them and most proxies do: keeping each client's
/// way of writing them would mean a second map for each head, and twice the work for each field.
pub(super) fn request_head(session: &Session, head: &mut RequestHeader, ctx: &Ctx) -> Result<()> {
    let original = session.req_header();
    let ends = head.send_end_stream();
    let mut parts = Parts::from(std::mem::replace(head, RequestHeader::from(nothing())));
    if original.version == Version::HTTP_2 {
        framing::join_cookies(&mut parts.headers);
    }
    Upgrade::of(original).write(&mut parts.headers);
    if let Some(length) = framing::repeated_length(&parts.headers) {
        parts.headers.insert(CONTENT_LENGTH, length);
    }
    if let Some(uri) = upstream_uri(original, ctx)? {
        parts.uri = uri;
    }
    if let Some(connection) = &ctx.connection {
        let peer = connection.peer.ip().map(|_| connection.peer_value());
        ctx.snapshot.forwarded.write(&mut parts, &ctx.exchange, peer, connection.port_value());
    }
    if let (Some(upstream), Some(attempt)) = (&ctx.upstream, &ctx.attempt) {
        if let Some(host) = upstream.host_field(attempt.lease.backend()) {
            parts.headers.insert(HOST, host.clone());
        } else if original.version == Version::HTTP_10 && !parts.headers.contains_key(HOST) {
            // What goes out is HTTP/1.1, which has no request without (RFC 9112 3.2).
            parts.headers.insert(HOST, attempt.lease.backend().authority().clone());
        }
    }
    *head = RequestHeader::from(parts);
    if let Some(ends) = ends {
        head.set_send_end_stream(ends);
    }
    let Some(route) = ctx.route() else { return Ok(()) };
    if !route.request_headers.is_empty() {
        let facts = ctx.facts(original, None);
        for ops in &route.request_headers {
            ops.apply_upstream_request(head, &facts);
        }
    }
    Ok(())
}

/// The head that stands in while another is changed.
fn nothing() -> Parts {
    http::Request::new(()).into_parts().0
}

/// The path that was matched, or what the route rewrites it to, with the query as it was. `None`: as it was sent.
fn upstream_uri(original: &RequestHeader, ctx: &Ctx) -> Result<Option<Uri>> {
    let route = ctx.route();
    let path = ctx.exchange.path(original);
    let path = match route.and_then(|route| route.rewrite.as_ref()) {
        Some(rewrite) => rewrite.apply(path, &ctx.facts(original, None)),
        None if ctx.exchange.normal_path.is_none() || route.is_some_and(|route| route.raw_path) => return Ok(None),
        None => path.into(),
    };
    let mut target = String::with_capacity(path.len() + 1 + original.uri.query().map_or(0, str::len));
    target.push_str(&path);
    if let Some(query) = original.uri.query() {
        target.push('?');
        target.push_str(query);
    }
    Uri::try_from(target).map(Some).or_err(ErrorType::HTTPStatus(400), "the path cannot be forwarded")
}

/// Breaks off a response that takes longer than the upstream's `total`.
pub(super) fn check_deadline(session: &Session, ctx: &mut Ctx) -> Result<()> {
    if !std::mem::replace(&mut ctx.body_began, true) || session.was_upgraded() {
        // The first piece comes with the head or soon after, and most responses have no other: no look at the clock.
        return Ok(());
    }
    in_time(ctx)
}

/// Whether the upstream's `total` has not passed: to be asked whenever either side has sent a piece, for Pingora's own
/// deadlines begin anew with each.
pub(super) fn in_time(ctx: &Ctx) -> Result<()> {
    match ctx.deadline {
        Some(deadline) if Instant::now() > deadline => {
            let error = Error::explain(ErrorType::ReadTimedout, "the time for the whole exchange is up");
            Err(error.into_up())
        }
        _ => Ok(()),
    }
}
