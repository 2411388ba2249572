//! `Writer`: a body on its way to the disk.
//!
//! Pieces gather in memory and go to the file 128 KiB at a time, so that most of them cost no change of thread. A body
//! that stays small never gets a file.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::blob::Blob;
use super::format::{Head, blocks};
use super::store::{Store, meta_blocks};
use crate::cache::id::Id;
use crate::cache::record::Record;
use crate::cache::tick::Tick;

/// So many bytes are gathered before they are written.
const GATHERED: u64 = 128 << 10;

/// A body that is being written. Dropped before [`Writer::commit`], nothing of it is left.
#[derive(Debug)]
pub struct Writer {
    filling: Option<Arc<Filling>>,
    /// An error came, or a future of ours was dropped in its midst.
    failed: bool,
}

/// What the threads for blocking work share with the writer. The last one that has it cleans up.
#[derive(Debug)]
struct Filling {
    store: Arc<Store>,
    id: Id,
    generation: Tick,
    blob: Arc<Blob>,
    expected: Option<u64>,
    temporary: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Blocks that it holds of the limit.
    reserved: u64,
    crc: crc32fast::Hasher,
    has_file: bool,
}

impl Writer {
    /// Begins a body. `expected`: its length, when that is known.
    pub(super) async fn begin(store: &Arc<Store>, id: Id, expected: Option<u64>) -> io::Result<Self> {
        store.is_open()?;
        let generation = Tick::now();
        let blob = Arc::new(Blob::growing(id, generation, &store.faults));
        let (temporary, _) = store.temporary(generation);
        let (state, own) = (Mutex::default(), Arc::clone(store));
        let filling = Filling { store: own, id, generation, blob, expected, temporary, state };
        let mut writer = Self { filling: Some(Arc::new(filling)), failed: false };
        if expected.is_some_and(|expected| expected > store.inline as u64) {
            writer.work(|filling| filling.prepare()).await?;
        }
        Ok(writer)
    }

    /// Appends a piece. Readers of [`Writer::blob`] have it at once.
    ///
    /// # Errors
    ///
    /// The disk's; `StorageFull` also when no room can be made within the limit. Then nothing more can be appended or
    /// committed; readers have what was appended, this piece with it, until the blob is dropped.
    pub async fn append(&mut self, piece: Bytes) -> io::Result<()> {
        let filling = self.filling()?;
        let most = GATHERED.max(filling.store.inline as u64 + 1);
        if filling.blob.push(piece) >= most {
            self.work(|filling| filling.flush(&mut filling.state())).await?;
        }
        Ok(())
    }

    /// For readers that follow: what has been appended so far.
    ///
    /// # Panics
    ///
    /// Never: a writer has a body until it is committed or dropped.
    pub fn blob(&self) -> Arc<Blob> {
        self.filling.as_ref().map(|filling| Arc::clone(&filling.blob)).expect("a writer has a body until it ends")
    }

    /// Stores the body with this record in place of what is there under its id. `None`: it lies beside the record, being
    /// small. What is there and was asked for later stays; then the body is only readable through the blob.
    ///
    /// # Errors
    ///
    /// The disk's, as with [`Writer::append`]. Nothing is stored then, and what was there before is still there.
    pub async fn commit(mut self, record: &Record) -> io::Result<Option<Arc<Blob>>> {
        let record = record.clone();
        self.work(move |filling| filling.commit(&record)).await
    }

    fn filling(&self) -> io::Result<&Arc<Filling>> {
        let filling = self.filling.as_ref().filter(|_| !self.failed);
        filling.ok_or_else(|| io::Error::other("writing this body has failed before"))
    }

    async fn work<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Filling) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let filling = Arc::clone(self.filling()?);
        self.failed = true;
        let store = Arc::clone(&filling.store);
        let done = store.blocking(move |store| work(&filling).inspect_err(|error| store.note_write(error))).await??;
        self.failed = false;
        Ok(done)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let Some(filling) = self.filling.take() else { return };
        // Removing a file waits for the disk.
        let background = filling.store.background.get().cloned().or_else(|| tokio::runtime::Handle::try_current().ok());
        if let Some(background) = background.filter(|_| !filling.is_done()) {
            drop(background.spawn_blocking(move || drop(filling)));
        }
    }
}

