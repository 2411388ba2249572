//! `Keep`: what outlives a reload (counters, health of backends), by type and key.
//!
//! It holds weak references: a thing lives as long as some snapshot uses it, so a block that leaves the document takes
//! its state along, and one that stays finds its state again. Used while compiling, never while serving.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

/// Things of one type.
#[derive(Default)]
struct Shelf {
    things: BTreeMap<String, Weak<dyn Any + Send + Sync>>,
    /// With so many it is looked through for dead ones, whose memory is given back only then.
    full: usize,
}

/// Fewer dead things than these are not worth a look.
const FEW: usize = 64;

/// The things that outlive a reload.
#[derive(Default)]
pub struct Keep {
    shelves: Mutex<BTreeMap<TypeId, Shelf>>,
}

impl Keep {
    /// The `T` that is kept under `key`, or a new one from `make`.
    pub fn get_or<T: Any + Send + Sync>(&self, key: &str, make: impl FnOnce() -> T) -> Arc<T> {
        let mut shelves = self.lock();
        let shelf = shelves.entry(TypeId::of::<T>()).or_default();
        if let Some(kept) = shelf.things.get(key).and_then(Weak::upgrade).and_then(|any| any.downcast::<T>().ok()) {
            return kept;
        }
        let made = Arc::new(make());
        let any: Arc<dyn Any + Send + Sync> = made.clone();
        if shelf.things.len() >= shelf.full {
            shelf.tidy();
        }
        shelf.things.insert(key.to_owned(), Arc::downgrade(&any));
        made
    }

    /// Every living `T` with its key, in the order of keys; forgets the dead ones.
    pub fn all<T: Any + Send + Sync>(&self) -> Vec<(String, Arc<T>)> {
        let mut shelves = self.lock();
        let Some(shelf) = shelves.get_mut(&TypeId::of::<T>()) else { return Vec::new() };
        shelf.tidy();
        shelf
            .things
            .iter()
            .filter_map(|(key, weak)| Some((key.clone(), weak.upgrade()?.downcast::<T>().ok()?)))
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<TypeId, Shelf>> {
        self.shelves.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Shelf {
    /// Forgets the dead ones, and waits until as many have come as are left, so that a look costs each but a moment.
    fn tidy(&mut self) {
        self.things.retain(|_, weak| weak.strong_count() > 0);
        self.full = (2 * self.things.len()).max(FEW);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dead_is_forgotten_though_nobody_asks_for_all() {
        let keep = Keep::default();
        let living: Vec<_> = (0..100_u32).map(|number| keep.get_or(&format!("living {number}"), || number)).collect();
        for number in 0..10_000_u32 {
            drop(keep.get_or(&number.to_string(), || number));
        }
        let kept = keep.lock().values().map(|shelf| shelf.things.len()).sum::<usize>();
        assert!(kept <= 2 * living.len(), "{kept} things are kept");
        assert!(Arc::ptr_eq(&living[7], &keep.get_or("living 7", || 0)));
    }

    #[test]
    fn a_thing_lives_as_long_as_somebody_uses_it() {
        let keep = Keep::default();
        let first = keep.get_or("a", || 7_u32);
        assert!(Arc::ptr_eq(&first, &keep.get_or("a", || 8_u32)));
        assert_eq!(keep.all::<u32>().len(), 1);
        drop(first);
        assert_eq!(keep.all::<u32>().len(), 0);
        assert_eq!(*keep.get_or("a", || 9_u32), 9);
    }
}
