//! `Resolver`: the host names of a document's servers become addresses, all at once, before any of them is used.
//!
//! Names are resolved when a document is compiled, never by a request; in the background they are then asked for again
//! (`discover/`). The last good answer is kept over reloads, so that a reload during an outage of DNS goes through with the
//! addresses known before.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use super::discover::{self, load::Loaded};
use super::last_good::LastGood;
use crate::keep::Keep;

type Lookup = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// How many names are looked up at the same time.
const THREADS: usize = 64;

/// Looks names up.
pub struct Resolver {
    lookup: Arc<Lookup>,
    patience: Duration,
}

impl Resolver {
    /// How long all names together may take, unless told otherwise.
    pub const PATIENCE: Duration = Duration::from_secs(5);

    /// The system's resolver: the hosts file, DNS, and whatever else `nsswitch.conf` names.
    pub fn system() -> Self {
        Self::with(Self::PATIENCE, |name| Ok((name, 0).to_socket_addrs()?.map(|at| at.ip()).collect()))
    }

    /// A resolver that asks `lookup`, which may block, and waits no longer than `patience` for all names together.
    pub fn with(patience: Duration, lookup: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        Self { lookup: Arc::new(lookup), patience }
    }

    /// Resolves the names. Blocks, for as long as the patience lasts: not for a thread that serves requests.
    pub fn resolve(&self, names: impl IntoIterator<Item = String>, keep: &Keep) -> Resolved {
        let names: BTreeSet<String> = names.into_iter().collect();
        let mut found = self.look_up(&names);
        let late = || Err(format!("no answer within {} s", self.patience.as_secs_f32()));
        let answers = names
            .into_iter()
            .map(|name| {
                let found = found.remove(&name).unwrap_or_else(late);
                let answer = Answer::new(found, LastGood::of(&name, &[], keep));
                (name, answer)
            })
            .collect();
        Resolved { answers, ..Resolved::default() }
    }

    /// What the lookups that came back in time say.
    fn look_up(&self, names: &BTreeSet<String>) -> BTreeMap<String, Result<Vec<IpAddr>, String>> {
        let deadline = Instant::now() + self.patience;
        let queue = Arc::new(Mutex::new(names.clone().into_iter()));
        let (sender, receiver) = mpsc::channel();
        for _ in 0..names.len().min(THREADS) {
            let (lookup, queue, sender) = (self.lookup.clone(), queue.clone(), sender.clone());
            let work = move || {
                while Instant::now() < deadline {
                    let Some(name) = queue.lock().unwrap_or_else(PoisonError::into_inner).next() else { return };
                    let found = lookup(&name).map_err(|error| plain_reason(&error));
                    if sender.send((name, found)).is_err() {
                        return;
                    }
                }
            };
            // A lookup cannot be called off: one that is too late ends in its own time, and nobody listens.
            // Without a thread to spare, those that did start share the names.
            if std::thread::Builder::new().name("resolve".to_owned()).spawn(work).is_err() {
                break;
            }
        }
        drop(sender);
        let mut found = BTreeMap::new();
        while found.len() < names.len() {
            match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok((name, addresses)) => found.insert(name, addresses),
                Err(_) => break,
            };
        }
        found
    }
}

/// What the names of one document resolved to, and what its sources of servers told.
#[derive(Default)]
pub struct Resolved {
    answers: BTreeMap<String, Answer>,
    folder: PathBuf,
    loaded: BTreeMap<String, Loaded>,
}

impl Resolved {
    /// The same, with what the sources told that have relative paths beginning at `folder`.
    #[must_use]
    pub fn with_sources(self, loaded: BTreeMap<String, Loaded>, folder: &Path) -> Self {
        Self { loaded, folder: folder.to_owned(), ..self }
    }

    /// The answer for a name in lower case; `None` when nobody asked for it.
    pub fn get(&self, name: &str) -> Option<&Answer> {
        self.answers.get(name)
    }

    /// What a source told; `None` when nobody asked it.
    pub fn told_by(&self, source: &discover::Config) -> Option<&Loaded> {
        self.loaded.get(&source.identity(&self.folder))
    }

