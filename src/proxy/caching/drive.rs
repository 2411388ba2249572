//! What comes back from an errand: is it stored, does it confirm what is stored, or does it only pass through?

use std::sync::Arc;
use std::time::SystemTime;

use http::header::{
    AGE, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE,
};
use http::{Method, StatusCode};
use pingora::http::ResponseHeader;
use pingora::protocols::http::HttpTask;
use pingora::protocols::http::date::get_cached_date;
use pingora::protocols::http::subrequest::server::SubrequestHandle;
use pingora::proxy::SubrequestSpawner;
use tokio::sync::mpsc::Receiver;

use super::errand::Errand;
use super::record;
use crate::cache::fill::{Failure, Passing};
use crate::cache::object::{Fill, Outcome};
use crate::cache::policy::Approved;
use crate::cache::rules::directives::Wishes;
use crate::cache::rules::freshness::{self, Need, Times};
use crate::cache::rules::range::ContentRange;
use crate::cache::rules::storable::{Asked, Refusal};
use crate::cache::rules::{conditional, list, merge};
use crate::cache::storing::Storing;
use crate::cache::zone::Looked;
use crate::cache::{Body, Caching, Id, Kind, Object, Record, Slice, Sliced, Terms, Zone};
use crate::route::cache::Cached;

/// An errand under way, and what its response is compared with.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) cached: Arc<Cached>,
    pub(super) fill: Arc<Fill>,
    pub(super) errand: Arc<Errand>,
    pub(super) spawner: Arc<SubrequestSpawner>,
    /// The id of the URL, under which its variants are found.
    pub(super) id: Id,
    pub(super) url: String,
    pub(super) path: String,
    /// The fields of the client's request: they tell variants apart.
    pub(super) request: HeaderMap,
    pub(super) wishes: Wishes,
    /// What is stored and was not fit to answer with.
    pub(super) stale: Option<Arc<Object>>,
    /// The begin of it, that is stored and to be completed.
    pub(super) part: Option<Arc<Object>>,
    /// Whether others may join.
    pub(super) shared: bool,
    /// The slice that is asked for, if it is one.
    pub(super) slice: Option<Slice>,
}

/// Fields that an errand asks with because of what is stored. A slice is asked for by its range all the same.
const CONDITIONS: [HeaderName; 4] = [IF_NONE_MATCH, IF_MODIFIED_SINCE, RANGE, IF_RANGE];

/// The conditions by which an origin is asked whether what is stored is still right (RFC 9111 4.3.1).
pub(super) fn conditions(stale: &Object) -> impl Iterator<Item = (http::HeaderName, http::HeaderValue)> {
    stale.record.fields().filter_map(|(name, value)| match name {
        ETAG => Some((IF_NONE_MATCH, value)),
        LAST_MODIFIED => Some((IF_MODIFIED_SINCE, value)),
        _ => None,
    })
}

/// Whatever happens to the task, those who wait for the fill hear of its end.
struct End(Arc<Fill>, Arc<Cached>);

impl Drop for End {
    fn drop(&mut self) {
        self.1.caching.zone.fills.leave(&self.0.id, &self.0);
        self.0.end(false, None);
    }
}

impl Job {
    fn caching(&self) -> &Caching {
        &self.cached.caching
    }

    fn zone(&self) -> &Arc<Zone> {
        &self.cached.caching.zone
    }

    /// Sends the errand and takes what comes back.
    pub(super) async fn run(mut self) {
        let _end = End(Arc::clone(&self.fill), Arc::clone(&self.cached));
        if let Some(object) = self.meanwhile().await {
            self.zone().fills.leave(&self.fill.id, &self.fill);
            return self.fill.tell(Outcome::Confirmed(object));
        }
        loop {
            let requested = SystemTime::now();
            let Some(handle) = self.errand.send(&self.spawner).await else { return };
            // Both ends of the way to it are needed as long as it lives; only one is used.
            let SubrequestHandle { tx: _tx, rx: mut tasks, .. } = handle;
            let Some(head) = self.head(&mut tasks).await else { return self.fail() };
            let times = Times { requested, received: SystemTime::now() };
            if self.is_beside(&head) {
                // It is about something else than what is stored: once more, without conditions.
            } else if head.status != StatusCode::NOT_MODIFIED || self.stale.is_none() {
                return self.take(*head, tasks, &times).await;
            } else if self.confirm(&head.headers, &times).await {
                return;
            }
            let mut bare = self.errand.head.clone();
            let conditions = if self.slice.is_some() { &CONDITIONS[..2] } else { &CONDITIONS };
            for name in conditions {
                bare.remove_header(name);
            }
            self.errand = self.errand.again(bare);
            (self.stale, self.part) = (None, None);
        }
    }

