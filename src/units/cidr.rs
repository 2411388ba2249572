//! A network: `10.0.0.0/8`, `2001:db8::/32`, or a single address.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// A network of IPv4 or IPv6 addresses. An address without a prefix length is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    base: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// The first and the last address of the network, as IPv6 numbers (IPv4 as mapped addresses, RFC 4291 2.5.5.2).
    pub fn range(&self) -> (u128, u128) {
        let most = if self.base.is_ipv4() { 32 } else { 128 };
        let base = number(self.base);
        (base, base | host_span(most, self.prefix))
    }
}

/// An address as the number that [`Cidr::range`] speaks of; an IPv4-mapped IPv6 address is its IPv4 address.
pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("`{text}` is no network; write an address or a prefix, as in `10.0.0.0/8`");
        let (address, prefix) = text.trim().split_once('/').map_or_else(|| (text.trim(), None), |(a, p)| (a, Some(p)));
        let base: IpAddr = address.parse().map_err(|_| fault())?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => most,
            Some(digits) if !digits.bytes().all(|b| b.is_ascii_digit()) => return Err(fault()),
            Some(digits) => digits.parse().map_err(|_| fault())?,
        };
        if prefix > most {
            return Err(format!("the prefix of `{text}` is longer than {most} bits"));
        }
        // The base must be the network's first address: `10.0.0.1/8` is surely a slip.
        let host_bits = number(base) & host_span(most, prefix);
        if host_bits != 0 {
            let right = base_address(number(base) - host_bits, most);
            return Err(format!("`{text}` has bits set to the right of its prefix; the network is `{right}/{prefix}`"));
        }
        Ok(Self { base, prefix })
    }
}

/// The bits of an address below its prefix.
fn host_span(most: u8, prefix: u8) -> u128 {
    match most - prefix {
        128 => u128::MAX,
        bits => (1 << bits) - 1,
    }
}

fn base_address(number: u128, most: u8) -> IpAddr {
    let v6 = Ipv6Addr::from(number);
    match v6.to_ipv4_mapped() {
        Some(v4) if most == 32 => IpAddr::V4(v4),
        _ => IpAddr::V6(v6),
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

super::text_unit!(Cidr, "Network", "a network or an address", "10.0.0.0/8");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_networks_so() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("127.0.0.1", "127.0.0.1/32"),
            ("::1", "::1/128"),
            ("fd00::/8", "fd00::/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), shown, "{text}");
        }
        for bad in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "x", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/+8"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn bits_right_of_the_prefix_are_a_slip() {
        let told = "10.1.2.3/8".parse::<Cidr>().unwrap_err();
        assert!(told.contains("`10.0.0.0/8`"), "{told}");
        assert!("fd00::1/8".parse::<Cidr>().unwrap_err().contains("`fd00::/8`"));
    }
}
