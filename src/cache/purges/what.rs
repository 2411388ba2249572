//! What a purge is: what it is about, how that is written, and what it says of a stored response.

use std::fmt;

use super::super::{Id, Tick};

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
    pub(super) fn normal(self) -> Self {
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
pub(super) fn without_scheme(url: &str) -> Option<&str> {
    url.find("//").map(|at| &url[at..])
}

/// As in `url https://example.com/`.
impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        self.text().map_or(Ok(()), |text| write!(f, " {text}"))
    }
}

/// How a tag is written in records.
pub(super) fn tag_hash(text: &[u8]) -> u64 {
    Id::of(text).bits()
}
