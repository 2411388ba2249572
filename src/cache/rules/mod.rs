//! The rules of a shared cache (RFC 9110, 9111, 5861, 9211, 9213, 8246), one file for each idea.
//!
//! All are pure: times are given to them, and they know no clock, no socket and no session. Where a response has nothing
//! special they walk its bytes and allocate nothing.

pub mod conditional;
pub mod date;
pub mod directives;
pub mod freshness;
pub mod invalidate;
pub mod list;
pub mod merge;
pub mod range;
pub mod reuse;
pub mod storable;
pub mod stored_head;
pub mod targeted;
pub mod vary;
