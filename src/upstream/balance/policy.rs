//! `Policy`: what a load-balancing policy is: it says which backend takes the next request.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::exchange::Facts;
use crate::keep::Keep;
use crate::upstream::clock::Micros;
use crate::upstream::load::Load;

/// Says which backend takes the next request.
pub trait Policy: Send + Sync {
    /// The position of the member that takes the next request; none of those passed over. `None` when no other is left.
    fn pick(&self, ask: &Ask<'_>) -> Option<usize>;

    /// Why this one, as one clause for people.
    fn why(&self, picked: usize, ask: &Ask<'_>) -> String;
}

/// What is asked of a policy.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// What is known of the request.
    pub facts: &'a Facts<'a>,
    /// The time now.
    pub now: Micros,
    /// Who may not be picked.
    pub passed: &'a Passed,
}

/// What a policy is built for.
#[derive(Clone, Copy)]
pub struct Members<'a> {
    /// The name of the upstream.
    pub upstream: &'a str,
    /// Who can be picked; a policy speaks of them by position.
    pub members: &'a [Member],
    /// Where a policy finds what it left before.
    pub keep: &'a Keep,
}

/// A backend as a policy sees it.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name, by which hashes know it.
    pub label: Arc<str>,
    /// Its share of the requests, relative to the others' weights; never 0.
    pub weight: u32,
    /// How busy it is.
    pub load: Arc<Load>,
}

/// The members that may not be picked, by position: tried in vain, full, or unwell.
#[derive(Clone, Debug, Default)]
pub struct Passed(SmallVec<[u32; 4]>);

impl Passed {
    /// None yet.
    pub fn new() -> Self {
        Self(SmallVec::new())
    }

    /// Remembers one more.
    pub fn insert(&mut self, member: usize) {
        if !self.contains(member) {
            self.0.push(u32::try_from(member).unwrap_or(u32::MAX));
        }
    }

    /// Whether this one is passed over.
    pub fn contains(&self, member: usize) -> bool {
        self.0.iter().any(|&passed| passed as usize == member)
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether none is passed over.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many are passed over.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}
