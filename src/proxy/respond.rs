//! The way back: what changes on the head of a response, and the one place that writes a [`Reply`].

use std::time::Instant;

use bytes::Bytes;
use http::header::{
    ACCEPT, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderName, SERVER, SET_COOKIE, TE, TRANSFER_ENCODING,
    UPGRADE, VIA,
};
use http::{Method, StatusCode, Version};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use super::Ctx;
use super::caching::run::note;
use super::{again, forward, framing, queue};
use crate::action::error_pages;
use crate::cache::rules::status::CACHE_STATUS;
use crate::exchange::Scheme;
use crate::forwarded;
use crate::reply::Reply;
use crate::route::Action;
use crate::upstream::Outcome;

const X_POWERED_BY: HeaderName = HeaderName::from_static("x-powered-by");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What a backend's head tells us, and what nobody else shall know of the backend.
pub(super) fn upstream_head(session: &Session, head: &mut ResponseHeader, ctx: &mut Ctx) -> Result<()> {
    let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
    if switches && !session.is_upgrade_req() {
        // The client would go on with HTTP, and take whatever the backend sends for responses.
        let error = Error::explain(ErrorType::InvalidHTTPHeader, "an upgrade that nobody asked for");
        return Err(error.into_up());
    }
    if !ctx.upstream.as_ref().is_some_and(|upstream| upstream.keep_server_headers()) {
        for name in [SERVER, X_POWERED_BY] {
            // Looking is cheaper than removing what is not there from two maps.
            if head.headers.contains_key(&name) {
                head.remove_header(&name);
            }
        }
    }
    if head.status.is_informational() && !switches {
        if head.status != StatusCode::CONTINUE
            && let Some(attempt) = &mut ctx.attempt
        {
            // The client hears of it: another backend would say it once more. That the body is wanted may be said twice.
            attempt.answered = true;
        }
        return forward::in_time(ctx);
    }
    learn(head.status, ctx);
    let fresh = ctx.attempt.as_ref().is_some_and(|attempt| !attempt.answered);
    if head.status.as_u16() >= 400 && fresh && again::by_status(session, ctx, head.status) {
        let mut error = Error::explain(ErrorType::HTTPStatus(head.status.as_u16()), "another try follows");
        error.set_retry(true);
        return Err(error.into_up());
    }
    if let Some(attempt) = &mut ctx.attempt {
        attempt.answered = true;
    }
    // The retry is made. What the client is sent now may take for ever, as in a tunnel.
    ctx.retry = None;
    queue::settle(Outcome::Status(head.status.as_u16()), ctx);
    // Whatever went wrong before, this try went well.
    ctx.exchange.failure = None;
    Ok(())
}

/// A backend has answered: counts it, and lets its upstream learn.
fn learn(status: StatusCode, ctx: &mut Ctx) {
    let (Some(upstream), Some(attempt)) = (&ctx.upstream, &mut ctx.attempt) else { return };
    let now = Instant::now();
    ctx.exchange.first_byte = Some(now.duration_since(ctx.exchange.started));
    let took = now.duration_since(attempt.began);
    let backend = attempt.lease.backend();
    backend.stats().first_byte.observe(took);
    backend.stats().requests.count(status.as_u16());
    attempt.failed = upstream.learn(backend, Outcome::Status(status.as_u16()), took);
}

/// What the client gets.
pub(super) fn downstream_head(session: &mut Session, head: &mut ResponseHeader, ctx: &Ctx) -> Result<()> {
    if head.status.is_informational() && head.status.as_u16() != 101 {
        return Ok(());
    }
    if ctx.errand.is_some() {
        // It goes to no client yet.
        let mut cookies = ResponseHeader::build_no_case(head.status, None)?;
        stick(session, &mut cookies, ctx)?;
        note(ctx, |met| met.cookies = cookies.headers.get_all(SET_COOKIE).iter().cloned().collect());
        return Ok(());
    }
    if let (Some(connection), Some(date)) = (&ctx.connection, head.headers.get(DATE))
        && session.req_header().version != Version::HTTP_2
    {
        connection.keep_date(date);
    }
    if ctx.connection.as_ref().is_some_and(|connection| connection.is_closing()) {
        session.set_keepalive(None);
    }
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        if let Some(upstream) = &ctx.upstream {
            // From here on the client may be silent for as long as the backend may.
            session.set_read_timeout(Some(upstream.tunnel()));
        }
    } else if session.req_header().version == Version::HTTP_2 || head.headers.contains_key(CONNECTION) {
        // Whoever sends such fields names them in `Connection`; not all do, and HTTP/2 breaks the stream off for one.
        remove_hop_by_hop(head);
    }
    if session.req_header().version == Version::HTTP_10 && head.headers.contains_key(TRANSFER_ENCODING) {
        // HTTP/1.0 knows no chunks (RFC 9112 6.1): the end of the connection ends the body.
        head.remove_header(&TRANSFER_ENCODING);
        session.set_keepalive(None);
    }
    if head.status == StatusCode::NO_CONTENT {
        // It ends with its head, and must not say otherwise (RFC 9110 8.6, RFC 9112 6.1).
        head.remove_header(&CONTENT_LENGTH);
        head.remove_header(&TRANSFER_ENCODING);
    } else if let Some(length) = framing::repeated_length(&head.headers) {
        head.insert_header(CONTENT_LENGTH, length)?;
    }
    stick(session, head, ctx)?;
    finish_head(session, head, ctx)?;
    if head.version == Version::HTTP_10 {
        // Each side of a gateway speaks a version of its own (RFC 9110 2.5).
        head.set_version(Version::HTTP_11);
    }
    Ok(())
}

