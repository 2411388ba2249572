//! The writer of one log target: a bounded queue that requests push to, and one thread that writes it out in batches.
//!
//! A request never waits: when the queue is full its line is dropped and counted. The thread looks every 20 ms, or
//! at once when the queue is half full, so that no line costs a wake-up.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, Once, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;

use super::counters::ProcessStats;

/// Lines that may wait to be written.
const QUEUE_LINES: usize = 16 * 1024;
/// Bytes that may wait to be written: long lines must not make the queue eat the memory.
const QUEUE_BYTES: usize = 32 * 1024 * 1024;
/// A batch is written once it is this long.
const BATCH_BYTES: usize = 256 * 1024;
/// How often the thread looks for lines.
const NAP: Duration = Duration::from_millis(20);
/// How long after a failure the file is opened again.
const RETRY: Duration = Duration::from_secs(1);

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Stdout,
    File(PathBuf),
}

/// One target's writer. Dropping it lets the thread write out what is queued and end; nobody waits for that, as the
/// one who drops may be a request's thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    started: Once,
    thread: OnceLock<Thread>,
}

struct Shared {
    target: Target,
    queue: ArrayQueue<Vec<u8>>,
    queued_bytes: AtomicUsize,
    reopen: AtomicBool,
    closing: AtomicBool,
    /// How often a flush was asked for, and the last of them that was done.
    flushes_asked: AtomicU64,
    flushes_done: Mutex<u64>,
    flushed: Condvar,
    stats: Arc<ProcessStats>,
}

impl Writer {
    /// A writer whose thread starts, and whose file is created, with [`Writer::start`] or the first line.
    pub(super) fn new(target: Target, stats: Arc<ProcessStats>) -> Self {
        let shared = Shared {
            target,
            queue: ArrayQueue::new(QUEUE_LINES),
            queued_bytes: AtomicUsize::new(0),
            reopen: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            flushes_asked: AtomicU64::new(0),
            flushes_done: Mutex::new(0),
            flushed: Condvar::new(),
            stats,
        };
        Self { shared: Arc::new(shared), started: Once::new(), thread: OnceLock::new() }
    }

    /// Starts the thread, if it does not run yet.
    pub(super) fn start(&self) {
        self.started.call_once(|| {
            let shared = Arc::clone(&self.shared);
            let spawned = thread::Builder::new().name("access-log".into()).spawn(move || Drain::new(&shared).run());
            match spawned {
                Ok(handle) => drop(self.thread.set(handle.thread().clone())),
                Err(fault) => tracing::error!("the access log's thread cannot be started: {fault}"),
            }
        });
    }

    /// Queues one line (with its end), or drops and counts it. Never waits.
    pub(super) fn push(&self, line: Vec<u8>) {
        if !self.started.is_completed() {
            self.start();
        }
        let shared = &*self.shared;
        let length = line.len();
        let waiting = shared.queued_bytes.fetch_add(length, Ordering::Relaxed);
        if waiting + length > QUEUE_BYTES || shared.queue.push(line).is_err() {
            shared.queued_bytes.fetch_sub(length, Ordering::Relaxed);
            shared.stats.log_lines_dropped.inc();
        } else if shared.queue.len() == QUEUE_LINES / 2 {
            // Equal, not more: one wake-up on the way up. Should two threads step over it at once, the nap ends soon.
            self.wake();
        }
    }

    /// Has the file closed and opened again by its name, as after it was moved away.
    pub(super) fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        self.wake();
    }

    /// Waits until all lines pushed so far are written, at most until `deadline`; tells whether they are.
    pub(super) fn flush(&self, deadline: Instant) -> bool {
        if !self.started.is_completed() {
            return true;
        }
        let asked = self.shared.flushes_asked.fetch_add(1, Ordering::AcqRel) + 1;
        self.wake();
        let mut done = self.shared.flushes_done.lock().unwrap_or_else(PoisonError::into_inner);
        while *done < asked {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            done = self.shared.flushed.wait_timeout(done, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        self.wake();
    }
}

/// Opens the target. Of a new file others may read nothing: a log tells who asked for what.
fn open(target: &Target) -> io::Result<File> {
    match target {
        // A second handle to the same stream, as Rust's own keeps back a part of what a pipe did not take at once.
        Target::Stdout => io::stdout().as_fd().try_clone_to_owned().map(File::from),
        Target::File(path) => OpenOptions::new().append(true).create(true).mode(0o640).open(path),
    }
}

/// The thread's side.
struct Drain<'a> {
    shared: &'a Shared,
    sink: Option<File>,
    /// When to open the target again after a failure.
    retry_at: Option<Instant>,
    /// A failure was told, and no write has succeeded since.
    troubled: bool,
    batch: Vec<u8>,
    /// The last write broke off within a line.
    torn: bool,
}

