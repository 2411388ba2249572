//! `Ring`: the ketama ring, point for point as in nginx and `pingora-ketama`, so that a fleet can be moved from those
//! without a cold cache. A server's share is as even as chance makes it: with 160 points for a weight of 1, mostly
//! within a tenth of what is due.
//!
//! A key's point is looked up in a table by its first bits, of which there are as many as points: a look and a step or
//! two, instead of a search through all.

use std::net::SocketAddr;

use super::named::Named;

/// Points for a weight of 1.
const POINTS: u64 = 160;
/// The most points of a ring. With weights that want more, every member has half as many, or a quarter, and so on.
const MAX_POINTS: u64 = 1 << 20;

/// The points of a ring, sorted.
pub(super) struct Ring {
    hashes: Box<[u32]>,
    members: Box<[u32]>,
    /// For each value of the first bits, the first point that has them or more.
    starts: Box<[u32]>,
    shift: u32,
}

impl Ring {
    /// Sets the points. The members are sorted by name: their order shall not matter.
    pub(super) fn new(named: &[Named<'_>]) -> Self {
        let halvings = halvings(named);
        let mut points = Vec::new();
        for (order, member) in named.iter().enumerate() {
            let name = member.name();
            let mut last = 0_u32;
            for _ in 0..count(member.weight, halvings) {
                let mut point = name.clone();
                point.update(&last.to_le_bytes());
                last = point.finalize();
                points.push((last, order as u32));
            }
        }
        points.sort_unstable();
        points.dedup_by_key(|(hash, _)| *hash);
        let bits = points.len().max(2).ilog2();
        let shift = u32::BITS - bits;
        let mut starts = Vec::with_capacity((1 << bits) + 1);
        let mut next = 0;
        for first_bits in 0..1_u32 << bits {
            while points.get(next).is_some_and(|(hash, _)| hash >> shift < first_bits) {
                next += 1;
            }
            starts.push(next as u32);
        }
        Self {
            hashes: points.iter().map(|(hash, _)| *hash).collect(),
            members: points.iter().map(|(_, order)| named[*order as usize].position).collect(),
            starts: starts.into(),
            shift,
        }
    }

    /// Whose each point is.
    pub(super) fn members(&self) -> &[u32] {
        &self.members
    }

    /// The point of a key: the first that is not before it, or the first of all.
    pub(super) fn place(&self, key: &[u8]) -> usize {
        let hash = crc32fast::hash(key);
        let start = self.starts[(hash >> self.shift) as usize] as usize;
        let steps = self.hashes[start..].iter().take_while(|point| **point < hash).count();
        if start + steps == self.hashes.len() { 0 } else { start + steps }
    }
}

impl Named<'_> {
    /// What its points are made from: an IP address and a port apart, as nginx has them, or whatever else its name is.
    fn name(&self) -> crc32fast::Hasher {
        let mut name = crc32fast::Hasher::new();
        match (self.label.parse::<SocketAddr>(), self.label.strip_prefix("unix:")) {
            (Ok(address), _) => name.update(format!("{}\0{}", address.ip(), address.port()).as_bytes()),
            (_, Some(path)) => name.update(format!("{path}\0").as_bytes()),
            _ => name.update(self.label.as_bytes()),
        }
        if self.repeat > 0 {
            name.update(&self.repeat.to_le_bytes());
        }
        name
    }
}

/// How many points a weight has.
fn count(weight: u32, halvings: u32) -> u64 {
    ((u64::from(weight) * POINTS) >> halvings).max(1)
}

/// How often the points must be halved. Never by what the weights have in common: when the one server of an odd weight
/// left, the others would lose half of their points, and most keys would move.
fn halvings(named: &[Named<'_>]) -> u32 {
    let all = |halvings: u32| named.iter().map(|member| count(member.weight, halvings)).sum::<u64>();
    (0..u64::BITS).find(|halvings| all(*halvings) <= MAX_POINTS.max(named.len() as u64)).unwrap_or(u64::BITS - 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use pingora::lb::Backend;
    use pingora::lb::selection::consistent::KetamaHashing;
    use pingora::lb::selection::{BackendIter as _, BackendSelection as _};

    use super::super::policy_tests::members;
    use super::*;

    #[test]
    fn a_key_goes_where_the_ketama_of_pingora_sends_it_and_so_do_its_retries() {
        for weights in [&[1, 1, 1][..], &[3, 1, 2], &[2, 2], &[1; 100]] {
            let members = members(weights);
            let ring = Ring::new(&Named::all(&members));
            let backends: BTreeSet<Backend> = members
                .iter()
                .map(|member| Backend::new_with_weight(&member.label, member.weight as usize).unwrap())
                .collect();
            let theirs = Arc::new(KetamaHashing::build(&backends));
            for key in 0..2000 {
                let key = format!("/item/{key}");
                let mut iter = theirs.iter(key.as_bytes());
                let place = ring.place(key.as_bytes());
                for member in ring.members().iter().cycle().skip(place).take(3) {
                    let their = iter.next().unwrap().addr.to_string();
                    assert_eq!(&*members[*member as usize].label, their, "{key} in {weights:?}");
                }
            }
        }
    }

    #[test]
    fn great_weights_share_the_points_there_are() {
        let members = members(&[1_000_000, 500_000, 1]);
        let ring = Ring::new(&Named::all(&members));
        let points = |position: u32| ring.members().iter().filter(|member| **member == position).count();
        assert!(ring.members().len() as u64 <= MAX_POINTS);
        let ratio = points(0) as f64 / points(1) as f64;
        assert!((1.99..2.01).contains(&ratio) && points(2) == 1, "{ratio}");
    }

    #[test]
    fn every_name_has_points_of_its_own() {
        for labels in
            [&["unix:/run/a.sock", "unix:/run/b.sock"][..], &["[fd00::1]:80", "[fd00::2]:80"], &["a:1", "a:1"]]
        {
            let mut members = members(&vec![1; labels.len()]);
            for (member, label) in members.iter_mut().zip(labels) {
                member.label = (*label).into();
            }
            let ring = Ring::new(&Named::all(&members));
            assert_eq!(ring.members().len(), 320, "{labels:?}");
        }
    }

    #[test]
    fn an_empty_ring_has_no_member() {
        assert!(Ring::new(&[]).members().is_empty());
    }
}
