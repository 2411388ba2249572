//! `Log`: the purges on disk, one a line, which several processes append to.
//!
//! A line is written with one `write(2)` at the end of the file, begins with its checksum, and has an end of line before it
//! too; so one that was cut off spoils no other. A log that has become long is written anew beside the old one and put in its
//! place, under a lock that whoever appends shares; a process that finds another file in its place goes on with that.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::super::Tick;
use super::what::{Purge, What};

/// A log of fewer bytes is never written anew.
const SMALL: u64 = 256 << 10;

/// The purges on disk.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    /// Up to where it was read.
    read: u64,
    /// How long it was when it was written anew.
    rewritten: u64,
    /// Whether a purge could not be written, so that the log lacks it.
    lacks: bool,
    /// Whether something was written that may not be on the disk yet.
    is_dirty: bool,
}

impl Log {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        Ok(Self { path: path.to_owned(), file, read: 0, rewritten: 0, lacks: false, is_dirty: false })
    }

    /// Writes a purge. It waits only while another process writes the log anew.
    pub(super) fn append(&mut self, purge: &Purge) -> io::Result<()> {
        let result = self.write(line(purge).as_bytes());
        self.lacks |= result.is_err();
        result
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        self.lock(File::lock_shared)?;
        let written = (&self.file).write(line);
        self.is_dirty = true;
        self.file.unlock()?;
        match written {
            Ok(length) if length < line.len() => Err(io::ErrorKind::StorageFull.into()),
            other => other.map(drop),
        }
    }

    /// Locks the file that lies at the path now.
    fn lock(&mut self, lock: fn(&File) -> io::Result<()>) -> io::Result<()> {
        loop {
            lock(&self.file)?;
            if self.is_current() {
                return Ok(());
            }
            self.file.unlock()?;
            self.reopen()?;
        }
    }

    fn is_current(&self) -> bool {
        let number = |told: io::Result<fs::Metadata>| told.map(|told| (told.dev(), told.ino())).ok();
        number(self.file.metadata()) == number(fs::metadata(&self.path))
    }

    fn reopen(&mut self) -> io::Result<()> {
        // Where somebody took the file away, all is to be written again.
        self.lacks |= !self.path.exists();
        self.file = open(&self.path)?;
        (self.read, self.rewritten) = (0, 0);
        Ok(())
    }

    /// What was appended since the last time, by whomever.
    pub(super) fn follow(&mut self) -> io::Result<Vec<Purge>> {
        let mut purges = self.read_on()?;
        if !self.is_current() {
            // What came to the old file before it was replaced is in the new one as well.
            self.reopen()?;
            purges.extend(self.read_on()?);
        }
        Ok(purges)
    }

    fn read_on(&mut self) -> io::Result<Vec<Purge>> {
        if self.file.metadata()?.len() == self.read {
            return Ok(Vec::new());
        }
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(self.read))?;
        self.file.read_to_end(&mut bytes)?;
        // A line without its end may still be written.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.read += whole as u64;
        Ok(bytes[..whole].split(|byte| *byte == b'\n').filter_map(purge).collect())
    }

    /// Says that there are purges that it lacks.
    pub(super) const fn lack(&mut self) {
        self.lacks = true;
    }

    /// Whether it has become long, or lacks a purge.
    pub(super) fn wants_rewrite(&self) -> bool {
        self.lacks || self.read > SMALL.max(4 * self.rewritten)
    }

    /// Puts a log of the purges of `all` in place of this one, after `take` took in what others had appended.
    pub(super) fn rewrite(&mut self, all: impl Fn() -> Vec<Purge>, take: impl Fn(&[Purge])) -> io::Result<()> {
        self.lock(File::lock)?;
        let result = self.read_on().and_then(|purges| {
            take(&purges);
            let lines: String = all().iter().map(line).collect();
            let beside = self.path.with_extension("new");
            let made = fs::write(&beside, &lines).and_then(|()| File::open(&beside)?.sync_all());
            let placed = made.and_then(|()| fs::rename(&beside, &self.path));
            if placed.is_err() {
                // The disk is full, perhaps: it shall not be filled with what is of no use.
                let _ = fs::remove_file(&beside);
            }
            placed.map(|()| lines.len() as u64)
        });
        self.file.unlock()?;
        let length = result?;
        self.file = open(&self.path)?;
        (self.read, self.rewritten) = (0, length);
        (self.lacks, self.is_dirty) = (false, false);
        Ok(())
    }

    /// Brings to the disk what was written.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.is_dirty {
            self.file.sync_data()?;
            self.is_dirty = false;
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).open(path)
}

/// `\n<checksum> <moment> <hard or soft> <kind> <text>\n`
fn line(purge: &Purge) -> String {
    let how = if purge.soft { "soft" } else { "hard" };
    let text = purge.what.text().unwrap_or_default().replace('\\', "\\\\").replace('\n', "\\n");
    let said = format!("{} {how} {} {text}", purge.at.0, purge.what.kind());
    format!("\n{:08x} {said}\n", crc32fast::hash(said.as_bytes()))
}

/// Reads a line; `None`: it is none, or was not written to its end.
fn purge(line: &[u8]) -> Option<Purge> {
    let (sum, said) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    if u32::from_str_radix(sum, 16).ok()? != crc32fast::hash(said.as_bytes()) {
        return None;
    }
    let mut words = said.splitn(4, ' ');
    let at = Tick(words.next()?.parse().ok()?);
    let soft = words.next()? == "soft";
    let (kind, text) = (words.next()?, words.next()?);
    Some(Purge { what: What::new(kind, &unescaped(text))?, soft, at })
}

fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(char) = rest.next() {
        match char {
            '\\' if rest.next() == Some('n') => plain.push('\n'),
            char => plain.push(char),
        }
    }
    plain
}
