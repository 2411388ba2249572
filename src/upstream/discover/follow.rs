//! `Follower`: knows the servers of one upstream over time: asks its source and the names of its servers when they are
//! due, and takes what they tell as a whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::{Instant, sleep_until};

use super::asking::Asking;
use super::names::Names;
use super::source::{Fault, Source, Tally};
use crate::keep::Keep;
use crate::observe::DiscoveryStats;
use crate::upstream::last_good::LastGood;
use crate::upstream::server::{self, Server};

/// The target of log lines.
const TARGET: &str = "edgeway::discover";
/// What stands for the source among the names that are asked for.
const SOURCE: &str = "";

/// What went wrong, by what was asked for.
pub type Troubles = BTreeMap<String, Fault>;

/// The addresses of names.
pub type Addresses = BTreeMap<String, Vec<IpAddr>>;

/// Which servers there are at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// The servers that the source told.
    pub servers: Vec<Server>,
    /// The addresses of the names among them.
    pub addresses: Addresses,
    /// The addresses of the names among the servers that the document lists.
    pub listed: Addresses,
}

/// The last sound list of a source, and what holds the addresses of its names. Kept over reloads by what the source is.
#[derive(Debug, Default)]
pub struct LastList(Mutex<(Vec<Server>, Held)>);

/// What holds the addresses of names.
type Held = BTreeMap<String, Arc<LastGood>>;

impl LastList {
    /// The servers, and the addresses of the names among them; none when there never was a list.
    pub fn get(&self) -> (Vec<Server>, Addresses) {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (servers, names) = &*last;
        (servers.clone(), names.iter().map(|(name, last_good)| (name.clone(), last_good.get())).collect())
    }

    fn names(&self) -> BTreeSet<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.keys().cloned().collect()
    }

    fn set(&self, servers: Vec<Server>, names: Held) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (servers, names);
    }
}

/// A source that is asked again and again.
pub struct Asked {
    /// The source.
    pub source: Box<dyn Source>,
    /// Whom its names are asked of.
    pub asking: Asking,
    /// Its last sound list.
    pub last: Arc<LastList>,
}

/// Knows the servers of one upstream.
pub struct Follower {
    listed: BTreeSet<String>,
    listed_names: Names,
    asked: Option<SourceState>,
}

struct SourceState {
    source: Box<dyn Source>,
    names: Names,
    last: Arc<LastList>,
    /// A sound list that waits for the addresses of its names.
    offered: Option<Vec<Server>>,
    due: Instant,
    failures: u32,
    fault: Option<Fault>,
}

impl Follower {
    /// Follows the names that the document lists, as those name servers know them, and a source. Everything is due at once.
    pub fn new(listed: BTreeSet<String>, known_by: Asking, asked: Option<Asked>, keep: &Arc<Keep>) -> Self {
        let asked = asked.map(|Asked { source, asking, last }| SourceState {
            source,
            names: Names::new(asking, Arc::clone(keep)),
            last,
            offered: None,
            due: Instant::now(),
            failures: 0,
            fault: None,
        });
        Self { listed, listed_names: Names::new(known_by, Arc::clone(keep)), asked }
    }

    /// Goes on from what was known when the document was loaded: what is known need not be asked for at once.
    pub fn resume(&mut self) {
        self.listed_names.resume(&self.listed);
        if let Some(asked) = &mut self.asked {
            let (servers, _) = asked.last.get();
            if !servers.is_empty() {
                asked.names.resume(&asked.last.names());
                asked.due = Instant::now() + asked.source.pause(1);
            }
        }
    }

    /// Asks whatever is due.
    pub async fn round(&mut self) -> Tally {
        let mut tally = self.listed_names.refresh(&self.listed).await;
        if let Some(asked) = &mut self.asked {
            tally += asked.round().await;
        }
        tally
    }

    /// When something is due again.
    pub fn due(&self) -> Option<Instant> {
        let asked = self.asked.as_ref();
        let source = asked.map(|asked| asked.due);
        let names = asked.and_then(|asked| asked.names.due());
        [source, names, self.listed_names.due()].into_iter().flatten().min()
    }

    /// Which servers there are.
    pub fn roster(&self) -> Roster {
        let listed = self.listed_names.addresses();
        match &self.asked {
            Some(asked) => {
                let (servers, addresses) = asked.last.get();
                Roster { servers, addresses, listed }
            }
            None => Roster { listed, ..Roster::default() },
        }
    }

    /// The first thing that went wrong when it was last asked for; what concerns the source as a whole before all else.
    pub fn trouble(&self) -> Option<Fault> {
        self.troubles().into_values().next()
    }

