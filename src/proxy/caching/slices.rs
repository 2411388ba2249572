//! Slices: large objects are fetched and stored in slices of one size, each when somebody wants some of it.
//!
//! ```text
//! step ── the first slice that is wanted ── there, or fetched ──> its head tells length and validators
//!   │                                            └── whole: the origin knows no ranges, or it is small: as without slices
//!   └── 304, 412, 416, or begin: one slice after the other, the next one fetched while one is sent
//! ```
//!
//! Slices are joined only if they are of one representation for certain (RFC 9110 15.3.7.3). Once the response has begun,
//! one of another breaks it off.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue, IF_RANGE, RANGE};
use http::{Method, StatusCode};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;

use super::ask::{Ask, Step, detail, fail, gateway_timeout, ttl};
use super::drive::{self, Job};
use super::errand::Errand;
use super::patience::unless_gone;
use super::serve::{self, MOST_RANGES, Serving};
use super::{run, told::Told};
use crate::cache::fill::{Failure, Passing};
use crate::cache::fills::Joined;
use crate::cache::object::{BodyReader, Fill, Outcome, Reader};
use crate::cache::rules::conditional::{self, Stored};
use crate::cache::rules::list;
use crate::cache::rules::range::{self, Asked, ContentRange, Wanted};
use crate::cache::rules::reuse::{self, Reuse, Why};
use crate::cache::rules::status::Forward;
use crate::cache::zone::Looked;
use crate::cache::{Id, Kind, Object, Slice, Sliced, Tick, sliced};
use crate::proxy::Ctx;

/// So many slices of a response are looked for before it begins, to tell whether all are there.
const LOOKED_FOR: usize = 1_024;

/// A request for what is, or may be, stored in slices.
struct Slices<'a> {
    ask: &'a Ask,
    size: u64,
    /// What is known of the representation.
    known: Option<Sliced>,
    /// Where what is known of it lies, or would.
    place: Id,
    /// Why a slice that is not there is fetched.
    why: Forward,
    /// The errand that all others are made from; `None`: there is no way to send any.
    errand: Option<Job>,
    is_shared: bool,
    is_head: bool,
}

/// What became of a slice.
enum Got {
    Stored(Found),
    Passed(Passed),
    Failed(Failure, Forward),
    /// Who fetched it for others too has nothing for this one; or nobody can be sent. In a word, why.
    Nothing(&'static str),
    /// It may not be fetched.
    NotAsked(Forward),
}

/// A slice that is stored, or the whole in its stead.
struct Found {
    object: Arc<Object>,
    /// Fields that only who asked for it gets.
    withheld: Option<Arc<HeaderMap>>,
    told: Told,
    /// The errand that brought it.
    errand: Option<Arc<Errand>>,
    /// Whether another request fetched it.
    is_anothers: bool,
}

/// A response that is not stored.
struct Passed {
    head: Arc<ResponseHeader>,
    passing: Passing,
    fill: Arc<Fill>,
    /// Its place from the first byte on.
    reader: Reader,
    errand: Arc<Errand>,
    told: Told,
}

/// What is sent of one slice.
#[derive(Clone)]
struct Piece {
    /// Goes before it.
    before: Bytes,
    index: u64,
    /// Its bytes, counted from the beginning of the whole.
    bytes: Range<u64>,
}

/// Answers out of slices. `None`: it is answered as if there were none.
pub(super) async fn step(ask: &Ask, size: u64, session: &mut Session, ctx: &mut Ctx) -> Result<Option<Step>> {
    if ask.zone().passes.has(&unsliced(ask.id)) {
        return Ok(None);
    }
    let head = session.req_header();
    let (known, place, why) = match ask.zone().look_up(ask.id, &head.headers).await {
        Looked::Nothing(place) => (None, place, Forward::UriMiss),
        Looked::OtherVariants(place) => (None, place, Forward::VaryMiss),
        Looked::Found(object) if serve::holds(&object, head) => return Ok(None),
        Looked::Found(object) => (Sliced::of(&object).filter(|known| known.size == size), object.id, Forward::Partial),
    };
    let is_shared = ask.is_shared(session);
    // Its own fill is never waited for.
    let errand = ask.job(session, ctx, &Fill::new(place, ask.id, Tick::now()), std::iter::empty());
    let is_head = session.req_header().method == Method::HEAD;
    Slices { ask, size, known, place, why, errand, is_shared, is_head }.answer(session, ctx).await
}

/// Under which id it is noted that a URL cannot be had in slices.
fn unsliced(id: Id) -> Id {
    id.with(b"\0unsliced")
}

impl Slices<'_> {
    async fn answer(mut self, session: &mut Session, ctx: &mut Ctx) -> Result<Option<Step>> {
        let first = self.first(session.req_header());
        let found = match unless_gone(session, self.obtain(first, true)).await? {
            Got::Stored(found) => found,
            Got::Passed(passed) => return self.pass(session, ctx, passed, first).await,
            Got::Failed(failure, why) => return fail(session, ctx, failure, why).await.map(Some),
            Got::Nothing(word) => return Ok(Some(Step::Direct(self.direct(word)))),
            Got::NotAsked(why) => return gateway_timeout(session, ctx, why).await.map(Some),
        };
        if let Some(errand) = &found.errand {
            run::end(errand, ctx);
        }
        let Kind::Part(_, Some(total)) = found.object.record.kind() else {
            return self.serve_whole(session, ctx, found).await.map(Some);
        };
        if !self.know(&found, first, &session.req_header().headers).await {
            return Ok(Some(Step::Again));
        }
        self.serve(session, ctx, found, first, total).await.map(Some)
    }

