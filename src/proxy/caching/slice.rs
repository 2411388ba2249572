//! One slice: what is stored of it, or what the origin says.

use std::ops::Range;
use std::sync::Arc;

use http::StatusCode;
use http::header::{HeaderMap, HeaderValue, RANGE};
use pingora::http::ResponseHeader;

use super::ask::{Ask, ttl};
use super::drive::{self, Job};
use super::errand::Errand;
use super::told::Told;
use crate::cache::fill::{Failure, Passing};
use crate::cache::fills::Joined;
use crate::cache::object::{Fill, Outcome, Reader};
use crate::cache::rules::reuse::{self, Reuse, Why};
use crate::cache::rules::status::Forward;
use crate::cache::{Id, Object, Slice, Sliced};

/// A request for what is, or may be, stored in slices.
pub(super) struct Slices<'a> {
    pub(super) ask: &'a Ask,
    pub(super) size: u64,
    /// What is known of the representation.
    pub(super) known: Option<Sliced>,
    /// Where what is known of it lies, or would.
    pub(super) place: Id,
    /// Why a slice that is not there is fetched.
    pub(super) why: Forward,
    /// The errand that all others are made from; `None`: there is no way to send any.
    pub(super) errand: Option<Job>,
    pub(super) is_shared: bool,
    pub(super) is_head: bool,
}

/// What became of a slice.
pub(super) enum Got {
    Stored(Found),
    Passed(Passed),
    Failed(Failure, Forward),
    /// Who fetched it for others too has nothing for this one; or nobody can be sent. In a word, why.
    Nothing(&'static str),
    /// It may not be fetched.
    NotAsked(Forward),
}

/// A slice that is stored, or the whole in its stead.
pub(super) struct Found {
    pub(super) object: Arc<Object>,
    /// Fields that only who asked for it gets.
    pub(super) withheld: Option<Arc<HeaderMap>>,
    pub(super) told: Told,
    /// The errand that brought it.
    pub(super) errand: Option<Arc<Errand>>,
    /// Whether another request fetched it.
    pub(super) is_anothers: bool,
}

/// A response that is not stored.
pub(super) struct Passed {
    pub(super) head: Arc<ResponseHeader>,
    pub(super) passing: Passing,
    pub(super) fill: Arc<Fill>,
    /// Its place from the first byte on.
    pub(super) reader: Reader,
    pub(super) errand: Arc<Errand>,
    pub(super) told: Told,
}

impl Slices<'_> {
    /// A slice: what is stored, or what the origin says. `begins`: it is the first of the response.
    pub(super) async fn obtain(&self, index: u64, begins: bool) -> Got {
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
    pub(super) fn passed(&self) -> Id {
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
        let is_stored = self.ask.may_store && !self.ask.wishes.no_store;
        let is_shared = self.is_shared
            && is_stored
            && stale.as_ref().is_none_or(|(stale, why)| *why != Why::NoCache && stale.record.terms().lifetime > 0);
        let stale = stale.map(|(stale, _)| stale);
        let mut is_first = is_shared;
        let place = self.fill_place(index);
        let joined = || match zone.fills.get(&self.place) {
            // The whole is on its way: the origin knows no ranges.
            Some(fill) => Joined::Later(fill),
            None => zone.fills.join(place, self.ask.id),
        };
        let fill = match is_shared.then(joined) {
            Some(Joined::First(fill)) => fill,
            Some(Joined::Later(fill)) => match self.follow(&fill, stale.as_ref(), why).await {
                Some(Got::Nothing(word)) if begins => return Got::Nothing(word),
                None | Some(Got::Nothing(_)) => {
                    is_first = false;
                    zone.fills.apart(place, self.ask.id)
                }
                Some(got) => return got,
            },
            None => zone.fills.apart(place, self.ask.id),
        };
        if !is_stored {
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
            Outcome::Stored(object, _) | Outcome::Confirmed(object)
                if fill.is_void() || !self.ask.would_use(object) =>
            {
                return None;
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
            // It was stored meanwhile.
            (Outcome::Confirmed(object), None) => {
                let told = Told::hit(ttl(&object));
                Got::Stored(Found::new(object, told))
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
}

impl Found {
    pub(super) fn new(object: Arc<Object>, told: Told) -> Self {
        Self { object, withheld: None, told, errand: None, is_anothers: false }
    }
}
