//! Purges: what operators declared void or stale, by URL, prefix, host or tag, however much is stored.
//!
//! A purge touches no object. It is noted with its moment ([`Tick`]), and whatever was asked for before that moment is compared
//! with the purges when it is next used. So a purge costs the same with a million objects as with one, and one that comes
//! while an object is being fetched holds for it too. With a log, purges hold after a restart, and for each process that has
//! the log open.

mod log;
mod marks;
#[cfg(test)]
mod tests;
mod what;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use super::{Record, Tick};
use log::Log;
use marks::Marks;
pub use what::{MAX_TEXT, Purge, Verdict, What};

/// The purges of a zone.
#[derive(Debug, Default)]
pub struct Purges {
    sequence: AtomicU64,
    /// The moment of the newest one.
    newest: AtomicU64,
    marks: RwLock<Marks>,
    log: Mutex<Option<Log>>,
}

impl Purges {
    /// Purges that hold as long as the process lives.
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// Purges with a log, in which those of before are found; a log that is not there is made.
    pub fn open(log: &Path) -> io::Result<Self> {
        let purges = Self::default();
        purges.attach(log)?;
        Ok(purges)
    }

    /// Takes in the purges of a log, which is made when it is not there, and from now on logs there; what was noted before is
    /// logged too. After an error there is no log.
    pub fn attach(&self, log: &Path) -> io::Result<()> {
        let mut attached = self.lock();
        let mut log = Log::open(log)?;
        // Whoever notes one logs it under this lock, so that it finds a log, or was noted before and is found here.
        if self.newest.load(Ordering::Acquire) > 0 {
            log.lack();
        }
        self.follow(&mut log)?;
        *attached = Some(log);
        Ok(())
    }

    /// Notes a purge of this moment. It holds at once, also where an error tells that it could not be logged, and so would not
    /// hold in another process; [`Purges::reread`] tries again. After an error of the kind `InvalidInput` it does not hold:
    /// the text is empty or too long.
    pub fn add(&self, what: What, soft: bool) -> io::Result<Purge> {
        let what = what.normal();
        let refuse = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        match what.text() {
            Some("" | "//") => return refuse("nothing is named"),
            Some(text) if text.len() > MAX_TEXT => return refuse("the text is too long"),
            _ => {}
        }
        let purge = Purge { what, soft, at: Tick::now() };
        self.take(std::iter::once(&purge));
        if let Some(log) = &mut *self.lock() {
            log.append(&purge)?;
        }
        Ok(purge)
    }

    /// Changes with each purge. An object that was compared at this sequence needs no comparison.
    pub fn sequence(&self) -> u64 {
        self.sequence.load(Ordering::Acquire)
    }

    /// What the purges say of this record.
    pub fn judge(&self, record: &Record) -> Verdict {
        if record.asked.0 >= self.newest.load(Ordering::Acquire) {
            return Verdict::Valid;
        }
        let marks = self.marks.read().unwrap_or_else(PoisonError::into_inner);
        marks.judge(record.asked, record.url(), record.tags())
    }

    /// Takes in what another process logged, logs what could not be logged before, and brings the log to the disk; a log that
    /// has become long is written anew. It waits for the disk: not for the path of a request.
    pub fn reread(&self) {
        // What fails is tried again with the next call; that a purge could not be logged was told when it was noted.
        let _ = self.lock().as_mut().map(|log| self.follow(log));
    }

    fn follow(&self, log: &mut Log) -> io::Result<()> {
        let purges = log.follow()?;
        purges.iter().for_each(|purge| Tick::after(purge.at));
        self.take(purges.iter());
        let all = || self.marks.read().unwrap_or_else(PoisonError::into_inner).all();
        if log.wants_rewrite() {
            log.rewrite(all, |purges| self.take(purges.iter()))?;
        }
        log.sync()
    }

    fn take<'a>(&self, purges: impl Iterator<Item = &'a Purge>) {
        let mut marks = self.marks.write().unwrap_or_else(PoisonError::into_inner);
        let mut newest = None;
        for purge in purges {
            if marks.add(purge) {
                newest = newest.max(Some(purge.at.0));
            }
        }
        if let Some(newest) = newest {
            self.newest.fetch_max(newest, Ordering::Release);
            // Last, so that whoever sees it finds the purge.
            self.sequence.fetch_add(1, Ordering::Release);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Log>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How a tag is written in records.
    pub fn tag_hash(text: &[u8]) -> u64 {
        what::tag_hash(text)
    }
}
