//! `Ask`: a request that the cache has to do with, and what is common to all ways of answering it.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use http::header::{AUTHORIZATION, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use pingora::Result;
use pingora::proxy::{Session, SubrequestSpawner};

use super::drive::Job;
use super::errand::{self, Errand};
use super::serve::Serving;
use super::told::Told;
use crate::cache::fill::{Failure, Passing};
use crate::cache::object::Fill;
use crate::cache::rules::directives::Wishes;
use crate::cache::rules::freshness::{self, Need};
use crate::cache::rules::reuse::{self, Reuse};
use crate::cache::rules::status::Forward;
use crate::cache::{Id, Object, Zone, key};
use crate::proxy::{Ctx, respond};
use crate::reply::Reply;
use crate::route::cache::Cached;

/// A request that the cache has to do with.
pub(super) struct Ask {
    pub(super) cached: Arc<Cached>,
    pub(super) wishes: Wishes,
    /// The id of its URL.
    pub(super) id: Id,
    /// Whether its response may be stored.
    pub(super) may_store: bool,
    /// Whether it goes alone: what others wait for is not for it.
    pub(super) alone: bool,
    /// By which errands are sent, once the first was.
    pub(super) spawner: OnceLock<Arc<SubrequestSpawner>>,
}

/// Why the origin is asked, and what there is until it answers.
pub(super) struct Want {
    pub(super) why: Forward,
    /// Where the response would be stored.
    pub(super) place: Id,
    pub(super) stale: Option<Arc<Object>>,
    /// What is stored of it, if that is a part which the rest can complete.
    pub(super) part: Option<Arc<Object>>,
}

/// Where a request has got to.
pub(super) enum Step {
    /// It has its answer.
    Answered,
    /// It goes the way of any request.
    Direct(Told),
    /// It looks once more.
    Again,
}

impl Ask {
    pub(super) fn zone(&self) -> &Arc<Zone> {
        &self.cached.caching.zone
    }

    /// What becomes of the request, with this stored.
    pub(super) fn reuse(&self, object: &Object) -> Reuse {
        let terms = object.record.terms();
        let age = terms.age(SystemTime::now());
        let lifetime = if object.is_softened() { terms.lifetime().min(age) } else { terms.lifetime() };
        reuse::decide(age, lifetime, &terms.directives(), &self.wishes, self.cached.caching.grace())
    }

    /// Whether the request could be answered with this object, if it lay there.
    pub(super) fn would_use(&self, object: &Object) -> bool {
        let reuse = || self.reuse(object);
        self.zone().is_valid(object) && matches!(reuse(), Reuse::Fresh | Reuse::Stale | Reuse::StaleWhileRevalidate)
    }

    pub(super) async fn serve(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        object: &Arc<Object>,
        told: Told,
    ) -> Result<Step> {
        let serving = Serving { caching: &self.cached.caching, object, told, withheld: None, kept: None };
        Ok(if serving.answer(session, ctx).await? { Step::Answered } else { Step::Again })
    }

    /// Whether what is stored is served while its origin cannot be reached (RFC 9111 4.2.4).
    pub(super) fn lives_through(&self, stale: &Object) -> bool {
        let terms = stale.record.terms();
        let age = terms.age(SystemTime::now());
        let grace = self.cached.caching.grace();
        freshness::may_serve(age, terms.lifetime(), &terms.directives(), &self.wishes, Need::Disconnected, grace)
    }

    /// Whether others may wait for what is fetched for this request.
    pub(super) fn is_shared(&self, session: &Session) -> bool {
        let collapse = self.cached.caching.collapse;
        !self.alone && !collapse.is_zero() && !session.req_header().headers.contains_key(AUTHORIZATION)
    }

    /// By which errands are sent; `None`: no way.
    pub(super) fn spawner(&self, session: &mut Session) -> Option<Arc<SubrequestSpawner>> {
        if let Some(spawner) = session.subrequest_spawner.take() {
            let _ = self.spawner.set(Arc::new(spawner));
        }
        self.spawner.get().cloned()
    }

    /// An errand for this request with fields of its own, which brings this fill.
    pub(super) fn job(
        &self,
        session: &mut Session,
        ctx: &Ctx,
        fill: &Arc<Fill>,
        own: impl Iterator<Item = (HeaderName, HeaderValue)>,
    ) -> Option<Job> {
        let spawner = self.spawner(session)?;
        let head = session.req_header();
        let facts = ctx.facts(head, None);
        let authority = key::authority(&facts);
        let errand = errand::head_of(head, &authority, &self.cached.caching.key, own);
        Some(Job {
            cached: Arc::clone(&self.cached),
            fill: Arc::clone(fill),
            errand: Errand::new(&ctx.snapshot, ctx.route?, ctx.connection.as_ref(), &ctx.exchange, errand),
            spawner,
            id: self.id,
            url: self.cached.caching.key.url(&facts),
            path: ctx.exchange.path(head).to_owned(),
            request: head.headers.clone(),
            wishes: self.wishes.clone(),
            stale: None,
            part: None,
            shared: false,
            slice: None,
        })
    }
}

pub(super) async fn gateway_timeout(session: &mut Session, ctx: &mut Ctx, why: Forward) -> Result<Step> {
    ctx.told = Some(Told::forwarded(why).with("only-if-cached"));
    respond::write(session, ctx, Reply::error(StatusCode::GATEWAY_TIMEOUT)).await?;
    Ok(Step::Answered)
}

pub(super) async fn fail(session: &mut Session, ctx: &mut Ctx, failure: Failure, why: Forward) -> Result<Step> {
    ctx.exchange.failure = failure.word;
    ctx.told = Some(Told::forwarded(why));
    let status = StatusCode::from_u16(failure.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut reply = Reply::error(status);
    if let Some(seconds) = failure.retry_after {
        reply = reply.header(RETRY_AFTER, seconds.into());
    }
    respond::write(session, ctx, reply).await?;
    Ok(Step::Answered)
}

pub(super) fn detail(passing: Passing) -> Option<&'static str> {
    Some(match passing {
        Passing::Refused(refusal) => refusal.word(),
        Passing::NoRoom => "too-large",
        Passing::Unfit => "unfit",
    })
}

/// For how many seconds it is still fresh.
pub(super) fn ttl(object: &Object) -> i64 {
    let terms = object.record.terms();
    let age = i64::try_from(terms.age(SystemTime::now()).as_secs()).unwrap_or(i64::MAX);
    let left = i64::from(terms.lifetime).saturating_sub(age);
    if object.is_softened() { left.min(0) } else { left }
}
