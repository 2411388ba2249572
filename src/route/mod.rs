//! Which request goes where.

pub mod condition;
pub mod host;
pub mod normalize;
mod overlap;
pub mod path;
pub mod path_tree;
pub mod predicate;
pub mod table;
