//! `Marks`: the purges in memory, by what they are about, and how a record is compared with them.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::super::Tick;
use super::what::{Purge, Verdict, What, tag_hash, without_scheme};

/// So many purges of a kind are told apart.
const MOST: usize = 1 << 16;
/// And so many bytes of their texts.
const MOST_TEXT: usize = 16 << 20;

/// The purges, by what they are about.
#[derive(Debug, Default)]
pub(super) struct Marks {
    all: Mark,
    urls: Shelf<Box<str>>,
    prefixes: Shelf<Box<str>>,
    hosts: Shelf<Box<str>>,
    tags: Shelf<u64>,
}

/// The moments of the newest purges of one thing.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    hard: Tick,
    soft: Tick,
}

/// The marks of a kind.
#[derive(Debug)]
struct Shelf<K> {
    marks: BTreeMap<K, Mark>,
    /// The bytes of all texts.
    text: usize,
}

impl Mark {
    fn new(soft: bool, at: Tick) -> Self {
        if soft { Self { soft: at, ..Self::default() } } else { Self { hard: at, ..Self::default() } }
    }

    /// Whether `self` says more with `other` than without.
    fn join(&mut self, other: Self) -> bool {
        let before = (self.hard, self.soft);
        *self = Self { hard: self.hard.max(other.hard), soft: self.soft.max(other.soft) };
        before != (self.hard, self.soft)
    }

    /// Whether `all` says as much of everything.
    fn is_covered(self, all: Self) -> bool {
        self.hard <= all.hard && self.soft <= all.soft.max(all.hard)
    }

    fn newest(self) -> Tick {
        self.hard.max(self.soft)
    }
}

impl Marks {
    /// Takes a purge in; false: it says nothing new.
    pub(super) fn add(&mut self, purge: &Purge) -> bool {
        let mark = Mark::new(purge.soft, purge.at);
        if mark.is_covered(self.all) {
            return false;
        }
        let added = match &purge.what {
            What::All => Added { is_new: self.all.join(mark), dropped: Mark::default() },
            What::Url(url) => self.urls.add(url.as_str().into(), mark),
            What::Prefix(prefix) => self.prefixes.add(prefix.as_str().into(), mark),
            What::Host(host) => self.hosts.add(host.as_str().into(), mark),
            What::Tag(tag) => self.tags.add(tag_number(tag), mark),
        };
        if self.all.join(added.dropped) || purge.what == What::All {
            self.forget_covered();
        }
        added.is_new
    }

    fn forget_covered(&mut self) {
        let all = self.all;
        self.urls.retain(|mark| !mark.is_covered(all));
        self.prefixes.retain(|mark| !mark.is_covered(all));
        self.hosts.retain(|mark| !mark.is_covered(all));
        self.tags.retain(|mark| !mark.is_covered(all));
    }

    /// What the purges say of what was asked for then, under this URL, with these tags.
    pub(super) fn judge(&self, asked: Tick, url: &str, tags: impl Iterator<Item = u64>) -> Verdict {
        let mut sum = self.all;
        let mut join = |mark: Option<&Mark>| {
            if let Some(mark) = mark {
                sum.join(*mark);
            }
        };
        let any_scheme = without_scheme(url).unwrap_or_default();
        let authority = any_scheme.trim_start_matches('/').split(['/', '?']).next().unwrap_or_default();
        join(self.hosts.marks.get(authority));
        join(without_port(authority).and_then(|host| self.hosts.marks.get(host)));
        for text in [url, any_scheme] {
            join(self.urls.marks.get(text));
            prefixes_of(&self.prefixes.marks, text).for_each(|mark| join(Some(mark)));
        }
        if !self.tags.marks.is_empty() {
            tags.for_each(|tag| join(self.tags.marks.get(&tag)));
        }
        match sum {
            Mark { hard, .. } if asked < hard => Verdict::Gone,
            Mark { soft, .. } if asked < soft => Verdict::Stale,
            _ => Verdict::Valid,
        }
    }

