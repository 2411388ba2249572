//! `Fills`: the responses on their way, by id, so that of many requests for one thing only one goes to the origin.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::object::Fill;
use super::{Id, Tick};

const SHARDS: usize = 16;

/// The responses on their way.
#[derive(Debug, Default)]
pub struct Fills {
    shards: [Mutex<HashMap<Id, Arc<Fill>>>; SHARDS],
}

/// The id of a fill that nobody looks for: each tick is there once.
fn own_id(fill: &Fill) -> Id {
    fill.id.with(&fill.asked.0.to_le_bytes())
}

/// The place of a request at a fill.
pub enum Joined {
    /// It is to begin it.
    First(Arc<Fill>),
    /// Another request has begun it.
    Later(Arc<Fill>),
}

impl Fills {
    fn shard(&self, id: &Id) -> MutexGuard<'_, HashMap<Id, Arc<Fill>>> {
        // Less than SHARDS.
        self.shards[(id.bits() % SHARDS as u64) as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fill for this id, or a new one; `primary`: the id of the URL, if this is one of its variants or parts.
    pub fn join(&self, id: Id, primary: Id) -> Joined {
        let mut shard = self.shard(&id);
        if let Some(fill) = shard.get(&id) {
            return Joined::Later(Arc::clone(fill));
        }
        let fill = Fill::new(id, primary, Tick::now());
        shard.insert(id, Arc::clone(&fill));
        Joined::First(fill)
    }

    /// A new fill that nobody joins, but that is made void as all are.
    pub fn apart(&self, id: Id, primary: Id) -> Arc<Fill> {
        let fill = Fill::new(id, primary, Tick::now());
        self.enter(own_id(&fill), &fill);
        fill
    }

    /// The fill for this id, if there is one.
    pub fn get(&self, id: &Id) -> Option<Arc<Fill>> {
        self.shard(id).get(id).cloned()
    }

    /// Makes a fill known under an id: one more, or the first if it was not begun by `join`.
    pub fn enter(&self, id: Id, fill: &Arc<Fill>) {
        self.shard(&id).insert(id, Arc::clone(fill));
    }

    /// The fill for this id is no longer to be joined.
    pub fn leave(&self, id: &Id, fill: &Arc<Fill>) {
        if !self.remove(id, fill) {
            self.remove(&own_id(fill), fill);
        }
    }

    fn remove(&self, id: &Id, fill: &Arc<Fill>) -> bool {
        let mut shard = self.shard(id);
        let is_there = shard.get(id).is_some_and(|known| Arc::ptr_eq(known, fill));
        if is_there {
            shard.remove(id);
        }
        is_there
    }

    /// What is on its way for this URL must not be stored: it was asked for before something changed.
    pub fn make_void(&self, primary: Id) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|_, fill| {
                let is_void = fill.primary == primary;
                if is_void {
                    fill.make_void();
                }
                !is_void
            });
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_joins_is_made_void_too() {
        let (fills, id, primary) = (Fills::default(), Id::of(b"variant"), Id::of(b"url"));
        let apart = fills.apart(id, primary);
        let Joined::First(first) = fills.join(id, primary) else { panic!("one joined what is apart") };
        assert!(matches!(fills.join(id, primary), Joined::Later(fill) if Arc::ptr_eq(&fill, &first)));
        fills.make_void(Id::of(b"other"));
        assert!(!apart.is_void() && !first.is_void());
        fills.make_void(primary);
        assert!(apart.is_void() && first.is_void() && fills.is_empty());
    }

    #[test]
    fn whoever_leaves_is_no_longer_there() {
        let (fills, id) = (Fills::default(), Id::of(b"url"));
        let apart = fills.apart(id, id);
        let Joined::First(first) = fills.join(id, id) else { panic!("one joined what is apart") };
        fills.leave(&id, &apart);
        assert_eq!(fills.len(), 1);
        fills.leave(&id, &first);
        assert!(fills.is_empty());
    }
}
