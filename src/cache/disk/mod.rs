//! The disk tier: a file per object, found again after a restart, a crash, and beside another process.
//!
//! ```text
//! <root>/VERSION                 the format; with another one the cache begins anew
//! <root>/ab/<id>.m               a record, and a small body with it (`format`)
//! <root>/ab/<id>-<generation>.b  a larger body, which never changes
//! <root>/tmp/<pid>-<start>/      what a process is writing (`home`)
//! <root>/order, usage            the order of use, each minute; the bytes in use, each second (`recover`)
//! ```
//!
//! **What is held.** A commit is the rename of a `.m`, after its body was renamed: whatever becomes of the process, an
//! object is there whole or not at all. Nothing is synced. A `.m` has checksums that every look-up verifies, so after a power
//! cut a torn one, or one of zeros, is never used. A body in a file of its own has the length that its `.m` says; if it was
//! written before the operating system last started, its checksum is verified in full before it is first used. What is
//! not held: a body in a file of its own that decays, or is changed by others, without a restart of the operating system.
//!
//! **The limit** counts files in blocks of 4 KiB, and fills from before they write (`budget`): it is not exceeded. It
//! does not count directories, `order` (29 bytes per object), and files deleted while a reader has them open. After a crash
//! up to a second of fills is not counted until the scan is over. Two processes share what was free when they met;
//! one that was there first notices the other within a second, and what it fills until then may exceed the limit.
//!
//! **Faults** (a full disk, no more descriptors, a directory that went) are errors of a fill or misses of a look-up;
//! they are counted, and logged once a minute for each kind (`faults`).

mod blob;
mod budget;
mod faults;
mod files;
mod find;
mod format;
mod home;
mod index;
mod recover;
mod store;
mod upkeep;
mod version;
mod writer;

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::runtime::Handle;

pub use blob::Blob;
pub use find::{Found, FoundBody};
pub use writer::Writer;

use crate::cache::id::Id;
use crate::cache::record::Record;
use crate::cache::tick::Tick;
use crate::observe::DiskStats;
use faults::Faults;
use files::Files;
use home::Home;
use index::Index;
use store::Store;

/// Where it lies and how large it may be.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory; it is made when it is not there.
    pub path: PathBuf,
    /// The most bytes of all files.
    pub size: u64,
    /// A body of at most so many bytes lies in one file with its record. [`Config::INLINE`] is a good number.
    pub inline: usize,
}

impl Config {
    /// 32 KiB.
    pub const INLINE: usize = 32 << 10;
}

/// The disk tier of a zone.
#[derive(Debug)]
pub struct Disk {
    store: Arc<Store>,
}

/// What an operator sees of an object.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its id.
    pub id: Id,
    /// Its record.
    pub record: Record,
    /// Bytes that its files take on disk.
    pub bytes: u64,
}

/// No more files than this are opened for one list.
const LOOKED_AT: usize = 100_000;

impl Disk {
    /// Opens the directory, or makes it. It answers at once; what lies there is counted after [`Disk::start`].
    ///
    /// # Errors
    ///
    /// The directory cannot be made or written.
    pub fn open(config: Config) -> io::Result<Arc<Self>> {
        Self::open_at(config, files::boot())
    }

    fn open_at(config: Config, boot: u64) -> io::Result<Arc<Self>> {
        let files = Files::new(config.path.clone());
        files::make_directory(files.root())?;
        version::check(&files)?;
        let home = Home::claim(&files.below("tmp"))?;
        let stats = Arc::<DiskStats>::default();
        let budget = budget::Budget::new(config.size, recover::usage(files.root()));
        budget.share(home.others());
        let store = Store {
            files,
            faults: Arc::new(Faults::new(config.path, Arc::clone(&stats))),
            stats,
            index: Index::default(),
            budget,
            home,
            inline: config.inline,
            boot,
            watchful: true.into(),
            stopped: false.into(),
            background: std::sync::OnceLock::new(),
        };
        store.publish();
        Ok(Arc::new(Self { store: Arc::new(store) }))
    }

    /// Begins the scan, and after it the upkeep, until the stop or the drop. All work that waits for the disk is done
    /// on `background` from now on. A second call does nothing.
    pub fn start(self: &Arc<Self>, background: &Handle) {
        if self.store.background.set(background.clone()).is_ok() {
            background.spawn(upkeep::run(Arc::downgrade(&self.store)));
        }
    }

