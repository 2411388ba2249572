//! `Fill`: a response that is on its way from the origin, and those who read it meanwhile.
//!
//! One task writes, any number of readers follow. While it is being stored nobody holds the writer up: what a slow reader has
//! yet to read stays in memory, or lies in the file of the disk tier. When it is not to be stored (any more), a piece goes as
//! soon as every reader has it, and the writer waits for the slowest: then it is a pipe with a bounded buffer.

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::HeaderMap;
use pingora::http::ResponseHeader;
use tokio::sync::Notify;

use super::disk::Blob;
use super::id::Id;
use super::rules::storable::Refusal;
use super::tick::Tick;

/// How much of a response that is not stored waits for its slowest reader.
const WINDOW: u64 = 256 << 10;

/// How much of a response that is stored on disk stays in memory behind the writer, for readers close to it.
const BEHIND: u64 = 512 << 10;

/// How many 1xx are told on: they are kept until there is a response.
const MOST_EARLY: usize = 32;

/// How much of a file is read at once.
const READ: usize = 128 << 10;

/// What the origin's answer came to; `O`: what a stored response is.
#[derive(Debug)]
pub enum Outcome<O> {
    /// It is stored: what it looks like. Its body follows. Who asked for it gets these fields too, which are not stored.
    Stored(Arc<O>, Option<Arc<HeaderMap>>),
    /// What was stored was confirmed (304), and renewed.
    Confirmed(Arc<O>),
    /// It is not stored, and this is its head. Only who asked for it may have it; its body follows.
    Passed(Arc<ResponseHeader>, Passing),
    /// The origin failed with this status, and what is stored may be used in its stead (RFC 5861 4).
    Excused(u16),
    /// There is no response.
    Failed(Failure),
}

impl<O> Clone for Outcome<O> {
    fn clone(&self) -> Self {
        match self {
            Self::Stored(object, withheld) => Self::Stored(Arc::clone(object), withheld.clone()),
            Self::Confirmed(object) => Self::Confirmed(Arc::clone(object)),
            Self::Passed(head, passing) => Self::Passed(Arc::clone(head), *passing),
            Self::Excused(status) => Self::Excused(*status),
            Self::Failed(failure) => Self::Failed(*failure),
        }
    }
}

/// Why a response is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passing {
    /// The rules forbid it.
    Refused(Refusal),
    /// It is too large, or there is no room.
    NoRoom,
    /// It is not the slice that was asked for, or nothing tells for certain what it could be joined with.
    Unfit,
}

/// Why there is no response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// The status that tells of it; 0: nobody was to be told.
    pub status: u16,
    /// The same as one word for logs.
    pub word: Option<&'static str>,
    /// In how many seconds to ask again.
    pub retry_after: Option<u64>,
}

/// What a stored response must be able to: to be read from the fill that brings it. A fill holds it without itself, or neither
/// would ever go.
pub trait Filled: Sized {
    /// The same, with the body that this fill brings.
    fn filled_by(&self, fill: &Arc<Fill<Self>>) -> Self;
}

/// A response on its way.
#[derive(Debug)]
pub struct Fill<O> {
    /// Under which id it is waited for.
    pub id: Id,
    /// The id of its URL.
    pub primary: Id,
    /// When its origin was asked.
    pub asked: Tick,
    state: Mutex<State<O>>,
    changed: Notify,
    room: Notify,
    void: AtomicBool,
    attached: Mutex<Option<Box<dyn Any + Send + Sync>>>,
}

#[derive(Debug)]
struct State<O> {
    early: Vec<ResponseHeader>,
    outcome: Option<Outcome<O>>,
    pieces: VecDeque<Bytes>,
    /// How many pieces, and bytes, are gone from the front.
    gone: u64,
    base: u64,
    /// The bytes written.
    len: u64,
    /// How it ended: whole, or broken off.
    ended: Option<bool>,
    trailers: Option<HeaderMap>,
    /// Whether it is not stored.
    piped: bool,
    /// Where each reader is; `None`: a free place.
    readers: Vec<Option<u64>>,
    file: Option<(Arc<Blob>, u64)>,
}

