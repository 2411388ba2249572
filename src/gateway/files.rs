//! `Files`: what the files of a document looked like when it was read, to notice that one has changed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

/// The files of a document, each with its time and size; `None`: it is not there.
///
/// Looking is robust where notifications are not: editors that rename, links that move, files that come back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files(BTreeMap<PathBuf, Option<(SystemTime, u64)>>);

impl Files {
    /// Looks at these files.
    pub fn look(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let stamp = |path: &PathBuf| {
            let found = std::fs::metadata(path).ok()?;
            Some((found.modified().ok()?, found.len()))
        };
        Self(paths.into_iter().map(|path| (path.clone(), stamp(&path))).collect())
    }

    /// Looks at the same files again.
    #[must_use]
    pub fn look_again(&self) -> Self {
        Self::look(self.0.keys().cloned())
    }
}
