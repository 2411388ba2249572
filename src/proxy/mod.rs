//! The path of a request: the implementation of [`ProxyHttp`], as a table of contents in Pingora's order.

mod admit;
mod again;
mod caching;
mod ctx;
mod fail;
mod forward;
mod framing;
mod mirror;
mod queue;
mod record;
mod respond;
mod upgrade;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, Result};

use crate::gateway::Gateway;

pub use admit::understand;
pub use ctx::Ctx;

/// The gateway as Pingora sees it.
pub struct Proxy {
    gateway: Arc<Gateway>,
}

impl Proxy {
    /// The proxy side of this gateway.
    pub fn new(gateway: Arc<Gateway>) -> Self {
        Self { gateway }
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    // Boxed: Pingora moves it from future to future.
    type CTX = Box<Ctx>;

    fn new_ctx(&self) -> Box<Ctx> {
        Box::new(Ctx::new(self.gateway.snapshot()))
    }

    /// Response compression is off until a route can ask for it, so no module runs.
    fn init_downstream_modules(&self, _: &mut pingora::modules::http::HttpModules) {}

    // The way in: the client, the route, the filters.

    async fn request_filter(&self, session: &mut Session, ctx: &mut Box<Ctx>) -> Result<bool> {
        admit::request(session, ctx).await
    }

    /// What the cache asks of an origin goes the same way as any request from here on.
    fn allow_spawning_subrequest(&self, session: &Session, ctx: &Box<Ctx>) -> bool {
        session.subrequest_ctx.is_none() && !ctx.snapshot.zones.is_empty()
    }

    // The way to a backend; again for each retry.

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Box<Ctx>) -> Result<Box<HttpPeer>> {
        forward::choose(session, ctx).await
    }

    async fn connected_to_upstream(
        &self,
        _: &mut Session,
        reused: bool,
        _: &HttpPeer,
        _: std::os::fd::RawFd,
        _: Option<&Digest>,
        ctx: &mut Box<Ctx>,
    ) -> Result<()> {
        forward::connected(reused, ctx);
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        head: &mut RequestHeader,
        ctx: &mut Box<Ctx>,
    ) -> Result<()> {
        forward::request_head(session, head, ctx)?;
        mirror::begin(session, head, ctx);
        Ok(())
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        piece: &mut Option<Bytes>,
        ends: bool,
        ctx: &mut Box<Ctx>,
    ) -> Result<()> {
        mirror::gather(&self.gateway, session, piece.as_ref(), ends, ctx);
        forward::in_time(ctx)
    }

    // The way back.

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        ctx: &mut Box<Ctx>,
    ) -> Result<()> {
        respond::upstream_head(session, head, ctx)?;
        caching::invalidate(session, head, ctx).await;
        caching::post::begin(session, head, ctx);
        Ok(())
    }

    fn upstream_response_body_filter(
        &self,
        _: &mut Session,
        piece: &mut Option<Bytes>,
        ends: bool,
        ctx: &mut Box<Ctx>,
    ) -> Result<Option<Duration>> {
        caching::post::take(piece.as_ref(), ends, ctx);
        Ok(None)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        ctx: &mut Box<Ctx>,
    ) -> Result<()> {
        respond::downstream_head(session, head, ctx)
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        _: &mut Option<Bytes>,
        _: bool,
        ctx: &mut Box<Ctx>,
    ) -> Result<Option<Duration>> {
        forward::check_deadline(session, ctx)?;
        Ok(None)
    }

    // When a phase failed.

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _: &HttpPeer,
        ctx: &mut Box<Ctx>,
        error: Box<Error>,
    ) -> Box<Error> {
        fail::connect(session, ctx, error)
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        ctx: &mut Box<Ctx>,
        reused: bool,
    ) -> Box<Error> {
        fail::exchange(session, ctx, error, reused)
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Box<Ctx>) -> FailToProxy {
        fail::answer(session, error, ctx).await
    }

    // The access log, the counters and our own debug lines tell of failures; Pingora's error lines would tell them twice.

    fn suppress_error_log(&self, _: &Session, _: &Box<Ctx>, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(&self, _: &Session, _: &Box<Ctx>, _: &Error, _: ProxyWarnLogContext) -> bool {
        true
    }

    // The end, always and once.

    async fn logging(&self, session: &mut Session, _: Option<&Error>, ctx: &mut Box<Ctx>) {
        record::request(&self.gateway, session, ctx);
    }
}
