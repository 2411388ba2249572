//! What may look at, change or answer a request: one file (or folder) each.
pub mod contract;
