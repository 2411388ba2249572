//! A share of a whole as people write it: `50%`, `12.5%`.

use std::fmt;
use std::str::FromStr;

/// A share of a whole, from `0%` to `100%`, to the hundredth of a percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent {
    /// Hundredths of a percent, 0 to 10,000.
    hundredths: u16,
}

impl Percent {
    /// This many percent; more than 100 are 100.
    pub const fn new(percent: u16) -> Self {
        Self { hundredths: if percent > 100 { 10_000 } else { percent * 100 } }
    }

    /// The share as a fraction, 0 to 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.hundredths) / 10_000.0
    }

    /// Whether it is nothing.
    pub const fn is_zero(self) -> bool {
        self.hundredths == 0
    }

    /// The whole part of this share of `whole`: 50 % of 5 is 2.
    pub const fn of(self, whole: u64) -> u64 {
        (whole as u128 * self.hundredths as u128 / 10_000) as u64
    }

    /// Whether `part` of `whole` is less than this share. Nothing of nothing is no less than anything.
    pub const fn exceeds(self, part: u64, whole: u64) -> bool {
        (part as u128) * 10_000 < whole as u128 * self.hundredths as u128
    }
}

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("`{text}` is no share; write a number from 0 to 100 with a percent sign, as in `50%`");
        let number = text.trim().strip_suffix('%').ok_or_else(fault)?.trim();
        let percent: f64 = number.parse().map_err(|_| fault())?;
        if !number.starts_with(|c: char| c.is_ascii_digit()) || !(0.0..=100.0).contains(&percent) {
            return Err(fault());
        }
        Ok(Self { hundredths: (percent * 100.0).round() as u16 })
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.hundredths) / 100.0)
    }
}

super::text_unit!(Percent, "Percent", "a share of a whole", "50%");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_number_with_a_percent_sign() {
        for (text, shown) in [
            ("50%", Some("50%")),
            (" 12.5 % ", Some("12.5%")),
            ("0%", Some("0%")),
            ("100%", Some("100%")),
            ("0.01%", Some("0.01%")),
        ] {
            assert_eq!(text.parse::<Percent>().ok().map(|share| share.to_string()).as_deref(), shown, "{text}");
        }
        for text in ["", "%", "50", "0.5", "101%", "-1%", "+1%", "NaN%", "inf%", "1e2x%", "a%"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_of_a_whole_is_exact() {
        let half = Percent::new(50);
        assert_eq!((half.of(5), half.of(0), Percent::new(100).of(u64::MAX)), (2, 0, u64::MAX));
        for (part, whole, less) in [(1, 3, true), (1, 2, false), (2, 3, false), (0, 0, false), (0, 1, true)] {
            assert_eq!(half.exceeds(part, whole), less, "{part} of {whole}");
        }
    }
}
