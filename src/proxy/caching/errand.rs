//! `Errand`: a request of the cache's own to the origin, in the stead of a client's.
//!
//! It is a subrequest of Pingora: it takes the way of any request from the choice of a backend on, with its tries, limits and
//! deadlines, and hands its response to a task instead of a socket. So the speed of a client, or its leaving, does not
//! matter to it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{Method, Uri, Version};
use pingora::http::RequestHeader;
use pingora::protocols::http::subrequest::server::SubrequestHandle;
use pingora::proxy::subrequest::{BodyMode, Ctx as SubrequestCtx};
use pingora::proxy::{Session, SubrequestSpawner};

use super::seed;
use crate::cache::KeyShape;
use crate::cache::fill::Failure;
use crate::exchange::Exchange;
use crate::gateway::snapshot::Snapshot;
use crate::listen::Connection;
use crate::proxy::framing::join_cookies;
use crate::upstream::Upstream;

/// A request of the cache's own.
pub struct Errand {
    /// The snapshot that its request began under.
    pub(crate) snapshot: Arc<Snapshot>,
    /// The route of its request.
    pub(crate) route: u32,
    /// The connection of its request.
    pub(crate) connection: Option<Arc<Connection>>,
    /// What is known of its request.
    pub(crate) exchange: Exchange,
    /// What it asks.
    pub(crate) head: RequestHeader,
    met: Mutex<Met>,
}

/// What an errand met with.
#[derive(Clone, Default)]
pub(crate) struct Met {
    /// The upstream that was asked.
    pub upstream: Option<Arc<Upstream>>,
    /// The backend that was tried last.
    pub backend: Option<Arc<str>>,
    /// How often one was tried.
    pub tries: u32,
    /// How long connecting took.
    pub connect_time: Option<Duration>,
    /// From its begin to the head of the response.
    pub first_byte: Option<Duration>,
    /// Why there is no response.
    pub failure: Failure,
    /// The cookies that make the client stay with who answered.
    pub cookies: Vec<HeaderValue>,
}

/// Fields that tell an origin of another URL, method or client than the one that the key is made of: no response may
/// depend on them, unless the key has them.
const UNKEYED: [HeaderName; 16] = [
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-rewrite-url"),
    HeaderName::from_static("x-original-uri"),
    HeaderName::from_static("x-original-host"),
    HeaderName::from_static("x-host"),
    HeaderName::from_static("x-http-host-override"),
    HeaderName::from_static("x-forwarded-server"),
    HeaderName::from_static("x-forwarded-scheme"),
    HeaderName::from_static("x-forwarded-ssl"),
    HeaderName::from_static("x-forwarded-path"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
    HeaderName::from_static("x-url-scheme"),
    HeaderName::from_static("front-end-https"),
];

/// Fields of a client's request that are between it and the cache.
const ANSWERED_HERE: [HeaderName; 12] = [
    IF_MATCH,
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    IF_UNMODIFIED_SINCE,
    IF_RANGE,
    RANGE,
    EXPECT,
    UPGRADE,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    CONTENT_ENCODING,
    TRANSFER_ENCODING,
];

/// The head of a GET for what this request is about, with these fields of its own.
pub(super) fn head_of(
    request: &RequestHeader,
    shape: &KeyShape,
    own: impl Iterator<Item = (HeaderName, HeaderValue)>,
) -> RequestHeader {
    let mut parts: Parts = request.as_owned_parts();
    parts.method = Method::GET;
    for name in &ANSWERED_HERE {
        parts.headers.remove(name);
    }
    for name in UNKEYED.iter().filter(|name| !shape.headers().contains(name)) {
        parts.headers.remove(name);
    }
    if parts.version == Version::HTTP_2 {
        join_cookies(&mut parts.headers);
    }
    if let (false, Some(authority)) = (parts.headers.contains_key(HOST), parts.uri.authority()) {
        // Where it is no value it is no authority either.
        let _ = HeaderValue::from_str(authority.as_str()).map(|host| parts.headers.insert(HOST, host));
    }
    if let Some(target) = target(&parts.uri, shape) {
        parts.uri = target;
    }
    parts.version = Version::HTTP_11;
    parts.headers.extend(own);
    RequestHeader::from(parts)
}

/// Path and query without what is not of the key, if that changes anything: no response may depend on the rest.
fn target(uri: &Uri, shape: &KeyShape) -> Option<Uri> {
    let query = uri.query();
    let keyed = query.and_then(|query| shape.keyed(query));
    if uri.scheme().is_none() && keyed.as_deref() == query {
        return None;
    }
    let target = match keyed {
        Some(query) => format!("{}?{query}", uri.path()),
        None => uri.path().to_owned(),
    };
    // Less of a target is one too.
    target.parse().ok()
}

impl Errand {
    /// An errand with this head, on this route, for a request that was such.
    pub(super) fn new(
        snapshot: &Arc<Snapshot>,
        route: u32,
        connection: Option<&Arc<Connection>>,
        exchange: &Exchange,
        head: RequestHeader,
    ) -> Arc<Self> {
        Arc::new(Self {
            snapshot: Arc::clone(snapshot),
            route,
            connection: connection.cloned(),
            exchange: Exchange { started: Instant::now(), ..exchange.clone() },
            head,
            met: Mutex::default(),
        })
    }

    /// The same errand with another head.
    pub(super) fn again(&self, head: RequestHeader) -> Arc<Self> {
        Self::new(&self.snapshot, self.route, self.connection.as_ref(), &self.exchange, head)
    }

    /// Sends it. What comes back comes through the handle.
    pub(super) async fn send(self: &Arc<Self>, spawner: &SubrequestSpawner) -> Option<SubrequestHandle> {
        let ctx = SubrequestCtx::builder().body_mode(BodyMode::NoBody).user_ctx(Box::new(Arc::clone(self))).build();
        let (prepared, handle) = spawner.create_subrequest(seed::session().await?, ctx);
        tokio::spawn(prepared.run());
        Some(handle)
    }

    /// The errand that this session runs, if it runs one.
    pub(crate) fn of(session: &Session) -> Option<&Arc<Self>> {
        session.subrequest_ctx.as_ref()?.user_ctx()?.downcast_ref()
    }

    /// What it met with so far.
    pub(crate) fn met(&self) -> Met {
        self.met.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what it met with.
    pub(crate) fn note(&self, change: impl FnOnce(&mut Met)) {
        change(&mut self.met.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
