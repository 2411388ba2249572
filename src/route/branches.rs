//! `Branches`: the cookies by which clients stay with the upstreams of a split.

use http::HeaderValue;
use pingora::http::RequestHeader;

use crate::upstream::sticky::{SetCookie, Sticky, Tag};

/// The cookies by which clients stay with the upstreams of a split.
pub(super) struct Branches {
    sticky: Sticky,
    cookies: Box<[(Tag, SetCookie)]>,
}

impl Branches {
    /// The cookies of the upstreams with these names.
    pub(super) fn new(sticky: Sticky, names: &[&str]) -> Self {
        let branch = |name: &&str| {
            let tag = sticky.tag(name);
            (tag, sticky.fields(tag))
        };
        Self { cookies: names.iter().map(branch).collect(), sticky }
    }

    /// The position of the upstream that the client of this request had before.
    pub(super) fn find(&self, head: &RequestHeader) -> Option<usize> {
        self.sticky.find(head, |tag| self.cookies.iter().position(|(known, _)| known == tag))
    }

    /// The field that makes a client stay with the upstream in this position.
    pub(super) fn cookie(&self, position: usize, https: bool) -> Option<&HeaderValue> {
        Some(self.cookies.get(position)?.1.over(https))
    }
}