    /// The slice, or the whole, if another errand stored it between the look-up and this one.
    async fn meanwhile(&self) -> Option<Arc<Object>> {
        let slice = self.slice.filter(|_| self.shared && self.stale.is_none())?;
        let Looked::Found(found) = self.zone().look_up(self.id, &self.request).await else { return None };
        let object = match Sliced::of(&found) {
            Some(known) if known.size == slice.size => self.zone().find(known.slice(slice.index)).await?,
            Some(_) => return None,
            None => Some(found).filter(|found| found.record.kind() == Kind::Whole)?,
        };
        let terms = &object.record.terms();
        let is_fresh = !terms.always_ask && terms.age(SystemTime::now()) < terms.lifetime() && !object.is_softened();
        is_fresh.then_some(object)
    }

    /// Whether the rest was asked for, and it is not the rest of what is stored (RFC 9111 3.4).
    fn is_beside(&self, head: &ResponseHeader) -> bool {
        let Some(part) = &self.part else { return false };
        match head.status {
            StatusCode::RANGE_NOT_SATISFIABLE => true,
            StatusCode::PARTIAL_CONTENT => !is_rest(part, head),
            _ => false,
        }
    }

    /// The head of the response; what comes before it is told on.
    async fn head(&self, tasks: &mut Receiver<HttpTask>) -> Option<Box<ResponseHeader>> {
        loop {
            match tasks.recv().await? {
                HttpTask::Header(head, _) if head.status.is_informational() => self.fill.tell_early(*head),
                HttpTask::Header(head, _) => return Some(head),
                _ => return None,
            }
        }
    }

    fn fail(&self) {
        let mut failure = self.errand.met().failure;
        if failure == Failure::default() {
            failure.status = StatusCode::BAD_GATEWAY.as_u16();
        }
        self.zone().fills.leave(&self.fill.id, &self.fill);
        self.fill.tell(Outcome::Failed(failure));
    }

    /// A response that is no answer to conditions of ours.
    async fn take(&self, mut head: ResponseHeader, tasks: Receiver<HttpTask>, times: &Times) {
        if self.is_excused(head.status) {
            self.zone().fills.leave(&self.fill.id, &self.fill);
            return self.fill.tell(Outcome::Excused(head.status.as_u16()));
        }
        let begin = if head.status == StatusCode::PARTIAL_CONTENT { self.part.as_ref() } else { None };
        complete_part(&mut head, begin.is_some());
        let asked =
            Asked { method: &Method::GET, headers: &self.request, wishes: &self.wishes, is_at_content_location: false };
        let judged = self.caching().judge(&asked, &self.path, head.status, &head.headers, times);
        let passing = match judged {
            Ok(approved) if !self.fill.is_void() => match self.misfit(&head) {
                Some(misfit) => misfit,
                None => match self.store(&head, &approved, times).await {
                    Some(storing) => return self.fill_up(storing, begin, tasks, expected(&head)).await,
                    None => Passing::NoRoom,
                },
            },
            Ok(_) => Passing::NoRoom,
            Err(refusal) => {
                self.zone().stats.uncacheable.inc();
                Passing::Refused(refusal)
            }
        };
        self.pass(head, begin, tasks, passing).await;
    }

    /// Why this part is not stored as the slice that was asked for.
    fn misfit(&self, head: &ResponseHeader) -> Option<Passing> {
        let slice = self.slice.filter(|_| head.status == StatusCode::PARTIAL_CONTENT)?;
        let Some(total) = slice.total_of(&head.headers) else { return Some(Passing::Unfit) };
        self.caching().max_object.is_some_and(|most| total > most).then_some(Passing::NoRoom)
    }

    /// Whether the stored response is served in place of this failure (RFC 5861 4).
    fn is_excused(&self, status: StatusCode) -> bool {
        let Some(stale) = self.stale.as_ref().filter(|_| freshness::is_error(status)) else { return false };
        let terms = stale.record.terms();
        let age = terms.age(SystemTime::now());
        let need = Need::Failed(status);
        freshness::may_serve(age, terms.lifetime(), &terms.directives(), &self.wishes, need, self.caching().grace())
    }

