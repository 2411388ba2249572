//! `Table`: where an entry with a hash is, in one cache line as a rule.
//!
//! A bucket is a cache line: seven entries and a byte of the hash of each, so a look-up touches one line of the table, and the
//! entry that it finds. What finds its bucket full goes to the next one that has room, and each bucket counts what passed it;
//! so nothing is left behind where an entry was, and a look-up ends at the first bucket that nothing passed.

/// So many entries, of eight bytes each, fill a cache line together with their tags and the count.
const ENTRIES: usize = 7;

/// A table. Who uses it knows the hash of each entry.
#[derive(Debug)]
pub(super) struct Table<T> {
    buckets: Vec<Bucket<T>>,
    len: usize,
}

#[derive(Debug)]
#[repr(align(64))]
struct Bucket<T> {
    /// How many were to be here and are further on. At 255 it is no more counted, until the table is built anew.
    passed: u8,
    tags: [u8; ENTRIES],
    entries: [Option<T>; ENTRIES],
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { buckets: Vec::new(), len: 0 }
    }
}

impl<T> Table<T> {
    /// How many entries there are.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.buckets.iter().flat_map(|bucket| bucket.entries.iter().flatten())
    }

    /// The entry with this hash that is meant.
    pub(super) fn find(&self, hash: u32, is_meant: impl FnMut(&T) -> bool) -> Option<&T> {
        let (at, entry) = self.position(hash, is_meant)?;
        self.buckets[at].entries[entry].as_ref()
    }

    /// The same, to be changed; its hash must stay.
    pub(super) fn find_mut(&mut self, hash: u32, is_meant: impl FnMut(&T) -> bool) -> Option<&mut T> {
        let (at, entry) = self.position(hash, is_meant)?;
        self.buckets[at].entries[entry].as_mut()
    }

    /// Puts in what is not there yet.
    pub(super) fn insert(&mut self, hash: u32, entry: T, hash_of: impl Fn(&T) -> u32) {
        if self.len >= room(self.buckets.len()) {
            self.rebuild(self.buckets.len() * 3 / 2 + 1, hash_of);
        }
        self.put(hash, entry);
        self.len += 1;
    }

    /// Takes the entry with this hash out that is meant.
    pub(super) fn remove(&mut self, hash: u32, is_meant: impl FnMut(&T) -> bool) -> Option<T> {
        let (found, entry) = self.position(hash, is_meant)?;
        let mut at = self.home(hash);
        while at != found {
            let passed = &mut self.buckets[at].passed;
            *passed -= u8::from(*passed < u8::MAX);
            at = self.next(at);
        }
        self.len -= 1;
        self.buckets[found].entries[entry].take()
    }

    /// Gives back what it takes for much more than there are.
    pub(super) fn shrink(&mut self, hash_of: impl Fn(&T) -> u32) {
        let fewest = (self.len * 5).div_ceil(ENTRIES * 4);
        if self.buckets.len() > 2 * fewest + 1 {
            self.rebuild(fewest + fewest / 4, hash_of);
        }
    }

    fn home(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.buckets.len() as u64) >> 32) as usize
    }

    const fn next(&self, at: usize) -> usize {
        if at + 1 < self.buckets.len() { at + 1 } else { 0 }
    }

    fn position(&self, hash: u32, mut is_meant: impl FnMut(&T) -> bool) -> Option<(usize, usize)> {
        let mut at = self.home(hash);
        for _ in 0..self.buckets.len() {
            let bucket = &self.buckets[at];
            for (entry, known) in bucket.tags.iter().enumerate() {
                if *known == tag(hash) && bucket.entries[entry].as_ref().is_some_and(&mut is_meant) {
                    return Some((at, entry));
                }
            }
            if bucket.passed == 0 {
                return None;
            }
            at = self.next(at);
        }
        None
    }

    /// There is room for it.
    fn put(&mut self, hash: u32, entry: T) {
        let mut at = self.home(hash);
        loop {
            let bucket = &mut self.buckets[at];
            if let Some(free) = bucket.entries.iter().position(Option::is_none) {
                bucket.tags[free] = tag(hash);
                bucket.entries[free] = Some(entry);
                return;
            }
            bucket.passed = bucket.passed.saturating_add(1);
            at = self.next(at);
        }
    }

    fn rebuild(&mut self, buckets: usize, hash_of: impl Fn(&T) -> u32) {
        let empty = || Bucket { passed: 0, tags: [0; ENTRIES], entries: [const { None }; ENTRIES] };
        // No more than so many: room to grow would be a half of what it takes.
        let mut built = Vec::new();
        built.reserve_exact(buckets);
        built.resize_with(buckets, empty);
        let old = std::mem::replace(&mut self.buckets, built);
        for entry in old.into_iter().flat_map(|bucket| bucket.entries.into_iter().flatten()) {
            self.put(hash_of(&entry), entry);
        }
    }
}

/// How many entries so many buckets take before there are more buckets: with four fifths full, few are passed.
const fn room(buckets: usize) -> usize {
    buckets * ENTRIES * 4 / 5
}

/// What tells the entries of a bucket apart: the other end of the hash says which bucket it is.
const fn tag(hash: u32) -> u8 {
    hash as u8
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bucket_is_a_cache_line() {
        assert_eq!((size_of::<Bucket<Box<u64>>>(), align_of::<Bucket<Box<u64>>>()), (64, 64));
    }

    proptest! {
        /// Few hashes, so that buckets overflow, and entries of one hash stand side by side.
        #[test]
        fn it_holds_what_a_map_holds(steps in prop::collection::vec((0_u8..4, 0_u32..400), 0..2_000), kinds in 1_u32..50) {
            let hash = |name: u32| (name % kinds).wrapping_mul(0x9e37_79b9);
            let (mut table, mut map) = (Table::default(), HashMap::new());
            for (step, name) in steps {
                let is_it = |entry: &(u32, u32)| entry.0 == name;
                match step {
                    0 => prop_assert_eq!(table.remove(hash(name), is_it).map(|entry| entry.1), map.remove(&name)),
                    1 => table.shrink(|entry| hash(entry.0)),
                    _ => {
                        let value = map.len() as u32;
                        let known = map.insert(name, value);
                        match table.find_mut(hash(name), is_it) {
                            Some(entry) => prop_assert_eq!(Some(std::mem::replace(&mut entry.1, value)), known),
                            None => table.insert(hash(name), (name, value), |entry| hash(entry.0)),
                        }
                    }
                }
                prop_assert_eq!(table.len(), map.len());
                prop_assert_eq!(table.find(hash(name), is_it).map(|entry| entry.1), map.get(&name).copied());
            }
            prop_assert_eq!(&table.iter().copied().collect::<HashMap<_, _>>(), &map);
            for (name, value) in map {
                prop_assert_eq!(table.remove(hash(name), |entry| entry.0 == name).map(|entry| entry.1), Some(value));
            }
            prop_assert_eq!(table.iter().count(), 0);
            table.shrink(|entry| hash(entry.0));
            prop_assert!(table.buckets.len() <= 1);
        }
    }
}
