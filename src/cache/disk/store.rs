//! `Store`: what all parts share, and every change to the directory: reserve, install, update, remove, evict.
//!
//! All of it waits for the disk. Whoever holds the lock of a directory here never reserves, since that may evict, and
//! evicting locks.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::Handle;

use super::budget::Budget;
use super::faults::{Doing, Faults};
use super::files::{self, Files, Locked};
use super::format::{self, HEAD, Head, Place, blocks};
use super::home::Home;
use super::index::{Index, Known};
use crate::cache::id::Id;
use crate::cache::record::Record;
use crate::cache::tick::Tick;
use crate::observe::DiskStats;

#[derive(Debug)]
pub(super) struct Store {
    pub files: Files,
    pub faults: Arc<Faults>,
    pub stats: Arc<DiskStats>,
    pub index: Index,
    pub budget: Budget,
    pub home: Home,
    /// Up to so many bytes a body lies beside its record.
    pub inline: usize,
    /// This run of the operating system.
    pub boot: u64,
    /// What is not in the index may be there all the same: the scan is not over, or another process writes too.
    pub watchful: AtomicBool,
    pub stopped: AtomicBool,
    /// Where blocking work is done once there is a background.
    pub background: OnceLock<Handle>,
}

impl Store {
    /// Does work that waits for the disk, on a thread for it.
    pub(super) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> io::Result<T> {
        let own = Arc::clone(self);
        let work = move || work(&own);
        let done = match self.background.get() {
            Some(background) => background.spawn_blocking(work),
            None => tokio::task::spawn_blocking(work),
        };
        done.await.map_err(io::Error::other)
    }

    /// Where a fill of this generation is written, and its record.
    pub(super) fn temporary(&self, generation: Tick) -> (PathBuf, PathBuf) {
        let name = format!("{:016x}", generation.0);
        (self.home.path(&name), self.home.path(&(name + ".m")))
    }

    /// Refuses what comes after the stop.
    pub(super) fn is_open(&self) -> io::Result<()> {
        if self.stopped.load(Relaxed) { Err(io::Error::other("the cache has stopped")) } else { Ok(()) }
    }

    /// Counts and logs what went wrong while writing, unless it is a refusal of ours.
    pub(super) fn note_write(&self, error: &io::Error) {
        if error.raw_os_error().is_some() {
            self.faults.note(Doing::Writing, error);
        }
    }

    /// Sets the gauges.
    pub(super) fn publish(&self) {
        self.stats.bytes.set(i64::try_from(self.budget.bytes()).unwrap_or(i64::MAX));
        self.stats.objects.set(self.index.len() as i64);
    }

    /// Takes so many blocks of the limit, and makes room for them.
    pub(super) fn reserve(&self, wanted: u64) -> io::Result<()> {
        while !self.budget.take(wanted) {
            if !self.budget.can_hold(wanted) || !self.make_room()? {
                self.stats.refused.inc();
                return Err(io::Error::new(io::ErrorKind::StorageFull, "it does not fit into the limit of the cache"));
            }
        }
        Ok(())
    }

    /// Evicts until the limit is kept.
    pub(super) fn trim(&self) {
        while self.budget.is_over() && self.make_room().is_ok_and(|made| made) {}
        self.publish();
    }

    /// Evicts one object. False: there is none.
    fn make_room(&self) -> io::Result<bool> {
        let Some((id, known)) = self.index.victim() else { return Ok(false) };
        self.evict(&id, known).map(|()| true).inspect_err(|error| {
            self.faults.note(Doing::Removing, error);
            self.keep(&id, known);
        })
    }

    /// An object that could not be removed is known again.
    fn keep(&self, id: &Id, known: Known) {
        let Known { generation, blocks, .. } = known;
        if !self.index.restore(&Place { id: *id, generation, blocks, usage: Place::KEPT }) {
            self.budget.give(u64::from(blocks));
        }
    }

