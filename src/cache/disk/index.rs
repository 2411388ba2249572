//! `Index`: which objects lie on disk, and in which order they go: S3-FIFO in each of 16 shards.
//!
//! What is new waits in a small queue (a tenth of the blocks); only what is used there, or comes back soon after it went,
//! enters the main one. So reading through everything once washes nothing out. An object takes 40 bytes here and about
//! 40 in the table; what went is remembered in 4.
//!
//! Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::format::Place;
use crate::cache::id::Id;
use crate::cache::tick::Tick;

const SHARDS: usize = 16;
const NONE: u32 = u32::MAX;
/// A use beyond this changes nothing.
const MOST_USES: u8 = 3;

#[derive(Debug)]
pub(super) struct Index {
    shards: [Mutex<Shard>; SHARDS],
    /// The shard that is asked first for the next victim.
    hand: AtomicUsize,
    count: AtomicUsize,
}

/// What is known of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub generation: Tick,
    pub blocks: u32,
    /// Its body was read in full, and was right.
    pub verified: bool,
}

/// What lies in the table: 40 bytes.
#[derive(Clone, Debug)]
struct Slot {
    id: Id,
    generation: Tick,
    blocks: u32,
    newer: u32,
    older: u32,
    uses: u8,
    in_main: bool,
    verified: bool,
}

#[derive(Debug, Default)]
struct Shard {
    table: HashMap<Id, u32, BuildHasherDefault<TakeBits>>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    small: Queue,
    main: Queue,
    gone: Gone,
}

#[derive(Debug)]
struct Queue {
    newest: u32,
    oldest: u32,
    blocks: u64,
}

impl Default for Queue {
    fn default() -> Self {
        Self { newest: NONE, oldest: NONE, blocks: 0 }
    }
}

/// Ids are digests: any of their bits are a hash.
#[derive(Debug, Default)]
struct TakeBits(u64);

impl Hasher for TakeBits {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.last_chunk::<8>().map_or(0, |bits| u64::from_le_bytes(*bits));
    }
    fn write_usize(&mut self, _length: usize) {}
}

impl Default for Index {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), hand: 0.into(), count: 0.into() }
    }
}

impl Index {
    fn shard(&self, id: &Id) -> MutexGuard<'_, Shard> {
        self.at(usize::from(id.bytes()[0]))
    }

    fn at(&self, shard: usize) -> MutexGuard<'_, Shard> {
        self.shards[shard % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Relaxed)
    }

    pub(super) fn get(&self, id: &Id) -> Option<Known> {
        let shard = self.shard(id);
        shard.table.get(id).map(|at| shard.slots[*at as usize].known())
    }

    /// The same, and counts as a use.
    pub(super) fn used(&self, id: &Id) -> Option<Known> {
        let mut shard = self.shard(id);
        let at = *shard.table.get(id)? as usize;
        let slot = &mut shard.slots[at];
        slot.uses = MOST_USES.min(slot.uses + 1);
        Some(slot.known())
    }

    /// Adds an object, or what it is now; tells what it was before.
    pub(super) fn put(&self, id: &Id, known: Known) -> Option<Known> {
        let before = self.shard(id).put(id, known);
        self.count.fetch_add(usize::from(before.is_none()), Relaxed);
        before
    }

    /// Adds an object from a saved order; false when it is known already.
    pub(super) fn restore(&self, place: &Place) -> bool {
        let new = self.shard(&place.id).restore(place);
        self.count.fetch_add(usize::from(new), Relaxed);
        new
    }

    /// The body of this generation was read in full, and was right.
    pub(super) fn verified(&self, id: &Id, generation: Tick) {
        let mut shard = self.shard(id);
        if let Some(at) = shard.table.get(id).copied() {
            let slot = &mut shard.slots[at as usize];
            slot.verified |= slot.generation == generation;
        }
    }

    /// Removes an object, or only this generation of it.
    pub(super) fn remove(&self, id: &Id, of: Option<Tick>) -> Option<Known> {
        let mut shard = self.shard(id);
        let at = *shard.table.get(id)?;
        let known = shard.slots[at as usize].known();
        if of.is_some_and(|of| of != known.generation) {
            return None;
        }
        shard.remove(at);
        self.count.fetch_sub(1, Relaxed);
        Some(known)
    }

    /// Takes out what goes next: of the shard with most objects, so that all stay alike; of those alike, each in turn.
    pub(super) fn victim(&self) -> Option<(Id, Known)> {
        let from = self.hand.fetch_add(1, Relaxed);
        let in_turn = (0..SHARDS).map(|step| from.wrapping_add(step) % SHARDS);
        let fullest = in_turn.max_by_key(|shard| self.at(*shard).table.len())?;
        let found = self.at(fullest).victim()?;
        self.count.fetch_sub(1, Relaxed);
        Some(found)
    }

    /// All ids of one of the 256 directories.
    pub(super) fn of_directory(&self, directory: u8) -> Vec<Id> {
        let shard = self.at(usize::from(directory));
        shard.table.keys().filter(|id| id.bytes()[0] == directory).copied().collect()
    }

    /// All objects in the order in which they came.
    pub(super) fn places(&self) -> Vec<Place> {
        let mut places = Vec::with_capacity(self.len());
        (0..SHARDS).for_each(|shard| self.at(shard).places(&mut places));
        places
    }
}

