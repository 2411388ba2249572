//! What goes on in the background: the scan after a start, then a look each second, the order of use each minute.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::store::Store;
use super::{recover, version};

const SECOND: Duration = Duration::from_secs(1);
/// The order of use is saved after so many seconds.
const SAVED_AFTER: u32 = 60;

/// Runs until the store is stopped or dropped.
pub(super) async fn run(store: Weak<Store>) {
    if !look_through(&store, true).await {
        return;
    }
    let mut state = Upkeep::default();
    loop {
        tokio::time::sleep(SECOND).await;
        let Some(store_now) = living(&store) else { return };
        let mut own = std::mem::take(&mut state);
        let done = store_now.blocking(move |store| {
            let again = own.look_after(store);
            (own, again)
        });
        let Ok((own, again)) = done.await else { return };
        drop(store_now);
        state = own;
        if again && !look_through(&store, false).await {
            return;
        }
    }
}

fn living(store: &Weak<Store>) -> Option<Arc<Store>> {
    store.upgrade().filter(|store| !store.stopped.load(Relaxed))
}

/// Looks through the whole directory, resting half of the time. False: the store is gone.
async fn look_through(store: &Weak<Store>, first: bool) -> bool {
    for directory in 0..=u8::MAX {
        let Some(store) = living(store) else { return false };
        let begun = Instant::now();
        let done = store.blocking(move |store| {
            if first && directory == 0 {
                recover::load_order(store);
            }
            recover::scan(store, directory);
        });
        if done.await.is_err() {
            return false;
        }
        drop(store);
        if begun.elapsed() > Duration::from_millis(2) {
            tokio::time::sleep(begun.elapsed()).await;
        }
    }
    let Some(store) = living(store) else { return false };
    let done = store.blocking(move |store| {
        recover::finish(store, store.home.others());
        version::delete_old(&store.files);
    });
    done.await.is_ok()
}

/// What is remembered between two looks.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    seconds: u32,
    others: u64,
    saved: u64,
}

impl Upkeep {
    /// One look; true: all of the directory must be looked through again.
    pub(super) fn look_after(&mut self, store: &Store) -> bool {
        for (id, generation) in store.faults.take_broken() {
            store.discard(&id, Some(generation));
        }
        let is_new = store.home.restore().inspect_err(|error| store.note_write(error)).unwrap_or(false);
        if is_new {
            _ = version::check(&store.files).inspect_err(|error| store.note_write(error));
        }
        let are_gone = self.count_others(store);
        store.trim();
        self.save(store);
        is_new || are_gone
    }

    /// Who else is there; true: the last of them has gone.
    fn count_others(&mut self, store: &Store) -> bool {
        let before = std::mem::replace(&mut self.others, store.home.others());
        store.budget.share(self.others);
        if self.others > 0 {
            store.watchful.store(true, Relaxed);
        }
        let was_shared = before > 0 || store.watchful.load(Relaxed);
        self.others == 0 && was_shared
    }

    fn save(&mut self, store: &Store) {
        self.seconds += 1;
        let bytes = store.budget.bytes();
        if bytes != self.saved {
            self.saved = bytes;
            _ = recover::save_usage(store).inspect_err(|error| store.note_write(error));
        }
        if self.seconds.is_multiple_of(SAVED_AFTER) {
            _ = recover::save_order(store).inspect_err(|error| store.note_write(error));
        }
    }
}
