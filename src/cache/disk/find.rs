//! Finding an object: from the operating system's memory at once, or from the disk.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use super::blob::Blob;
use super::faults::{Doing, says_nothing_of_the_file};
use super::files::{self, is_gone};
use super::format::{self, Head};
use super::index::Known;
use super::store::Store;
use crate::cache::id::Id;
use crate::cache::record::Record;
use crate::cache::tick::Tick;

/// What is stored under an id.
#[derive(Debug)]
pub struct Found {
    /// The record.
    pub record: Record,
    /// Its body.
    pub body: FoundBody,
}

/// Where a body lies.
#[derive(Debug)]
pub enum FoundBody {
    /// It was small enough to come with the record.
    Inline(Bytes),
    /// In a file of its own.
    File(Arc<Blob>),
}

/// Why nothing was found, or not yet.
enum Not {
    /// It is not there.
    There,
    /// This generation was replaced or removed just now.
    Any(Tick),
    /// It is damaged; the generation, if that could be read.
    Sound(Option<Tick>),
    /// It could not be read.
    Readable(io::Error),
}

/// A body is read in pieces of so many bytes to verify it.
const PIECE: usize = 256 << 10;
/// A larger `.m` is left to the threads for blocking work.
const LARGE: u64 = 1 << 20;

impl Store {
    /// Whether there is any use in opening the file of this id.
    fn is_worth_a_look(&self, known: Option<Known>) -> bool {
        known.is_some() || self.watchful.load(Relaxed)
    }

    /// Finds it without waiting for the disk. `None`: it cannot be known without waiting.
    pub(super) fn find_now(&self, id: &Id) -> Option<Option<Found>> {
        let known = self.index.used(id);
        if !self.is_worth_a_look(known) {
            return Some(None);
        }
        let Ok((file, length)) = self.files.open_now(&self.files.meta(id))? else {
            known.into_iter().for_each(|known| self.forget(id, known.generation));
            return Some(None);
        };
        let length = usize::try_from(length).ok().filter(|length| *length as u64 <= LARGE)?;
        let bytes = files::read_now(&file, 0, length)?.ok().filter(|bytes| bytes.len() == length)?;
        let (head, record, inline) = format::decode(&bytes, id)?;
        self.meet(id, &head);
        if head.inline {
            return Some(Some(Found { record, body: FoundBody::Inline(inline) }));
        }
        let is_trusted = self.is_trusted(id, &head);
        let (file, length) = self.files.open_now(&self.files.body(id, head.generation))?.ok()?;
        (is_trusted && length == head.body).then(|| Some(self.with_body(record, &head, file)))
    }

    /// Finds it.
    pub(super) fn find(&self, id: &Id) -> Option<Found> {
        let known = self.index.used(id);
        if !self.is_worth_a_look(known) {
            return None;
        }
        let mut missed = None;
        loop {
            match self.look(id) {
                Ok(found) => return Some(found),
                // Its body went between the two: it was replaced, so look again.
                Err(Not::Any(generation)) if missed != Some(generation) => {
                    missed = Some(generation);
                    continue;
                }
                Err(Not::Any(generation)) => self.discard(id, Some(generation)),
                Err(Not::There) => known.into_iter().for_each(|known| self.forget(id, known.generation)),
                Err(Not::Sound(generation)) => self.discard(id, generation),
                Err(Not::Readable(error)) => self.unreadable(id, &error),
            }
            return None;
        }
    }

    /// The head and the record of an object.
    pub(super) fn record(&self, id: &Id) -> Option<(Head, Record)> {
        let (file, length) = self.files.open(&self.files.meta(id)).ok()?;
        let bytes = files::read(&file, 0, usize::try_from(length).ok()?).ok()?;
        format::decode(&bytes, id).map(|(head, record, _)| (head, record))
    }

    fn unreadable(&self, id: &Id, error: &io::Error) {
        self.faults.note(Doing::Reading, error);
        if !says_nothing_of_the_file(error) {
            _ = self.drop_unread(id).inspect_err(|error| self.faults.note(Doing::Removing, error));
        }
    }

    fn look(&self, id: &Id) -> Result<Found, Not> {
        let (file, length) = self.files.open(&self.files.meta(id)).map_err(not_opened)?;
        let length = usize::try_from(length).unwrap_or_default();
        let bytes = files::read(&file, 0, length).map_err(Not::Readable)?;
        let (head, record, inline) = format::decode(&bytes, id).ok_or(Not::Sound(None))?;
        self.meet(id, &head);
        if head.inline {
            return Ok(Found { record, body: FoundBody::Inline(inline) });
        }
        let opened = self.files.open(&self.files.body(id, head.generation));
        let (file, length) = opened.map_err(|error| match not_opened(error) {
            Not::There => Not::Any(head.generation),
            not => not,
        })?;
        let is_trusted = length == head.body && (self.is_trusted(id, &head) || self.verify(&head, &file)?);
        if is_trusted { Ok(self.with_body(record, &head, file)) } else { Err(Not::Sound(Some(head.generation))) }
    }

    /// Whether its length alone says that the body is right: it was written in this run of the operating system, so what
    /// was written is there, whatever became of the process.
    fn is_trusted(&self, id: &Id, head: &Head) -> bool {
        let is_verified = |known: Known| known.verified && known.generation == head.generation;
        (head.boot == self.boot && self.boot > 0) || self.index.get(id).is_some_and(is_verified)
    }

    /// Reads the body in full, and compares its checksum.
    fn verify(&self, head: &Head, file: &File) -> Result<bool, Not> {
        let mut hasher = crc32fast::Hasher::new();
        let mut at = 0;
        while at < head.body {
            let piece = files::read(file, at, PIECE).map_err(Not::Readable)?;
            if piece.is_empty() {
                return Ok(false);
            }
            hasher.update(&piece);
            at += piece.len() as u64;
        }
        let is_right = at == head.body && hasher.finalize() == head.body_crc;
        if is_right {
            self.index.verified(&head.id, head.generation);
        }
        Ok(is_right)
    }

    fn with_body(&self, record: Record, head: &Head, file: File) -> Found {
        let blob = Blob::stored((head.id, head.generation), &self.faults, file, head.body);
        Found { record, body: FoundBody::File(Arc::new(blob)) }
    }
}

fn not_opened(error: io::Error) -> Not {
    if is_gone(&error) { Not::There } else { Not::Readable(error) }
}
