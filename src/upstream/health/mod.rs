//! Who is well: checks of the gateway's own, what requests tell, and what operators say.
//!
//! [`state::Health`] is what is known of one backend, and adds up to one status. [`rounds`] makes the active checks of an
//! upstream, beside the requests; [`passive`] learns from the requests themselves.

pub mod active;
pub mod config;
mod failures;
pub mod http_check;
pub mod passive;
pub mod probe;
pub mod rounds;
pub mod rules;
mod schedule;
pub mod state;
