//! `Circle`: the same key to the same member, as long as it is there, takes requests, and is not too busy for one more.
//!
//! Places lie on a circle, each a member's. A key has a place, and goes to its member; when that one may not be picked, to
//! the member of the next place, and so on: the way is the same each time, so the retries of a key, and what a busy
//! member cannot take, go to the same second member.

use std::sync::Arc;

use super::draw::Draw;
use super::maglev::Maglev;
use super::named::Named;
use super::policy::{Members, Passed};
use super::ring::Ring;
use crate::upstream::load::{Load, Total};

/// How many places are looked at from a key's own, before each member is looked at once.
const STEPS: usize = 64;

/// Members on a circle.
pub(super) struct Circle {
    places: Places,
    /// The positions of the members in the order of their names.
    by_name: Box<[u32]>,
    bound: Option<Bound>,
    draw: Draw,
}

enum Places {
    Maglev(Maglev),
    Ring(Ring),
}

/// How much more than its share a member may have of the requests under way.
struct Bound {
    /// For each member its share of the weights, times what it may have of that.
    shares: Box<[f64]>,
    loads: Box<[Arc<Load>]>,
    /// Requests under way at all of the upstream.
    total: Arc<Total>,
    /// Those of the upstream that are no members: unwell, or of another tier. `None`: it is cheaper to add up the members.
    others: Option<Box<[Arc<Load>]>>,
}

impl Circle {
    /// A circle of the places of Maglev.
    pub(super) fn maglev(members: &Members<'_>) -> Self {
        Self::new(members, |named| Places::Maglev(Maglev::new(named)))
    }

    /// A circle of the points of a ketama ring.
    pub(super) fn ring(members: &Members<'_>) -> Self {
        Self::new(members, |named| Places::Ring(Ring::new(named)))
    }

    fn new(members: &Members<'_>, places: impl FnOnce(&[Named<'_>]) -> Places) -> Self {
        let named = Named::all(members.members);
        Self {
            places: places(&named),
            by_name: named.iter().map(|member| member.position).collect(),
            bound: None,
            draw: Draw::new(members.members.iter().map(|member| member.weight)),
        }
    }

    /// The same, where no member has more than this many times its share of the requests under way.
    #[must_use]
    pub(super) fn bounded(mut self, factor: f64, members: &Members<'_>) -> Self {
        self.bound = Some(Bound::new(factor, members));
        self
    }

    /// The member for this key.
    pub(super) fn pick(&self, key: &[u8], passed: &Passed) -> Option<usize> {
        let place = self.place(key);
        let own = *self.members().get(place)? as usize;
        let Some(bound) = &self.bound else {
            return if passed.contains(own) { self.find(place, |member| !passed.contains(member)) } else { Some(own) };
        };
        // Who has nothing to do is within any bound.
        if bound.loads[own].inflight() == 0 && !passed.contains(own) {
            return Some(own);
        }
        let total = bound.total();
        self.find(place, |member| !passed.contains(member) && bound.has_room(member, total))
            .or_else(|| self.find(place, |member| !passed.contains(member)))
    }

    /// Any member, by weight, for requests without a key.
    pub(super) fn any(&self, passed: &Passed) -> Option<usize> {
        self.draw.one(passed)
    }

    /// Whether this is the member that the key would have if all could be picked.
    pub(super) fn is_first_choice(&self, member: usize, key: &[u8]) -> bool {
        self.members().get(self.place(key)).is_some_and(|own| *own as usize == member)
    }

    fn place(&self, key: &[u8]) -> usize {
        match &self.places {
            Places::Maglev(maglev) => maglev.place(key),
            Places::Ring(ring) => ring.place(key),
        }
    }

    fn members(&self) -> &[u32] {
        match &self.places {
            Places::Maglev(maglev) => maglev.members(),
            Places::Ring(ring) => ring.members(),
        }
    }

    /// The first from this place on that will do.
    fn find(&self, place: usize, will_do: impl Fn(usize) -> bool) -> Option<usize> {
        let (before, from) = self.members().split_at(place);
        let near = from.iter().chain(before).take(STEPS);
        // After so many steps a few members have most of the places. The others stand in the list of all, which is begun
        // at another place for each key, so that they share what comes to them.
        let (before, from) = self.by_name.split_at(place % self.by_name.len().max(1));
        near.chain(from).chain(before).map(|member| *member as usize).find(|member| will_do(*member))
    }
}

impl Bound {
    fn new(factor: f64, members: &Members<'_>) -> Self {
        let sum: f64 = members.members.iter().map(|member| f64::from(member.weight)).sum();
        let loads: Box<[Arc<Load>]> = members.members.iter().map(|member| Arc::clone(&member.load)).collect();
        let total = members.keep.get_or(members.upstream, Total::default);
        let counted = loads.iter().all(|load| total.add(load));
        let others = total.others(&loads);
        Self {
            shares: members.members.iter().map(|member| factor * f64::from(member.weight) / sum).collect(),
            others: (counted && others.len() < loads.len()).then(|| others.into()),
            loads,
            total,
        }
    }

    /// Requests under way at all members.
    fn total(&self) -> u64 {
        let sum = |loads: &[Arc<Load>]| loads.iter().map(|load| u64::from(load.inflight())).sum();
        match &self.others {
            Some(others) => self.total.inflight().saturating_sub(sum(others)),
            None => sum(&self.loads),
        }
    }

    /// Whether one more request leaves this member within its bound, its share of all requests with that one, rounded up.
    fn has_room(&self, member: usize, total: u64) -> bool {
        // A hair less, for a product that should be whole may come out a hair more.
        f64::from(self.loads[member].inflight()) < self.shares[member] * (total + 1) as f64 * (1.0 - 1e-9)
    }
}
