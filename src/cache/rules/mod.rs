//! The rules of a shared cache (RFC 9110, 9111, 5861, 9211, 9213, 8246), one file for each idea.
//!
//! All are pure: times are given to them, and they know no clock, no socket and no session. Where a response has nothing
//! special they walk its bytes and allocate nothing.
//!
//! In the order in which a response needs them: [`targeted`] reads its [`directives`], [`freshness`] tells its age and its
//! lifetime, [`storable`] whether it may be kept, [`stored_head`] which fields are, [`vary`] under which secondary key.
//! In the order in which a request does: [`reuse`] tells whether what is stored may answer, [`conditional`] and [`range`]
//! how; [`merge`] takes in a 304, [`invalidate`] tells what a change makes obsolete, [`status`] what the client is told.

pub mod conditional;
pub mod date;
pub mod directives;
pub mod freshness;
pub mod invalidate;
pub mod list;
pub mod merge;
pub mod range;
pub mod reuse;
pub mod status;
pub mod storable;
pub mod stored_head;
pub mod targeted;
pub mod vary;
