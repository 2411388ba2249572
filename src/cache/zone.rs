//! `Zone`: a place where responses are stored, by name.

/// A place where responses are stored.
#[derive(Debug)]
pub struct Zone {
    name: Box<str>,
}

impl Zone {
    /// Its name in the document.
    pub fn name(&self) -> &str {
        &self.name
    }
}
