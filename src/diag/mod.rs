//! What is wrong with a document, where, and how to mend it.
//!
//! A feature's `build` gets a [`Scope`]: the place of its own block. It reports faults there and goes on, so that
//! one run tells all of them. Only when there is a fault does `locate` walk the text again to find the lines.

mod issue;
pub mod locate;
pub mod report;
pub mod suggest;

pub use issue::{Issue, Issues, Path, Place, Scope, Severity, Step};
