//! HTTP dates (RFC 9110 5.6.7), in all three formats, as seconds since 1970.
//!
//! Case is ignored and the weekday may be any word, as origins write both wrong. All else must be as the grammar has it: a
//! date that others would read otherwise is none.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::list::trim;

const MONTHS: [&[u8; 3]; 12] =
    [b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"];

/// The date, in seconds since 1970. `now` tells the century of a year of two digits (more than 50 years ahead: the past).
pub fn parse(text: &[u8], now: i64) -> Option<i64> {
    let text = trim(text);
    let word = text.iter().position(|byte| !byte.is_ascii_alphabetic())?;
    let (weekday, rest) = text.split_at(word);
    if weekday.len() < 3 {
        return None;
    }
    match rest {
        // Sun, 06 Nov 1994 08:49:37 GMT
        [b',', b' ', d1, d2, b' ', m1, m2, m3, b' ', y1, y2, y3, y4, b' ', time @ .., b' ', g, m, t] => {
            is_gmt([*g, *m, *t])?;
            stamp(number(&[*y1, *y2, *y3, *y4])?, [*m1, *m2, *m3], number(&[*d1, *d2])?, time)
        }
        // Sunday, 06-Nov-94 08:49:37 GMT
        [b',', b' ', d1, d2, b'-', m1, m2, m3, b'-', y1, y2, b' ', time @ .., b' ', g, m, t] => {
            is_gmt([*g, *m, *t])?;
            let at = |year| stamp(year, [*m1, *m2, *m3], number(&[*d1, *d2])?, time);
            let this_year = year_of(now);
            let mut year = this_year - this_year.rem_euclid(100) + 100 + number(&[*y1, *y2])?;
            // The latest year with these digits that is at most 50 years ahead; the 29th of February is not in all.
            while year > this_year + 50 || at(year).is_some_and(|date| date > fifty_years_after(now)) {
                year -= 100;
            }
            at(year)
        }
        // Sun Nov  6 08:49:37 1994
        [b' ', m1, m2, m3, b' ', d1, d2, b' ', time @ .., b' ', y1, y2, y3, y4] => {
            let day = if *d1 == b' ' { number(&[*d2])? } else { number(&[*d1, *d2])? };
            stamp(number(&[*y1, *y2, *y3, *y4])?, [*m1, *m2, *m3], day, time)
        }
        _ => None,
    }
}

/// The whole seconds from 1970 to this time.
pub fn seconds(time: SystemTime) -> i64 {
    let whole = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => whole(after),
        Err(before) => -whole(before.duration()),
    }
}

fn is_gmt(zone: [u8; 3]) -> Option<()> {
    zone.eq_ignore_ascii_case(b"gmt").then_some(())
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0')))
}

fn stamp(year: i64, month: [u8; 3], day: i64, time: &[u8]) -> Option<i64> {
    let month = MONTHS.iter().position(|name| month.eq_ignore_ascii_case(*name))?;
    let &[h1, h2, b':', m1, m2, b':', s1, s2] = time else { return None };
    let (hour, minute, second) = (number(&[h1, h2])?, number(&[m1, m2])?, number(&[s1, s2])?);
    let is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let length = [31, if is_leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month];
    // A second 60 is a leap second.
    if !(1..=length).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(days(year, i64::try_from(month).ok()?, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// Days from 1970 to this day; `month` counts from 0.
const fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years that begin in March have the leap day at their end.
    let year = if month < 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 10) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

fn year_of(now: i64) -> i64 {
    let mut year = 1970 + now.clamp(-62_000_000_000, 260_000_000_000).div_euclid(31_556_952);
    if days(year + 1, 0, 1) * 86_400 <= now {
        year += 1;
    } else if days(year, 0, 1) * 86_400 > now {
        year -= 1;
    }
    year
}

const fn fifty_years_after(now: i64) -> i64 {
    now.saturating_add(50 * 31_556_952)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-11-24 16:00:00.
    const NOW: i64 = 1_795_536_000;

    #[test]
    fn all_three_formats_tell_the_same() {
        // RFC 9110 5.6.7: the examples there, and what origins make of them.
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun Nov 06 08:49:37 1994",
            " Sun, 06 Nov 1994 08:49:37 GMT ",
            "SUN, 06 NOV 1994 08:49:37 gmt",
            "sUNDAY, 06-nOV-94 08:49:37 gMt",
            "Mon, 06 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(parse(text.as_bytes(), NOW), Some(784_111_777), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "0",
            "-1",
            "Sun",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 +0000",
            "Sun 06 Nov 1994 08:49:37 GMT",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06  Nov  1994 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 06 Nov 1994 08.49.37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:00 GMT",
            "Sun, 06 Nov 1994 08:49:61 GMT",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Sun, 29 Feb 1900 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Foo 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT, x",
        ] {
            assert_eq!(parse(text.as_bytes(), NOW), None, "{text}");
        }
    }

    #[test]
    fn years_and_leap_days_add_up() {
        for (text, seconds) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Wed, 31 Dec 1969 23:59:59 GMT", -1),
            ("Tue, 29 Feb 2000 00:00:00 GMT", 951_782_400),
            ("Wed, 01 Mar 2000 00:00:00 GMT", 951_868_800),
            ("Tue, 24 Nov 2026 16:00:00 GMT", NOW),
            ("Sat, 31 Dec 2016 23:59:60 GMT", 1_483_228_800),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799),
            ("Sat, 01 Jan 0000 00:00:00 GMT", -62_167_219_200),
        ] {
            assert_eq!(parse(text.as_bytes(), NOW), Some(seconds), "{text}");
        }
    }

    #[test]
    fn two_digits_of_a_year_lie_at_most_fifty_years_ahead() {
        // RFC 9110 5.6.7: more than 50 years in the future means the most recent year in the past.
        for (year, full) in [("26", 2026), ("50", 2050), ("75", 2075), ("77", 1977), ("99", 1999), ("00", 2000)] {
            let short = format!("Sunday, 06-Nov-{year} 08:49:37 GMT");
            let long = format!("Sun, 06 Nov {full} 08:49:37 GMT");
            assert_eq!(parse(short.as_bytes(), NOW), parse(long.as_bytes(), NOW), "{year}");
        }
    }

    #[test]
    fn a_time_is_told_in_whole_seconds() {
        assert_eq!(seconds(UNIX_EPOCH + Duration::from_millis(1_999)), 1);
        assert_eq!(seconds(UNIX_EPOCH - Duration::from_secs(5)), -5);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(text: Vec<u8>, now: i64) {
            parse(&text, now);
        }

        #[test]
        fn nothing_of_a_dates_form_makes_it_panic(
            text in "[A-Za-z]{3,9},? [0-9 ]{2}[- ][A-Z][a-z]{2}[- ]([0-9]{2}){1,2} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT",
            now: i64,
        ) {
            parse(text.as_bytes(), now);
        }

        #[test]
        fn a_second_lies_in_its_year(seconds in 0_i64..253_402_300_800) {
            let time = UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs());
            let (year, rest) = (year_of(seconds), self::seconds(time));
            prop_assert_eq!(rest, seconds);
            prop_assert!(days(year, 0, 1) * 86_400 <= seconds && seconds < days(year + 1, 0, 1) * 86_400);
        }
    }
}
