//! `Draw`: one of many at random, each as often as its weight says, in one step however many there are.
//!
//! The table of Walker and Vose: as many slots of equal size as members. What a member's weight has above the mean fills
//! the slots of those that are below, so that no slot holds more than two.

use super::policy::Passed;

/// How often a draw that hit a member passed over is repeated, before all others are looked at one by one.
const REPEATS: usize = 4;

/// Draws by weight.
pub(super) struct Draw {
    slots: Box<[Slot]>,
    weights: Box<[u32]>,
}

/// A slot is its own member's up to a bound, and another's above.
#[derive(Clone, Copy)]
struct Slot {
    bound: u32,
    other: u32,
}

impl Draw {
    /// The table for these weights. Those of weight 0 are never drawn.
    pub(super) fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let weights: Box<[u32]> = weights.into_iter().collect();
        let (count, sum) = (weights.len() as u64, sum(&weights));
        let mut slots: Vec<Slot> = (0..weights.len() as u32).map(|own| Slot { bound: u32::MAX, other: own }).collect();
        // In these units a slot holds `sum`.
        let mut left: Vec<u64> = weights.iter().map(|&weight| u64::from(weight) * count).collect();
        let (mut below, mut above): (Vec<usize>, Vec<usize>) = (0..left.len()).partition(|&own| left[own] < sum);
        while let (Some(small), Some(large)) = (below.pop(), above.last().copied()) {
            let bound = (u128::from(left[small]) << 32) / u128::from(sum);
            slots[small] = Slot { bound: bound as u32, other: large as u32 };
            left[large] -= sum - left[small];
            if left[large] < sum {
                above.pop();
                below.push(large);
            }
        }
        Self { slots: if sum == 0 { Box::default() } else { slots.into() }, weights }
    }

    /// The weight of a member.
    pub(super) fn weight(&self, member: usize) -> u32 {
        self.weights[member]
    }

    /// What all weights add up to.
    pub(super) fn sum(&self) -> u64 {
        sum(&self.weights)
    }

    /// One that is not passed over; `None` when none is left.
    pub(super) fn one(&self, passed: &Passed) -> Option<usize> {
        if passed.is_empty() {
            return self.any();
        }
        (0..REPEATS).filter_map(|_| self.any()).find(|&member| !passed.contains(member)).or_else(|| self.left(passed))
    }

    /// Two different ones that are not passed over, the first of them drawn by weight, and the second as well unless
    /// that is the first again; one when no other is left.
    pub(super) fn two(&self, passed: &Passed) -> Option<(usize, Option<usize>)> {
        let first = self.one(passed)?;
        let second = self.any().filter(|&second| second != first && !passed.contains(second));
        Some((first, second.or_else(|| self.after(first, passed))))
    }

    /// The first of those that follow `member` in the list that may be picked.
    fn after(&self, member: usize, passed: &Passed) -> Option<usize> {
        let following = (member + 1..self.weights.len()).chain(0..member);
        following.into_iter().find(|&other| self.weights[other] > 0 && !passed.contains(other))
    }

    /// One of all.
    fn any(&self) -> Option<usize> {
        let random = fastrand::u64(..);
        let own = (((random >> 32) * self.slots.len() as u64) >> 32) as usize;
        let slot = self.slots.get(own)?;
        Some(if (random as u32) < slot.bound { own } else { slot.other as usize })
    }

    /// One of those not passed over, found by looking at each.
    fn left(&self, passed: &Passed) -> Option<usize> {
        let left = || self.weights.iter().enumerate().filter(|(member, _)| !passed.contains(*member));
        let sum: u64 = left().map(|(_, &weight)| u64::from(weight)).sum();
        if sum == 0 {
            return None;
        }
        let mut rest = fastrand::u64(..sum);
        for (member, &weight) in left() {
            match rest.checked_sub(u64::from(weight)) {
                None => return Some(member),
                Some(less) => rest = less,
            }
        }
        None
    }
}

fn sum(weights: &[u32]) -> u64 {
    weights.iter().map(|&weight| u64::from(weight)).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn passed(members: &[usize]) -> Passed {
        let mut passed = Passed::new();
        members.iter().for_each(|&member| passed.insert(member));
        passed
    }

    #[test]
    fn each_is_drawn_as_often_as_its_weight_says() {
        fastrand::seed(7);
        for (weights, out, shares) in [
            (&[1, 1, 1][..], &[][..], &[1.0, 1.0, 1.0][..]),
            (&[5, 3, 2], &[], &[5.0, 3.0, 2.0]),
            (&[0, 2, 2], &[], &[0.0, 1.0, 1.0]),
            (&[1, 1, 3, 1], &[0], &[0.0, 1.0, 3.0, 1.0]),
            (&[1000, 4, 6], &[0], &[0.0, 4.0, 6.0]),
            (&[u32::MAX, u32::MAX], &[], &[1.0, 1.0]),
        ] {
            let (draw, passed) = (Draw::new(weights.iter().copied()), passed(out));
            let mut counts = vec![0.0; weights.len()];
            for _ in 0..100_000 {
                counts[draw.one(&passed).unwrap()] += 1.0;
            }
            let sum: f64 = shares.iter().sum();
            for (count, share) in counts.iter().zip(shares) {
                let due = share / sum * 100_000.0;
                assert!((count - due).abs() <= due * 0.02, "{weights:?} but {out:?}: {counts:?}");
            }
        }
    }

    #[test]
    fn the_second_is_another_when_there_is_one() {
        fastrand::seed(7);
        let draw = Draw::new([1000, 1, 0, 1]);
        for _ in 0..1000 {
            let (first, second) = draw.two(&Passed::new()).unwrap();
            assert!(second.is_some_and(|second| second != first && second != 2));
            assert_eq!(draw.two(&passed(&[0, 1])), Some((3, None)));
        }
    }

    proptest! {
        #[test]
        fn the_slots_of_the_table_add_up_to_the_weights(weights in prop::collection::vec(0_u32..2000, 1..40)) {
            let draw = Draw::new(weights.iter().copied());
            let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
            prop_assume!(total > 0.0);
            let mut shares = vec![0.0; weights.len()];
            for (own, slot) in draw.slots.iter().enumerate() {
                let part = f64::from(slot.bound) / f64::from(u32::MAX) / weights.len() as f64;
                shares[own] += part;
                shares[slot.other as usize] += 1.0 / weights.len() as f64 - part;
            }
            for (share, &weight) in shares.iter().zip(&weights) {
                prop_assert!((share - f64::from(weight) / total).abs() < 1e-6);
            }
        }

        #[test]
        fn none_that_is_passed_over_is_drawn(
            weights in prop::collection::vec(0_u32..3, 0..12),
            out in prop::collection::vec(0_usize..12, 0..12),
        ) {
            let draw = Draw::new(weights.iter().copied());
            let left = (0..weights.len()).filter(|member| weights[*member] > 0 && !out.contains(member)).count();
            match draw.two(&passed(&out)) {
                None => prop_assert_eq!(left, 0),
                Some((first, second)) => {
                    prop_assert_eq!(second.is_some(), left > 1);
                    for drawn in [Some(first), second].into_iter().flatten() {
                        prop_assert!(weights[drawn] > 0 && !out.contains(&drawn));
                    }
                }
            }
        }
    }
}