    /// Purges that say the same as all that there were.
    pub(super) fn all(&self) -> Vec<Purge> {
        let mut purges = Vec::new();
        let mut tell = |what: &dyn Fn() -> What, mark: Mark| {
            for (soft, at) in [(false, mark.hard), (true, mark.soft)] {
                if at > Tick::default() {
                    purges.push(Purge { what: what(), soft, at });
                }
            }
        };
        tell(&|| What::All, self.all);
        self.urls.marks.iter().for_each(|(url, mark)| tell(&|| What::Url(url.to_string()), *mark));
        self.prefixes.marks.iter().for_each(|(prefix, mark)| tell(&|| What::Prefix(prefix.to_string()), *mark));
        self.hosts.marks.iter().for_each(|(host, mark)| tell(&|| What::Host(host.to_string()), *mark));
        self.tags.marks.iter().for_each(|(tag, mark)| tell(&|| What::Tag(tag_text(*tag)), *mark));
        purges
    }
}

/// What became of a purge that was put among others.
struct Added {
    is_new: bool,
    /// What is to hold of everything, in place of those that there was no more room for.
    dropped: Mark,
}

impl<K> Default for Shelf<K> {
    fn default() -> Self {
        Self { marks: BTreeMap::new(), text: 0 }
    }
}

impl<K: Ord + Length> Shelf<K> {
    fn add(&mut self, key: K, mark: Mark) -> Added {
        if let Some(known) = self.marks.get_mut(&key) {
            return Added { is_new: known.join(mark), dropped: Mark::default() };
        }
        self.text += key.length();
        self.marks.insert(key, mark);
        let dropped = if self.marks.len() > MOST || self.text > MOST_TEXT { self.halve() } else { Mark::default() };
        Added { is_new: true, dropped }
    }

    /// Drops the older half; tells what covers all of it.
    fn halve(&mut self) -> Mark {
        let mut moments: Vec<_> = self.marks.values().map(|mark| mark.newest()).collect();
        let middle = moments.len() / 2;
        let newest_old = *moments.select_nth_unstable(middle).1;
        let mut dropped = Mark::default();
        self.retain(|mark| {
            let stays = mark.newest() > newest_old;
            if !stays {
                dropped.join(*mark);
            }
            stays
        });
        dropped
    }

    fn retain(&mut self, mut stays: impl FnMut(&Mark) -> bool) {
        let text = &mut self.text;
        self.marks.retain(|key, mark| {
            let stays = stays(mark);
            *text -= if stays { 0 } else { key.length() };
            stays
        });
    }
}

/// What a tag's purge is noted under. Only the number is kept, and so it is logged; no tag has such a text.
fn tag_number(tag: &str) -> u64 {
    let number = tag.strip_prefix(NUMBERED).and_then(|number| u64::from_str_radix(number, 16).ok());
    number.unwrap_or_else(|| tag_hash(tag.as_bytes()))
}

fn tag_text(number: u64) -> String {
    format!("{NUMBERED}{number:016x}")
}

const NUMBERED: &str = "\u{1}#";

/// The marks of all prefixes of a text, the longest first.
fn prefixes_of<'a>(marks: &'a BTreeMap<Box<str>, Mark>, text: &'a str) -> impl Iterator<Item = &'a Mark> {
    let mut rest = (!marks.is_empty()).then_some(text);
    std::iter::from_fn(move || {
        while let Some(text) = rest {
            let (found, mark) = marks.range::<str, _>((Bound::Unbounded, Bound::Included(text))).next_back()?;
            // Between `found` and `text` lies none. So a further prefix is not longer than what both have in common.
            let mut common = found.bytes().zip(text.bytes()).take_while(|(a, b)| a == b).count();
            if common == found.len() {
                let shorter = text[..common].char_indices().next_back();
                rest = shorter.map(|(end, _)| &text[..end]);
                return Some(mark);
            }
            while !text.is_char_boundary(common) {
                common -= 1;
            }
            rest = Some(&text[..common]);
        }
        None
    })
}

/// The host of an authority that has a port.
fn without_port(authority: &str) -> Option<&str> {
    let (host, port) = authority.rsplit_once(':')?;
    (!port.contains(']')).then_some(host)
}

/// How many bytes a key has outside of the table.
trait Length {
    fn length(&self) -> usize;
}

impl Length for Box<str> {
    fn length(&self) -> usize {
        self.len()
    }
}

impl Length for u64 {
    fn length(&self) -> usize {
        0
    }
}
