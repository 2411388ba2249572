//! The whole YAML document as types, and how a file becomes one.

mod fault;
pub mod load;
mod parse;
#[cfg(test)]
mod sample;
pub mod schema;
pub mod value;
