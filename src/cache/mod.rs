//! The HTTP cache: what a shared cache may keep of responses, and when it may answer with them.
//!
//! Nothing uses it yet. [`rules`] has what the RFCs ask for as pure functions; keys, storage and the steps in `proxy/`
//! come to stand on them.

pub mod rules;
