//! `Busy`: members with what is under way at each, for the policies that ask how busy they are.

use std::sync::Arc;

use super::draw::Draw;
use super::policy::Members;
use crate::upstream::load::Load;

/// Members, their weights, and how busy they are.
pub(super) struct Busy {
    /// Draws them by weight.
    pub(super) draw: Draw,
    loads: Box<[Arc<Load>]>,
}

impl Busy {
    /// All of them.
    pub(super) fn new(members: &Members<'_>) -> Self {
        Self {
            draw: Draw::new(members.members.iter().map(|member| member.weight)),
            loads: members.members.iter().map(|member| Arc::clone(&member.load)).collect(),
        }
    }

    /// How busy one is.
    pub(super) fn load(&self, member: usize) -> &Load {
        &self.loads[member]
    }

    /// How many they are.
    pub(super) fn len(&self) -> usize {
        self.loads.len()
    }

    /// Requests under way at one, to be compared with those at others by weight.
    ///
    /// Those under way alone, without the one to come: then all that are idle are equal, and whoever was drawn first, by
    /// weight, stays the choice. With it the heaviest would get everything until it has something to do.
    pub(super) fn share(&self, member: usize) -> Share {
        Share { inflight: self.loads[member].inflight(), weight: self.draw.weight(member) }
    }

    /// The share of one in words.
    pub(super) fn tell(&self, member: usize) -> String {
        let Share { inflight, weight } = self.share(member);
        match weight {
            1 => format!("{inflight} under way"),
            _ => format!("{inflight} under way at a weight of {weight}"),
        }
    }
}

/// Requests under way for a weight.
#[derive(Clone, Copy)]
pub(super) struct Share {
    inflight: u32,
    weight: u32,
}

impl Share {
    /// Whether it is less than the other.
    pub(super) fn is_less(self, other: Self) -> bool {
        u64::from(self.inflight) * u64::from(other.weight) < u64::from(other.inflight) * u64::from(self.weight)
    }
}
