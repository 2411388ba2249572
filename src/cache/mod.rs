//! The HTTP cache: what a shared cache may keep of responses, where it keeps them, and when it may answer with them.
//!
//! [`rules`] has what the RFCs ask for as pure functions. [`record`] is what is stored of a response beside its body.

pub mod disk;
pub mod id;
pub mod object;
pub mod record;
pub mod rules;
pub mod tick;
pub mod zone;

pub use id::Id;
pub use object::{Body, Object};
pub use record::{Kind, Record, Terms};
pub use tick::Tick;
pub use zone::Zone;
