//! The cache on the path of a request: what is stored and fit to answer with does; for the rest the origin is asked, once for
//! all who want the same.
//!
//! ```text
//! answer ── admits? ── no ──> the way of any request (`Cache-Status: fwd=bypass`)
//!   │
//!   look up ── fit ──> serve
//!   │  └── stale, and may be served meanwhile ──> serve, and fetch behind
//!   fetch ── first to want it ──> errand ──> stored: serve while it comes │ confirmed │ passed through │ failed
//!      └──── a later one ──> waits for the first
//! ```

mod ask;
mod drive;
mod errand;
mod invalidate;
mod patience;
pub(super) mod post;
mod purge;
mod record;
pub(super) mod run;
mod seed;
mod serve;
mod slice;
mod slices;
pub(super) mod tee;
mod told;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::header::{HOST, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use pingora::Result;
use pingora::proxy::Session;

use super::Ctx;
use crate::cache::fill::{Failure, Heard};
use crate::cache::fills::Joined;
use crate::cache::object::{Fill, Outcome};
use crate::cache::rules::reuse::{self, Reuse, Why};
use crate::cache::rules::status::Forward;
use crate::cache::zone::Looked;
use crate::cache::{Id, Kind, Object};
use ask::{Ask, Step, Want, detail, fail, gateway_timeout, ttl};
use drive::Job;
use patience::unless_gone;
use serve::Serving;

pub(super) use errand::Errand;
pub(super) use invalidate::after as invalidate;
pub(super) use told::Told;

/// How often a request looks anew after it waited for another: each time it may find a variant that is not its own.
const ROUNDS: u32 = 4;

/// What a request is about that its own origin judges best, where nothing is stored.
const CONDITIONS: [HeaderName; 4] = [IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_MATCH, IF_UNMODIFIED_SINCE];

/// Answers a request out of the cache, or by way of it. `false`: it goes the way of any request.
pub(super) async fn answer(session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
    let Some(cached) = ctx.route().and_then(|route| route.cache.clone()) else { return Ok(false) };
    if session.req_header().method.as_str() == "PURGE" {
        return purge::answer(session, ctx, &cached).await;
    }
    // On HTTP/2 a request may have a body that no field tells of.
    let has_body = !session.as_mut().is_body_empty();
    let head = session.req_header();
    let wishes = match cached.admits(head, &ctx.exchange) {
        // Nothing can be asked of the origin in its stead.
        Ok(_) if has_body || !head.headers.contains_key(HOST) && head.uri.authority().is_none() => Err(Forward::Bypass),
        admitted => admitted,
    };
    let wishes = match wishes {
        Ok(wishes) => wishes,
        Err(why) => {
            ctx.told = Some(Told::forwarded(why));
            return Ok(false);
        }
    };
    let mut key = Vec::new();
    cached.caching.key.write(&ctx.facts(head, None), &mut key);
    let may_store = cached.may_store(head, &ctx.exchange);
    let mut ask = Ask { wishes, id: Id::of(&key), may_store, alone: false, spawner: OnceLock::new(), cached };
    for _ in 0..ROUNDS {
        let sliced = match ask.cached.caching.slice {
            // Boxed: a request for what is whole is spared its size.
            Some(size) => Box::pin(slices::step(&ask, size, session, ctx)).await?,
            None => None,
        };
        let step = match sliced {
            Some(step) => step,
            None => ask.step(session, ctx).await?,
        };
        match step {
            Step::Answered => return Ok(true),
            Step::Direct(told) => {
                ctx.told = Some(told);
                return Ok(false);
            }
            Step::Again => {}
        }
    }
    ctx.told = Some(Told::forwarded(Forward::Miss));
    Ok(false)
}

impl Ask {
    async fn step(&mut self, session: &mut Session, ctx: &mut Ctx) -> Result<Step> {
        let head = session.req_header();
        let (object, need) = match self.zone().look_up(self.id, &head.headers).await {
            Looked::Nothing(place) => (None, Want { why: Forward::UriMiss, place, stale: None, part: None }),
            Looked::OtherVariants(place) => (None, Want { why: Forward::VaryMiss, place, stale: None, part: None }),
            Looked::Found(object) if !serve::holds(&object, head) => {
                let part = drive::is_begin(&object).then(|| Arc::clone(&object));
                (None, Want { why: Forward::Partial, place: object.id, stale: None, part })
            }
            Looked::Found(object) => {
                let why = if self.reuse(&object) == Reuse::Revalidate(Why::Request) {
                    Forward::Request
                } else {
                    Forward::Stale
                };
                let need = Want { why, place: object.id, stale: Some(Arc::clone(&object)), part: None };
                (Some(object), need)
            }
        };
        let Some(object) = object else {
            if !reuse::may_be_fetched(&self.wishes) {
                return gateway_timeout(session, ctx, need.why).await;
            }
            // Boxed: a hit is spared its size.
            return Box::pin(self.fetch(session, ctx, need)).await;
        };
        let ttl = ttl(&object);
        match self.reuse(&object) {
            Reuse::Fresh | Reuse::Stale => self.serve(session, ctx, &object, Told::hit(ttl)).await,
            Reuse::StaleWhileRevalidate => {
                self.refresh(session, ctx, &object);
                let told = Told::hit(ttl.min(0)).with("stale-while-revalidate");
                self.serve(session, ctx, &object, told).await
            }
            Reuse::GatewayTimeout => gateway_timeout(session, ctx, need.why).await,
            Reuse::Revalidate(why) => {
                // What may not be used without asking is no answer for others (RFC 9111 5.2.2.4).
                self.alone |= why == Why::NoCache || object.record.terms().lifetime == 0;
                Box::pin(self.fetch(session, ctx, need)).await
            }
        }
    }