impl Filling {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is nothing to clean up. Somebody at work on it: there may be.
    fn is_done(&self) -> bool {
        self.state.try_lock().is_ok_and(|state| state.reserved == 0 && !state.has_file)
    }

    /// Takes room for the whole of a body of known length.
    fn prepare(&self) -> io::Result<()> {
        let expected = self.expected.unwrap_or_default();
        let mut state = self.state();
        self.reserve(&mut state, blocks(expected))?;
        self.open(&mut state)
    }

    /// Holds so many blocks in all from now on.
    fn reserve(&self, state: &mut State, wanted: u64) -> io::Result<()> {
        if wanted > state.reserved {
            // What is too large as a whole shall not evict everything before it is refused.
            let more = if self.store.budget.can_hold(wanted) { wanted - state.reserved } else { wanted };
            self.store.reserve(more)?;
            state.reserved = wanted;
        }
        Ok(())
    }

    fn open(&self, state: &mut State) -> io::Result<()> {
        if !state.has_file {
            let file = self.store.files.create(&self.temporary)?;
            state.has_file = true;
            let file = self.blob.begin(file);
            if let Some(expected) = self.expected.filter(|expected| *expected > 0) {
                self.store.files.reserve(file, expected)?;
            }
        }
        Ok(())
    }

    /// Writes what has gathered.
    fn flush(&self, state: &mut State) -> io::Result<()> {
        let (mut at, pieces) = self.blob.pending();
        let end = at + pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        self.reserve(state, blocks(end))?;
        self.open(state)?;
        let file = self.blob.file().ok_or(io::ErrorKind::NotFound)?;
        for piece in &pieces {
            self.store.files.write(file, piece, at)?;
            state.crc.update(piece);
            at += piece.len() as u64;
        }
        self.blob.flushed(pieces.len());
        Ok(())
    }

    fn commit(&self, record: &Record) -> io::Result<Option<Arc<Blob>>> {
        self.store.is_open()?;
        let mut state = self.state();
        let is_inline = self.blob.len() <= self.store.inline as u64;
        let inline = if is_inline { self.whole()? } else { Vec::new() };
        if !is_inline {
            self.flush(&mut state)?;
            self.cut(&mut state)?;
        }
        let meta = meta_blocks(record, inline.len());
        let of_body = if is_inline { 0 } else { blocks(self.blob.len()) };
        self.reserve(&mut state, of_body + meta)?;
        let head = self.head(&state, record, is_inline);
        let body = (!is_inline).then_some(self.temporary.as_path());
        if self.store.install(&head, record, &inline, body)? {
            self.store.budget.give(state.reserved - (of_body + meta));
            state.reserved = 0;
            state.has_file &= is_inline;
        }
        self.store.publish();
        Ok((!is_inline).then(|| Arc::clone(&self.blob)))
    }

    fn head(&self, state: &State, record: &Record, inline: bool) -> Head {
        Head {
            id: self.id,
            generation: self.generation,
            asked: record.asked,
            record: u32::try_from(record.encoded_len()).unwrap_or(u32::MAX),
            body: self.blob.len(),
            inline,
            boot: self.store.boot,
            body_crc: state.crc.clone().finalize(),
        }
    }

    /// The whole of a small body. Some of it may be in a file, when more was expected.
    fn whole(&self) -> io::Result<Vec<u8>> {
        let mut whole = Vec::with_capacity(self.blob.len() as usize);
        while (whole.len() as u64) < self.blob.len() {
            whole.extend_from_slice(&self.blob.read_waiting(whole.len() as u64, usize::MAX / 2)?);
        }
        Ok(whole)
    }

    /// Gives back what was reserved for a body that turned out shorter.
    fn cut(&self, state: &mut State) -> io::Result<()> {
        let length = self.blob.len();
        if self.expected.is_some_and(|expected| expected > length)
            && let Some(file) = self.blob.file()
        {
            file.set_len(length)?;
            let spare = state.reserved.saturating_sub(blocks(length));
            self.store.budget.give(spare);
            state.reserved -= spare;
        }
        Ok(())
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if state.has_file {
            _ = self.store.files.remove(&self.temporary).inspect_err(|error| self.store.note_write(error));
        }
        self.store.budget.give(state.reserved);
    }
}
