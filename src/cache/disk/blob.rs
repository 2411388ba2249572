//! `Blob`: a body in a file, that can be read while it is still written.
//!
//! What was appended last may not be in the file yet: it is read from memory.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;

use super::faults::{Doing, Faults};
use super::files;
use crate::cache::id::Id;
use crate::cache::tick::Tick;

/// A body on disk. It can be read to its end also after it was replaced, removed or evicted.
#[derive(Debug)]
pub struct Blob {
    id: Id,
    generation: Tick,
    faults: Arc<Faults>,
    file: OnceLock<File>,
    tail: Mutex<Tail>,
    /// The length in all; it changes under the lock of `tail`.
    length: AtomicU64,
}

/// What is not in the file yet.
#[derive(Debug, Default)]
struct Tail {
    /// Where it begins: so long is the file.
    at: u64,
    pieces: VecDeque<Bytes>,
}

impl Blob {
    /// A body that is written from now on.
    pub(super) fn growing(id: Id, generation: Tick, faults: &Arc<Faults>) -> Self {
        let (file, tail, length) = Default::default();
        Self { id, generation, faults: Arc::clone(faults), file, tail, length }
    }

    /// A body that lies in this file.
    pub(super) fn stored((id, generation): (Id, Tick), faults: &Arc<Faults>, file: File, length: u64) -> Self {
        let tail = Tail { at: length, pieces: VecDeque::new() };
        let (file, tail, length) = (file.into(), Mutex::new(tail), length.into());
        Self { id, generation, faults: Arc::clone(faults), file, tail, length }
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many bytes it has, or has so far.
    pub fn len(&self) -> u64 {
        self.length.load(Relaxed)
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads from `offset` at most so many bytes, if they lie in memory: in ours or in the operating system's. `None`: they
    /// do not, use [`Blob::read`]. Fewer may come than there are; none: `offset` is at the end, or at the end so far.
    ///
    /// # Errors
    ///
    /// The disk's. The body is shorter than it was when it was stored: `UnexpectedEof`.
    pub fn read_now(&self, offset: u64, most: usize) -> Option<io::Result<Bytes>> {
        match self.find(offset, most) {
            Ok(bytes) => Some(Ok(bytes)),
            Err((file, most)) => files::read_now(file, offset, most).map(|read| self.judge(read)),
        }
    }

    /// The same, from the disk when need be: on tokio's threads for blocking work.
    ///
    /// # Errors
    ///
    /// As [`Blob::read_now`].
    pub async fn read(self: &Arc<Self>, offset: u64, most: usize) -> io::Result<Bytes> {
        if let Ok(bytes) = self.find(offset, most) {
            return Ok(bytes);
        }
        let own = Arc::clone(self);
        tokio::task::spawn_blocking(move || own.read_waiting(offset, most)).await.map_err(io::Error::other)?
    }

    /// The same, on this thread.
    pub(super) fn read_waiting(&self, offset: u64, most: usize) -> io::Result<Bytes> {
        match self.find(offset, most) {
            Ok(bytes) => Ok(bytes),
            Err((file, most)) => self.judge(files::read(file, offset, most)),
        }
    }

    /// The bytes, or the file in which they are and how many of them.
    fn find(&self, offset: u64, most: usize) -> Result<Bytes, (&File, usize)> {
        let tail = self.tail();
        let in_file = tail.at.saturating_sub(offset);
        if let Some(file) = self.file.get().filter(|_| in_file > 0 && most > 0) {
            return Err((file, usize::try_from(in_file).map_or(most, |in_file| in_file.min(most))));
        }
        let mut skipped = usize::try_from(offset.saturating_sub(tail.at)).unwrap_or(usize::MAX);
        for piece in &tail.pieces {
            if skipped < piece.len() {
                return Ok(piece.slice(skipped..piece.len().min(skipped.saturating_add(most))));
            }
            skipped -= piece.len();
        }
        Ok(Bytes::new())
    }

    /// What is read of a file is there: nothing at all says that it was cut.
    fn judge(&self, read: io::Result<Bytes>) -> io::Result<Bytes> {
        let cut = || io::Error::new(io::ErrorKind::UnexpectedEof, "a stored body is shorter than it was");
        read.and_then(|bytes| if bytes.is_empty() { Err(cut()) } else { Ok(bytes) }).inspect_err(|error| {
            self.faults.note(Doing::Reading, error);
            self.faults.broken(self.id, self.generation);
        })
    }

    /// Appends to what is in memory; tells how much that is now.
    pub(super) fn push(&self, piece: Bytes) -> u64 {
        let mut tail = self.tail();
        let length = self.len() + piece.len() as u64;
        if !piece.is_empty() {
            tail.pieces.push_back(piece);
        }
        self.length.store(length, Relaxed);
        length - tail.at
    }

    /// What is not in the file yet, and where it belongs.
    pub(super) fn pending(&self) -> (u64, Vec<Bytes>) {
        let tail = self.tail();
        (tail.at, tail.pieces.iter().cloned().collect())
    }

    /// From now on the first pieces are in this file.
    pub(super) fn flushed(&self, pieces: usize) {
        let mut tail = self.tail();
        let length: usize = tail.pieces.drain(..pieces).map(|piece| piece.len()).sum();
        tail.at += length as u64;
    }

    /// The file, once there is one.
    pub(super) fn file(&self) -> Option<&File> {
        self.file.get()
    }

    /// Sets the file.
    pub(super) fn begin(&self, file: File) -> &File {
        self.file.get_or_init(|| file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults() -> Arc<Faults> {
        Arc::new(Faults::new("/x".into(), Arc::default()))
    }

    #[test]
    fn a_growing_body_is_read_from_memory_and_then_from_its_file() {
        let root = tempfile::tempdir().unwrap();
        let files = files::Files::new(root.path().into());
        let blob = Blob::growing(Id::of(b"a"), Tick(1), &faults());
        assert!(blob.is_empty());
        assert_eq!(blob.push(Bytes::from_static(b"hello")), 5);
        assert_eq!(blob.push(Bytes::from_static(b"world")), 10);
        let all = || {
            let mut all = Vec::new();
            loop {
                let piece = blob.read_waiting(all.len() as u64, 3).unwrap();
                if piece.is_empty() {
                    return String::from_utf8(all).unwrap();
                }
                all.extend_from_slice(&piece);
            }
        };
        assert_eq!(all(), "helloworld");
        let file = blob.begin(files.create(&root.path().join("x")).unwrap());
        let (at, pieces) = blob.pending();
        files.write(file, &pieces[0], at).unwrap();
        blob.flushed(1);
        assert_eq!(all(), "helloworld");
        assert_eq!(blob.pending(), (5, vec![Bytes::from_static(b"world")]));
        assert!(blob.read_waiting(100, 5).unwrap().is_empty());
        assert_eq!(&blob.read_now(7, 100).unwrap().unwrap()[..], b"rld");
    }

    #[test]
    fn a_body_that_was_cut_is_an_error_and_told() {
        let root = tempfile::tempdir().unwrap();
        let files = files::Files::new(root.path().into());
        let file = files.create(&root.path().join("x")).unwrap();
        files.write(&file, b"123", 0).unwrap();
        let faults = faults();
        let blob = Blob::stored((Id::of(b"a"), Tick(1)), &faults, file, 5);
        assert_eq!(&blob.read_waiting(0, 9).unwrap()[..], b"123");
        assert_eq!(blob.read_waiting(3, 9).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(faults.take_broken(), [(Id::of(b"a"), Tick(1))]);
    }
}
