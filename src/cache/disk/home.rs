//! `Home`: the directory below `tmp/` in which this process writes, and who else has one there.
//!
//! A process holds a lock (`flock`) on the file `lock` in its own as long as it lives, so whose lock is free is dead.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::files::{is_locked, make_directory};
use crate::cache::tick::Tick;

#[derive(Debug)]
pub(super) struct Home {
    directory: PathBuf,
    lock: Mutex<File>,
    /// Stays behind when it is dropped, as after a crash.
    #[cfg(test)]
    pub(super) abandoned: std::sync::atomic::AtomicBool,
}

const LOCK: &str = "lock";

impl Home {
    /// Makes one in `tmp`.
    pub(super) fn claim(tmp: &Path) -> io::Result<Self> {
        // Who deletes what the dead left may take it away before it is locked: then another one.
        for _ in 0..16 {
            let directory = tmp.join(format!("{}-{}", std::process::id(), Tick::now().0));
            if let Some(lock) = occupy(&directory)? {
                return Ok(Self {
                    directory,
                    lock: lock.into(),
                    #[cfg(test)]
                    abandoned: false.into(),
                });
            }
        }
        Err(io::Error::other("cannot lock a directory of one's own"))
    }

    /// A file in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Makes it again when somebody deleted it; true: it was.
    pub(super) fn restore(&self) -> io::Result<bool> {
        if self.path(LOCK).try_exists()? {
            return Ok(false);
        }
        let lock = occupy(&self.directory)?;
        if let Some(lock) = lock {
            *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = lock;
        }
        Ok(true)
    }

    /// How many others live. What the dead left is deleted.
    pub(super) fn others(&self) -> u64 {
        let Some(entries) = self.directory.parent().and_then(|tmp| fs::read_dir(tmp).ok()) else { return 0 };
        let others = entries.flatten().map(|entry| entry.path()).filter(|path| *path != self.directory);
        others.filter(|path| is_home(path) && lives(path)).count() as u64
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        #[cfg(test)]
        if self.abandoned.load(std::sync::atomic::Ordering::Relaxed) {
            return;
        }
        clear(&self.directory);
    }
}

/// Makes the directory and locks it. `None`: it was taken away meanwhile.
fn occupy(directory: &Path) -> io::Result<Option<File>> {
    make_directory(directory)?;
    let path = directory.join(LOCK);
    let lock = match File::options().create(true).truncate(false).write(true).open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let is_ours = !is_locked(&lock) && fs::metadata(&path).is_ok_and(|there| Some(there.ino()) == inode(&lock));
    Ok(is_ours.then_some(lock))
}

fn inode(file: &File) -> Option<u64> {
    file.metadata().ok().map(|facts| facts.ino())
}

/// Whether it has a name that `claim` gives.
fn is_home(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once('-'));
    name.is_some_and(|(pid, tick)| [pid, tick].iter().all(|part| part.parse::<u64>().is_ok()))
}

/// Whether its process lives. If not, it is deleted.
fn lives(directory: &Path) -> bool {
    let Ok(lock) = File::open(directory.join(LOCK)) else {
        // Just made, or just deleted.
        _ = fs::remove_dir(directory);
        return false;
    };
    let lives = is_locked(&lock);
    if !lives {
        clear(directory);
    }
    lives
}

/// Deletes what we write into such a directory, and the directory.
fn clear(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_fill = |name: &str| name.len() >= 16 && name.bytes().take(16).all(|byte| byte.is_ascii_hexdigit());
        if name.to_str().is_some_and(|name| is_fill(name) || ["order", "usage"].contains(&name)) {
            _ = fs::remove_file(entry.path());
        }
    }
    // Last, so that nobody takes a directory that is not yet empty for one that is just made.
    _ = fs::remove_file(directory.join(LOCK));
    _ = fs::remove_dir(directory);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_living_are_counted_and_what_the_dead_left_is_deleted() {
        let tmp = tempfile::tempdir().unwrap();
        let (a, b) = (Home::claim(tmp.path()).unwrap(), Home::claim(tmp.path()).unwrap());
        assert_eq!((a.others(), b.others()), (1, 1));
        fs::write(b.path("00000000000000ff"), b"half").unwrap();
        fs::create_dir(tmp.path().join("not-ours")).unwrap();
        let left = b.directory.clone();
        b.abandoned.store(true, std::sync::atomic::Ordering::Relaxed);
        drop(b);
        assert!(left.exists());
        assert_eq!(a.others(), 0);
        assert!(!left.exists() && tmp.path().join("not-ours").exists());
    }

    #[test]
    fn a_deleted_home_is_made_again() {
        let tmp = tempfile::tempdir().unwrap();
        let home = Home::claim(tmp.path()).unwrap();
        assert!(!home.restore().unwrap());
        fs::remove_dir_all(&home.directory).unwrap();
        assert!(home.restore().unwrap() && !home.restore().unwrap());
        assert_eq!(Home::claim(tmp.path()).unwrap().others(), 1);
    }
}
