//! Many networks, looked up at once: sorted, merged ranges and a binary search.

use std::net::IpAddr;

use super::cidr::{Cidr, number};

/// A set of networks. A lookup costs one binary search, whatever the number of networks, and allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct CidrSet {
    /// Where each merged range begins, ascending; `lasts` holds where it ends, at the same position.
    firsts: Box<[u128]>,
    lasts: Box<[u128]>,
}

impl CidrSet {
    /// Whether the address lies in one of the networks. An IPv4-mapped IPv6 address counts as its IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let wanted = number(address);
        let after = self.firsts.partition_point(|first| *first <= wanted);
        after > 0 && wanted <= self.lasts[after - 1]
    }

    /// Whether no network is in the set.
    pub fn is_empty(&self) -> bool {
        self.firsts.is_empty()
    }
}

impl<'a> FromIterator<&'a Cidr> for CidrSet {
    fn from_iter<I: IntoIterator<Item = &'a Cidr>>(networks: I) -> Self {
        let mut ranges: Vec<(u128, u128)> = networks.into_iter().map(Cidr::range).collect();
        ranges.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        let (firsts, lasts): (Vec<_>, Vec<_>) = merged.into_iter().unzip();
        Self { firsts: firsts.into(), lasts: lasts.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_in_any_of_the_networks() {
        let networks: Vec<Cidr> = ["10.0.0.0/8", "10.1.0.0/16", "192.168.1.1", "fd00::/8", "11.0.0.0/8"]
            .iter()
            .map(|n| n.parse().unwrap())
            .collect();
        let set: CidrSet = networks.iter().collect();
        for (address, found) in [
            ("10.255.255.255", true),
            ("11.0.0.1", true),
            ("12.0.0.0", false),
            ("9.255.255.255", false),
            ("192.168.1.1", true),
            ("192.168.1.2", false),
            ("fd12::1", true),
            ("fe00::1", false),
            ("::ffff:10.2.3.4", true),
        ] {
            assert_eq!(set.contains(address.parse().unwrap()), found, "{address}");
        }
        assert!(!CidrSet::default().contains("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn everything_is_a_network_too() {
        let all: Cidr = "::/0".parse().unwrap();
        let set: CidrSet = [&all].into_iter().collect();
        assert!(set.contains("1.2.3.4".parse().unwrap()));
        assert!(set.contains("ffff::".parse().unwrap()));
    }
}