impl Slot {
    const fn known(&self) -> Known {
        Known { generation: self.generation, blocks: self.blocks, verified: self.verified }
    }
}

impl Shard {
    fn put(&mut self, id: &Id, known: Known) -> Option<Known> {
        let Known { generation, blocks, verified } = known;
        if let Some(at) = self.table.get(id).copied() {
            let slot = &mut self.slots[at as usize];
            let before = slot.known();
            (slot.generation, slot.blocks, slot.verified) = (generation, blocks, verified);
            let in_main = slot.in_main;
            let queue = self.queue(in_main);
            queue.blocks = queue.blocks + u64::from(blocks) - u64::from(before.blocks);
            return Some(before);
        }
        let in_main = self.gone.take(id);
        self.add(Slot { id: *id, generation, blocks, newer: NONE, older: NONE, uses: 0, in_main, verified });
        None
    }

    fn restore(&mut self, place: &Place) -> bool {
        let Place { id, generation, blocks, usage } = *place;
        let is_new = !self.table.contains_key(&id);
        if is_new {
            let (in_main, uses) = (usage & Place::KEPT > 0, MOST_USES.min(usage & !Place::KEPT));
            self.add(Slot { id, generation, blocks, newer: NONE, older: NONE, uses, in_main, verified: false });
        }
        is_new
    }

    fn add(&mut self, slot: Slot) {
        let (id, in_main) = (slot.id, slot.in_main);
        let at = if let Some(at) = self.free.pop() {
            self.slots[at as usize] = slot;
            at
        } else {
            if self.slots.len() == self.slots.capacity() {
                // Growing by a quarter keeps what an object costs near what it needs.
                self.slots.reserve_exact(16 + self.slots.len() / 4);
            }
            self.slots.push(slot);
            self.slots.len() as u32 - 1
        };
        self.table.insert(id, at);
        self.gone.fit(self.table.len());
        self.link(at, in_main);
    }

    const fn queue(&mut self, main: bool) -> &mut Queue {
        if main { &mut self.main } else { &mut self.small }
    }

    /// Puts a slot at the new end of a queue.
    fn link(&mut self, at: u32, main: bool) {
        let blocks = u64::from(self.slots[at as usize].blocks);
        let queue = self.queue(main);
        let second = std::mem::replace(&mut queue.newest, at);
        queue.blocks += blocks;
        if second == NONE {
            queue.oldest = at;
        } else {
            self.slots[second as usize].newer = at;
        }
        let slot = &mut self.slots[at as usize];
        (slot.in_main, slot.newer, slot.older) = (main, NONE, second);
    }

    fn unlink(&mut self, at: u32) {
        let Slot { newer, older, in_main, blocks, .. } = self.slots[at as usize];
        if newer != NONE {
            self.slots[newer as usize].older = older;
        }
        if older != NONE {
            self.slots[older as usize].newer = newer;
        }
        let queue = self.queue(in_main);
        queue.blocks -= u64::from(blocks);
        if newer == NONE {
            queue.newest = older;
        }
        if older == NONE {
            queue.oldest = newer;
        }
    }

    fn remove(&mut self, at: u32) {
        self.unlink(at);
        self.table.remove(&self.slots[at as usize].id);
        self.free.push(at);
    }

    fn victim(&mut self) -> Option<(Id, Known)> {
        loop {
            let from_small = self.small.oldest != NONE
                && (self.main.oldest == NONE || self.small.blocks * 10 > self.small.blocks + self.main.blocks);
            let at = if from_small { self.small.oldest } else { self.main.oldest };
            let slot = self.slots.get_mut(at as usize)?;
            if slot.uses == 0 {
                let found = (slot.id, slot.known());
                self.remove(at);
                if from_small {
                    self.gone.add(&found.0);
                }
                return Some(found);
            }
            slot.uses -= 1;
            self.unlink(at);
            self.link(at, true);
        }
    }

    fn places(&self, places: &mut Vec<Place>) {
        for (queue, kept) in [(&self.main, Place::KEPT), (&self.small, 0)] {
            let mut at = queue.oldest;
            while let Some(slot) = self.slots.get(at as usize) {
                let Slot { id, generation, blocks, uses, .. } = *slot;
                places.push(Place { id, generation, blocks, usage: kept | uses });
                at = slot.newer;
            }
        }
    }
}

