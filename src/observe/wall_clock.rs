//! The time of day as text, UTC. Each thread keeps the text of the second it last told: a busy one computes it once.

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";

/// The text of one second, both ways.
#[derive(Clone, Copy)]
struct Told {
    second: u64,
    /// `2026-01-31T23:59:59`
    rfc3339: [u8; 19],
    /// `31/Jan/2026:23:59:59 +0000`
    clf: [u8; 26],
}

thread_local! {
    static TOLD: Cell<Told> = const { Cell::new(Told { second: u64::MAX, rfc3339: [0; 19], clf: [0; 26] }) };
}

/// Appends the time now by RFC 3339 with milliseconds: `2026-01-31T23:59:59.123Z`.
pub(super) fn rfc3339(out: &mut Vec<u8>) {
    let (told, millis) = now();
    out.extend_from_slice(&told.rfc3339);
    out.push(b'.');
    out.push(b'0' + (millis / 100) as u8);
    out.extend_from_slice(&two(millis % 100));
    out.push(b'Z');
}

/// Appends the time now as Apache writes it: `31/Jan/2026:23:59:59 +0000`.
pub(super) fn clf(out: &mut Vec<u8>) {
    out.extend_from_slice(&now().0.clf);
}

fn now() -> (Told, u32) {
    // A clock set before 1970 tells 1970.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut told = TOLD.get();
    if told.second != since.as_secs() {
        told = tell(since.as_secs());
        TOLD.set(told);
    }
    (told, since.subsec_millis())
}

fn tell(second: u64) -> Told {
    let (year, month, day) = civil(second / 86_400);
    let clock = second % 86_400;
    let [century, year] = [year / 100, year % 100].map(|part| two(part as u32));
    let [hour, minute, second_of_minute] = [clock / 3600, clock / 60 % 60, clock % 60].map(|part| two(part as u32));
    let name = &MONTHS[month as usize * 3 - 3..month as usize * 3];
    let mut told = Told { second, rfc3339: *b"0000-00-00T00:00:00", clf: *b"00/Jan/0000:00:00:00 +0000" };
    let mut place = |at_rfc: usize, at_clf: usize, digits: [u8; 2]| {
        told.rfc3339[at_rfc..at_rfc + 2].copy_from_slice(&digits);
        told.clf[at_clf..at_clf + 2].copy_from_slice(&digits);
    };
    place(0, 7, century);
    place(2, 9, year);
    place(8, 0, two(day));
    place(11, 12, hour);
    place(14, 15, minute);
    place(17, 18, second_of_minute);
    told.rfc3339[5..7].copy_from_slice(&two(month));
    told.clf[3..6].copy_from_slice(name);
    told
}

fn two(number: u32) -> [u8; 2] {
    [b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8]
}

/// Year, month and day in the Gregorian calendar, that many days after 1 January 1970.
fn civil(days: u64) -> (u64, u32, u32) {
    // Whole 400-year cycles first; then year by year and month by month: this runs once a second and thread.
    let mut year = 1970 + days / 146_097 * 400;
    let mut left = days % 146_097;
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    (year, month, left as u32 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_told_both_ways() {
        for (second, rfc3339, clf) in [
            (0, "1970-01-01T00:00:00", "01/Jan/1970:00:00:00 +0000"),
            (951_782_399, "2000-02-28T23:59:59", "28/Feb/2000:23:59:59 +0000"),
            (951_782_400, "2000-02-29T00:00:00", "29/Feb/2000:00:00:00 +0000"),
            (1_767_225_599, "2025-12-31T23:59:59", "31/Dec/2025:23:59:59 +0000"),
            (1_772_323_200, "2026-03-01T00:00:00", "01/Mar/2026:00:00:00 +0000"),
            (4_107_542_400, "2100-03-01T00:00:00", "01/Mar/2100:00:00:00 +0000"),
        ] {
            let told = tell(second);
            assert_eq!(std::str::from_utf8(&told.rfc3339), Ok(rfc3339));
            assert_eq!(std::str::from_utf8(&told.clf), Ok(clf));
        }
        let mut text = Vec::new();
        super::rfc3339(&mut text);
        assert_eq!((text.len(), text[19], text[23]), (24, b'.', b'Z'));
    }
}