    /// The whole, in place of a slice.
    async fn serve_whole(&self, session: &mut Session, ctx: &mut Ctx, found: Found) -> Result<Step> {
        let Found { object, withheld, told, is_anothers, .. } = found;
        if is_anothers && object.id != self.place {
            return Ok(Step::Again);
        }
        let caching = &self.ask.cached.caching;
        let serving = Serving { caching, object: &object, told, withheld: withheld.as_deref() };
        Ok(if serving.answer(session, ctx).await? { Step::Answered } else { Step::Again })
    }

    /// Which slice is wanted first, as far as is known.
    fn first(&self, head: &RequestHeader) -> u64 {
        let Some(range) = list::single(&head.headers, RANGE).filter(|_| head.method == Method::GET) else { return 0 };
        let Some(known) = &self.known else {
            // That of which it is told how far from the beginning it is.
            return match range::parse(range, 1).as_deref() {
                Some([Asked::From(first, _)]) => first / self.size,
                _ => 0,
            };
        };
        let stored = Stored { status: StatusCode::OK, headers: &known.headers, received: SystemTime::now() };
        if !conditional::is_range_heard(&head.headers, &stored) {
            return 0;
        }
        match range::wanted(&head.headers, known.total, MOST_RANGES) {
            Wanted::Whole => 0,
            Wanted::Parts(parts) => parts.first().map_or(0, |part| part.start) / self.size,
            // The last one tells whether there is more by now.
            Wanted::Unsatisfiable => known.total.saturating_sub(1) / self.size,
        }
    }

    /// Knows the representation by its first slice. `false`: that one is not for this request, or no longer there.
    async fn know(&mut self, found: &Found, index: u64, request: &HeaderMap) -> bool {
        let is_of = |known: &Sliced| known.slice(index) == found.object.id;
        if self.known.as_ref().is_some_and(is_of) {
            return true;
        }
        self.known = match self.ask.zone().look_up(self.ask.id, request).await {
            Looked::Found(object) => Sliced::of(&object).filter(is_of),
            _ => None,
        };
        self.known.is_some() || !found.is_anothers
    }