impl<'a> Drain<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self { shared, sink: None, retry_at: None, troubled: false, batch: Vec::new(), torn: false }
    }

    fn run(mut self) {
        self.open();
        loop {
            let closing = self.shared.closing.load(Ordering::Acquire);
            let flushes = self.shared.flushes_asked.load(Ordering::Acquire);
            if self.shared.reopen.swap(false, Ordering::AcqRel) {
                self.open();
            }
            if self.retry_at.is_some_and(|at| closing || Instant::now() >= at) {
                self.open();
            }
            let drained = self.sink.is_some() && self.drain();
            if drained {
                self.tell_flushed(flushes);
            }
            if closing {
                return self.give_up();
            }
            thread::park_timeout(NAP);
        }
    }

    /// Opens the target anew; the old one stays in use when that fails, so that a moved file still takes lines.
    fn open(&mut self) {
        match open(&self.shared.target) {
            Ok(sink) => (self.sink, self.retry_at) = (Some(sink), None),
            Err(fault) => self.fail("opened", &fault),
        }
    }

    fn fail(&mut self, what: &str, fault: &io::Error) {
        // Told once, not each second again.
        if !self.troubled {
            let target = match &self.shared.target {
                Target::Stdout => "standard output".into(),
                Target::File(path) => path.display().to_string(),
            };
            tracing::error!("the access log {target} cannot be {what}: {fault}; trying again each second");
        }
        self.troubled = true;
        self.retry_at = Some(Instant::now() + RETRY);
    }

    /// Writes until the queue is empty; false when a write failed.
    fn drain(&mut self) -> bool {
        loop {
            self.batch.clear();
            if self.torn {
                self.batch.push(b'\n');
            }
            let mut taken = 0;
            while self.batch.len() < BATCH_BYTES
                && let Some(line) = self.shared.queue.pop()
            {
                taken += line.len();
                self.batch.extend_from_slice(&line);
            }
            if taken == 0 {
                return true;
            }
            self.shared.queued_bytes.fetch_sub(taken, Ordering::Relaxed);
            if let Err((written, fault)) = self.write_batch() {
                self.lose(written);
                self.sink = None;
                self.fail("written", &fault);
                return false;
            }
            (self.torn, self.troubled) = (false, false);
        }
    }

    /// Counts the lines of the batch that were not written whole.
    fn lose(&mut self, written: usize) {
        let mut lost = memchr::memchr_iter(b'\n', &self.batch[written..]).count();
        match written.checked_sub(1) {
            Some(last) => self.torn = self.batch[last] != b'\n',
            // The batch began by ending the line torn before, which was counted then.
            None => lost -= usize::from(self.torn),
        }
        self.shared.stats.log_write_errors.add(lost as u64);
    }

    /// Writes the batch; on failure tells how much of it was written.
    fn write_batch(&mut self) -> Result<(), (usize, io::Error)> {
        let sink = self.sink.as_mut().expect("lines are taken only while a sink is open");
        let mut written = 0;
        let mut stuck_since = None;
        while written < self.batch.len() {
            match sink.write(&self.batch[written..]) {
                Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
                Ok(count) => (written, stuck_since) = (written + count, None),
                Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
                // A pipe that its other holder made non-blocking, with a slow reader.
                Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {
                    let since = *stuck_since.get_or_insert_with(Instant::now);
                    if self.shared.closing.load(Ordering::Acquire) && since.elapsed() > RETRY {
                        return Err((written, fault));
                    }
                    thread::park_timeout(NAP);
                }
                Err(fault) => return Err((written, fault)),
            }
        }
        Ok(())
    }

    fn tell_flushed(&self, flushes: u64) {
        let mut done = self.shared.flushes_done.lock().unwrap_or_else(PoisonError::into_inner);
        if *done < flushes {
            *done = flushes;
            self.shared.flushed.notify_all();
        }
    }

    /// Counts what could not be written any more.
    fn give_up(&self) {
        while self.shared.queue.pop().is_some() {
            self.shared.stats.log_write_errors.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    fn writer(path: &Path) -> (Writer, Arc<ProcessStats>) {
        let stats = Arc::new(ProcessStats::default());
        (Writer::new(Target::File(path.to_owned()), stats.clone()), stats)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn lines_arrive_in_order_in_a_file_that_others_cannot_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let (writer, stats) = writer(&path);
        assert!(!path.exists(), "nothing is created before the first line");
        let mut expected = String::new();
        for number in 0..10_000 {
            let line = format!("line {number}\n");
            expected += &line;
            writer.push(line.into_bytes());
        }
        assert!(writer.flush(soon()));
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o037, 0);
        assert_eq!(stats.log_lines_dropped.get() + stats.log_write_errors.get(), 0);
        assert_eq!(writer.shared.queued_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_full_queue_drops_and_counts_and_never_blocks() {
        let (paused, stats) = writer(Path::new("/nowhere/access.log"));
        paused.started.call_once(|| {});
        for _ in 0..QUEUE_LINES + 100 {
            paused.push(b"x\n".to_vec());
        }
        assert_eq!(stats.log_lines_dropped.get(), 100);
        // The same by size: a long line counts for many.
        let (paused, stats) = writer(Path::new("/nowhere/access.log"));
        paused.started.call_once(|| {});
        for _ in 0..QUEUE_BYTES / 65_536 + 3 {
            paused.push(vec![b'x'; 65_536]);
        }
        assert_eq!(stats.log_lines_dropped.get(), 3);
        assert!(!paused.flush(Instant::now()), "nobody writes");
    }

    #[test]
    fn after_a_rename_and_reopen_lines_go_to_the_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("a.log"), folder.path().join("a.log.1"));
        let (writer, _) = writer(&path);
        writer.push(b"one\n".to_vec());
        assert!(writer.flush(soon()));
        fs::rename(&path, &moved).unwrap();
        writer.push(b"two\n".to_vec());
        assert!(writer.flush(soon()));
        writer.reopen();
        writer.push(b"three\n".to_vec());
        assert!(writer.flush(soon()));
        assert_eq!(fs::read_to_string(&moved).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
    }

    #[test]
    fn a_failed_write_is_counted_and_a_file_that_comes_back_is_written_again() {
        // /dev/full opens and then says that no space is left.
        let (full, stats) = writer(Path::new("/dev/full"));
        full.push(b"one\n".to_vec());
        full.push(b"two\n".to_vec());
        assert!(!full.flush(Instant::now() + Duration::from_millis(200)));
        assert_eq!(stats.log_write_errors.get() + full.shared.queue.len() as u64, 2);
        assert!(stats.log_write_errors.get() > 0);

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("later/access.log");
        let (writer, stats) = writer(&path);
        writer.push(b"kept\n".to_vec());
        assert!(!writer.flush(Instant::now() + Duration::from_millis(50)));
        fs::create_dir(folder.path().join("later")).unwrap();
        assert!(writer.flush(soon()));
        assert_eq!(fs::read_to_string(&path).unwrap(), "kept\n");
        assert_eq!(stats.log_write_errors.get(), 0);
    }

    #[test]
    fn a_torn_line_is_ended_before_the_next_and_lost_lines_are_counted_once() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, stats) = writer(&folder.path().join("a.log"));
        let mut drain = Drain::new(&writer.shared);
        drain.batch = b"one\ntwo\nthree\n".to_vec();
        drain.lose(6);
        assert_eq!((drain.torn, stats.log_write_errors.get()), (true, 2));
        drain.batch = b"\nfour\n".to_vec();
        drain.lose(0);
        assert_eq!((drain.torn, stats.log_write_errors.get()), (true, 3));
        drain.open();
        writer.shared.queue.push(b"five\n".to_vec()).unwrap();
        assert!(drain.drain());
        assert_eq!(fs::read_to_string(folder.path().join("a.log")).unwrap(), "\nfive\n");
    }

    #[test]
    fn a_reopen_that_fails_keeps_the_old_file_and_tries_again() {
        let folder = tempfile::tempdir().unwrap();
        let (inner, away) = (folder.path().join("logs"), folder.path().join("old"));
        fs::create_dir(&inner).unwrap();
        let (writer, stats) = writer(&inner.join("a.log"));
        writer.push(b"one\n".to_vec());
        assert!(writer.flush(soon()));
        fs::rename(&inner, &away).unwrap();
        writer.reopen();
        writer.push(b"two\n".to_vec());
        assert!(writer.flush(soon()));
        assert_eq!(fs::read_to_string(away.join("a.log")).unwrap(), "one\ntwo\n");
        fs::create_dir(&inner).unwrap();
        let deadline = soon();
        while !inner.join("a.log").exists() && Instant::now() < deadline {
            thread::sleep(NAP);
        }
        writer.push(b"three\n".to_vec());
        assert!(writer.flush(soon()));
        assert_eq!(fs::read_to_string(inner.join("a.log")).unwrap(), "three\n");
        assert_eq!(stats.log_write_errors.get(), 0);
    }

    #[test]
    fn a_dropped_writer_writes_what_is_queued() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let (writer, _) = writer(&path);
        writer.push(b"last\n".to_vec());
        let shared = Arc::downgrade(&writer.shared);
        drop(writer);
        let deadline = soon();
        while shared.strong_count() > 0 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "last\n");
    }
}
