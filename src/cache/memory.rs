//! `Memory`: the stored responses that lie in memory, within a number of bytes.
//!
//! Who goes when there is no more room is decided by S3-FIFO (Yang and others, SOSP 2023): what is new waits in a short queue
//! and goes from there unless it was used again, so a scan, where each object is used once, does not drive out what is used
//! often. Ours differs from the crates in two ways that matter here: a look-up touches two cache lines, one of the `Table` and
//! the object's own, which also says how often that was used; and all shards share one budget, so that an object may be larger
//! than a shard, and never, not even for a moment, do all together take more than they may.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::table::Table;
use super::{Id, Object, Tick};

/// One shard for so many bytes, but never more than [`MOST_SHARDS`]. The more there are, the shorter is one locked while its
/// table grows.
const SHARD_BYTES: u64 = 4 << 20;
const MOST_SHARDS: u64 = 256;

/// An object takes at most this part of all.
const LARGEST_PART: u64 = 8;

/// The queue for what is new has this part of a shard's bytes.
const SMALL_PART: u64 = 10;

/// Uses are counted up to this, and each keeps an object for one more round.
const MOST_USES: u8 = 3;

/// The stored responses that lie in memory.
#[derive(Debug)]
pub struct Memory {
    /// What they take, together with those that are about to be put in.
    bytes: AtomicU64,
    limit: AtomicU64,
    evictions: AtomicU64,
    shards: Box<[Shard]>,
}

/// A part of the objects, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    /// What its objects take.
    bytes: AtomicU64,
    objects: RwLock<Objects>,
}

#[derive(Debug, Default)]
struct Objects {
    table: Table<Arc<Object>>,
    /// What is new.
    small: Queue,
    /// What was used while it was new, or soon after it went.
    main: Queue,
    /// What went before it was used.
    ghosts: Ghosts,
    ticket: u16,
}

/// What is noted in an object of its place here. It changes only under the lock of the shard, but for the uses: of two
/// readers at once, one may not be counted.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Tells it from what stood in the queue under the same hash before.
    ticket: u16,
    is_main: bool,
    uses: u8,
}

impl Place {
    fn of(object: &Object) -> Self {
        let [uses, is_main, low, high] = object.place.load(Relaxed).to_le_bytes();
        Self { ticket: u16::from_le_bytes([low, high]), is_main: is_main > 0, uses }
    }

    fn note(self, object: &Object) {
        let [low, high] = self.ticket.to_le_bytes();
        object.place.store(u32::from_le_bytes([self.uses, u8::from(self.is_main), low, high]), Relaxed);
    }

    fn is(self, ticket: u16, is_main: bool) -> bool {
        (self.ticket, self.is_main) == (ticket, is_main)
    }
}

/// Who came when. What was removed from the table stays in line until its turn, or until a queue of many such is tidied.
#[derive(Debug, Default)]
struct Queue {
    line: VecDeque<(u32, u16)>,
    /// What those in the table take.
    bytes: u64,
    /// How many of the line are in the table.
    living: usize,
}

impl Memory {
    /// A memory for so many bytes, by [`Object::weight`].
    pub fn new(bytes: u64) -> Self {
        let shards = (bytes / SHARD_BYTES).clamp(1, MOST_SHARDS).next_power_of_two();
        Self {
            bytes: AtomicU64::new(0),
            limit: AtomicU64::new(bytes),
            evictions: AtomicU64::new(0),
            shards: (0..shards).map(|_| Shard::default()).collect(),
        }
    }

    /// The object with this id. It takes no memory, and no lock that another reader would wait for.
    pub fn get(&self, id: &Id) -> Option<Arc<Object>> {
        let (shard, hash) = self.place(id);
        let objects = self.shards[shard].read();
        let object = objects.table.find(hash, |object| object.id == *id)?;
        let place = Place::of(object);
        if place.uses < MOST_USES {
            Place { uses: place.uses + 1, ..place }.note(object);
        }
        Some(object.clone())
    }

    /// Stores an object in place of the one with its id; what is too large, or finds no room, is not stored. An object must
    /// weigh the same as long as it lies here.
    pub fn insert(&self, object: Arc<Object>) {
        let weight = object.weight();
        let (at, hash) = self.place(&object.id);
        if weight > self.max_object() || !self.reserve(weight, at) {
            // What is stored of an older response shall not outlive the newer one.
            self.remove(&object.id);
            return;
        }
        let shard = &self.shards[at];
        let mut objects = shard.write();
        // Given back only when the lock is, as dropping a large one takes a while.
        let old = objects.put(object, hash, weight);
        shard.bytes.fetch_add(weight, Relaxed);
        self.forget(shard, old.as_deref());
        drop(objects);
    }

