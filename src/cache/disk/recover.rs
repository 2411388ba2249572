//! After a start: takes in the saved order of use, then looks through the directory, one of its 256 parts at a time.
//!
//! The order makes most objects known, and evictable, before the scan has met them. The scan adds what the order lacks,
//! drops what is gone, and deletes what is damaged or belongs to nothing. Nobody waits for it.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::sync::atomic::Ordering::Relaxed;

use super::files::{is_gone, replace};
use super::format::{Name, decode_order, decode_usage, encode_order, encode_usage};
use super::store::Store;
use crate::cache::id::Id;
use crate::cache::tick::Tick;

const ORDER: &str = "order";
const USAGE: &str = "usage";

/// How many bytes were in use by the last count. `root`: the cache's directory.
pub(super) fn usage(root: &std::path::Path) -> u64 {
    fs::read(root.join(USAGE)).ok().and_then(|file| decode_usage(&file)).unwrap_or_default()
}

/// Saves how many bytes are in use, for a start after a crash.
pub(super) fn save_usage(store: &Store) -> io::Result<()> {
    replace(&store.home.path(USAGE), &store.files.below(USAGE), &encode_usage(store.budget.bytes()))
}

/// Saves the order of use, for the next start.
pub(super) fn save_order(store: &Store) -> io::Result<()> {
    let file = encode_order(store.index.places().into_iter());
    replace(&store.home.path(ORDER), &store.files.below(ORDER), &file)
}

/// Takes in the order of the last run.
pub(super) fn load_order(store: &Store) {
    let file = fs::read(store.files.below(ORDER)).unwrap_or_default();
    for place in decode_order(&file) {
        Tick::after(place.generation);
        if store.index.restore(&place) {
            store.budget.meet(place.blocks.into());
        }
    }
}

/// Looks through one of the 256 directories.
pub(super) fn scan(store: &Store, directory: u8) {
    let mut gone: HashSet<Id> = store.index.of_directory(directory).into_iter().collect();
    let mut bodies = Vec::new();
    for entry in fs::read_dir(store.files.directory(directory)).into_iter().flatten().flatten() {
        match entry.file_name().to_str().and_then(Name::parse) {
            Some(Name::Meta(id)) if id.bytes()[0] == directory => {
                gone.remove(&id);
                meet(store, &id);
            }
            Some(Name::Body(id, generation)) if id.bytes()[0] == directory => bodies.push((id, generation)),
            _ => {}
        }
    }
    for id in gone {
        if let Some(known) = store.index.get(&id)
            && !store.files.meta(&id).exists()
        {
            store.forget(&id, known.generation);
        }
    }
    let orphans =
        bodies.iter().filter(|(id, generation)| store.index.get(id).is_none_or(|k| k.generation != *generation));
    orphans.for_each(|(id, generation)| delete_orphan(store, id, *generation));
}

/// Looks at the file of an object, and takes the object in.
fn meet(store: &Store, id: &Id) {
    let is_new = store.index.get(id).is_none();
    match store.files.head(id) {
        Ok(Some((head, length))) => {
            Tick::after(head.asked);
            let body = store.files.body(id, head.generation);
            let is_whole = length == head.file_len()
                && (head.inline || fs::metadata(body).is_ok_and(|facts| facts.len() == head.body));
            if is_whole {
                store.meet(id, &head);
                if is_new {
                    store.stats.recovered.inc();
                }
            } else {
                store.discard(id, Some(head.generation));
            }
        }
        Ok(None) => store.discard(id, None),
        // Not readable now, or replaced or removed meanwhile: whoever asks for it will see.
        Err(_) => {}
    }
}

/// Deletes a body to which no `.m` belongs. A commit in its midst holds the lock.
fn delete_orphan(store: &Store, id: &Id, generation: Tick) {
    let deleted = store.files.lock(id).and_then(|_lock| {
        match store.files.head(id) {
            Ok(Some((head, _))) if head.generation == generation && !head.inline => return Ok(false),
            Err(error) if !is_gone(&error) => return Err(error),
            _ => {}
        }
        store.files.remove(&store.files.body(id, generation))
    });
    if matches!(deleted, Ok(true)) {
        store.stats.discarded.inc();
    }
}

/// All was looked through. `others`: how many other processes share the directory.
pub(super) fn finish(store: &Store, others: u64) {
    store.budget.counted();
    store.watchful.store(others > 0, Relaxed);
    store.trim();
}
