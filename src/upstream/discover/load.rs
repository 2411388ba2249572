//! Asks all sources of a document once, before anything needs their servers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Config;
use super::follow::{Addresses, Asked, Follower, LastList};
use super::source::Fault;
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
    /// The source as something to follow. Relative paths begin at `folder`.
    pub fn asked(&self, folder: &Path, keep: &Keep) -> Asked {
        let last = keep.get_or(&self.identity(folder), LastList::default);
        Asked { source: self.build(folder), asking: self.asking(), last }
    }
}

/// Asks these sources all at the same time, and waits no longer than `patience`. What they told is found by
/// [`Config::identity`]. Blocks: not for a thread that serves requests.
pub fn ask_all<'a>(
    configs: impl IntoIterator<Item = &'a Config>,
    folder: &Path,
    keep: &Arc<Keep>,
    patience: Duration,
) -> BTreeMap<String, Loaded> {
    let configs: BTreeMap<_, _> = configs.into_iter().map(|config| (config.identity(folder), config)).collect();
    if configs.is_empty() {
        return BTreeMap::new();
    }
    let mut askers = Vec::new();
    let mut loaded = BTreeMap::new();
    for (identity, config) in configs {
        let asked = config.asked(folder, keep);
        let late = Fault::Failed(format!("no answer within {} s", patience.as_secs_f32()));
        loaded.insert(
            identity.clone(),
            Loaded {
                servers: Vec::new(),
                addresses: Addresses::new(),
                fault: Some(late),
                last: Arc::clone(&asked.last),
            },
        );
        askers.push((identity, Follower::new(BTreeSet::new(), Some(asked), keep)));
    }
    // On a thread of its own: whoever compiles may itself be within a runtime.
    let asking = thread::Builder::new().name("discover".to_owned()).spawn(move || ask_within(askers, patience));
    let told = match asking.map(thread::JoinHandle::join) {
        Ok(Ok(told)) => told,
        Ok(Err(_)) | Err(_) => Vec::new(),
    };
    for (identity, fault) in told {
        if let Some(loaded) = loaded.get_mut(&identity) {
            loaded.fault = fault;
        }
    }
    for loaded in loaded.values_mut() {
        (loaded.servers, loaded.addresses) = loaded.last.get();
    }
    loaded
}

/// Those that were asked in time, and what is wrong with what they told.
fn ask_within(askers: Vec<(String, Follower)>, patience: Duration) -> Vec<(String, Option<Fault>)> {
    let mut told = Vec::new();
    let Ok(runtime) = Builder::new_current_thread().enable_all().build() else { return told };
    runtime.block_on(async {
        let mut rounds = JoinSet::new();
        for (identity, mut follower) in askers {
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
