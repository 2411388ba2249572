//! `Maglev`: a table in which each member has as many places as its weight says, to the place, and loses or wins few when
//! another comes or goes (Eisenbud and others, "Maglev", NSDI 2016, section 3.4, with weights).
//!
//! Each member has an order of its own in which it would like the places, made of its name alone. Taking turns, each takes
//! the first place in its order that is still free.

use super::hash::{hash, place};
use super::named::Named;

/// How many places there are. Primes, so that any step walks through all of them; the larger one for upstreams in which
/// the smaller would give some less than 32.
const PLACES: [usize; 2] = [65_537, 655_373];

/// Who takes which place.
pub(super) struct Maglev {
    members: Box<[u32]>,
}

impl Maglev {
    /// Deals out the places. The members are sorted by name: their order shall not matter.
    pub(super) fn new(named: &[Named<'_>]) -> Self {
        let places = if named.len() * 32 <= PLACES[0] { PLACES[0] } else { PLACES[1] };
        let heaviest = u64::from(named.iter().map(|member| member.weight).max().unwrap_or(0));
        if heaviest == 0 {
            return Self { members: Box::default() };
        }
        let mut wishes: Vec<Wishes> = named.iter().map(|member| Wishes::new(member, places)).collect();
        let mut members = vec![u32::MAX; places];
        let mut free = places;
        while free > 0 {
            // The heaviest takes one each time, the others when their weights have added up to that.
            for (member, wishes) in named.iter().zip(&mut wishes) {
                wishes.credit += u64::from(member.weight);
                if wishes.credit < heaviest || free == 0 {
                    continue;
                }
                wishes.credit -= heaviest;
                while members[wishes.next] != u32::MAX {
                    wishes.go_on(places);
                }
                members[wishes.next] = member.position;
                free -= 1;
            }
        }
        Self { members: members.into() }
    }

    /// Whose each place is.
    pub(super) fn members(&self) -> &[u32] {
        &self.members
    }

    /// The place of a key.
    pub(super) fn place(&self, key: &[u8]) -> usize {
        place(hash(key, 0), self.members.len())
    }
}

/// The order in which a member would like the places.
struct Wishes {
    next: usize,
    step: usize,
    credit: u64,
}

impl Wishes {
    fn new(member: &Named<'_>, places: usize) -> Self {
        let name = member.label.as_bytes();
        let seed = u64::from(member.repeat) << 1;
        Self { next: place(hash(name, seed), places), step: place(hash(name, seed | 1), places - 1) + 1, credit: 0 }
    }

    fn go_on(&mut self, places: usize) {
        self.next += self.step;
        if self.next >= places {
            self.next -= places;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::policy_tests::members;
    use super::*;

    fn counts(weights: &[u32]) -> Vec<u32> {
        let members = members(weights);
        let mut counts = vec![0; weights.len()];
        for member in Maglev::new(&Named::all(&members)).members() {
            counts[*member as usize] += 1;
        }
        counts
    }

    #[test]
    fn each_has_as_many_places_as_its_weight_says() {
        for weights in [&[1, 1, 1][..], &[5, 3, 2], &[1000, 1], &[7; 100], &[1; 1000], &[u32::MAX, u32::MAX / 3]] {
            let sum: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
            for (count, &weight) in counts(weights).iter().zip(weights) {
                let due = f64::from(weight) / sum * PLACES[0] as f64;
                assert!((f64::from(*count) - due).abs() <= 1.5, "{count} places instead of {due} in {weights:?}");
            }
        }
        assert_eq!(counts(&[]), [0; 0]);
    }

    #[test]
    fn a_great_many_members_have_a_larger_table() {
        let counts = counts(&[1; 3000]);
        assert_eq!(counts.iter().sum::<u32>() as usize, PLACES[1]);
        assert!(counts.iter().all(|count| count.abs_diff(218) <= 1));
    }

    #[test]
    fn the_numbers_of_places_are_primes() {
        for places in PLACES {
            assert!((2..).take_while(|factor| factor * factor <= places).all(|factor| places % factor != 0));
        }
    }
}