/// Which objects went from the small queue lately: 32 bits of each, the place of one being that of later ones too.
#[derive(Debug, Default)]
struct Gone(Vec<u32>);

impl Gone {
    fn mark(id: &Id) -> u32 {
        (id.bits() >> 32) as u32 | 1
    }

    fn place(&mut self, mark: u32) -> Option<&mut u32> {
        let mask = self.0.len().wrapping_sub(1);
        self.0.get_mut((mark >> 1) as usize & mask)
    }

    fn add(&mut self, id: &Id) {
        let mark = Self::mark(id);
        if let Some(place) = self.place(mark) {
            *place = mark;
        }
    }

    /// Whether it went lately; forgets it.
    fn take(&mut self, id: &Id) -> bool {
        let mark = Self::mark(id);
        self.place(mark).is_some_and(|place| *place == mark && std::mem::take(place) == mark)
    }

    /// Makes it as large as there are objects.
    fn fit(&mut self, objects: usize) {
        if objects > self.0.len() {
            let before = std::mem::replace(&mut self.0, vec![0; objects.next_power_of_two().max(16)]);
            for mark in before.into_iter().filter(|mark| *mark > 0) {
                if let Some(place) = self.place(mark) {
                    *place = mark;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> Id {
        Id::of(&number.to_le_bytes())
    }

    fn known(blocks: u32) -> Known {
        Known { generation: Tick(1), blocks, verified: false }
    }

    #[test]
    fn a_slot_is_as_small_as_it_says() {
        assert_eq!(size_of::<Slot>(), 40);
    }

    #[test]
    fn what_is_put_is_known_until_it_is_removed() {
        let index = Index::default();
        assert_eq!(index.put(&id(1), known(2)), None);
        assert_eq!(index.put(&id(1), known(3)), Some(known(2)));
        assert_eq!((index.get(&id(1)), index.len()), (Some(known(3)), 1));
        assert_eq!(index.remove(&id(1), Some(Tick(2))), None, "another generation");
        index.verified(&id(1), Tick(1));
        assert!(index.get(&id(1)).unwrap().verified);
        assert!(index.remove(&id(1), Some(Tick(1))).is_some());
        assert_eq!((index.get(&id(1)), index.len(), index.victim()), (None, 0, None));
    }

    /// Puts an object in, and takes others out while there are more than `limit`.
    fn store(index: &Index, number: usize, limit: usize) {
        index.put(&id(number), known(1));
        while index.len() > limit {
            index.victim();
        }
    }

    #[test]
    fn a_scan_does_not_wash_out_what_is_used() {
        let index = Index::default();
        for number in 0..1_000 {
            store(&index, number, 1_000);
        }
        for number in 0..500 {
            index.used(&id(number));
        }
        for number in 10_000..50_000 {
            store(&index, number, 1_000);
        }
        let kept = (0..500).filter(|number| index.get(&id(*number)).is_some()).count();
        assert!(kept > 450, "{kept} of 500 are left after a scan of forty times as many");
    }

    #[test]
    fn what_comes_back_soon_after_it_went_is_kept() {
        let index = Index::default();
        (0..1_000).for_each(|number| store(&index, number, 1_000));
        (0..1_000).for_each(|number| _ = index.used(&id(number)));
        store(&index, 5_000, 1_000);
        let mut next = 6_000;
        while index.get(&id(5_000)).is_some() {
            store(&index, next, 1_000);
            next += 1;
        }
        store(&index, 5_000, 1_000);
        let place = index.places().into_iter().find(|place| place.id == id(5_000)).unwrap();
        assert_eq!(place.usage, Place::KEPT);
    }

    #[test]
    fn an_order_is_restored() {
        let (index, again) = (Index::default(), Index::default());
        (0..100).for_each(|number| store(&index, number, 100));
        (0..50).for_each(|number| _ = index.used(&id(number)));
        (100..140).for_each(|number| store(&index, number, 100));
        assert!(index.places().iter().all(|place| again.restore(place)));
        assert_eq!(again.places(), index.places());
        assert!(!again.restore(&index.places()[0]), "it is known");
    }

    #[test]
    fn all_go_in_the_end_whatever_was_used() {
        let index = Index::default();
        for number in 0..200 {
            index.put(&id(number), known(number as u32 + 1));
            (0..number % 5).for_each(|_| _ = index.used(&id(number)));
        }
        assert_eq!(std::iter::from_fn(|| index.victim()).count(), 200);
        assert_eq!((index.len(), index.places().len()), (0, 0));
    }
}