    /// Takes the object with this id out.
    pub fn remove(&self, id: &Id) -> Option<Arc<Object>> {
        self.take(id, |_| true)
    }

    /// Takes the object with this id out if it is the one that was asked for then.
    pub fn remove_if(&self, id: &Id, asked: Tick) -> bool {
        self.take(id, |object| object.record.asked == asked).is_some()
    }

    fn take(&self, id: &Id, is_meant: impl Fn(&Object) -> bool) -> Option<Arc<Object>> {
        let (at, hash) = self.place(id);
        let shard = &self.shards[at];
        let mut objects = shard.write();
        let taken = objects.take(hash, |object| object.id == *id && is_meant(object));
        self.forget(shard, taken.as_deref());
        drop(objects);
        taken
    }

    /// Lets it take so many bytes from now on; with fewer than before, it shrinks at once.
    pub fn resize(&self, bytes: u64) {
        self.limit.store(bytes, Relaxed);
        while self.bytes() > bytes && self.evict(0) {}
        for shard in &self.shards {
            shard.write().tidy();
        }
    }

    /// Shows each object once, in no order. What comes or goes meanwhile may be left out.
    pub fn for_each(&self, mut show: impl FnMut(&Arc<Object>)) {
        for shard in &self.shards {
            let objects: Vec<_> = shard.read().table.iter().cloned().collect();
            objects.iter().for_each(&mut show);
        }
    }

    /// How many bytes the objects take.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// How many bytes they may take.
    pub fn limit(&self) -> u64 {
        self.limit.load(Relaxed)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().table.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many objects had to go for others.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Relaxed)
    }

    /// How much an object may weigh.
    pub fn max_object(&self) -> u64 {
        self.limit() / LARGEST_PART
    }

    /// The shard of an id, and its hash there.
    fn place(&self, id: &Id) -> (usize, u32) {
        ((id.bits() >> 32) as usize & (self.shards.len() - 1), hash(id))
    }

    /// Makes room for so many bytes and takes them from the budget; false: there is no room.
    fn reserve(&self, weight: u64, first: usize) -> bool {
        loop {
            let limit = self.limit();
            let fits = |bytes: u64| bytes.checked_add(weight).filter(|sum| *sum <= limit);
            if self.bytes.fetch_update(Relaxed, Relaxed, fits).is_ok() {
                return true;
            }
            if !self.evict(first) {
                return false;
            }
        }
    }

    /// Lets one object go, from the next shard that has its share or more; false: there is none.
    fn evict(&self, first: usize) -> bool {
        let count = self.shards.len();
        let share = self.bytes() / count as u64;
        let from_first = || (first..first + count).map(|at| &self.shards[at & (count - 1)]);
        let with_share = from_first().filter(|shard| shard.bytes.load(Relaxed) >= share);
        // What is about to be put in counts for the share, so that none may have it.
        for shard in with_share.chain(from_first()) {
            let mut objects = shard.write();
            let gone = objects.evict();
            self.forget(shard, gone.as_deref());
            drop(objects);
            if gone.is_some() {
                self.evictions.fetch_add(1, Relaxed);
                return true;
            }
        }
        false
    }

    fn forget(&self, shard: &Shard, gone: Option<&Object>) {
        if let Some(gone) = gone {
            shard.bytes.fetch_sub(gone.weight(), Relaxed);
            self.bytes.fetch_sub(gone.weight(), Relaxed);
        }
    }
}

impl Shard {
    fn read(&self) -> RwLockReadGuard<'_, Objects> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Objects> {
        self.objects.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The hash of an id within its shard.
fn hash(id: &Id) -> u32 {
    id.bits() as u32
}

fn hash_of(object: &Arc<Object>) -> u32 {
    hash(&object.id)
}

impl Objects {
    /// Puts an object into the queue where it belongs, or into the place of the one with its id, which is returned.
    fn put(&mut self, object: Arc<Object>, hash: u32, weight: u64) -> Option<Arc<Object>> {
        if let Some(slot) = self.table.find_mut(hash, |known| known.id == object.id) {
            let place = Place::of(slot);
            place.note(&object);
            let old = std::mem::replace(slot, object);
            let queue = self.queue(place.is_main);
            queue.bytes = queue.bytes + weight - old.weight();
            return Some(old);
        }
        let is_main = self.ghosts.take(hash);
        let ticket = self.next_ticket();
        Place { ticket, is_main, uses: 0 }.note(&object);
        self.table.insert(hash, object, hash_of);
        self.queue(is_main).push((hash, ticket), weight);
        if self.small.line.len() + self.main.line.len() > 2 * self.table.len() + 64 {
            self.tidy();
        }
        None
    }

    fn queue(&mut self, is_main: bool) -> &mut Queue {
        if is_main { &mut self.main } else { &mut self.small }
    }

