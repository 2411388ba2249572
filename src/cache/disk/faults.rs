//! `Faults`: what went wrong with the disk: counted each time, logged once a minute for each kind.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::cache::id::Id;
use crate::cache::tick::Tick;
use crate::observe::DiskStats;

/// How long a kind of fault is not logged again.
const QUIET: Duration = Duration::from_secs(60);

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Doing {
    Reading,
    Writing,
    Removing,
}

#[derive(Debug)]
pub(super) struct Faults {
    root: PathBuf,
    stats: Arc<DiskStats>,
    logged: Mutex<HashMap<(Doing, io::ErrorKind), Instant>>,
    /// Bodies that could not be read; whoever looks after the directory drops them.
    broken: Mutex<Vec<(Id, Tick)>>,
}

impl Faults {
    pub(super) fn new(root: PathBuf, stats: Arc<DiskStats>) -> Self {
        Self { root, stats, logged: Mutex::default(), broken: Mutex::default() }
    }

    /// Counts a fault, and logs it when its kind was not logged lately.
    pub(super) fn note(&self, doing: Doing, error: &io::Error) {
        match doing {
            Doing::Reading => self.stats.read_errors.inc(),
            Doing::Writing | Doing::Removing => self.stats.write_errors.inc(),
        }
        if self.is_due(doing, error.kind()) {
            let doing = match doing {
                Doing::Reading => "read",
                Doing::Writing => "write",
                Doing::Removing => "remove",
            };
            tracing::warn!("cache {}: cannot {doing}, so it is not used: {error}", self.root.display());
        }
    }

    fn is_due(&self, doing: Doing, kind: io::ErrorKind) -> bool {
        let now = Instant::now();
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let due = logged.get(&(doing, kind)).is_none_or(|last| now.duration_since(*last) >= QUIET);
        if due {
            logged.insert((doing, kind), now);
        }
        due
    }

    /// A body that cannot be read: its object is to be dropped.
    pub(super) fn broken(&self, id: Id, generation: Tick) {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).push((id, generation));
    }

    pub(super) fn take_broken(&self) -> Vec<(Id, Tick)> {
        std::mem::take(&mut *self.broken.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether the fault is a shortage of the process or a permission, and says nothing of the file.
pub(super) fn says_nothing_of_the_file(error: &io::Error) -> bool {
    let shortage = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EACCES, libc::EPERM];
    error.raw_os_error().is_some_and(|code| shortage.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_of_fault_is_logged_once_and_counted_always() {
        let stats = Arc::new(DiskStats::default());
        let faults = Faults::new("/x".into(), Arc::clone(&stats));
        let full = io::Error::from_raw_os_error(libc::ENOSPC);
        assert!(faults.is_due(Doing::Writing, full.kind()));
        for _ in 0..3 {
            assert!(!faults.is_due(Doing::Writing, full.kind()));
            faults.note(Doing::Writing, &full);
        }
        assert!(faults.is_due(Doing::Reading, full.kind()));
        assert_eq!((stats.write_errors.get(), stats.read_errors.get()), (3, 0));
    }

    #[test]
    fn broken_bodies_are_told_once() {
        let faults = Faults::new("/x".into(), Arc::default());
        faults.broken(Id::of(b"a"), Tick(1));
        assert_eq!(faults.take_broken(), [(Id::of(b"a"), Tick(1))]);
        assert!(faults.take_broken().is_empty());
    }
}
