//! What comes back from an errand: is it stored, does it confirm what is stored, or does it only pass through?

use std::sync::Arc;
use std::time::SystemTime;

use http::header::{
    AGE, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use http::{Method, StatusCode};
use pingora::http::ResponseHeader;
use pingora::protocols::http::HttpTask;
use pingora::protocols::http::subrequest::server::SubrequestHandle;
use pingora::proxy::SubrequestSpawner;
use tokio::sync::mpsc::Receiver;

use super::errand::Errand;
use crate::cache::fill::{Failure, Passing};
use crate::cache::object::{Fill, Outcome};
use crate::cache::policy::Approved;
use crate::cache::rules::directives::Wishes;
use crate::cache::rules::freshness::{self, Need, Times};
use crate::cache::rules::range::ContentRange;
use crate::cache::rules::storable::Asked;
use crate::cache::rules::{list, merge, stored_head};
use crate::cache::storing::Storing;
use crate::cache::{Body, Caching, Id, Kind, Object, Record, Terms, Zone};
use crate::route::cache::Cached;

/// An errand under way, and what its response is compared with.
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
    /// Whether others may join.
    pub(super) shared: bool,
}

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
        loop {
            let requested = SystemTime::now();
            let Some(handle) = self.errand.send(&self.spawner).await else { return };
            // Both ends of the way to it are needed as long as it lives; only one is used.
            let SubrequestHandle { tx: _tx, rx: mut tasks, .. } = handle;
            let Some(head) = self.head(&mut tasks).await else { return self.fail() };
            let times = Times { requested, received: SystemTime::now() };
            if head.status != StatusCode::NOT_MODIFIED || self.stale.is_none() {
                return self.take(*head, tasks, &times).await;
            }
            if self.confirm(&head.headers, &times).await {
                return;
            }
            // It is about something else than what is stored: once more, without conditions.
            let mut bare = self.errand.head.clone();
            bare.remove_header(&IF_NONE_MATCH);
            bare.remove_header(&IF_MODIFIED_SINCE);
            self.errand = self.errand.again(bare);
            self.stale = None;
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
        complete_part(&mut head);
        let asked =
            Asked { method: &Method::GET, headers: &self.request, wishes: &self.wishes, is_at_content_location: false };
        let judged = self.caching().judge(&asked, &self.path, head.status, &head.headers, times);
        let passing = match judged {
            Ok(approved) if !self.fill.is_void() => match self.store(&head, &approved, times).await {
                Some(storing) => return self.fill_up(storing, tasks, expected(&head)).await,
                None => Passing::NoRoom,
            },
            Ok(_) => Passing::NoRoom,
            Err(refusal) => {
                self.zone().stats.uncacheable.inc();
                Passing::Refused(refusal)
            }
        };
        self.pass(head, tasks, passing).await;
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
        let (record, withheld) = self.record(head.status, head.headers.clone(), approved)?;
        let place = zone.place(self.id, &self.url, &approved.vary, &self.request, self.fill.asked).await?;
        let length = expected(head);
        let object = Arc::new(Object::new(place, record, Body::Filling(Arc::clone(&self.fill), length)));
        let most = self.caching().max_object;
        let storing = Storing::begin(zone, &self.fill, Arc::clone(&object), length, most).await?;
        if self.shared && object.record.terms().age(times.received) < object.record.terms().lifetime() {
            zone.fills.enter(place, &self.fill);
        }
        zone.passes.forget(&self.fill.id);
        self.fill.tell(Outcome::Stored(object, withheld));
        Some(storing)
    }

    /// The record of a response, and the fields that are only for who asked for it.
    fn record(
        &self,
        status: StatusCode,
        mut fields: HeaderMap,
        approved: &Approved,
    ) -> Option<(Record, Option<Arc<HeaderMap>>)> {
        let directives = &approved.directives;
        let mut withheld = HeaderMap::new();
        for name in directives.private.fields().iter().chain(directives.no_cache.fields()) {
            for value in fields.get_all(name) {
                withheld.append(name.clone(), value.clone());
            }
        }
        stored_head::reduce(&mut fields, directives, approved.how);
        directives.no_cache.fields().iter().for_each(|name| drop(fields.remove(name)));
        let kind = match (status, ContentRange::of(&fields)) {
            (StatusCode::PARTIAL_CONTENT, Some(ContentRange { range: Some(range), length })) => {
                Kind::Part(range.start, length)
            }
            (StatusCode::PARTIAL_CONTENT, _) => return None,
            _ => Kind::Whole,
        };
        let what = (status.as_u16(), kind);
        let record = Record::new(self.fill.asked, approved.terms, what, &self.url, &approved.tags, &fields).ok()?;
        Some((record, (!withheld.is_empty()).then(|| Arc::new(withheld))))
    }

    async fn fill_up(&self, mut storing: Storing, mut tasks: Receiver<HttpTask>, length: Option<u64>) {
        let mut whole = None;
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
    async fn pass(&self, head: ResponseHeader, mut tasks: Receiver<HttpTask>, passing: Passing) {
        let zone = self.zone();
        zone.fills.leave(&self.fill.id, &self.fill);
        if self.shared {
            zone.passes.note(&self.fill.id);
        }
        if let Some(stale) = self.stale.as_ref().filter(|_| !head.status.is_server_error()) {
            // It would come back when the origin fails.
            zone.remove(&stale.id).await;
        }
        let length = expected(&head);
        self.fill.tell(Outcome::Passed(Arc::new(head), passing));
        let mut trailers = None;
        let whole = loop {
            match tasks.recv().await {
                Some(HttpTask::Body(piece, ends)) => {
                    if let Some(piece) = piece.filter(|piece| !piece.is_empty()) {
                        self.fill.push(piece);
                        if !self.fill.wait_for_room().await {
                            // Nobody is there any more; dropping `tasks` ends the errand.
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
            zone.remove(&stale.id).await;
            zone.remove(&self.id).await;
            return false;
        }
        merge::merge(&mut fields, fresh);
        if let Some(age) = fresh.get(AGE) {
            fields.insert(AGE, age.clone());
        }
        let status = StatusCode::from_u16(stale.record.status).unwrap_or_default();
        let asked =
            Asked { method: &Method::GET, headers: &self.request, wishes: &self.wishes, is_at_content_location: false };
        let judged = self.caching().judge(&asked, &self.path, status, &fields, times);
        let confirmed = match judged {
            Ok(approved) if !self.fill.is_void() => match self.record(status, fields, &approved) {
                Some((record, _)) => zone.renew(stale, record).await,
                None => return false,
            },
            _ => {
                // It may be used for this request, and for no other.
                zone.remove(&stale.id).await;
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

/// The length of the body, if the head tells it.
fn expected(head: &ResponseHeader) -> Option<u64> {
    if matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Some(0);
    }
    list::single(&head.headers, CONTENT_LENGTH).and_then(|text| list::digits(text, u64::MAX))
}

/// Makes a 206 that has all of a representation into the 200 that it stands for.
fn complete_part(head: &mut ResponseHeader) {
    if head.status != StatusCode::PARTIAL_CONTENT {
        return;
    }
    if let Some(ContentRange { range: Some(range), length: Some(length) }) = ContentRange::of(&head.headers)
        && range == (0..length)
    {
        // 200 is a status.
        let _ = head.set_status(StatusCode::OK);
        head.remove_header(&CONTENT_RANGE);
    }
}
