//! `Zone`: a place where responses are stored, by name.

use std::sync::Arc;

use super::config::ZoneConfig;
use crate::diag::Scope;
use crate::keep::Keep;

/// A place where responses are stored.
#[derive(Debug)]
pub struct Zone {
    name: Box<str>,
}

impl Zone {
    /// Compiles a zone; reports what is wrong with it at `at`.
    pub fn build(name: &str, config: &ZoneConfig, _: &Keep, at: &Scope<'_>) -> Option<Arc<Self>> {
        config.check(at);
        Some(Self::named(name))
    }

    pub(super) fn named(name: &str) -> Arc<Self> {
        Arc::new(Self { name: name.into() })
    }

    /// Its name in the document.
    pub fn name(&self) -> &str {
        &self.name
    }
}
