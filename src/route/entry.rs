//! What a table holds: its routes, and those of one host and priority as a look-up goes through them.

use smallvec::SmallVec;

use super::path::Pattern;
use super::path_tree::PathTree;
use super::predicate::Predicate;

/// One route.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) name: Box<str>,
    pub(super) priority: i32,
    pub(super) patterns: Box<[Pattern]>,
    pub(super) predicate: Predicate,
}

/// What a look-up wants to know of a route, small and side by side: most requests read nothing else of it, and ten
/// thousand fit into a processor's cache.
#[derive(Debug)]
pub(super) struct Brief<T> {
    pub(super) payload: T,
    /// How many pieces of the path its patterns name.
    pub(super) names: u16,
    /// Whether its path is all that it asks for.
    pub(super) unconditional: bool,
}

/// The routes of one priority.
#[derive(Debug)]
pub(super) struct Level {
    pub(super) tree: PathTree,
    /// The routes of each leaf of the tree, in the order in which they are tried.
    pub(super) leaves: Box<[Leaf]>,
}

pub(super) type Leaf = SmallVec<[u32; 4]>;
