//! `Zone`: a place where responses are stored, by name.

use std::sync::Arc;

use super::{Memory, Purges};
use crate::observe::ZoneStats;

/// A place where responses are stored.
#[derive(Debug)]
pub struct Zone {
    name: Box<str>,
    /// What lies in memory.
    pub memory: Memory,
    /// What operators declared void or stale.
    pub purges: Purges,
    /// What is counted.
    pub stats: Arc<ZoneStats>,
}

impl Zone {
    /// Its name in the document.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A zone of this name, with so many bytes of memory and no disk.
    pub fn in_memory(name: &str, bytes: u64) -> Self {
        Self { name: name.into(), memory: Memory::new(bytes), purges: Purges::in_memory(), stats: Arc::default() }
    }

    /// Sets the numbers that are counted where they arise and not where they are read.
    pub fn note_tiers(&self) {
        let Self { memory, stats, .. } = self;
        stats.memory.set(memory.bytes(), memory.limit(), memory.len(), memory.evictions());
    }
}