    /// Begins to store a response; `None`: there is no room.
    async fn store(&self, head: &ResponseHeader, approved: &Approved, times: &Times) -> Option<Storing> {
        let zone = self.zone();
        let (record, withheld) = record::of(head.status, head.headers.clone(), approved, self.fill.asked, &self.url)?;
        let mut place = zone.place(self.id, &self.url, &approved.vary, &self.request, self.fill.asked).await?;
        if let (Some(slice), Kind::Part(..)) = (self.slice, record.kind()) {
            place = Sliced::enter(zone, place, &record, slice.size).await?.slice(slice.index);
        }
        let length = expected(head);
        let object = Arc::new(Object::new(place, record, Body::Awaited(length)));
        let most = self.caching().max_object;
        let storing = Storing::begin(zone, &self.fill, Arc::clone(&object), length, most).await?;
        let is_fresh = object.record.terms().age(times.received) < object.record.terms().lifetime();
        // A part that is no slice is only for those who asked for it.
        if self.shared && is_fresh && (object.record.kind() == Kind::Whole || self.slice.is_some()) {
            zone.fills.enter(place, &self.fill);
        }
        zone.passes.forget(&self.fill.id);
        self.fill.tell(Outcome::Stored(object, withheld));
        Some(storing)
    }

    async fn fill_up(
        &self,
        mut storing: Storing,
        begin: Option<&Arc<Object>>,
        mut tasks: Receiver<HttpTask>,
        length: Option<u64>,
    ) {
        let mut whole = None;
        let mut begin = begin.and_then(|begin| begin.read(0, None));
        while let Some(reader) = &mut begin {
            match reader.next().await {
                Ok(Some(piece)) => drop(storing.push(piece).await),
                Ok(None) => begin = None,
                Err(_) => return storing.end(false).await,
            }
        }
        while whole.is_none() {
            match tasks.recv().await {
                Some(HttpTask::Body(piece, ends)) => {
                    if let Some(piece) = piece
                        && !storing.push(piece).await
                    {
                        whole = Some(false);
                    }
                    if ends && whole.is_none() {
                        whole = Some(true);
                    }
                }
                Some(HttpTask::Done) => whole = Some(true),
                Some(HttpTask::Header(..) | HttpTask::Trailer(_)) => {}
                Some(HttpTask::UpgradedBody(..) | HttpTask::Failed(_)) => whole = Some(false),
                None => whole = Some(length == Some(self.fill.len())),
            }
        }
        let is_right = length.is_none_or(|length| length == self.fill.len());
        storing.end(whole == Some(true) && is_right).await;
    }

    /// The response is for who asked for it alone.
    async fn pass(
        &self,
        head: ResponseHeader,
        begin: Option<&Arc<Object>>,
        mut tasks: Receiver<HttpTask>,
        passing: Passing,
    ) {
        let zone = self.zone();
        zone.fills.leave(&self.fill.id, &self.fill);
        if self.shared {
            zone.passes.note(&self.fill.id);
        }
        let is_new = !head.status.is_server_error() && !is_about_request(passing);
        if let Some(stale) = self.stale.as_ref().filter(|_| is_new) {
            // It would come back when the origin fails.
            zone.forget(stale).await;
        }
        let length = expected(&head);
        self.fill.tell(Outcome::Passed(Arc::new(head), passing));
        let mut begin = begin.and_then(|begin| begin.read(0, None));
        while let Some(reader) = &mut begin {
            match reader.next().await {
                Ok(Some(piece)) => {
                    self.fill.push(piece);
                    if !self.fill.wait_for_room().await {
                        return;
                    }
                }
                Ok(None) => begin = None,
                Err(_) => return self.fill.end(false, None),
            }
        }
        let mut trailers = None;
        let whole = loop {
            let task = tokio::select! {
                biased;
                task = tasks.recv() => task,
                // Dropping `tasks` ends the errand.
                () = self.fill.left() => return,
            };
            match task {
                Some(HttpTask::Body(piece, ends)) => {
                    if let Some(piece) = piece.filter(|piece| !piece.is_empty()) {
                        self.fill.push(piece);
                        if !self.fill.wait_for_room().await {
                            return;
                        }
                    }
                    if ends {
                        break true;
                    }
                }
                Some(HttpTask::Trailer(fields)) => trailers = fields.map(|fields| *fields),
                Some(HttpTask::Done) => break true,
                Some(HttpTask::Header(..)) => {}
                Some(HttpTask::UpgradedBody(..) | HttpTask::Failed(_)) => break false,
                None => break length == Some(self.fill.len()),
            }
        };
        self.fill.end(whole, trailers);
    }

