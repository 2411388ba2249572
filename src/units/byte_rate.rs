//! A number of bytes per second: `1KiB/s`.

use std::fmt;
use std::str::FromStr;

use super::ByteSize;

/// A number of bytes per second: a size and `/s`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteRate(pub ByteSize);

impl FromStr for ByteRate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size = text
            .trim()
            .strip_suffix("/s")
            .ok_or_else(|| format!("`{text}` is no rate; write a size per second, as in `1KiB/s`"))?;
        size.parse().map(Self)
    }
}

impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

super::text_unit!(ByteRate, "Rate", "a rate in bytes per second", "1KiB/s");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_rates_so() {
        assert_eq!("1KiB/s".parse::<ByteRate>().unwrap().0.0, 1024);
        assert_eq!("1KiB/s".parse::<ByteRate>().unwrap().to_string(), "1KiB/s");
        for bad in ["1KiB", "", "/s", "1KiB/m"] {
            assert!(bad.parse::<ByteRate>().is_err(), "{bad}");
        }
    }
}