    /// Saves the order of use for the next start. Nothing is admitted any more; what is there is still found.
    pub async fn stop(&self) {
        self.store.stopped.store(true, Relaxed);
        self.save().await;
    }

    /// Saves the order of use, as for a process that takes over.
    pub async fn save(&self) {
        let saved = self.store.blocking(|store| {
            let saved = recover::save_usage(store).and_then(|()| recover::save_order(store));
            _ = saved.inspect_err(|error| store.note_write(error));
        });
        _ = saved.await;
    }

    /// Whether there may be something under this id; it does no I/O. True for all until the scan is over, and while another
    /// process shares the directory.
    pub fn peek(&self, id: &Id) -> bool {
        self.store.watchful.load(Relaxed) || self.store.index.get(id).is_some()
    }

    /// Counts as a use, for an object that was found in memory.
    pub fn touch(&self, id: &Id) {
        self.store.index.used(id);
    }

    /// Finds what lies in the operating system's memory. `None`: it would have to wait for the disk, use [`Disk::get`].
    pub fn get_now(self: &Arc<Self>, id: &Id) -> Option<Option<Found>> {
        self.store.find_now(id)
    }

    /// Finds what is stored under this id. What cannot be read, or is damaged, is not found, and dropped.
    pub async fn get(self: &Arc<Self>, id: &Id) -> Option<Found> {
        if !self.peek(id) {
            return None;
        }
        let id = *id;
        self.store.blocking(move |store| store.find(&id)).await.ok().flatten()
    }

    /// Begins a body. `expected`: its length, when that is known; then its room is taken at once.
    ///
    /// # Errors
    ///
    /// The disk's. `StorageFull` also when it does not fit into the limit. Any after [`Disk::stop`].
    pub async fn create(self: &Arc<Self>, id: Id, expected: Option<u64>) -> io::Result<Writer> {
        Writer::begin(&self.store, id, expected).await
    }

    /// Replaces the record that was asked for at `of`, as after a 304; the body stays. False: there is another one by now, or it
    /// could not be written.
    pub async fn update(self: &Arc<Self>, id: &Id, of: Tick, record: &Record) -> bool {
        let (id, record) = (*id, record.clone());
        let update = move |store: &Store| {
            store.update(&id, of, &record).inspect_err(|error| store.note_write(error)).unwrap_or(false)
        };
        self.store.blocking(update).await.unwrap_or(false)
    }

    /// Removes what is stored under this id; with `of`, only what was asked for then. False: it was not there, or could not
    /// be removed.
    pub async fn remove(self: &Arc<Self>, id: &Id, of: Option<Tick>) -> bool {
        let id = *id;
        let remove = move |store: &Store| {
            let removed = store.remove(&id, of).inspect_err(|error| store.faults.note(faults::Doing::Removing, error));
            store.publish();
            removed.unwrap_or(false)
        };
        self.store.blocking(remove).await.unwrap_or(false)
    }

    /// At most `limit` objects whose URL begins with `prefix`, in no order. It opens files, at most 100,000 of them.
    pub async fn list(self: &Arc<Self>, prefix: &str, limit: usize) -> Vec<Listed> {
        let prefix = prefix.to_owned();
        let list = move |store: &Store| {
            let places = store.index.places().into_iter().take(LOOKED_AT);
            let read = places.filter_map(|place| {
                let (head, record) = store.record(&place.id)?;
                Some(Listed { id: place.id, record, bytes: head.blocks() * format::BLOCK })
            });
            read.filter(|listed| listed.record.url().starts_with(&prefix)).take(limit).collect()
        };
        self.store.blocking(list).await.unwrap_or_default()
    }

    /// Bytes in use, fills under way among them.
    pub fn bytes(&self) -> u64 {
        self.store.budget.bytes()
    }

    /// The most bytes that it may use.
    pub fn limit(&self) -> u64 {
        self.store.budget.limit()
    }

    /// How many objects were removed to make room.
    pub fn evictions(&self) -> u64 {
        self.store.stats.evictions.get()
    }

    /// How many objects are known.
    pub fn len(&self) -> usize {
        self.store.index.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is counted.
    pub fn stats(&self) -> &Arc<DiskStats> {
        &self.store.stats
    }

    /// Another limit, in bytes. What is above it goes within a second.
    pub fn resize(&self, size: u64) {
        self.store.budget.resize(size);
    }
}
