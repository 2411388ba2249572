//! `Policy`: what a load-balancing policy is: it says which backend takes the next request.

use smallvec::SmallVec;

use crate::keep::Keep;
use crate::upstream::backend::Backend;

/// Says which backend takes the next request.
pub trait Policy: Send + Sync {
    /// The position of the backend that takes the next request; none of those that were tried, and none of weight 0.
    /// `None` when no other is left.
    fn pick(&self, tried: &Tried) -> Option<usize>;
}

/// What a policy is built for.
#[derive(Clone, Copy)]
pub struct Members<'a> {
    /// The name of the upstream.
    pub upstream: &'a str,
    /// Its backends; a policy speaks of them by position.
    pub backends: &'a [Backend],
    /// Where a policy finds what it left before a reload.
    pub keep: &'a Keep,
}

/// The backends that a request was tried on in vain, by position.
#[derive(Clone, Debug, Default)]
pub struct Tried(SmallVec<[u32; 4]>);

impl Tried {
    /// None yet.
    pub fn new() -> Self {
        Self(SmallVec::new())
    }

    /// Remembers one more.
    pub fn insert(&mut self, backend: usize) {
        if !self.contains(backend) {
            self.0.push(u32::try_from(backend).unwrap_or(u32::MAX));
        }
    }

    /// Whether this one was tried.
    pub fn contains(&self, backend: usize) -> bool {
        self.0.iter().any(|&tried| tried as usize == backend)
    }

    /// Whether none was tried.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many were tried.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}
