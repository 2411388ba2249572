//! Statuses as people write them: `200`, `2xx`, `200-299`.

use std::fmt;
use std::str::FromStr;

use http::StatusCode;

/// One status of HTTP or a range of them, both ends included, from 100 to 599.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange {
    first: u16,
    last: u16,
}

impl StatusRange {
    /// All of these, both ends included.
    pub const fn new(first: u16, last: u16) -> Self {
        Self { first, last }
    }

    /// Whether this status is one of them.
    pub fn contains(self, status: StatusCode) -> bool {
        (self.first..=self.last).contains(&status.as_u16())
    }

    /// Whether it is this status alone.
    pub fn is(self, status: StatusCode) -> bool {
        self.first == self.last && self.contains(status)
    }

    /// How many statuses it holds beside the first.
    pub const fn width(self) -> u16 {
        self.last - self.first
    }

    /// The highest of them.
    pub const fn last(self) -> u16 {
        self.last
    }
}

impl FromStr for StatusRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("`{text}` is no status; write one from 100 to 599, `2xx`, or a range, as in `200-299`");
        let status = |text: &str| {
            let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u16>().ok().filter(|status| digits && (100..=599).contains(status)).ok_or_else(fault)
        };
        let text_only = text.trim();
        if let Some(class) = text_only.strip_suffix("xx") {
            let first = status(&format!("{class}00"))?;
            return Ok(Self { first, last: first + 99 });
        }
        let (first, last) = text_only.split_once('-').unwrap_or((text_only, text_only));
        let range = Self { first: status(first.trim())?, last: status(last.trim())? };
        if range.first > range.last {
            return Err(format!("`{text}` holds no status; write the lower one first"));
        }
        Ok(range)
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

super::text_unit!(StatusRange, "StatusRange", "a status, or a range of them", "200-299");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_statuses_so() {
        for (text, first, last) in
            [("200", 200, 200), ("2xx", 200, 299), ("200-399", 200, 399), (" 404 ", 404, 404), ("200 - 204", 200, 204)]
        {
            assert_eq!(text.parse(), Ok(StatusRange::new(first, last)), "{text}");
        }
        for text in
            ["", "99", "600", "6xx", "xx", "2x", "20x", "0200", "+200", "-200", "200-", "300-200", "2xx-3xx", "ok"]
        {
            assert!(text.parse::<StatusRange>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_range_holds_both_its_ends() {
        let range: StatusRange = "200-204".parse().unwrap();
        for (status, within) in [(199, false), (200, true), (204, true), (205, false)] {
            assert_eq!(range.contains(StatusCode::from_u16(status).unwrap()), within, "{status}");
        }
        assert_eq!(range.to_string(), "200-204");
        assert_eq!(serde_yaml::from_str::<Vec<StatusRange>>("[200, 3xx]").unwrap()[1].last(), 399);
    }
}