    /// Removes the files of what was taken out of the index.
    fn evict(&self, id: &Id, known: Known) -> io::Result<()> {
        let _lock = self.files.lock(id)?;
        let counted = u64::from(known.blocks);
        match self.files.head_if_any(id)? {
            Some(head) if head.generation != known.generation => {
                // Another process has replaced it: that is not ours to delete.
                self.budget.give(counted);
                self.know(id, &head, false);
            }
            head => {
                let was_there = self.files.remove(&self.files.meta(id))?;
                self.files.remove(&self.files.body(id, known.generation))?;
                if was_there {
                    self.budget.give(counted)
                } else {
                    self.budget.lost(counted)
                }
                if head.is_some() {
                    self.stats.evictions.inc()
                }
            }
        }
        Ok(())
    }

    /// Counts what was found in the directory, if it is new to us.
    pub(super) fn meet(&self, id: &Id, head: &Head) {
        if self.index.get(id).is_none_or(|known| known.generation < head.generation) {
            self.know(id, head, false);
        }
    }

    fn know(&self, id: &Id, head: &Head, verified: bool) {
        self.budget.meet(head.blocks());
        if let Some(before) = self.index.put(id, known(head, verified)) {
            self.budget.give(u64::from(before.blocks));
        }
    }

    /// Forgets what is no longer in the directory.
    pub(super) fn forget(&self, id: &Id, generation: Tick) {
        if let Some(known) = self.index.remove(id, Some(generation)) {
            self.budget.lost(u64::from(known.blocks));
        }
    }

    /// Puts an object in place: the rename of its `.m` is the moment. Its blocks must be reserved. False: what is there is
    /// newer. `body`: its file, when it has one.
    pub(super) fn install(&self, head: &Head, record: &Record, inline: &[u8], body: Option<&Path>) -> io::Result<bool> {
        let (_, temporary) = self.temporary(head.generation);
        let lock = self.files.lock(&head.id)?;
        let before = self.files.head_if_any(&head.id)?;
        if before.as_ref().is_some_and(|before| before.asked > head.asked && !is_from_the_future(before.asked)) {
            return Ok(false);
        }
        self.write_meta(&lock, head, record, inline, &temporary, body)?;
        if let Some(before) = before.filter(|before| !before.inline && before.generation != head.generation) {
            let removed = self.files.remove(&self.files.body(&head.id, before.generation));
            _ = removed.inspect_err(|error| self.faults.note(Doing::Removing, error));
        }
        if let Some(before) = self.index.put(&head.id, known(head, true)) {
            self.budget.give(u64::from(before.blocks));
        }
        Ok(true)
    }

    fn write_meta(
        &self,
        _lock: &Locked,
        head: &Head,
        record: &Record,
        inline: &[u8],
        temporary: &Path,
        body: Option<&Path>,
    ) -> io::Result<()> {
        let bytes = format::encode(head, record, inline).ok_or_else(|| io::Error::other("the record is too long"))?;
        self.files.write_new(temporary, &bytes)?;
        let place = self.files.body(&head.id, head.generation);
        let moved = body.map_or(Ok(()), |body| self.files.rename(body, &place));
        moved.and_then(|()| self.files.rename(temporary, &self.files.meta(&head.id))).inspect_err(|_| {
            _ = self.files.remove(temporary);
            if body.is_some() {
                _ = self.files.remove(&place);
            }
        })
    }

    /// Replaces the record that was asked for at `of`; the body stays.
    pub(super) fn update(&self, id: &Id, of: Tick, record: &Record) -> io::Result<bool> {
        self.is_open()?;
        let Some(head) = self.files.head_if_any(id)?.filter(|head| head.asked == of) else { return Ok(false) };
        let head = Head { record: record.encoded_len() as u32, asked: record.asked, ..head };
        let reserved = blocks(head.file_len());
        self.reserve(reserved)?;
        let updated = self.replace_record(of, &head, record);
        if !matches!(updated, Ok(true)) {
            self.budget.give(reserved);
        }
        self.publish();
        updated
    }