/// Makes the client stick to the upstream and the backend that answered, where that is wanted.
fn stick(session: &Session, head: &mut ResponseHeader, ctx: &Ctx) -> Result<()> {
    let (Some(upstream), Some(attempt)) = (&ctx.upstream, &ctx.attempt) else { return Ok(()) };
    if head.status.is_server_error() {
        // Who finds a backend that is ill shall not be bound to it.
        return Ok(());
    }
    let https = ctx.exchange.scheme == Scheme::Https;
    if let Some(Action::Proxy(target)) = ctx.route().map(|route| &route.action)
        && let Some(field) = target.session_cookie(session.req_header(), upstream, https)
    {
        head.append_header(SET_COOKIE, field.clone())?;
    }
    if upstream.is_sticky()
        && let Some(field) =
            upstream.session_cookie(&ctx.facts(session.req_header(), None), attempt.lease.backend(), &ctx.tried)
    {
        head.append_header(SET_COOKIE, field)?;
    }
    Ok(())
}

/// Removes what concerned only the connection to the backend (RFC 9110 7.6.1).
fn remove_hop_by_hop(head: &mut ResponseHeader) {
    let named = head.headers.get_all(CONNECTION).iter().filter_map(|list| list.to_str().ok());
    let named = named.flat_map(|list| list.split(',')).filter_map(|name| name.trim().parse().ok());
    // Not what says where the body ends, even if a backend should name it.
    let named: Vec<HeaderName> = named.filter(|name| ![CONTENT_LENGTH, TRANSFER_ENCODING].contains(name)).collect();
    for name in named.iter().chain(&[CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TE, UPGRADE]) {
        head.remove_header(name);
    }
}

/// What all responses have in common, whoever gave them.
pub(super) fn finish_head(session: &Session, head: &mut ResponseHeader, ctx: &Ctx) -> Result<()> {
    if let Some(server) = &ctx.snapshot.server {
        head.insert_header(SERVER, server.clone())?;
    }
    if ctx.snapshot.forwarded.via() {
        head.append_header(VIA, forwarded::via(head.version))?;
    }
    if let Some(told) = &ctx.told
        && ctx.route().and_then(|route| route.cache.as_ref()).is_some_and(|cached| cached.caching.status_header)
    {
        head.append_header(CACHE_STATUS, told.value())?;
    }
    let Some(route) = ctx.route() else {
        // What a site promises of all its responses holds for its 404 too.
        if let Some(ops) = ctx.snapshot.routes.site(&ctx.exchange.host).and_then(|site| site.headers.as_ref()) {
            ops.apply_response(head, &ctx.facts(session.req_header(), None));
        }
        return Ok(());
    };
    if !(route.filters.is_idle_on_responses() && route.response_headers.is_empty()) {
        let facts = ctx.facts(session.req_header(), None);
        route.filters.response(head, &facts);
        for ops in &route.response_headers {
            ops.apply_response(head, &facts);
        }
    }
    Ok(())
}

/// Writes a reply of the gateway's own.
pub(super) async fn write(session: &mut Session, ctx: &mut Ctx, reply: Reply) -> Result<()> {
    if reply.close || ctx.connection.as_ref().is_some_and(|connection| connection.is_closing()) {
        session.set_keepalive(None);
    }
    let mut head = ResponseHeader::build(reply.status, Some(reply.headers.len() + 4))?;
    for (name, value) in reply.headers {
        head.append_header(name, value)?;
    }
    let body = match reply.body {
        Some(body) => body,
        None => error_page(session, ctx, &mut head)?,
    };
    let bodiless = matches!(reply.status.as_u16(), 204 | 304);
    if !bodiless {
        head.insert_header(CONTENT_LENGTH, body.len())?;
    }
    finish_head(session, &mut head, ctx)?;
    let end = bodiless || body.is_empty() || session.req_header().method == Method::HEAD;
    session.write_response_header(Box::new(head), end).await?;
    if !end {
        session.write_response_body(Some(body), true).await?;
    }
    Ok(())
}

/// The error page for this status: the route's, or the gateway's own in the form that the client accepts.
fn error_page(session: &Session, ctx: &Ctx, head: &mut ResponseHeader) -> Result<Bytes> {
    let accept = session.req_header().headers.get(ACCEPT);
    let id = ctx.exchange.id.as_str();
    let (content_type, body) = match ctx.route() {
        Some(route) => route.errors.page(head.status, accept, id),
        None => match ctx.snapshot.routes.site(&ctx.exchange.host) {
            Some(site) => site.errors.page(head.status, accept, id),
            None => error_pages::page(head.status, accept, id),
        },
    };
    head.insert_header(CONTENT_TYPE, content_type)?;
    Ok(body)
}
