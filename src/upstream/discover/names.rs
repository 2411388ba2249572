//! `Names`: the addresses of the names in a list, asked for again whenever their time to live is over.
//!
//! When a name cannot be resolved, the addresses it had stay in use, and it is asked for again after a growing pause.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::ask::{Answer, Asker, PATIENCE};
use super::asking::Asking;
use super::source::{Tally, growing_pause};
use crate::keep::Keep;
use crate::upstream::last_good::LastGood;

/// How many names are asked for at the same time: each takes a socket or two.
const AT_ONCE: usize = 64;

/// The addresses of names.
pub struct Names {
    asking: Asking,
    asker: Asker,
    keep: Arc<Keep>,
    known: BTreeMap<String, Known>,
}

/// What is known of a name.
struct Known {
    /// Its addresses, over reloads. Empty: it never had any.
    last_good: Arc<LastGood>,
    /// When to ask again.
    due: Instant,
    failures: u32,
    /// Why the last question has no answer.
    fault: Option<String>,
}

impl Names {
    /// No names yet.
    pub fn new(asking: Asking, keep: Arc<Keep>) -> Self {
        Self { asker: Asker::new(&asking.servers), asking, keep, known: BTreeMap::new() }
    }

    /// Takes what was known of these names before, and lets it hold for as long as an answer holds at least.
    pub fn resume(&mut self, names: &BTreeSet<String>) {
        let due = Instant::now() + self.asking.min_ttl;
        for name in names {
            let last_good = LastGood::of(name, &self.asking.servers, &self.keep);
            if !last_good.get().is_empty() {
                self.known.insert(name.clone(), Known { last_good, due, failures: 0, fault: None });
            }
        }
    }

    /// Forgets all names but these.
    pub fn keep_only(&mut self, names: &BTreeSet<String>) {
        self.known.retain(|name, _| names.contains(name));
    }

    /// Asks for those of the `wanted` names that are due, all at the same time, and forgets all that are not wanted.
    pub async fn refresh(&mut self, wanted: &BTreeSet<String>) -> Tally {
        self.keep_only(wanted);
        let (mut asked, room) = (JoinSet::new(), Arc::new(Semaphore::new(AT_ONCE)));
        let now = Instant::now();
        for name in wanted {
            let last_good = match self.known.get(name) {
                Some(known) if known.due > now => continue,
                Some(known) => Arc::clone(&known.last_good),
                None => LastGood::of(name, &self.asking.servers, &self.keep),
            };
            let (asker, name, room) = (self.asker.clone(), name.clone(), Arc::clone(&room));
            asked.spawn(async move {
                let _place = room.acquire().await;
                let before = last_good.get();
                let answer = timeout(PATIENCE, asker.addresses(&name, &before)).await;
                let late = || Err(format!("no answer within {} s", PATIENCE.as_secs()));
                (name, last_good, answer.unwrap_or_else(|_| late()))
            });
        }
        let mut tally = Tally { asked: asked.len(), ..Tally::default() };
        while let Some(done) = asked.join_next().await {
            // A task that panicked leaves its name due.
            if let Ok((name, last_good, answer)) = done {
                tally.failed += usize::from(answer.is_err());
                self.note(name, last_good, answer);
            }
        }
        tally
    }

    fn note(&mut self, name: String, last_good: Arc<LastGood>, answer: Result<Answer<Vec<IpAddr>>, String>) {
        let failures = self.known.get(&name).map_or(0, |known| known.failures);
        let (pause, failures, fault) = match answer {
            Ok(answer) => {
                last_good.set(answer.found);
                (self.asking.clamp(answer.ttl), 0, None)
            }
            Err(reason) => (growing_pause(self.asking.min_ttl, failures + 1), failures + 1, Some(reason)),
        };
        self.known.insert(name, Known { last_good, due: Instant::now() + pause, failures, fault });
    }

    /// What holds the addresses of all names.
    pub fn held(&self) -> BTreeMap<String, Arc<LastGood>> {
        self.known.iter().map(|(name, known)| (name.clone(), Arc::clone(&known.last_good))).collect()
    }

    /// The addresses of all names, IPv4 first; empty where they are not known.
    pub fn addresses(&self) -> BTreeMap<String, Vec<IpAddr>> {
        self.known.iter().map(|(name, known)| (name.clone(), known.last_good.get())).collect()
    }

    /// The first of these names that has no address, and why.
    pub fn missing<'a>(&'a self, names: &'a BTreeSet<String>) -> Option<(&'a str, &'a str)> {
        names.iter().find_map(|name| match self.known.get(name) {
            Some(known) if !known.last_good.get().is_empty() => None,
            known => Some((name.as_str(), known.and_then(|known| known.fault.as_deref()).unwrap_or("nobody asked"))),
        })
    }

    /// The names whose last question has no answer, and why.
    pub fn faults(&self) -> impl Iterator<Item = (&str, &str)> {
        self.known.iter().filter_map(|(name, known)| Some((name.as_str(), known.fault.as_deref()?)))
    }

    /// When the next name is due.
    pub fn due(&self) -> Option<Instant> {
        self.known.values().map(|known| known.due).min()
    }
}