    fn replace_record(&self, of: Tick, head: &Head, record: &Record) -> io::Result<bool> {
        let id = &head.id;
        let lock = self.files.lock(id)?;
        let (file, length) = self.files.open(&self.files.meta(id))?;
        let file = files::read(&file, 0, usize::try_from(length).unwrap_or_default())?;
        let there = format::decode(&file, id).filter(|(there, ..)| there.asked == of);
        let Some((_, _, inline)) = there.filter(|(there, ..)| there.generation == head.generation) else {
            return Ok(false);
        };
        // Not the name of its fill, which may still be there.
        let (_, temporary) = self.temporary(Tick::now());
        self.write_meta(&lock, head, record, &inline, &temporary, None)?;
        let of_body = head.blocks() - blocks(head.file_len());
        let verified = self.index.get(id).is_some_and(|known| known.verified);
        match self.index.put(id, known(head, verified)) {
            Some(before) => self.budget.give(u64::from(before.blocks).saturating_sub(of_body)),
            None => self.budget.meet(of_body),
        }
        Ok(true)
    }

    /// Removes an object, or only if it was asked for at `of`. False: it was not there.
    pub(super) fn remove(&self, id: &Id, of: Option<Tick>) -> io::Result<bool> {
        let _lock = self.files.lock(id)?;
        let head = self.files.head_if_any(id)?;
        if of.is_some_and(|of| head.as_ref().is_some_and(|head| head.asked != of)) {
            return Ok(false);
        }
        self.take_away(id, head.as_ref())
    }

    /// Removes a damaged object. `generation`: not if it is another one by now.
    pub(super) fn discard(&self, id: &Id, generation: Option<Tick>) {
        let done = self.files.lock(id).and_then(|_lock| {
            let head = self.files.head_if_any(id)?;
            let is_another = match (generation, &head) {
                (Some(generation), Some(head)) => head.generation != generation,
                (None, Some(_)) => self.is_sound(id)?,
                (_, None) => false,
            };
            if is_another { Ok(false) } else { self.take_away(id, head.as_ref()) }
        });
        match done {
            Ok(true) => self.stats.discarded.inc(),
            Ok(false) => {}
            Err(error) => self.faults.note(Doing::Removing, &error),
        }
    }

    /// Removes an object whose file cannot be read.
    pub(super) fn drop_unread(&self, id: &Id) -> io::Result<bool> {
        let _lock = self.files.lock(id)?;
        self.take_away(id, None)
    }

    fn is_sound(&self, id: &Id) -> io::Result<bool> {
        let (file, length) = self.files.open(&self.files.meta(id))?;
        let file = files::read(&file, 0, usize::try_from(length).unwrap_or_default())?;
        Ok(format::decode(&file, id).is_some())
    }

    fn take_away(&self, id: &Id, head: Option<&Head>) -> io::Result<bool> {
        let was_there = self.files.remove(&self.files.meta(id))?;
        let known = self.index.remove(id, None);
        for generation in [head.map(|head| head.generation), known.map(|known| known.generation)].into_iter().flatten()
        {
            self.files.remove(&self.files.body(id, generation))?;
        }
        if let Some(known) = known {
            self.budget.give(u64::from(known.blocks));
        }
        Ok(was_there)
    }
}

fn known(head: &Head, verified: bool) -> Known {
    let blocks = u32::try_from(head.blocks()).unwrap_or(u32::MAX);
    Known { generation: head.generation, blocks, verified }
}

/// Whether a clock was wrong when it was written: then it is not newer than what comes now.
fn is_from_the_future(tick: Tick) -> bool {
    tick.time() > std::time::SystemTime::now() + Duration::from_secs(60)
}

/// How many blocks a `.m` file with this record and this inline body takes.
pub(super) fn meta_blocks(record: &Record, inline: usize) -> u64 {
    blocks((HEAD + record.encoded_len() + inline) as u64)
}