    /// A slice: what is stored, or what the origin says. `begins`: it is the first of the response.
    async fn obtain(&self, index: u64, begins: bool) -> Got {
        let ask = self.ask;
        let stored = match &self.known {
            Some(known) => ask.zone().find(known.slice(index)).await,
            None => None,
        };
        let Some(object) = stored else {
            if !reuse::may_be_fetched(&ask.wishes) {
                return Got::NotAsked(self.why);
            }
            if begins && let Some(word) = self.goes_direct() {
                return Got::Nothing(word);
            }
            return self.fetch(index, None, self.why, begins).await;
        };
        let told = Told::hit(ttl(&object));
        match ask.reuse(&object) {
            Reuse::Fresh | Reuse::Stale => Got::Stored(Found::new(object, told)),
            Reuse::StaleWhileRevalidate => {
                self.refresh(index, &object);
                let told = Told::hit(ttl(&object).min(0)).with("stale-while-revalidate");
                Got::Stored(Found::new(object, told))
            }
            Reuse::GatewayTimeout => Got::NotAsked(Forward::Stale),
            Reuse::Revalidate(_) if begins && !ask.may_store => Got::Nothing("no-store"),
            Reuse::Revalidate(why) => {
                let word = if why == Why::Request { Forward::Request } else { Forward::Stale };
                self.fetch(index, Some((object, why)), word, begins).await
            }
        }
    }

