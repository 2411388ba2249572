//! `Files`: the directory and what is done to it. Every call to the operating system that may fail goes through here.
//!
//! Two processes, and two threads, that change one object exclude each other by a lock on its directory (`flock`). Who
//! only reads takes none: files are replaced whole, by renaming.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, IoSliceMut};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;
use rustix::fs::{CWD, FallocateFlags, FlockOperation, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::format::{HEAD, Head};
use crate::cache::id::Id;
use crate::cache::tick::Tick;

/// What kind of call is made: tests make one fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Open,
    Create,
    Write,
    Rename,
    Remove,
}

#[derive(Debug)]
pub(super) struct Files {
    root: PathBuf,
    #[cfg(test)]
    pub(super) failing: std::sync::Mutex<Option<(Call, i32)>>,
}

/// A directory that nobody else changes as long as this lives.
#[derive(Debug)]
pub(super) struct Locked {
    _lock: File,
}

/// Whether the kernel can open a file without waiting for the disk (Linux 5.12, and no filter of system calls before it).
static CAN_OPEN_NOW: AtomicBool = AtomicBool::new(true);

impl Files {
    pub(super) fn new(root: PathBuf) -> Self {
        Self {
            root,
            #[cfg(test)]
            failing: std::sync::Mutex::default(),
        }
    }

