//! Which request goes where.

pub mod host;
pub mod normalize;
pub mod path;
pub mod path_tree;