    /// A 304. `false`: it is not about what is stored (RFC 9111 4.3.4).
    async fn confirm(&self, fresh: &HeaderMap, times: &Times) -> bool {
        let Some(stale) = &self.stale else { return false };
        let zone = self.zone();
        let mut fields = stale.record.headers();
        if !merge::is_about(&fields, fresh) {
            return false;
        }
        if merge::changes_vary(&fields, fresh) {
            // It would lie under another id from now on: what is fetched anew does.
            zone.forget(stale).await;
            if let Some(variants) = zone.find(self.id).await {
                zone.forget(&variants).await;
            }
            return false;
        }
        merge::merge(&mut fields, fresh);
        if let Some(age) = fresh.get(AGE) {
            fields.insert(AGE, age.clone());
        }
        if !fresh.contains_key(DATE) {
            // RFC 9110 6.6.1: when it came. The stored one would make it as old as before.
            fields.insert(DATE, get_cached_date());
        }
        let status = StatusCode::from_u16(stale.record.status).unwrap_or_default();
        let asked =
            Asked { method: &Method::GET, headers: &self.request, wishes: &self.wishes, is_at_content_location: false };
        let judged = self.caching().judge(&asked, &self.path, status, &fields, times);
        let confirmed = match judged {
            Ok(approved) if !self.fill.is_void() => {
                let Some((record, _)) = record::of(status, fields, &approved, self.fill.asked, &self.url) else {
                    return false;
                };
                let renewed = zone.renew(stale, record).await;
                if self.fill.is_void() {
                    zone.forget(&renewed).await;
                }
                renewed
            }
            judged => {
                // It may be used for this request, and for no other.
                if !judged.is_err_and(|refusal| is_about_request(Passing::Refused(refusal))) {
                    zone.forget(stale).await;
                }
                let directives = self.caching().directives(&fields);
                let terms =
                    Terms::new(times.received, freshness::initial_age(&fields, times), Default::default(), &directives);
                let what = (stale.record.status, stale.record.kind());
                fields.remove(AGE);
                let record = Record::new(self.fill.asked, terms, what, &self.url, &[], &fields);
                let Ok(record) = record else { return false };
                Arc::new(Object::new(stale.id, record, stale.body()))
            }
        };
        zone.fills.leave(&self.fill.id, &self.fill);
        self.fill.tell(Outcome::Confirmed(confirmed));
        true
    }
}

/// Whether a response is not stored because of who asked for it: it says nothing of what is stored for others.
fn is_about_request(passing: Passing) -> bool {
    matches!(passing, Passing::Refused(Refusal::Authorization | Refusal::RequestNoStore))
}

/// The length of the body, if the head tells it.
pub(super) fn expected(head: &ResponseHeader) -> Option<u64> {
    if matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Some(0);
    }
    let told = list::single(&head.headers, CONTENT_LENGTH).and_then(|text| list::digits(text, u64::MAX));
    let part = || ContentRange::of(&head.headers)?.range.map(|range| range.end - range.start);
    told.or_else(|| part().filter(|_| head.status == StatusCode::PARTIAL_CONTENT))
}

/// Whether this is the begin of a representation, and the rest can be told from that of another one (RFC 9111 3.4).
pub(super) fn is_begin(part: &Object) -> bool {
    let strong = part.record.fields().any(|(name, value)| name == ETAG && !conditional::is_weak(value.as_bytes()));
    matches!(part.record.kind(), Kind::Part(0, Some(_))) && strong && !matches!(part.body(), Body::Filling(..))
}

/// The fields that ask for the rest.
pub(super) fn rest(part: &Object) -> Option<[(HeaderName, HeaderValue); 2]> {
    let (_, etag) = part.record.fields().find(|(name, _)| *name == ETAG)?;
    let range = HeaderValue::from_str(&format!("bytes={}-", part.len()?)).ok()?;
    Some([(RANGE, range), (IF_RANGE, etag)])
}

/// Whether the body of this 206 is just what is missing.
fn is_rest(part: &Object, head: &ResponseHeader) -> bool {
    let (Kind::Part(_, Some(total)), Some(there)) = (part.record.kind(), part.len()) else { return false };
    let own = part.record.fields().find(|(name, _)| *name == ETAG);
    let is_same = conditional::etag(&head.headers)
        .is_some_and(|etag| own.is_some_and(|(_, own)| conditional::strong_equal(etag, own.as_bytes())));
    let wanted = ContentRange { range: Some(there..total), length: Some(total) };
    is_same && ContentRange::of(&head.headers).is_some_and(|range| range == wanted)
}

/// Makes a 206 that has all of a representation, or all that is missing of it, into the 200 that it stands for.
fn complete_part(head: &mut ResponseHeader, is_rest: bool) {
    if head.status != StatusCode::PARTIAL_CONTENT {
        return;
    }
    if let Some(ContentRange { range: Some(range), length: Some(length) }) = ContentRange::of(&head.headers)
        && (range == (0..length) || is_rest)
    {
        // 200 is a status.
        let _ = head.set_status(StatusCode::OK);
        head.remove_header(&CONTENT_RANGE);
        let _ = head.insert_header(CONTENT_LENGTH, length);
    }
}
