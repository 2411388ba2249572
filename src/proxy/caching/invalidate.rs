//! What a change at the origin makes obsolete (RFC 9111 4.4).

use http::header::HOST;
use http::{Method, Uri};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;

use crate::cache::rules::invalidate::{Target, is_safe, obsolete};
use crate::cache::{Id, What};
use crate::proxy::Ctx;
use crate::route::normalize::normalize;

/// A response to a request that may have changed something: what is stored for its URL, and for those that it names, goes.
pub(crate) async fn after(session: &Session, response: &ResponseHeader, ctx: &Ctx) {
    let request = session.req_header();
    if is_safe(&request.method) || ctx.snapshot.zones.is_empty() || response.status.is_informational() {
        return;
    }
    let place = Place::of(request, ctx);
    for path in obsolete(&request.method, &place.target(), response.status, &response.headers) {
        forget(request, &path, ctx).await;
    }
}

/// The URL of a request, in its parts.
pub(super) struct Place<'a> {
    scheme: &'a str,
    authority: &'a str,
    path: String,
}

impl<'a> Place<'a> {
    pub(super) fn of(request: &'a RequestHeader, ctx: &'a Ctx) -> Self {
        let host = request.headers.get(HOST).and_then(|host| host.to_str().ok());
        let authority = host.or_else(|| request.uri.authority().map(|authority| authority.as_str()));
        let mut path = ctx.exchange.path(request).to_owned();
        if let Some(query) = request.uri.query() {
            path.push('?');
            path.push_str(query);
        }
        Self { scheme: ctx.exchange.scheme.as_str(), authority: authority.unwrap_or_default(), path }
    }

    pub(super) fn target(&self) -> Target<'_> {
        Target { scheme: self.scheme, authority: self.authority, path: &self.path }
    }
}

/// Forgets what a GET of this path would find, on whichever route.
async fn forget(request: &RequestHeader, path: &str, ctx: &Ctx) {
    let Ok(uri) = path.parse::<Uri>() else { return };
    let mut head = request.clone();
    head.set_method(Method::GET);
    head.set_uri(uri);
    let mut exchange = ctx.exchange.clone();
    exchange.normal_path = normalize(head.uri.path());
    let found = ctx.snapshot.routes.table.find(&head, &mut exchange).copied();
    let Some(cached) = found.and_then(|index| ctx.snapshot.route(index)).and_then(|route| route.cache.as_ref()) else {
        return;
    };
    let mut facts = ctx.facts(&head, None);
    facts.exchange = &exchange;
    let caching = &cached.caching;
    if caching.key.is_plain() {
        let mut key = Vec::new();
        caching.key.write(&facts, &mut key);
        caching.zone.remove(&Id::of(&key)).await;
    } else if let Err(error) = caching.zone.purges().add(What::Url(caching.key.url(&facts)), false) {
        // It holds here all the same.
        tracing::warn!(zone = caching.zone.name(), %error, "an obsolete response could not be noted on disk");
    }
}