    /// Asks the origin, or waits for one who does.
    async fn fetch(&mut self, session: &mut Session, ctx: &mut Ctx, need: Want) -> Result<Step> {
        let told = Told::forwarded(need.why);
        if let Some(detail) = self.goes_direct(session, &need) {
            return Ok(Step::Direct(if detail.is_empty() { told } else { told.with(detail) }));
        }
        let place = fill_place(session, &need);
        let collapse = self.cached.caching.collapse;
        // Who waits for what is not stored waits in vain.
        let is_shared = self.is_shared(session) && !self.zone().passes.has(&place);
        let fill = if is_shared {
            match self.zone().fills.join(place, self.id) {
                Joined::First(fill) => fill,
                Joined::Later(fill) => return self.follow(session, ctx, &fill, need, collapse).await,
            }
        } else {
            self.zone().fills.apart(place, self.id)
        };
        // Its place from the first byte on is taken before there is one.
        let Some(reader) = fill.read(0, None) else { return Ok(Step::Direct(told)) };
        let Some(job) = self.fetcher(session, ctx, &fill, &need, is_shared) else {
            self.zone().fills.leave(&place, &fill);
            fill.end(false, None);
            return Ok(Step::Direct(told));
        };
        let errand = Arc::clone(&job.errand);
        tokio::spawn(job.run());
        let outcome = lead(session, &fill).await?;
        run::end(&errand, ctx);
        match outcome {
            Outcome::Stored(object, withheld) => {
                let status = StatusCode::from_u16(object.record.status).unwrap_or_default();
                let mut told = told.answered(status, true);
                told.ttl = Some(ttl(&object));
                let withheld = withheld.as_deref();
                let kept = Some(reader);
                let serving = Serving { caching: &self.cached.caching, object: &object, told, withheld, kept };
                let is_answered = serving.answer(session, ctx).await?;
                Ok(if is_answered { Step::Answered } else { Step::Again })
            }
            Outcome::Passed(head, passing) => {
                let mut told = told.answered(head.status, false);
                told.detail = detail(passing);
                ctx.told = Some(told);
                let cookies = errand.met().cookies;
                serve::pass(session, ctx, &head, &cookies, (&fill, reader)).await?;
                Ok(Step::Answered)
            }
            outcome => self.take(session, ctx, outcome, need, errand.met().failure).await,
        }
    }

    /// Why the request does not go by way of an errand, if it does not.
    fn goes_direct(&self, session: &mut Session, need: &Want) -> Option<&'static str> {
        if need.stale.is_none() && session.req_header().method == Method::HEAD {
            // What a HEAD brings cannot be stored.
            return Some("");
        }
        if !self.may_store {
            return Some("no-store");
        }
        if self.wishes.no_store && need.stale.is_none() {
            return Some("request-no-store");
        }
        if self.spawner(session).is_none() {
            return Some("");
        }
        if need.stale.is_some() {
            return None;
        }
        // What is not stored is asked for with the client's own conditions: its origin may have a 304 for them.
        if CONDITIONS.iter().any(|name| session.req_header().headers.contains_key(name))
            && self.zone().passes.has(&need.place)
        {
            return Some("pass");
        }
        let least = self.cached.caching.min_uses;
        (least > 1 && self.zone().passes.count_use(&need.place) < least).then_some("min-uses")
    }

    /// Waits for what another request has asked for.
    async fn follow(
        &mut self,
        session: &mut Session,
        ctx: &mut Ctx,
        fill: &Arc<Fill>,
        need: Want,
        patience: Duration,
    ) -> Result<Step> {
        let told = Told::forwarded(need.why).shared();
        let waited = tokio::time::timeout(patience, fill.outcome());
        let Ok(outcome) = unless_gone(session, waited).await? else {
            return Ok(Step::Direct(Told::forwarded(need.why).with("collapse-timeout")));
        };
        match outcome {
            Outcome::Stored(object, _) if object.id != need.place => Ok(Step::Again),
            Outcome::Stored(object, _) | Outcome::Confirmed(object)
                if fill.is_void() || !self.takes(&object, session.req_header()) =>
            {
                self.alone = true;
                Ok(Step::Again)
            }
            Outcome::Stored(object, _) => {
                let mut told = told;
                told.ttl = Some(ttl(&object));
                self.serve(session, ctx, &object, told).await
            }
            Outcome::Passed(..) => Ok(Step::Direct(Told::forwarded(need.why))),
            Outcome::Failed(failure) => self.take(session, ctx, Outcome::Failed(failure), need, failure).await,
            outcome => self.take(session, ctx, outcome, need, Failure::default()).await,
        }
    }

