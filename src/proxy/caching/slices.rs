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
use http::header::{HeaderMap, IF_RANGE, RANGE};
use http::{Method, StatusCode};
use pingora::Result;
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use super::ask::{Ask, Step, detail, fail, gateway_timeout};
use super::patience::unless_gone;
use super::run;
use super::serve::{self, MOST_RANGES, Serving};
use super::slice::{Found, Got, Passed, Slices};
use super::told::Told;
use crate::cache::fill::Passing;
use crate::cache::object::{BodyReader, Fill};
use crate::cache::rules::conditional::{self, Stored};
use crate::cache::rules::list;
use crate::cache::rules::range::{self, Asked, ContentRange, Wanted};
use crate::cache::rules::reuse;
use crate::cache::rules::status::Forward;
use crate::cache::zone::Looked;
use crate::cache::{Id, Kind, Sliced, Tick, sliced};
use crate::proxy::Ctx;

/// So many slices of a response are looked for before it begins, to tell whether all are there.
const LOOKED_FOR: usize = 1_024;

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
        let serving = Serving { caching, object: &object, told, withheld: withheld.as_deref(), kept: None };
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
        let serving = Serving { caching, object: &object, told, withheld: withheld.as_deref(), kept: None };
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
