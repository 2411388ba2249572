//! The HTTP cache: what a shared cache may keep of responses, where it keeps them, and when it may answer with them.
//!
//! [`rules`] has what the RFCs ask for as pure functions, and [`policy`] puts them together as a route's block says. A [`zone`] is
//! a place where responses are stored: in [`memory`], on [`disk`], and, while they are on their way from the origin, in
//! [`fills`]. [`record`] is what is stored of a response beside its body. Who asks the origin, and when, is decided in
//! `proxy/caching/`.

pub mod config;
pub mod disk;
pub mod fill;
pub mod fills;
pub mod id;
pub mod key;
pub mod memory;
pub mod object;
pub mod passes;
pub mod policy;
pub mod purges;
pub mod record;
pub mod rules;
pub mod sliced;
pub mod storing;
mod table;
pub mod tags;
pub mod tick;
pub mod zone;

pub use id::Id;
pub use key::KeyShape;
pub use memory::Memory;
pub use object::{Body, Object};
pub use policy::Caching;
pub use purges::{Purge, Purges, Verdict, What};
pub use record::{Kind, Record, Terms};
pub use sliced::{Slice, Sliced};
pub use tick::Tick;
pub use zone::Zone;
