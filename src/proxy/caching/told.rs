//! `Told`: what the cache did for a request, as `Cache-Status` (RFC 9211), counters and logs tell it.

use http::{HeaderValue, StatusCode};

use crate::cache::rules::status::{Forward, Outcome, Status};
use crate::observe::{Counter, RouteCacheStats};

/// The name by which this cache goes in `Cache-Status`.
const NAME: &str = "edgeway";

/// What the cache did for a request.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// Where the response came from.
    pub outcome: Outcome,
    /// For how many seconds it is still fresh.
    pub ttl: Option<i64>,
    /// Whether it was served stale.
    pub stale: bool,
    /// Anything else.
    pub detail: Option<&'static str>,
}

impl Told {
    /// From what is stored, with so many seconds left.
    pub(super) fn hit(ttl: i64) -> Self {
        Self { outcome: Outcome::Hit, ttl: Some(ttl), stale: ttl <= 0, detail: None }
    }

    /// By the origin.
    pub(super) fn forwarded(why: Forward) -> Self {
        let outcome = Outcome::Forwarded { why, status: None, stored: false, collapsed: false };
        Self { outcome, ttl: None, stale: false, detail: None }
    }

    /// The same, with what the origin answered.
    pub(super) fn answered(mut self, answer: StatusCode, is_stored: bool) -> Self {
        if let Outcome::Forwarded { status, stored, .. } = &mut self.outcome {
            (*status, *stored) = (Some(answer), is_stored);
        }
        self
    }

    /// The same, for a request that waited for another one.
    pub(super) fn shared(mut self) -> Self {
        if let Outcome::Forwarded { collapsed, .. } = &mut self.outcome {
            *collapsed = true;
        }
        self
    }

    /// The same, with a word more.
    pub(super) fn with(mut self, detail: &'static str) -> Self {
        self.detail = Some(detail);
        self
    }

    /// Whether the origin was not asked.
    pub(super) fn is_hit(&self) -> bool {
        matches!(self.outcome, Outcome::Hit)
    }

    /// The field of a response.
    pub fn value(&self) -> HeaderValue {
        Status { outcome: Some(self.outcome), ttl: self.ttl, key: None, detail: self.detail }.value(NAME)
    }

    /// In a word, for logs.
    pub fn word(&self) -> &'static str {
        self.row().0
    }

    /// Where it is counted.
    pub fn counter<'a>(&self, stats: &'a RouteCacheStats) -> &'a Counter {
        self.row().1(stats)
    }

    fn row(&self) -> (&'static str, fn(&RouteCacheStats) -> &Counter) {
        match self.outcome {
            Outcome::Hit if self.stale => ("stale", |stats| &stats.stale),
            Outcome::Hit => ("hit", |stats| &stats.hit),
            Outcome::Forwarded { why: Forward::Bypass | Forward::Method, .. } => ("bypass", |stats| &stats.bypass),
            Outcome::Forwarded { collapsed: true, .. } => ("collapsed", |stats| &stats.collapsed),
            Outcome::Forwarded { status: Some(StatusCode::NOT_MODIFIED), stored: true, .. } => {
                ("revalidated", |stats| &stats.revalidated)
            }
            Outcome::Forwarded { .. } => ("miss", |stats| &stats.miss),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_cache_did_is_told() {
        let miss = Told::forwarded(Forward::UriMiss);
        for (told, word, value) in [
            (Told::hit(29), "hit", "edgeway; hit; ttl=29"),
            (Told::hit(-5).with("stale-if-error"), "stale", "edgeway; hit; ttl=-5; detail=stale-if-error"),
            (miss, "miss", "edgeway; fwd=uri-miss"),
            (miss.answered(StatusCode::OK, true), "miss", "edgeway; fwd=uri-miss; fwd-status=200; stored"),
            (
                miss.answered(StatusCode::NOT_MODIFIED, true),
                "revalidated",
                "edgeway; fwd=uri-miss; fwd-status=304; stored",
            ),
            (miss.shared(), "collapsed", "edgeway; fwd=uri-miss; collapsed"),
            (Told::forwarded(Forward::Bypass), "bypass", "edgeway; fwd=bypass"),
            (Told::forwarded(Forward::Method), "bypass", "edgeway; fwd=method"),
        ] {
            assert_eq!((told.word(), told.value().to_str().unwrap()), (word, value));
        }
    }
}
