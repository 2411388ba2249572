//! Purges: what operators declared void or stale, by URL, prefix, host or tag, however much is stored.
//!
//! A purge touches no object. It is noted with its moment ([`Tick`]), and whatever was asked for before that moment is compared
//! with the purges when it is next used. So a purge costs the same with a million objects as with one, and one that comes
//! while an object is being fetched holds for it too. With a log, purges hold after a restart, and for each process that has
//! the log open.

mod log;
mod marks;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use super::{Id, Record, Tick};
use log::Log;
use marks::Marks;

/// The most bytes that the text of a purge may have.
pub const MAX_TEXT: usize = 16 << 10;

/// What a purge is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// This URL, with its query; without a scheme (`//host/path` or `host/path`), whatever the scheme.
    Url(String),
    /// All URLs that begin with this text; without a scheme, whatever the scheme.
    Prefix(String),
    /// All of this host, at whatever port unless one is given; hosts below it are others.
    Host(String),
    /// All with this tag, which is compared byte by byte.
    Tag(String),
    /// All.
    All,
}

/// A purge that was noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purge {
    /// What it is about.
    pub what: What,
    /// Whether it makes stale rather than void.
    pub soft: bool,
    /// Its moment: it is about what was asked for before.
    pub at: Tick,
}

/// What the purges say of a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Valid,
    /// It is to be confirmed before it is used, as if it were stale.
    Stale,
    /// It is not there any more.
    Gone,
}

/// The purges of a zone.
#[derive(Debug, Default)]
pub struct Purges {
    sequence: AtomicU64,
    /// The moment of the newest one.
    newest: AtomicU64,
    marks: RwLock<Marks>,
    log: Option<Mutex<Log>>,
}

impl Purges {
    /// Purges that hold as long as the process lives.
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// Purges with a log, in which those of before are found; a log that is not there is made.
    pub fn open(log: &Path) -> io::Result<Self> {
        let purges = Self { log: Some(Mutex::new(Log::open(log)?)), ..Self::default() };
        purges.follow()?;
        Ok(purges)
    }

    /// Notes a purge of this moment. It holds at once, also where an error tells that it could not be logged, and so would not
    /// hold in another process; [`Purges::reread`] tries again. After an error of the kind `InvalidInput` it does not hold:
    /// the text is empty or too long.
    pub fn add(&self, what: What, soft: bool) -> io::Result<Purge> {
        let what = what.normal();
        let refuse = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        match what.text() {
            Some("" | "//") => return refuse("nothing is named"),
            Some(text) if text.len() > MAX_TEXT => return refuse("the text is too long"),
            _ => {}
        }
        let purge = Purge { what, soft, at: Tick::now() };
        self.take(std::iter::once(&purge));
        if let Some(log) = &self.log {
            lock(log).append(&purge)?;
        }
        Ok(purge)
    }

    /// Changes with each purge. An object that was compared at this sequence needs no comparison.
    pub fn sequence(&self) -> u64 {
        self.sequence.load(Ordering::Acquire)
    }

    /// What the purges say of this record.
    pub fn judge(&self, record: &Record) -> Verdict {
        if record.asked.0 >= self.newest.load(Ordering::Acquire) {
            return Verdict::Valid;
        }
        let marks = self.marks.read().unwrap_or_else(PoisonError::into_inner);
        marks.judge(record.asked, record.url(), record.tags())
    }

    /// Takes in what another process logged, logs what could not be logged before, and brings the log to the disk; a log that
    /// has become long is written anew. It waits for the disk: not for the path of a request.
    pub fn reread(&self) {
        // What fails is tried again with the next call; that a purge could not be logged was told when it was noted.
        let _ = self.follow();
    }

    fn follow(&self) -> io::Result<()> {
        let Some(log) = &self.log else { return Ok(()) };
        let mut log = lock(log);
        let purges = log.follow()?;
        purges.iter().for_each(|purge| Tick::after(purge.at));
        self.take(purges.iter());
        let all = || self.marks.read().unwrap_or_else(PoisonError::into_inner).all();
        if log.wants_rewrite() {
            log.rewrite(all, |purges| self.take(purges.iter()))?;
        }
        log.sync()
    }

    fn take<'a>(&self, purges: impl Iterator<Item = &'a Purge>) {
        let mut marks = self.marks.write().unwrap_or_else(PoisonError::into_inner);
        let mut newest = None;
        for purge in purges {
            if marks.add(purge) {
                newest = newest.max(Some(purge.at.0));
            }
        }
        if let Some(newest) = newest {
            self.newest.fetch_max(newest, Ordering::Release);
            // Last, so that whoever sees it finds the purge.
            self.sequence.fetch_add(1, Ordering::Release);
        }
    }

    /// How a tag is written in records.
    pub fn tag_hash(text: &[u8]) -> u64 {
        Id::of(text).bits()
    }
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

impl What {
    /// Its text; `None`: it is about all.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Url(text) | Self::Prefix(text) | Self::Host(text) | Self::Tag(text) => Some(text),
            Self::All => None,
        }
    }

    /// Its kind: `url`, `prefix`, `host`, `tag` or `all`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Url(_) => "url",
            Self::Prefix(_) => "prefix",
            Self::Host(_) => "host",
            Self::Tag(_) => "tag",
            Self::All => "all",
        }
    }

    /// What `kind` and `text` say.
    pub fn new(kind: &str, text: &str) -> Option<Self> {
        let text = text.to_owned();
        Some(match kind {
            "url" => Self::Url(text),
            "prefix" => Self::Prefix(text),
            "host" => Self::Host(text),
            "tag" => Self::Tag(text),
            "all" => Self::All,
            _ => return None,
        })
    }

    /// The same, as URLs of records are written.
    fn normal(self) -> Self {
        match self {
            Self::Url(text) => {
                let url = normal_url(text.split('#').next().unwrap_or_default());
                let rest = without_scheme(&url).map_or(0, |rest| url.len() - rest.len() + 2);
                Self::Url(match url[rest..].find(['/', '?']) {
                    Some(at) if url[rest + at..].starts_with('/') => url,
                    Some(at) => format!("{}/{}", &url[..rest + at], &url[rest + at..]),
                    None if url.len() > rest => url + "/",
                    None => url,
                })
            }
            Self::Prefix(text) => Self::Prefix(normal_url(&text)),
            Self::Host(text) => Self::Host(text.to_ascii_lowercase()),
            what @ (Self::Tag(_) | Self::All) => what,
        }
    }
}

/// A URL with scheme and authority in lower case, or beginning with `//`.
fn normal_url(text: &str) -> String {
    let begin = match text.find("://") {
        Some(at) if text[..at].bytes().all(|byte| byte.is_ascii_alphanumeric()) => at + 3,
        _ if text.starts_with("//") => 2,
        _ => return normal_url(&format!("//{text}")),
    };
    let end = text[begin..].find(['/', '?']).map_or(text.len(), |at| begin + at);
    text[..end].to_ascii_lowercase() + &text[end..]
}

/// The URL from its `//` on.
fn without_scheme(url: &str) -> Option<&str> {
    url.find("//").map(|at| &url[at..])
}

/// As in `url https://example.com/`.
impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        self.text().map_or(Ok(()), |text| write!(f, " {text}"))
    }
}
