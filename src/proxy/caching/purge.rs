//! `PURGE`: a client that may says what is obsolete.

use http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use pingora::Result;
use pingora::proxy::Session;

use crate::cache::{What, tags};
use crate::proxy::{Ctx, respond};
use crate::reply::Reply;
use crate::route::cache::Cached;

const SOFT: [HeaderName; 2] = [HeaderName::from_static("soft"), HeaderName::from_static("x-soft-purge")];

/// Purges the URL of the request, or the tags that it names in the fields in which responses name theirs.
pub(super) async fn answer(session: &mut Session, ctx: &mut Ctx, cached: &Cached) -> Result<bool> {
    let reply = purge(session, ctx, cached);
    respond::write(session, ctx, reply).await?;
    Ok(true)
}

fn purge(session: &Session, ctx: &Ctx, cached: &Cached) -> Reply {
    let caching = &cached.caching;
    if !caching.lets_purge(ctx.exchange.client) {
        let is_on = caching.purge_from.is_some();
        let reply = Reply::error(if is_on { StatusCode::FORBIDDEN } else { StatusCode::METHOD_NOT_ALLOWED });
        return if is_on { reply } else { reply.header(ALLOW, HeaderValue::from_static("GET, HEAD")) };
    }
    let head = session.req_header();
    let soft = SOFT.iter().any(|name| head.headers.get(name).is_some_and(|value| value == "1"));
    let named = caching.tag_fields.iter().flat_map(|name| head.headers.get_all(name));
    let tags = named.flat_map(|value| tags::split(value.as_bytes()));
    let mut whats: Vec<What> = tags.map(|tag| What::Tag(String::from_utf8_lossy(tag).into_owned())).collect();
    if whats.is_empty() {
        let mut get = head.clone();
        get.set_method(Method::GET);
        whats.push(What::Url(caching.key.url(&ctx.facts(&get, None))));
    }
    let mut status = StatusCode::OK;
    for what in &whats {
        if let Err(error) = caching.zone.purges().add(what.clone(), soft) {
            tracing::warn!(zone = caching.zone.name(), %error, "a purge could not be noted on disk");
            status = StatusCode::INTERNAL_SERVER_ERROR;
        }
        caching.zone.stats.purges.inc();
    }
    let body = serde_json::json!({ "zone": caching.zone.name(), "purged": whats.len(), "soft": soft });
    let mut reply = Reply::error(status);
    reply.headers.push((CONTENT_TYPE, HeaderValue::from_static("application/json")));
    reply.body = Some(format!("{body}\n").into());
    reply
}