    /// All that went wrong when it was last asked for, by what was asked for.
    pub fn troubles(&self) -> Troubles {
        let mut troubles = BTreeMap::new();
        let mut note = |name: &str, reason: &str| {
            let fault = Fault::Failed(format!("`{name}` cannot be resolved: {reason}"));
            troubles.insert(name.to_owned(), fault);
        };
        self.listed_names.faults().for_each(|(name, reason)| note(name, reason));
        if let Some(asked) = &self.asked {
            let in_force = asked.last.names();
            let faults = asked.names.faults().filter(|(name, _)| in_force.contains(*name));
            faults.for_each(|(name, reason)| note(name, reason));
            let source = asked.fault.clone().or_else(|| asked.waits_for_names());
            troubles.extend(source.map(|fault| (SOURCE.to_owned(), fault)));
        }
        troubles
    }
}

impl SourceState {
    async fn round(&mut self) -> Tally {
        let mut tally = Tally::default();
        if self.due <= Instant::now() {
            tally += self.ask().await;
        }
        let offered = self.offered.as_deref().map(|offered| server::names(offered).collect::<BTreeSet<_>>());
        let mut wanted = self.last.names();
        wanted.extend(offered.iter().flatten().cloned());
        tally += self.names.refresh(&wanted).await;
        if let Some(names) = offered.filter(|names| self.names.missing(names).is_none()) {
            self.names.keep_only(&names);
            self.last.set(self.offered.take().unwrap_or_default(), self.names.held());
        }
        tally
    }

    async fn ask(&mut self) -> Tally {
        let mut tally = Tally { asked: 1, ..Tally::default() };
        let pause = match self.source.ask().await {
            Ok(told) => {
                (self.failures, self.fault) = (0, None);
                self.offered = told.servers.or_else(|| self.offered.take());
                told.again
            }
            Err(fault) => {
                match fault {
                    Fault::Failed(_) => tally.failed = 1,
                    Fault::Refused(_) => tally.refused = 1,
                }
                (self.failures, self.fault) = (self.failures + 1, Some(fault));
                self.source.pause(self.failures)
            }
        };
        self.due = Instant::now() + pause;
        tally
    }

    /// Why the list that was offered is not in force.
    fn waits_for_names(&self) -> Option<Fault> {
        let names = server::names(self.offered.as_deref()?).collect();
        let (name, reason) = self.names.missing(&names)?;
        Some(Fault::Failed(format!("no host is known by the name `{name}` ({reason})")))
    }
}

/// Follows for as long as the task lives, and gives `take` each roster that differs from the one `in_force`.
pub async fn follow(
    mut follower: Follower,
    mut in_force: Roster,
    upstream: Arc<str>,
    stats: &DiscoveryStats,
    take: impl Fn(&Roster) + Send,
) {
    let mut known = BTreeMap::new();
    while let Some(due) = follower.due() {
        sleep_until(due).await;
        let tally = follower.round().await;
        if tally.asked == 0 {
            continue;
        }
        let roster = follower.roster();
        let changed = roster != in_force;
        if changed {
            take(&roster);
            in_force = roster;
        }
        let troubles = follower.troubles();
        tell(&upstream, &known, &troubles);
        count(stats, tally, changed, troubles.is_empty());
        known = troubles;
    }
}

/// Tells what has become wrong, and what is right again: once, however often it is asked for.
fn tell(upstream: &str, before: &Troubles, now: &Troubles) {
    for (asked, fault) in now {
        match (before.get(asked), fault) {
            (Some(known), _) if known == fault => {}
            // Why nobody answers may differ from one time to the next.
            (Some(Fault::Failed(_)), Fault::Failed(_)) => {}
            (_, Fault::Failed(reason)) => {
                tracing::warn!(target: TARGET, upstream, "{reason}; what was known before, if anything, stays in use");
            }
            (_, Fault::Refused(reason)) => {
                tracing::warn!(target: TARGET, upstream, "a list of servers is refused, the old one stays in force: {reason}");
            }
        }
    }
    for asked in before.keys().filter(|asked| !now.contains_key(*asked)) {
        match asked.as_str() {
            SOURCE => tracing::info!(target: TARGET, upstream, "the list of servers is known again"),
            name => tracing::info!(target: TARGET, upstream, "`{name}` can be resolved again"),
        }
    }
}

fn count(stats: &DiscoveryStats, tally: Tally, changed: bool, sound: bool) {
    if changed {
        stats.updated.inc();
    }
    if tally.failed > 0 {
        stats.failed.inc();
    }
    if tally.refused > 0 {
        stats.refused.inc();
    }
    if !changed && tally.failed + tally.refused == 0 {
        stats.unchanged.inc();
    }
    if sound {
        stats.note_good();
    }
}