    /// Why a request goes the way of any other, where its first slice is not stored.
    fn goes_direct(&self) -> Option<&'static str> {
        let zone = self.ask.zone();
        if self.is_head || self.errand.is_none() {
            return Some("");
        }
        if !self.ask.may_store {
            return Some("no-store");
        }
        if self.ask.wishes.no_store {
            return Some("request-no-store");
        }
        if zone.passes.has(&self.passed()) {
            return Some("pass");
        }
        let least = self.ask.cached.caching.min_uses;
        (self.known.is_none() && least > 1 && zone.passes.count_use(&self.place) < least).then_some("min-uses")
    }

    /// Under which id it is noted that what comes is not stored: of requests that go alone apart.
    fn passed(&self) -> Id {
        if self.is_shared { self.place } else { self.place.with(b"\0alone") }
    }

    /// Under which id a slice on its way is waited for.
    fn fill_place(&self, index: u64) -> Id {
        match &self.known {
            Some(known) => known.slice(index),
            None => self.place.with(&[b"\0first slice", &self.size.to_le_bytes()[..], &index.to_le_bytes()].concat()),
        }
    }

    /// Asks the origin for a slice, or waits for one who does.
    async fn fetch(&self, index: u64, stale: Option<(Arc<Object>, Why)>, why: Forward, begins: bool) -> Got {
        let Some(errand) = &self.errand else { return Got::Nothing("") };
        let zone = self.ask.zone();
        // What may not be used without asking is no answer for others (RFC 9111 5.2.2.4).
        let is_shared = self.is_shared
            && stale.as_ref().is_none_or(|(stale, why)| *why != Why::NoCache && stale.record.terms().lifetime > 0);
        let stale = stale.map(|(stale, _)| stale);
        let mut is_first = is_shared;
        let place = self.fill_place(index);
        let fill = match is_shared.then(|| zone.fills.join(place, self.ask.id)) {
            Some(Joined::First(fill)) => fill,
            Some(Joined::Later(fill)) => match self.follow(&fill, stale.as_ref(), why).await {
                Some(Got::Nothing(word)) if begins => return Got::Nothing(word),
                None | Some(Got::Nothing(_)) => {
                    is_first = false;
                    Fill::new(place, self.ask.id, Tick::now())
                }
                Some(got) => return got,
            },
            None => Fill::new(place, self.ask.id, Tick::now()),
        };
        if !self.ask.may_store || self.ask.wishes.no_store {
            fill.make_void();
        }
        let Some(reader) = fill.read(0, None) else { return Got::Nothing("") };
        let job = self.job(errand, &fill, index, stale.clone(), is_first);
        let errand = Arc::clone(&job.errand);
        tokio::spawn(job.run());
        let outcome = fill.outcome().await;
        match outcome {
            Outcome::Passed(head, passing) => {
                let told = Told::forwarded(why).answered(head.status, false);
                Got::Passed(Passed { head, passing, fill, reader, errand, told })
            }
            outcome => match self.settle(outcome, stale.as_ref(), Told::forwarded(why), why) {
                Got::Stored(found) => Got::Stored(Found { errand: Some(errand), ..found }),
                got => got,
            },
        }
    }

    /// Waits for what another request has asked for. `None`: that is for nobody else.
    async fn follow(&self, fill: &Arc<Fill>, stale: Option<&Arc<Object>>, why: Forward) -> Option<Got> {
        let patience = self.ask.cached.caching.collapse;
        let Ok(outcome) = tokio::time::timeout(patience, fill.outcome()).await else {
            return Some(Got::Nothing("collapse-timeout"));
        };
        match &outcome {
            Outcome::Passed(..) => return Some(Got::Nothing("")),
            Outcome::Stored(object, _) => {
                let terms = object.record.terms();
                if terms.always_ask || terms.age(SystemTime::now()) >= terms.lifetime() {
                    return None;
                }
            }
            _ => {}
        }
        Some(match self.settle(outcome, stale, Told::forwarded(why).shared(), why) {
            Got::Stored(found) => Got::Stored(Found { withheld: None, is_anothers: true, ..found }),
            got => got,
        })
    }

    /// What an outcome that is stored, or has no response, means.
    fn settle(&self, outcome: Outcome, stale: Option<&Arc<Object>>, told: Told, why: Forward) -> Got {
        match (outcome, stale) {
            (Outcome::Stored(object, withheld), _) => {
                let status = StatusCode::from_u16(object.record.status).unwrap_or_default();
                let told = Told { ttl: Some(ttl(&object)), ..told.answered(status, true) };
                Got::Stored(Found { withheld, ..Found::new(object, told) })
            }
            (Outcome::Confirmed(object), _) => {
                let told = Told { ttl: Some(ttl(&object)), ..told.answered(StatusCode::NOT_MODIFIED, true) };
                Got::Stored(Found::new(object, told))
            }
            (Outcome::Excused(_), Some(stale)) => {
                let told = Told::hit(ttl(stale).min(0)).with("stale-if-error");
                Got::Stored(Found::new(Arc::clone(stale), told))
            }
            (Outcome::Failed(failure), Some(stale)) if failure.status >= 500 && self.ask.lives_through(stale) => {
                let told = Told::hit(ttl(stale).min(0)).with("disconnected");
                Got::Stored(Found::new(Arc::clone(stale), told))
            }
            (Outcome::Excused(status), None) => Got::Failed(Failure { status, ..Failure::default() }, why),
            (Outcome::Failed(failure), _) => Got::Failed(failure, why),
            (Outcome::Passed(..), _) => Got::Nothing(""),
        }
    }

    /// Fetches a slice behind what is served stale, unless somebody does already.
    fn refresh(&self, index: u64, stale: &Arc<Object>) {
        let Some(errand) = &self.errand else { return };
        if let Joined::First(fill) = self.ask.zone().fills.join(stale.id, self.ask.id) {
            tokio::spawn(self.job(errand, &fill, index, Some(Arc::clone(stale)), true).run());
        }
    }

    fn job(&self, errand: &Job, fill: &Arc<Fill>, index: u64, stale: Option<Arc<Object>>, shared: bool) -> Job {
        let slice = Slice { index, size: self.size };
        let Range { start, end } = slice.range();
        let mut head = errand.errand.head.clone();
        let range = HeaderValue::from_str(&format!("bytes={start}-{}", end - 1));
        // Digits are a value.
        let _ = range.map(|range| head.insert_header(RANGE, range));
        for (name, value) in stale.iter().flat_map(|stale| drive::conditions(stale)) {
            let _ = head.insert_header(name, value);
        }
        let (fill, own) = (Arc::clone(fill), errand.errand.again(head));
        Job { fill, errand: own, stale, shared, slice: Some(slice), ..errand.clone() }
    }

    fn direct(&self, word: &'static str) -> Told {
        let told = Told::forwarded(self.why);
        if word.is_empty() { told } else { told.with(word) }
    }

    /// A first slice that is not stored.
    async fn pass(&self, session: &mut Session, ctx: &mut Ctx, passed: Passed, index: u64) -> Result<Option<Step>> {
        let zone = self.ask.zone();
        let head = session.req_header();
        match passed.head.status {
            StatusCode::PARTIAL_CONTENT if passed.passing == Passing::Unfit => {
                zone.passes.note(&unsliced(self.ask.id));
                Ok(None)
            }
            StatusCode::PARTIAL_CONTENT => {
                // Its own range is another.
                zone.passes.note(&self.passed());
                let word = detail(passed.passing).unwrap_or_default();
                Ok(Some(Step::Direct(self.direct(word))))
            }
            StatusCode::RANGE_NOT_SATISFIABLE if self.known.is_some() => {
                // It has become shorter.
                zone.remove(&self.ask.id).await;
                Ok(Some(Step::Again))
            }
            // It has no byte, which only a request for the whole can tell.
            StatusCode::RANGE_NOT_SATISFIABLE if index == 0 => Ok(None),
            StatusCode::RANGE_NOT_SATISFIABLE if head.headers.contains_key(IF_RANGE) => {
                Ok(Some(Step::Direct(self.direct(""))))
            }
            _ => {
                run::end(&passed.errand, ctx);
                ctx.told = Some(Told { detail: detail(passed.passing), ..passed.told });
                let cookies = passed.errand.met().cookies;
                serve::pass(session, ctx, &passed.head, &cookies, (&passed.fill, passed.reader)).await?;
                Ok(Some(Step::Answered))
            }
        }
    }

    /// Answers with the representation that this slice is of.
    async fn serve(&self, session: &mut Session, ctx: &mut Ctx, found: Found, first: u64, total: u64) -> Result<Step> {
        let caching = &self.ask.cached.caching;
        let Found { object, withheld, mut told, .. } = found;
        let serving = Serving { caching, object: &object, told, withheld: withheld.as_deref() };
        let opening = serving.opening(session, StatusCode::OK, Kind::Whole, Some(total));
        let whole = Whole { headers: object.record.headers(), total };
        let (ranges, end) = opening.send.ranges(total);
        let mut pieces = pieces(ranges, self.size);
        let Some(piece) = pieces.next() else {
            opening.write(session, ctx, told).await?;
            return Ok(Step::Answered);
        };
        let is_hit = told.is_hit();
        let got = if piece.index == first {
            Got::Stored(Found::new(Arc::clone(&object), told))
        } else {
            unless_gone(session, self.obtain(piece.index, false)).await?
        };
        match &got {
            Got::Failed(failure, why) => return fail(session, ctx, *failure, *why).await,
            Got::NotAsked(why) => return gateway_timeout(session, ctx, *why).await,
            Got::Stored(found) if is_hit => told = found.told,
            Got::Passed(passed) if is_hit => told = passed.told,
            _ => {}
        }
        let Some(reader) = self.read(got, &piece, &whole).await else { return Ok(Step::Again) };
        if told.is_hit() && !self.has_all(pieces.clone()) {
            if !reuse::may_be_fetched(&self.ask.wishes) {
                return gateway_timeout(session, ctx, Forward::Partial).await;
            }
            told = Told::forwarded(Forward::Partial);
        }
        if opening.write(session, ctx, told).await?.is_some() {
            self.send(session, (piece, reader), pieces, &whole).await?;
            session.write_response_body((!end.is_empty()).then_some(end), true).await?;
        }
        Ok(Step::Answered)
    }

    /// Whether these are stored, as far as can be told quickly.
    fn has_all(&self, pieces: impl Iterator<Item = Piece>) -> bool {
        let Some(known) = &self.known else { return false };
        pieces.take(LOOKED_FOR).all(|piece| self.ask.zone().has(&known.slice(piece.index)))
    }

    /// Sends one piece after the other, and has the next one ready when it is wanted.
    async fn send(
        &self,
        session: &mut Session,
        first: (Piece, BodyReader),
        mut rest: impl Iterator<Item = Piece>,
        whole: &Whole,
    ) -> Result<()> {
        let mut next = Some(first);
        while let Some((piece, reader)) = next.take() {
            let following = rest.next();
            let prepare = async {
                let Some(piece) = following else { return Ok(None) };
                let got = self.obtain(piece.index, false).await;
                Ok(Some((self.read(got, &piece, whole).await, piece)))
            };
            next = match tokio::try_join!(write(session, piece, reader), prepare)?.1 {
                Some((Some(reader), piece)) => Some((piece, reader)),
                Some((None, _)) => return Err(serve::broken()),
                None => None,
            };
        }
        Ok(())
    }

    /// Reads the piece from what was got. `None`: it is of another representation, or there is nothing.
    async fn read(&self, got: Got, piece: &Piece, whole: &Whole) -> Option<BodyReader> {
        let Range { start: from, end: to } = piece.bytes;
        match got {
            Got::Stored(Found { object, .. }) => {
                let start = match object.record.kind() {
                    Kind::Part(start, Some(total)) if whole.is_of(&object.record.headers(), total) => start,
                    Kind::Whole if whole.is_of(&object.record.headers(), object.len()?) => 0,
                    _ => return None,
                };
                // Who reads to the end is told of it once all is stored.
                let to = Some(to - start).filter(|to| Some(*to) != object.len());
                object.read(from.checked_sub(start)?, to)
            }
            Got::Passed(passed) if passed.head.status == StatusCode::PARTIAL_CONTENT => {
                let headers = &passed.head.headers;
                let ContentRange { range: Some(range), length: Some(total) } = ContentRange::of(headers)? else {
                    return None;
                };
                if !whole.is_of(headers, total) {
                    self.ask.zone().remove(&self.ask.id).await;
                    return None;
                }
                let upto = Some(to - range.start);
                passed.fill.read(from.checked_sub(range.start)?, upto).map(BodyReader::Fill)
            }
            _ => None,
        }
    }
}