    fn next_ticket(&mut self) -> u16 {
        self.ticket = self.ticket.wrapping_add(1);
        self.ticket
    }

    /// Takes an object out of the table; its place in line is passed over when it is its turn.
    fn take(&mut self, hash: u32, is_meant: impl FnMut(&Arc<Object>) -> bool) -> Option<Arc<Object>> {
        let object = self.table.remove(hash, is_meant)?;
        self.queue(Place::of(&object).is_main).forget(object.weight());
        Some(object)
    }

    /// Takes out the one that is to go next.
    fn evict(&mut self) -> Option<Arc<Object>> {
        // Each turn lets one go, or counts down the uses of one, or brings it to the main queue, once.
        loop {
            let share = (self.small.bytes + self.main.bytes) / SMALL_PART;
            let from_main = self.small.living == 0 || self.small.bytes <= share && self.main.living > 0;
            let (hash, ticket) = self.queue(from_main).line.pop_front()?;
            let is_it = |object: &Arc<Object>| hash_of(object) == hash && Place::of(object).is(ticket, from_main);
            let Some(object) = self.table.find(hash, is_it) else { continue };
            let uses = Place::of(object).uses;
            if uses == 0 {
                if !from_main {
                    self.ghosts.put(hash, self.table.len());
                }
                return self.take(hash, is_it);
            }
            Place { ticket, is_main: true, uses: if from_main { uses - 1 } else { 0 } }.note(object);
            let weight = object.weight();
            self.queue(from_main).forget(weight);
            self.main.push((hash, ticket), weight);
        }
    }

    /// Gives back what is kept for objects that have gone.
    fn tidy(&mut self) {
        let Self { table, small, main, .. } = self;
        for (is_main, queue) in [(false, small), (true, main)] {
            queue.line.retain(|(hash, ticket)| {
                let is_it = |object: &Arc<Object>| hash_of(object) == *hash && Place::of(object).is(*ticket, is_main);
                table.find(*hash, is_it).is_some()
            });
            queue.line.shrink_to(2 * queue.line.len());
        }
        table.shrink(hash_of);
    }
}

impl Queue {
    fn push(&mut self, who: (u32, u16), weight: u64) {
        self.line.push_back(who);
        self.bytes += weight;
        self.living += 1;
    }

    /// One of the line is no more in the table, or no more in this queue.
    fn forget(&mut self, weight: u64) {
        self.bytes -= weight;
        self.living -= 1;
    }
}

/// The hashes of what went last: about as many as there are objects. A newer one may take the place of an older one.
#[derive(Debug, Default)]
struct Ghosts(Vec<u32>);

impl Ghosts {
    fn put(&mut self, hash: u32, objects: usize) {
        if objects > self.0.len() {
            let old = std::mem::take(&mut self.0);
            self.0 = vec![0; objects.next_power_of_two()];
            old.into_iter().for_each(|hash| self.set(hash, hash));
        }
        self.set(hash, hash);
    }

    fn set(&mut self, hash: u32, mark: u32) {
        let at = hash as usize & (self.0.len() - 1);
        self.0[at] = mark;
    }

    /// Whether it is one of them; it is no more afterwards. That 0 always seems to be one does no harm.
    fn take(&mut self, hash: u32) -> bool {
        let is_one = !self.0.is_empty() && self.0[hash as usize & (self.0.len() - 1)] == hash;
        if is_one {
            self.set(hash, 0);
        }
        is_one
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Body, Kind, Record, Terms};
    use bytes::Bytes;
    use std::sync::atomic::AtomicBool;

    fn object(name: u64, size: usize) -> Arc<Object> {
        let record = Record::new(Tick::now(), Terms::default(), (200, Kind::Whole), "", &[], &http::HeaderMap::new());
        Arc::new(Object::new(id(name), record.unwrap(), Body::Whole(Bytes::from(vec![0; size]))))
    }

    fn id(name: u64) -> Id {
        Id::of(&name.to_le_bytes())
    }

    /// What can be read off in two ways is the same.
    fn check(memory: &Memory) {
        let (mut bytes, mut count) = (0, 0);
        memory.for_each(|object| (bytes, count) = (bytes + object.weight(), count + 1));
        assert_eq!((memory.bytes(), memory.len()), (bytes, count));
        for shard in &memory.shards {
            let objects = shard.read();
            assert_eq!(objects.small.bytes + objects.main.bytes, shard.bytes.load(Relaxed));
            assert_eq!(objects.small.living + objects.main.living, objects.table.len());
            assert!(objects.small.line.len() + objects.main.line.len() <= 2 * objects.table.len() + 1_000);
        }
    }