    /// Where relative paths of files begin.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// What one name resolved to.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The addresses, each once, IPv4 before IPv6, else in order of number, so that an answer in another order changes
    /// nothing. Empty: the name is of no use.
    pub addresses: Vec<IpAddr>,
    /// Why the lookup failed. With addresses, these are the last known ones.
    pub fault: Option<String>,
    /// The last good answer, to be held by whoever uses the addresses: it is forgotten with its last holder.
    pub last_good: Arc<LastGood>,
}

impl Answer {
    fn new(found: Result<Vec<IpAddr>, String>, last_good: Arc<LastGood>) -> Self {
        let (addresses, fault) = match found {
            Ok(addresses) if addresses.is_empty() => (last_good.get(), Some("it has no address".to_owned())),
            Ok(addresses) => (last_good.set(addresses), None),
            Err(reason) => (last_good.get(), Some(reason)),
        };
        Self { addresses, fault, last_good }
    }
}

/// `failed to lookup address information: Name or service not known` without its first half, which says nothing.
fn plain_reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.strip_prefix("failed to lookup address information: ").unwrap_or(&text).to_lowercase()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn addresses_come_once_each_with_ipv4_first() {
        let resolver =
            Resolver::with(Duration::from_secs(5), |_| Ok(vec![ip("::1"), ip("10.0.0.2"), ip("10.0.0.1"), ip("::1")]));
        let resolved = resolver.resolve(names(&["app", "app"]), &Keep::default());
        assert_eq!(resolved.get("app").unwrap().addresses, [ip("10.0.0.1"), ip("10.0.0.2"), ip("::1")]);
        assert!(resolved.get("other").is_none());
    }

    #[test]
    fn a_failed_lookup_falls_back_on_the_last_good_answer_while_somebody_holds_it() {
        let down = Arc::new(AtomicBool::new(false));
        let switch = down.clone();
        let resolver = Resolver::with(Duration::from_secs(5), move |_| match switch.load(SeqCst) {
            true => Err(io::Error::other("failed to lookup address information: Try again")),
            false => Ok(vec![ip("10.0.0.1")]),
        });
        let keep = Keep::default();
        let before = resolver.resolve(names(&["app"]), &keep);
        down.store(true, SeqCst);
        let during = resolver.resolve(names(&["app", "new"]), &keep);
        assert_eq!(during.get("app").unwrap().addresses, [ip("10.0.0.1")]);
        assert_eq!(during.get("app").unwrap().fault.as_deref(), Some("try again"));
        assert!(during.get("new").unwrap().addresses.is_empty());
        drop((before, during));
        assert!(resolver.resolve(names(&["app"]), &keep).get("app").unwrap().addresses.is_empty());
    }

    #[test]
    fn one_name_that_hangs_holds_up_neither_the_others_nor_the_whole() {
        let resolver = Resolver::with(Duration::from_millis(300), |name| {
            if name == "slow" {
                std::thread::sleep(Duration::from_secs(5));
            }
            Ok(vec![ip("10.0.0.1")])
        });
        let started = Instant::now();
        let resolved = resolver.resolve(names(&["a", "slow", "z"]), &Keep::default());
        assert!(started.elapsed() < Duration::from_secs(4));
        assert_eq!(resolved.get("a").unwrap().addresses.len(), 1);
        assert_eq!(resolved.get("z").unwrap().addresses.len(), 1);
        assert_eq!(resolved.get("slow").unwrap().fault.as_deref(), Some("no answer within 0.3 s"));
    }

    #[test]
    fn more_names_than_threads_are_all_looked_up() {
        let resolver = Resolver::with(Duration::from_secs(30), |_| Ok(vec![ip("10.0.0.1")]));
        let many: Vec<_> = (0..500).map(|number| format!("app-{number}")).collect();
        let resolved = resolver.resolve(many.clone(), &Keep::default());
        assert!(many.iter().all(|name| resolved.get(name).unwrap().fault.is_none()));
    }

    #[test]
    fn the_system_knows_localhost() {
        let resolved = Resolver::system().resolve(names(&["localhost"]), &Keep::default());
        assert!(resolved.get("localhost").unwrap().addresses.iter().all(IpAddr::is_loopback));
    }
}