/// What all slices of a response must be of.
struct Whole {
    headers: HeaderMap,
    total: u64,
}

impl Whole {
    fn is_of(&self, headers: &HeaderMap, total: u64) -> bool {
        self.total == total && sliced::is_same(&self.headers, headers)
    }
}

impl Found {
    fn new(object: Arc<Object>, told: Told) -> Self {
        Self { object, withheld: None, told, errand: None, is_anothers: false }
    }
}

/// What is sent of each slice, in order.
fn pieces(ranges: Vec<(Bytes, Range<u64>)>, size: u64) -> impl Iterator<Item = Piece> + Clone {
    ranges.into_iter().flat_map(move |(before, range)| {
        (range.start / size..range.end.div_ceil(size)).map(move |index| {
            let bytes = range.start.max(index * size)..range.end.min((index + 1).saturating_mul(size));
            let before = if bytes.start == range.start { before.clone() } else { Bytes::new() };
            Piece { before, index, bytes }
        })
    })
}

async fn write(session: &mut Session, piece: Piece, reader: BodyReader) -> Result<()> {
    if !piece.before.is_empty() {
        session.write_response_body(Some(piece.before), false).await?;
    }
    serve::write_part(session, reader, piece.bytes.end - piece.bytes.start).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_sent_slice_by_slice() {
        for (ranges, wanted) in [
            (&[(0, 25)][..], &[(0, 0, 10), (1, 10, 20), (2, 20, 25)][..]),
            (&[(10, 20)], &[(1, 10, 20)]),
            (&[(9, 11)], &[(0, 9, 10), (1, 10, 11)]),
            (&[(24, 25), (0, 1)], &[(2, 24, 25), (0, 0, 1)]),
            (&[], &[]),
        ] {
            let ranges = ranges.iter().map(|(start, end)| (Bytes::from_static(b"head"), *start..*end)).collect();
            let pieces: Vec<_> = pieces(ranges, 10).collect();
            let seen: Vec<_> = pieces.iter().map(|piece| (piece.index, piece.bytes.start, piece.bytes.end)).collect();
            assert_eq!(seen, wanted);
        }
    }
}
