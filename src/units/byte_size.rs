//! A number of bytes as people write it: `64KiB`, `10 MB`.

use std::fmt;
use std::str::FromStr;

/// A number of bytes: a number with `B`, `KiB`, `MiB`, `GiB`, `TiB` (powers of 1024) or `kB`, `MB`, `GB`, `TB` (of 1000).
/// Without a unit: bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("B", 1),
];

impl ByteSize {
    /// The size for indexing memory.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault =
            || format!("`{text}` is no size; write a number with a unit (B, KiB, MiB, GiB, kB, MB …), as in `64KiB`");
        let (number, unit) = super::number_and_unit(text);
        let scale = match unit {
            "" => 1,
            _ => UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(fault)?.1,
        };
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(scale).map(Self).ok_or_else(|| format!("`{text}` is larger than 16 EiB"));
        }
        let bytes = number.parse::<f64>().map_err(|_| fault())? * scale as f64;
        if bytes > 1e18 {
            return Err(format!("`{text}` is larger than 16 EiB"));
        }
        Ok(Self(bytes.round() as u64))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The shortest way to write it: 2GB rather than 1953125KiB.
        let exact = UNITS.iter().filter(|(_, scale)| self.0 >= *scale && self.0.is_multiple_of(*scale));
        let (name, scale) = exact.min_by_key(|(_, scale)| self.0 / scale).unwrap_or(&("B", 1));
        write!(f, "{}{name}", self.0 / scale)
    }
}

super::text_unit!(ByteSize, "Size", "a size in bytes", "64KiB");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_sizes_so() {
        for (text, bytes) in [
            ("64KiB", 65_536),
            ("64 kib", 65_536),
            ("1.5MiB", 1_572_864),
            ("10MB", 10_000_000),
            ("512", 512),
            ("0", 0),
            ("1B", 1),
        ] {
            assert_eq!(text.parse::<ByteSize>().unwrap().0, bytes, "{text}");
        }
        for bad in ["", "x", "KiB", "1 XB", "-1B", "999999999999 TiB", "1.2.3MB"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_size_prints_in_its_largest_whole_unit() {
        for text in ["64KiB", "10MB", "2GB", "1GiB", "0B", "1001B", "3TiB"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
    }
}
