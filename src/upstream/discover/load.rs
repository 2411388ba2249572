//! Asks all sources of a document once, before anything needs their servers.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Config;
use super::follow::{Addresses, Asked, Follower, LastList};
use super::source::{Fault, Given};
use crate::keep::Keep;
use crate::upstream::server::Server;

/// What a source told while a document was compiled, or what it told before.
#[derive(Debug)]
pub struct Loaded {
    /// The servers; none when there never was a list.
    pub servers: Vec<Server>,
    /// The addresses of the names among them.
    pub addresses: Addresses,
    /// Why that is not what the source says now.
    pub fault: Option<Fault>,
    /// Held by whoever uses the servers: the list is forgotten with its last holder.
    pub last: Arc<LastList>,
}

impl Config {
    /// The source as something to follow.
    pub fn asked(&self, given: &Given<'_>, keep: &Keep) -> Asked {
        let last = keep.get_or(&self.identity(given.folder), LastList::default);
        Asked { source: self.build(given), asking: self.asking(), last }
    }
}

/// Sources that are being asked.
pub struct Asking {
    loaded: BTreeMap<String, Loaded>,
    thread: Option<JoinHandle<Told>>,
}

/// Who was asked in time, and what is wrong with what it told.
type Told = Vec<(String, Option<Fault>)>;

/// Begins to ask these sources, all at the same time and for no longer than `patience`.
pub fn begin<'a>(
    configs: impl IntoIterator<Item = &'a Config>,
    folder: &Path,
    keep: &Arc<Keep>,
    patience: Duration,
) -> Asking {
    let (mut followers, mut loaded) = (Vec::new(), BTreeMap::new());
    // Its connections end with the thread.
    let given = Given { folder, client: &Arc::default() };
    // What is wrong with the others is told where they are built.
    for config in configs.into_iter().filter(|config| config.is_sound()) {
        let Entry::Vacant(entry) = loaded.entry(config.identity(folder)) else { continue };
        let asked = config.asked(&given, keep);
        let late = Fault::Failed(format!("no answer within {} s", patience.as_secs_f32()));
        let last = Arc::clone(&asked.last);
        followers.push((entry.key().clone(), Follower::new(BTreeSet::new(), Default::default(), Some(asked), keep)));
        entry.insert(Loaded { servers: Vec::new(), addresses: Addresses::new(), fault: Some(late), last });
    }
    // On a thread of its own: whoever compiles may itself be within a runtime. Without one to spare, nobody is asked.
    let ask = move || ask_within(followers, patience);
    let thread = (!loaded.is_empty()).then(|| thread::Builder::new().name("discover".to_owned()).spawn(ask));
    Asking { loaded, thread: thread.and_then(Result::ok) }
}

impl Asking {
    /// What they told, by [`Config::identity`]. Blocks until all have answered or the patience is at its end: not for a
    /// thread that serves requests.
    pub fn end(mut self) -> BTreeMap<String, Loaded> {
        let told = self.thread.and_then(|thread| thread.join().ok()).unwrap_or_default();
        for (identity, fault) in told {
            if let Some(loaded) = self.loaded.get_mut(&identity) {
                loaded.fault = fault;
            }
        }
        for loaded in self.loaded.values_mut() {
            (loaded.servers, loaded.addresses) = loaded.last.get();
        }
        self.loaded
    }
}

fn ask_within(followers: Vec<(String, Follower)>, patience: Duration) -> Told {
    let mut told = Vec::new();
    let Ok(runtime) = Builder::new_current_thread().enable_all().build() else { return told };
    runtime.block_on(async {
        let mut rounds = JoinSet::new();
        for (identity, mut follower) in followers {
            rounds.spawn(async move {
                follower.round().await;
                (identity, follower.trouble())
            });
        }
        let all = async {
            while let Some(done) = rounds.join_next().await {
                told.extend(done.ok());
            }
        };
        // Who is too late has told nothing.
        let _ = timeout(patience, all).await;
    });
    // A lookup that blocks is not waited for.
    runtime.shutdown_background();
    told
}
