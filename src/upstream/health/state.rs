//! `Health`: whether a backend may take requests.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::upstream::clock::Micros;

/// Whether a backend may take requests.
#[derive(Debug, Default)]
pub struct Health {
    down: AtomicBool,
}

impl Health {
    /// Whether it may take requests.
    pub fn is_usable(&self) -> bool {
        !self.down.load(Relaxed)
    }

    /// Whether an operator drains it.
    pub fn is_draining(&self) -> bool {
        false
    }

    /// Since when it is well; `None`: for as long as it is known.
    pub fn well_since(&self) -> Option<Micros> {
        None
    }

    /// When its ejection ends.
    pub fn ejected_until(&self) -> Option<Micros> {
        None
    }
}