    #[test]
    fn what_was_stored_is_found_until_it_is_removed() {
        let memory = Memory::new(1 << 20);
        let first = object(1, 10);
        memory.insert(first.clone());
        assert!(Arc::ptr_eq(&memory.get(&id(1)).unwrap(), &first));
        assert!(memory.get(&id(2)).is_none());
        let second = object(1, 20);
        memory.insert(second.clone());
        assert!(Arc::ptr_eq(&memory.get(&id(1)).unwrap(), &second));
        assert_eq!((memory.len(), memory.bytes()), (1, second.weight()));
        assert!(!memory.remove_if(&id(1), first.record.asked));
        assert!(memory.remove_if(&id(1), second.record.asked));
        memory.insert(first);
        assert!(memory.remove(&id(1)).is_some() && memory.remove(&id(1)).is_none());
        assert_eq!((memory.len(), memory.bytes(), memory.evictions()), (0, 0, 0));
    }

    #[test]
    fn what_is_too_large_is_not_stored_and_takes_the_older_one_along() {
        let memory = Memory::new(1 << 20);
        let fits = |size: usize| object(1, size).weight() <= memory.max_object();
        let most =
            (0..20).rev().map(|bit| 1 << bit).fold(0, |most, more| if fits(most + more) { most + more } else { most });
        memory.insert(object(1, most));
        assert!(memory.get(&id(1)).is_some());
        memory.insert(object(1, most + 1));
        assert_eq!((memory.len(), memory.bytes()), (0, 0));
        let none = Memory::new(0);
        none.insert(object(1, 0));
        assert!(none.is_empty());
    }

    #[test]
    fn the_limit_holds_at_every_moment() {
        for limit in [50_000, 1 << 20, 40 << 20] {
            let memory = Memory::new(limit);
            let over = AtomicBool::new(false);
            let largest = memory.max_object() as usize + 2_000;
            std::thread::scope(|scope| {
                let workers: Vec<_> = (0..3_u64)
                    .map(|seed| {
                        let (memory, over) = (&memory, &over);
                        scope.spawn(move || {
                            let mut random = fastrand::Rng::with_seed(seed);
                            for _ in 0..5_000 {
                                let name = random.u64(..2_000);
                                match random.u8(..10) {
                                    0 => drop(memory.remove(&id(name))),
                                    1..4 => drop(memory.get(&id(name))),
                                    4 if seed == 0 => memory.resize(random.u64(limit * 2 / 3..=limit)),
                                    _ => {
                                        let size = if random.u8(..20) == 0 { largest } else { 30_000 };
                                        memory.insert(object(name, random.usize(..size)));
                                    }
                                }
                                over.fetch_or(memory.bytes() > limit, Relaxed);
                            }
                        })
                    })
                    .collect();
                while !workers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                    over.fetch_or(memory.bytes() > limit, Relaxed);
                }
            });
            assert!(!over.into_inner(), "{limit}");
            memory.resize(limit);
            check(&memory);
            assert!(memory.bytes() > limit / 2, "{} of {limit}", memory.bytes());
            memory.resize(limit / 3);
            assert!(memory.bytes() <= limit / 3);
            check(&memory);
            while memory.evict(0) {}
            assert_eq!((memory.len(), memory.bytes()), (0, 0));
        }
    }

    #[test]
    fn what_is_used_often_survives_a_scan_of_ten_times_the_room() {
        let (hot, size) = (1_000, 1_000);
        let room = 4_000 * object(0, size).weight();
        let memory = Memory::new(room);
        (0..hot).for_each(|name| memory.insert(object(name, size)));
        let mut lost = 0;
        for cold in 0..40_000 {
            memory.insert(object(1_000_000 + cold, size));
            let name = cold * 7 % hot;
            if memory.get(&id(name)).is_none() {
                lost += 1;
                memory.insert(object(name, size));
            }
        }
        assert!(lost < hot / 10, "{lost} of {hot} were lost in 40,000 uses");
        check(&memory);
    }

    #[test]
    fn what_comes_and_goes_leaves_nothing_behind() {
        let memory = Memory::new(1 << 20);
        for round in 0..10_000 {
            memory.insert(object(round % 10, 10));
            memory.remove(&id(round % 10));
        }
        check(&memory);
        assert_eq!((memory.len(), memory.bytes()), (0, 0));
    }

    #[test]
    fn a_large_object_does_not_empty_the_shard_where_it_comes() {
        let memory = Memory::new(32 << 20);
        let count = (32 << 20) / object(0, 10_000).weight();
        (0..count).for_each(|name| memory.insert(object(name, 10_000)));
        memory.insert(object(1_000_000, (memory.max_object() - 10_000) as usize));
        assert!(memory.get(&id(1_000_000)).is_some());
        let fewest = memory.shards.iter().map(|shard| shard.read().table.len()).min().unwrap();
        assert!(fewest as u64 > count / memory.shards.len() as u64 / 2, "{fewest} of {count} in one shard");
    }
}
