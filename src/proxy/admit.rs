//! The way in: who the client is, whether the request can be understood, its route, the filters, the gateway's own answers.

use http::header::HOST;
use http::{Method, StatusCode, Version};
use pingora::Result;
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use super::Ctx;
use super::caching::{self, Errand};
use super::framing;
use super::respond;
use crate::exchange::Exchange;
use crate::listen::{Connection, Peer};
use crate::reply::Reply;
use crate::route::host::normalize_host;
use crate::route::normalize::normalize;
use crate::route::{Action, Route};

/// Takes a request in. True: it has been answered.
pub(super) async fn request(session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
    if let Some(errand) = Errand::of(session).cloned() {
        caching::run::begin(&errand, session, ctx);
        return Ok(false);
    }
    open(session, ctx);
    match decide(session, ctx).await {
        // Boxed: what is not cached is spared its size.
        None if ctx.route().is_some_and(|route| route.cache.is_some()) => Box::pin(caching::answer(session, ctx)).await,
        None => Ok(false),
        Some(reply) => {
            respond::write(session, ctx, *reply).await?;
            Ok(true)
        }
    }
}

/// Takes over what the connection knows, and its bounds.
fn open(session: &mut Session, ctx: &mut Ctx) {
    let connection = Connection::of(session.as_downstream()).cloned();
    let peer = match connection.as_ref().map(|connection| connection.peer) {
        Some(Peer::Inet(address)) => Some(address),
        Some(Peer::Unix) | None => None,
    };
    ctx.snapshot.forwarded.identify(session.req_header(), peer, &mut ctx.exchange);
    if session.req_header().version == Version::HTTP_10 {
        // It would take a 1xx for the response (RFC 9110 15.2).
        session.set_ignore_info_resp(true);
    }
    if let Some(connection) = connection {
        connection.begin_request();
        ctx.exchange.local_port = connection.local_port;
        ctx.connection = Some(connection);
    }
}

/// The gateway's own answer, if it gives one.
async fn decide(session: &mut Session, ctx: &mut Ctx) -> Option<Box<Reply>> {
    let head = session.req_header_mut();
    if let Err(status) = understand(head, &mut ctx.exchange) {
        return Some(Box::new(Reply::error(status).closing()));
    }
    ctx.route = ctx.snapshot.routes.table.find(head, &mut ctx.exchange).copied();
    let Some(route) = ctx.route.and_then(|index| ctx.snapshot.route(index)) else {
        return Some(Box::new(Reply::error(StatusCode::NOT_FOUND)));
    };
    if let Some(reply) = route.filters.request(head, &mut ctx.exchange, &route.name).await {
        return Some(reply);
    }
    answer(route, head, ctx)
}

/// The route's own answer, if it is not one that asks a backend.
fn answer(route: &Route, head: &RequestHeader, ctx: &Ctx) -> Option<Box<Reply>> {
    match &route.action {
        Action::Proxy(_) => None,
        Action::Redirect(redirect) => Some(Box::new(redirect.reply(&ctx.facts(head, None)))),
        Action::Respond(respond) => Some(Box::new(respond.reply(&ctx.facts(head, None)))),
    }
}

/// Reads host and path, or says with which status the request is refused.
pub fn understand(head: &RequestHeader, exchange: &mut Exchange) -> std::result::Result<(), StatusCode> {
    // TRACE would show the client fields that were added on the way (RFC 9110 9.3.8), and a gateway makes no tunnels.
    if matches!(head.method, Method::TRACE | Method::CONNECT) {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    if !framing::knows_transfer_coding(&head.headers) {
        return Err(StatusCode::NOT_IMPLEMENTED);
    }
    let named = match head.headers.get(HOST) {
        Some(host) => Some(host.to_str().map_err(|_| StatusCode::BAD_REQUEST)?),
        None => head.uri.authority().map(http::uri::Authority::as_str),
    };
    match named {
        Some(host) => exchange.host = normalize_host(host).ok_or(StatusCode::BAD_REQUEST)?.into_owned(),
        // RFC 9112 3.2: a request without Host is answered with 400, unless it is of HTTP/1.0.
        None if head.version == Version::HTTP_10 => {}
        None => return Err(StatusCode::BAD_REQUEST),
    }
    if !is_target(head) || !head.raw_path_is_utf8() {
        return Err(StatusCode::BAD_REQUEST);
    }
    exchange.normal_path = normalize(head.uri.path());
    Ok(())
}

/// Whether the target has a form that a request to a gateway may have (RFC 9112 3.2): a path, a whole URL or, to ask for
/// the options of the server itself, `*`. Of anything else Pingora makes the path `/`, which was not asked for.
fn is_target(head: &RequestHeader) -> bool {
    let named = |scheme: &str, target: &[u8]| {
        target.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme.as_bytes()))
    };
    match head.raw_path() {
        [b'/', ..] => true,
        b"*" => head.method == Method::OPTIONS,
        target => named("http://", target) || named("https://", target),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_path_or_a_url_or_the_server_itself() {
        for (method, target, status) in [
            ("GET", "/a", None),
            ("GET", "http://a/b", None),
            ("GET", "HTTPS://a", None),
            ("OPTIONS", "*", None),
            ("GET", "*", Some(400)),
            ("GET", "a", Some(400)),
            ("GET", "a:80", Some(400)),
            ("GET", "?a", Some(400)),
            ("GET", "a/../b", Some(400)),
            ("GET", "urn:/a", Some(400)),
            ("GET", "ftp://a/b", Some(400)),
            ("TRACE", "/", Some(405)),
            ("CONNECT", "a:80", Some(405)),
        ] {
            let mut head = RequestHeader::build(method, target.as_bytes(), None).unwrap();
            head.insert_header(HOST, "a").unwrap();
            let refused = understand(&head, &mut Exchange::new()).err();
            assert_eq!(refused.map(|status| status.as_u16()), status, "{method} {target}");
        }
    }

    #[test]
    fn a_request_without_a_proper_host_is_refused() {
        for (version, host, result) in [
            (Version::HTTP_11, Some("Example.COM:8080"), Ok("example.com")),
            (Version::HTTP_11, None, Err(400)),
            (Version::HTTP_10, None, Ok("")),
            (Version::HTTP_11, Some("a b"), Err(400)),
            (Version::HTTP_11, Some("[::1]:80"), Ok("[::1]")),
        ] {
            let mut head = RequestHeader::build("GET", b"/a/../b", None).unwrap();
            head.set_version(version);
            if let Some(host) = host {
                head.insert_header(HOST, host).unwrap();
            }
            let mut exchange = Exchange::new();
            let got =
                understand(&head, &mut exchange).map(|()| exchange.host.as_str()).map_err(|status| status.as_u16());
            assert_eq!(got, result, "{host:?}");
        }
    }
}
