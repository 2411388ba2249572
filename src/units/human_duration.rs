//! A span of time as people write it: `250ms`, `1m 30s`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A span of time: numbers with units, `ms`, `s`, `m`, `h` or `d`, added up. `0` needs no unit; any other number does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanDuration(pub Duration);

/// More than this is surely a mistake, and would overflow timers: about a hundred years.
const MAX_SECONDS: f64 = 3_155_760_000.0;

impl HumanDuration {
    /// This many seconds.
    pub const fn secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl FromStr for HumanDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("`{text}` is no duration; write a number with a unit (ms, s, m, h, d), as in `1m 30s`");
        let mut rest = text.trim();
        if rest == "0" {
            return Ok(Self(Duration::ZERO));
        }
        if rest.is_empty() {
            return Err(fault());
        }
        let mut seconds = 0.0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(fault)?;
            let number: f64 = rest[..digits].parse().map_err(|_| fault())?;
            rest = rest[digits..].trim_start();
            let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            let unit = match &rest[..letters] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "d" => 86400.0,
                _ => return Err(fault()),
            };
            seconds += number * unit;
            rest = rest[letters..].trim_start();
        }
        if seconds > MAX_SECONDS {
            return Err(format!("`{text}` is longer than a hundred years"));
        }
        // Whole microseconds: 0.1s + 0.2s must not become 0.30000000000000004s.
        Ok(Self(Duration::from_micros((seconds * 1e6).round() as u64)))
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        match millis {
            0 => f.write_str("0"),
            _ if millis.is_multiple_of(86_400_000) => write!(f, "{}d", millis / 86_400_000),
            _ if millis.is_multiple_of(3_600_000) => write!(f, "{}h", millis / 3_600_000),
            _ if millis.is_multiple_of(60_000) => write!(f, "{}m", millis / 60_000),
            _ if millis.is_multiple_of(1000) => write!(f, "{}s", millis / 1000),
            _ => write!(f, "{millis}ms"),
        }
    }
}

super::text_unit!(HumanDuration, "Duration", "a duration", "1m 30s");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_durations_so() {
        for (text, millis) in [
            ("250ms", 250),
            ("5s", 5000),
            ("1m 30s", 90_000),
            ("1m30s", 90_000),
            ("1.5s", 1500),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("0", 0),
            (" 1 s ", 1000),
        ] {
            assert_eq!(text.parse::<HumanDuration>().unwrap().0.as_millis(), millis, "{text}");
        }
        for bad in ["", "5", "s", "5 parsecs", "-1s", "1..2s", "99999999999d", "1s5", "1e3s"] {
            assert!(bad.parse::<HumanDuration>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_duration_prints_as_it_is_written() {
        for text in ["250ms", "5s", "90s", "2m", "3h", "1d", "0"] {
            assert_eq!(text.parse::<HumanDuration>().unwrap().to_string(), text);
        }
    }
}