    /// Whether a request that waited for this object would take it if it lay there.
    fn takes(&self, object: &Object, head: &pingora::http::RequestHeader) -> bool {
        self.would_use(object) && serve::holds(object, head)
    }

    /// An outcome without a response of its own.
    async fn take(
        &mut self,
        session: &mut Session,
        ctx: &mut Ctx,
        outcome: Outcome,
        need: Want,
        failure: Failure,
    ) -> Result<Step> {
        match (outcome, need.stale) {
            (Outcome::Confirmed(object), _) => {
                let mut told = Told::forwarded(need.why).answered(StatusCode::NOT_MODIFIED, true);
                told.ttl = Some(ttl(&object));
                self.serve(session, ctx, &object, told).await
            }
            (Outcome::Excused(_), Some(stale)) => {
                let told = Told::hit(ttl(&stale).min(0)).with("stale-if-error");
                self.serve(session, ctx, &stale, told).await
            }
            (Outcome::Failed(failure), Some(stale)) if failure.status >= 500 && self.lives_through(&stale) => {
                let told = Told::hit(ttl(&stale).min(0)).with("disconnected");
                ctx.exchange.failure = failure.word;
                self.serve(session, ctx, &stale, told).await
            }
            (Outcome::Excused(status), None) => fail(session, ctx, Failure { status, ..failure }, need.why).await,
            (Outcome::Failed(failure), _) => fail(session, ctx, failure, need.why).await,
            (Outcome::Stored(..) | Outcome::Passed(..), _) => Ok(Step::Again),
        }
    }

    /// Fetches behind what is served stale, unless somebody does already.
    fn refresh(&self, session: &mut Session, ctx: &Ctx, stale: &Arc<Object>) {
        if self.spawner(session).is_none() {
            return;
        }
        let need = Want { why: Forward::Stale, place: stale.id, stale: Some(Arc::clone(stale)), part: None };
        let Joined::First(fill) = self.zone().fills.join(stale.id, self.id) else { return };
        match self.fetcher(session, ctx, &fill, &need, true) {
            Some(job) => drop(tokio::spawn(job.run())),
            None => {
                self.zone().fills.leave(&stale.id, &fill);
                fill.end(false, None);
            }
        }
    }

    fn fetcher(&self, session: &mut Session, ctx: &Ctx, fill: &Arc<Fill>, need: &Want, shared: bool) -> Option<Job> {
        let conditions = need.stale.iter().flat_map(|stale| drive::conditions(stale));
        // What is stored of it is whole: the rest of it is fetched whole too.
        let ranged = need.stale.as_ref().is_none_or(|stale| stale.record.kind() != Kind::Whole);
        let range = ranges(session.req_header()).into_iter().flatten().filter(|_| ranged);
        let part = need.part.as_ref().filter(|_| !session.req_header().headers.contains_key(RANGE));
        let rest = part.and_then(|part| drive::rest(part)).into_iter().flatten();
        let job = self.job(session, ctx, fill, conditions.chain(range).chain(rest))?;
        Some(Job { stale: need.stale.clone(), part: part.cloned(), shared, ..job })
    }
}

/// The fields by which a part is asked for.
fn ranges(head: &pingora::http::RequestHeader) -> Option<Vec<(HeaderName, HeaderValue)>> {
    if head.method != Method::GET {
        return None;
    }
    let range = head.headers.get(RANGE)?.clone();
    let condition = head.headers.get(IF_RANGE).map(|condition| (IF_RANGE, condition.clone()));
    Some(std::iter::once((RANGE, range)).chain(condition).collect())
}

/// Under which id a fill is waited for: those of parts apart from that of the whole.
fn fill_place(session: &Session, need: &Want) -> Id {
    match (ranges(session.req_header()), &need.stale) {
        (Some(fields), None) => {
            let text: Vec<u8> = fields.iter().flat_map(|(_, value)| [b"\0range", value.as_bytes()].concat()).collect();
            need.place.with(&text)
        }
        _ => need.place,
    }
}

/// Waits for what the errand of this request comes to, and passes on what comes before (RFC 9110 15.2).
async fn lead(session: &mut Session, fill: &Arc<Fill>) -> Result<Outcome> {
    let mut heard = 0;
    loop {
        match unless_gone(session, fill.hear(heard)).await? {
            Heard::Outcome(outcome) => return Ok(outcome),
            Heard::Early(head) => {
                heard += 1;
                let written = session.write_response_header(Box::new(head), false).await;
                written.map_err(|error| error.into_down())?;
            }
        }
    }
}