/// What a reader of the head hears.
pub enum Heard<O> {
    /// A 1xx.
    Early(ResponseHeader),
    /// What it came to.
    Outcome(Outcome<O>),
}

impl<O> Fill<O> {
    /// A response that nothing is known of yet.
    pub fn new(id: Id, primary: Id, asked: Tick) -> Arc<Self> {
        Arc::new(Self {
            id,
            primary,
            asked,
            state: Mutex::default(),
            changed: Notify::new(),
            room: Notify::new(),
            void: AtomicBool::new(false),
            attached: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State<O>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that what it brings must not be stored: it was made obsolete meanwhile.
    pub fn make_void(&self) {
        self.void.store(true, Relaxed);
    }

    /// Whether it was made obsolete.
    pub fn is_void(&self) -> bool {
        self.void.load(Relaxed)
    }

    /// Waits for what it comes to. `heard`: how many 1xx the caller has had; they are told one by one.
    pub async fn hear(self: &Arc<Self>, heard: usize) -> Heard<O>
    where
        O: Filled,
    {
        loop {
            let changed = self.changed.notified();
            {
                let state = self.lock();
                if let Some(early) = state.early.get(heard) {
                    return Heard::Early(early.clone());
                }
                match &state.outcome {
                    Some(Outcome::Stored(object, withheld)) => {
                        let object = Arc::new(object.filled_by(self));
                        return Heard::Outcome(Outcome::Stored(object, withheld.clone()));
                    }
                    Some(outcome) => return Heard::Outcome(outcome.clone()),
                    None => {}
                }
            }
            changed.await;
        }
    }

    /// Waits for what it comes to.
    pub async fn outcome(self: &Arc<Self>) -> Outcome<O>
    where
        O: Filled,
    {
        loop {
            if let Heard::Outcome(outcome) = self.hear(usize::MAX).await {
                return outcome;
            }
        }
    }

    /// The writer has a 1xx.
    pub fn tell_early(&self, head: ResponseHeader) {
        let mut state = self.lock();
        if state.early.len() < MOST_EARLY {
            state.early.push(head);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// The writer says what it came to. Pieces of a body follow, if it has one.
    pub fn tell(&self, outcome: Outcome<O>) {
        let mut state = self.lock();
        state.piped = !matches!(outcome, Outcome::Stored(..));
        if !matches!(outcome, Outcome::Stored(..) | Outcome::Passed(..)) {
            state.ended = Some(true);
        }
        state.outcome.get_or_insert(outcome);
        drop(state);
        self.changed.notify_waiters();
    }

    /// The writer has a piece.
    pub fn push(&self, piece: Bytes) {
        let mut state = self.lock();
        state.len += piece.len() as u64;
        state.pieces.push_back(piece);
        state.tidy();
        drop(state);
        self.changed.notify_waiters();
    }

    /// So much of it lies in this file: what is far behind can be read from there.
    pub fn flushed(&self, file: &Arc<Blob>, len: u64) {
        let mut state = self.lock();
        state.file = Some((Arc::clone(file), len));
        state.tidy();
    }

    /// From here on it is not stored: what every reader has is forgotten.
    pub fn stop_storing(&self) {
        let mut state = self.lock();
        state.piped = true;
        state.tidy();
    }

    /// The writer has come to the end, with the trailers if there are any; `false`: it broke off.
    pub fn end(&self, whole: bool, trailers: Option<HeaderMap>) {
        let mut state = self.lock();
        if state.ended.is_none() {
            state.ended = Some(whole);
            state.trailers = trailers;
        }
        if state.outcome.is_none() {
            state.outcome = Some(Outcome::Failed(Failure { status: 502, ..Failure::default() }));
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Waits until the slowest reader has come close, where that matters. `false`: nobody reads what is not stored.
    pub async fn wait_for_room(&self) -> bool {
        loop {
            let room = self.room.notified();
            {
                let state = self.lock();
                if !state.piped {
                    return true;
                }
                if state.readers.iter().all(Option::is_none) {
                    return false;
                }
                if state.len - state.base <= WINDOW {
                    return true;
                }
            }
            room.await;
        }
    }

    /// Waits until nobody reads it any more.
    pub async fn left(&self) {
        loop {
            let room = self.room.notified();
            if self.lock().readers.iter().all(Option::is_none) {
                return;
            }
            room.await;
        }
    }

    /// How many bytes have been written.
    pub fn len(&self) -> u64 {
        self.lock().len
    }

    /// Keeps something as long as there is a reader.
    pub fn attach(&self, thing: Box<dyn Any + Send + Sync>) {
        *self.attached.lock().unwrap_or_else(PoisonError::into_inner) = Some(thing);
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The whole body in one piece, if all of it is in memory.
    pub fn gathered(&self) -> Option<Bytes> {
        let mut state = self.lock();
        if state.base > 0 {
            return None;
        }
        match state.pieces.len() {
            0 => Some(Bytes::new()),
            1 => state.pieces.front().cloned(),
            _ => {
                let mut all = Vec::with_capacity(usize::try_from(state.len).ok()?);
                state.pieces.iter().for_each(|piece| all.extend_from_slice(piece));
                let all = Bytes::from(all);
                // Readers go on in the one piece, which has a number of its own.
                state.gone += state.pieces.len() as u64;
                state.pieces = VecDeque::from([all.clone()]);
                Some(all)
            }
        }
    }

    /// A reader from this byte on, up to that one. `None`: what it would need is gone.
    pub fn read(self: &Arc<Self>, from: u64, to: Option<u64>) -> Option<Reader<O>> {
        let mut state = self.lock();
        if from < state.base && state.file.is_none() {
            return None;
        }
        let place = state.readers.iter().position(Option::is_none).unwrap_or_else(|| {
            state.readers.push(None);
            state.readers.len() - 1
        });
        state.readers[place] = Some(from);
        Some(Reader { fill: Arc::clone(self), place, at: from, to, near: None })
    }

    /// The trailers, once it has ended.
    pub fn trailers(&self) -> Option<HeaderMap> {
        self.lock().trailers.clone()
    }
}

impl<O> Default for State<O> {
    fn default() -> Self {
        Self {
            early: Vec::new(),
            outcome: None,
            pieces: VecDeque::new(),
            gone: 0,
            base: 0,
            len: 0,
            ended: None,
            trailers: None,
            piped: false,
            readers: Vec::new(),
            file: None,
        }
    }
}

impl<O> State<O> {
    /// Forgets the pieces in front that nobody needs.
    fn tidy(&mut self) {
        let slowest = self.readers.iter().flatten().min().copied();
        let keep = match (&self.file, self.piped) {
            // The file goes no further than what was stored before; readers read on in memory.
            (Some((_, flushed)), true) => slowest.unwrap_or(self.len).max((*flushed).min(self.len)),
            (None, true) => slowest.unwrap_or(self.len),
            (None, false) => return,
            (Some((_, flushed)), false) => (*flushed).min(self.len.saturating_sub(BEHIND)),
        };
        while let Some(piece) = self.pieces.front() {
            let end = self.base + piece.len() as u64;
            if end > keep {
                break;
            }
            self.base = end;
            self.gone += 1;
            self.pieces.pop_front();
        }
    }
}

/// Reads a response on its way.
#[derive(Debug)]
pub struct Reader<O> {
    fill: Arc<Fill<O>>,
    place: usize,
    at: u64,
    to: Option<u64>,
    /// The piece that it is in: its number since the beginning, and the first byte of it.
    near: Option<(u64, u64)>,
}

/// What a reader finds.
enum Found {
    Piece(Bytes),
    End,
    Broken,
    Nothing,
    OnDisk(Arc<Blob>, usize),
}

impl<O> Reader<O> {
    /// The next piece; `None`: there is no more. The error says that the response broke off.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let fill = Arc::clone(&self.fill);
        loop {
            let changed = fill.changed.notified();
            let piece = match self.look() {
                Found::Piece(piece) => piece,
                Found::End => return Ok(None),
                Found::Broken => return Err(io::ErrorKind::UnexpectedEof.into()),
                Found::Nothing => {
                    changed.await;
                    continue;
                }
                Found::OnDisk(blob, most) => blob.read(self.at, most).await?,
            };
            if piece.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.advance(piece.len() as u64);
            return Ok(Some(piece));
        }
    }

    fn look(&mut self) -> Found {
        let state = self.fill.lock();
        if self.to.is_some_and(|to| self.at >= to) {
            return Found::End;
        }
        if self.at < state.base {
            let Some((blob, flushed)) = &state.file else { return Found::Broken };
            let end = self.to.unwrap_or(u64::MAX).min(*flushed);
            let most = usize::try_from(end.saturating_sub(self.at)).unwrap_or(READ).min(READ);
            return if most == 0 { Found::Broken } else { Found::OnDisk(Arc::clone(blob), most) };
        }
        if self.at >= state.len {
            return match state.ended {
                Some(true) if self.to.is_none() => Found::End,
                Some(_) => Found::Broken,
                None => Found::Nothing,
            };
        }
        // From the piece it was in, or from the first that is left.
        let (mut number, mut begin) = self.near.filter(|near| near.0 >= state.gone).unwrap_or((state.gone, state.base));
        while let Some(piece) = state.pieces.get(usize::try_from(number - state.gone).unwrap_or(usize::MAX)) {
            let end = begin + piece.len() as u64;
            if self.at < end {
                self.near = Some((number, begin));
                let upto = self.to.map_or(end, |to| to.min(end));
                // Both lie within the piece.
                return Found::Piece(piece.slice((self.at - begin) as usize..(upto - begin) as usize));
            }
            (number, begin) = (number + 1, end);
        }
        Found::Nothing
    }

    fn advance(&mut self, by: u64) {
        self.at += by;
        let mut state = self.fill.lock();
        state.readers[self.place] = Some(self.at);
        if state.piped {
            state.tidy();
            drop(state);
            self.fill.room.notify_waiters();
        }
    }
}

impl<O> Drop for Reader<O> {
    fn drop(&mut self) {
        let mut state = self.fill.lock();
        state.readers[self.place] = None;
        state.tidy();
        drop(state);
        self.fill.room.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Filled for () {
        fn filled_by(&self, _: &Arc<Fill<Self>>) -> Self {}
    }

    #[test]
    fn a_fill_goes_with_the_last_who_holds_it() {
        let fill = fill();
        fill.tell(Outcome::Stored(Arc::new(()), None));
        fill.end(true, None);
        let weak = Arc::downgrade(&fill);
        drop(fill);
        assert!(weak.upgrade().is_none());
    }

    fn fill() -> Arc<Fill<()>> {
        Fill::new(Id::of(b"a"), Id::of(b"a"), Tick(1))
    }

    async fn all(reader: &mut Reader<()>) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(piece) = reader.next().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    proptest! {
        #[test]
        fn every_reader_reads_what_was_written_and_knows_whether_it_is_whole(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..20),
            readers in prop::collection::vec((0_u64..900, prop::option::of(1_u64..300)), 1..6),
            whole: bool,
            stored: bool,
        ) {
            let written: Vec<u8> = pieces.concat();
            block_on(async {
                let fill = fill();
                let tasks: Vec<_> = readers.iter().map(|&(from, count)| {
                    // Of what is not stored only whole responses are read.
                    let (from, to) = if stored { (from, count.map(|count| from + count)) } else { (0, None) };
                    let mut reader = fill.read(from, to).unwrap();
                    (from, to, tokio::spawn(async move { all(&mut reader).await }))
                }).collect();
                fill.tell(match stored {
                    true => Outcome::Stored(Arc::new(()), None),
                    false => Outcome::Passed(Arc::new(ResponseHeader::build_no_case(200, None).unwrap()), Passing::NoRoom),
                });
                for piece in pieces {
                    fill.push(piece.into());
                    prop_assert!(fill.wait_for_room().await);
                    tokio::task::yield_now().await;
                }
                fill.end(whole, None);
                for (from, to, task) in tasks {
                    let end = to.unwrap_or(u64::MAX).min(written.len() as u64);
                    let wanted = written.get(from as usize..end as usize).unwrap_or_default();
                    let is_there = to.is_some_and(|to| to <= written.len() as u64);
                    match task.await.unwrap() {
                        Ok(read) => {
                            prop_assert_eq!(read, wanted);
                            prop_assert!(is_there || whole && to.is_none());
                        }
                        Err(_) => prop_assert!(!is_there && (!whole || to.is_some())),
                    }
                }
                Ok(())
            })?;
        }
    }

    #[test]
    fn what_is_not_stored_is_held_up_by_its_slowest_reader_and_ends_with_the_last() {
        block_on(async {
            let fill = fill();
            let (mut quick, mut slow) = (fill.read(0, None).unwrap(), fill.read(0, None).unwrap());
            fill.stop_storing();
            fill.push(vec![1; WINDOW as usize].into());
            fill.push(vec![2; 1].into());
            assert_eq!(quick.next().await.unwrap().map(|piece| piece.len()), Some(WINDOW as usize));
            let writer = tokio::spawn({
                let fill = Arc::clone(&fill);
                async move { fill.wait_for_room().await }
            });
            tokio::task::yield_now().await;
            assert!(!writer.is_finished());
            slow.next().await.unwrap();
            assert!(writer.await.unwrap());
            assert!(fill.read(0, None).is_none(), "what all have read is gone");
            drop((quick, slow));
            assert!(!fill.wait_for_room().await);
        });
    }

    #[test]
    fn what_is_stored_waits_for_nobody() {
        block_on(async {
            let fill = fill();
            let reader = fill.read(0, None).unwrap();
            fill.tell(Outcome::Stored(Arc::new(()), None));
            for _ in 0..8 {
                fill.push(vec![1; WINDOW as usize].into());
                assert!(fill.wait_for_room().await);
            }
            drop(reader);
            assert_eq!(fill.gathered().map(|body| body.len() as u64), Some(8 * WINDOW));
        });
    }

    #[test]
    fn all_hear_what_it_came_to_and_the_first_word_counts() {
        block_on(async {
            let fill = fill();
            let waiting = tokio::spawn({
                let fill = Arc::clone(&fill);
                async move { fill.outcome().await }
            });
            tokio::task::yield_now().await;
            fill.tell_early(ResponseHeader::build_no_case(103, None).unwrap());
            assert!(matches!(fill.hear(0).await, Heard::Early(head) if head.status == 103));
            fill.tell(Outcome::Excused(503));
            fill.end(false, None);
            assert!(matches!(waiting.await.unwrap(), Outcome::Excused(503)));
            assert!(matches!(fill.hear(1).await, Heard::Outcome(Outcome::Excused(503))));
        });
    }

    #[test]
    fn who_waits_for_a_fill_that_is_given_up_hears_of_it() {
        let fill = fill();
        fill.end(false, None);
        assert!(matches!(block_on(fill.outcome()), Outcome::Failed(Failure { status: 502, .. })));
    }

    #[test]
    fn early_responses_are_kept_up_to_a_bound() {
        let fill = Fill::<()>::new(Id::of(b"a"), Id::of(b"a"), Tick::now());
        for _ in 0..1_000 {
            fill.tell_early(ResponseHeader::build(103, None).unwrap());
        }
        assert_eq!(fill.lock().early.len(), MOST_EARLY);
    }
}
