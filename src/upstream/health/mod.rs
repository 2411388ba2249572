//! Who is well.

pub mod state;