    #[cfg(test)]
    fn check(&self, call: Call) -> io::Result<()> {
        let failing = *self.failing.lock().unwrap();
        failing.filter(|(kind, _)| *kind == call).map_or(Ok(()), |(_, code)| Err(io::Error::from_raw_os_error(code)))
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as in tests")]
    const fn check(&self, _call: Call) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// One of the 256 directories.
    pub(super) fn directory(&self, directory: u8) -> PathBuf {
        self.below(&hex(&[directory]))
    }

    /// A file or directory in the root.
    pub(super) fn below(&self, name: &str) -> PathBuf {
        let mut path = PathBuf::with_capacity(self.root.as_os_str().len() + name.len() + 1);
        path.push(&self.root);
        path.push(name);
        path
    }

    /// `<id>.m`
    pub(super) fn meta(&self, id: &Id) -> PathBuf {
        let name = hex(id.bytes());
        self.below(&[&name[..2], "/", &name, ".m"].concat())
    }

    /// `<id>-<generation>.b`
    pub(super) fn body(&self, id: &Id, generation: Tick) -> PathBuf {
        let name = hex(id.bytes());
        self.below(&[&name[..2], "/", &name, "-", &hex(&generation.0.to_be_bytes()), ".b"].concat())
    }

    /// Locks the directory of an object; makes it when it is not there.
    pub(super) fn lock(&self, id: &Id) -> io::Result<Locked> {
        let path = self.directory(id.bytes()[0]);
        let lock = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.check(Call::Create)?;
                make_directory(&path)?;
                File::open(&path)
            }
            opened => opened,
        }?;
        while let Err(error) = rustix::fs::flock(&lock, FlockOperation::LockExclusive) {
            if error != Errno::INTR {
                return Err(error.into());
            }
        }
        Ok(Locked { _lock: lock })
    }

    /// Opens a file for reading; its length.
    pub(super) fn open(&self, path: &Path) -> io::Result<(File, u64)> {
        self.check(Call::Open)?;
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok((file, length))
    }

    /// The same when neither has to wait for the disk. `None`: it would, or cannot be known.
    pub(super) fn open_now(&self, path: &Path) -> Option<io::Result<(File, u64)>> {
        if !CAN_OPEN_NOW.load(Relaxed) {
            return None;
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        match rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED) {
            Ok(file) => {
                let file = File::from(file);
                Some(file.metadata().map(|facts| (file, facts.len())))
            }
            Err(Errno::NOENT) => Some(Err(Errno::NOENT.into())),
            Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => {
                CAN_OPEN_NOW.store(false, Relaxed);
                None
            }
            Err(_) => None,
        }
    }

    /// A new file, for writing and reading.
    pub(super) fn create(&self, path: &Path) -> io::Result<File> {
        self.check(Call::Create)?;
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
    }

    /// Asks for the blocks of a file beforehand, so that it lies in one piece and a full disk is known at once.
    pub(super) fn reserve(&self, file: &File, length: u64) -> io::Result<()> {
        self.check(Call::Write)?;
        match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, length) {
            Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::IO)) => Err(error.into()),
            _ => Ok(()),
        }
    }

    pub(super) fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check(Call::Write)?;
        file.write_all_at(bytes, offset)
    }

    /// Writes a whole new file; removes it again when that fails.
    pub(super) fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let file = self.create(path)?;
        self.write(&file, bytes, 0).inspect_err(|_| _ = fs::remove_file(path))
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check(Call::Rename)?;
        fs::rename(from, to)
    }

    /// Removes a file. That it is not there is no error: false.
    pub(super) fn remove(&self, path: &Path) -> io::Result<bool> {
        self.check(Call::Remove)?;
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            removed => removed.map(|()| true),
        }
    }

    /// The head of an object's file and how long that is. `Ok(None)`: damaged.
    pub(super) fn head(&self, id: &Id) -> io::Result<Option<(Head, u64)>> {
        let (file, length) = self.open(&self.meta(id))?;
        let bytes = read(&file, 0, HEAD)?;
        Ok(Head::decode(&bytes, id).map(|head| (head, length)))
    }

    /// The same; `Ok(None)` also when there is none.
    pub(super) fn head_if_any(&self, id: &Id) -> io::Result<Option<Head>> {
        match self.head(id) {
            Ok(head) => Ok(head.map(|(head, _)| head)),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether the file, or its directory, is not there.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Makes a directory that is only ours, and those above it. One that is there is kept as it is.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a whole file of the root over the one before, by renaming.
pub(super) fn replace(temporary: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::write(temporary, bytes)?;
    fs::set_permissions(temporary, Permissions::from_mode(0o600))?;
    fs::rename(temporary, path)
}

/// Reads up to so many bytes; fewer only at the end of the file.
pub(super) fn read(file: &File, offset: u64, most: usize) -> io::Result<Bytes> {
    let mut bytes = Vec::with_capacity(most);
    while bytes.len() < most {
        let at = offset + bytes.len() as u64;
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut bytes), at) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bytes.truncate(most);
    Ok(bytes.into())
}

/// Reads what lies in memory of so many bytes. `None`: the first of them does not, or the file system cannot tell.
pub(super) fn read_now(file: &File, offset: u64, most: usize) -> Option<io::Result<Bytes>> {
    let mut bytes = vec![0; most];
    match rustix::io::preadv2(file, &mut [IoSliceMut::new(&mut bytes)], offset, ReadWriteFlags::NOWAIT) {
        Ok(length) => {
            bytes.truncate(length);
            Some(Ok(bytes.into()))
        }
        Err(Errno::AGAIN | Errno::INTR | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => None,
        Err(error) => Some(Err(error.into())),
    }
}

/// Whether somebody else holds the lock of this file.
pub(super) fn is_locked(file: &File) -> bool {
    rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive).is_err()
}

/// Which run of the operating system this is; 0: it does not tell.
pub(super) fn boot() -> u64 {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    if text.is_empty() { 0 } else { Id::of(text.as_bytes()).bits().max(1) }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)].into());
        text.push(DIGITS[usize::from(byte & 15)].into());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_lie_where_their_names_say() {
        let files = Files::new("/r".into());
        let id: Id = "ab000000000000000000000000000001".parse().unwrap();
        assert_eq!(files.meta(&id), Path::new("/r/ab/ab000000000000000000000000000001.m"));
        assert_eq!(files.body(&id, Tick(255)), Path::new("/r/ab/ab000000000000000000000000000001-00000000000000ff.b"));
        assert_eq!(files.directory(0xab), Path::new("/r/ab"));
    }

    #[test]
    fn directories_and_files_are_only_ours() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path().join("cache"));
        let id = Id::of(b"a");
        let lock = files.lock(&id).unwrap();
        files.write_new(&files.meta(&id), b"x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&files.directory(id.bytes()[0])), 0o700);
        assert_eq!(mode(files.root()), 0o700);
        assert_eq!(mode(&files.meta(&id)), 0o600);
        let other = File::open(files.directory(id.bytes()[0])).unwrap();
        assert!(is_locked(&other));
        drop(lock);
        assert!(!is_locked(&other));
    }

    #[test]
    fn reading_ends_at_the_end() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path().into());
        let path = root.path().join("x");
        files.write_new(&path, b"0123456789").unwrap();
        let (file, length) = files.open(&path).unwrap();
        assert_eq!((length, &read(&file, 2, 3).unwrap()[..]), (10, &b"234"[..]));
        assert_eq!(&read(&file, 8, 100).unwrap()[..], b"89");
        if let Some(read) = read_now(&file, 4, 2) {
            assert_eq!(&read.unwrap()[..], b"45");
        }
        assert!(files.head(&Id::of(b"none")).is_err_and(|error| is_gone(&error)));
        assert!(!files.remove(&root.path().join("y")).unwrap());
    }
}
