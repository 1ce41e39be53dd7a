//! Dates and times as ISO 8601 text, in the proleptic Gregorian calendar.
//!
//! Years outside 0000–9999 are written with their sign, so every `i64` of every Arrow unit has a text and comes back from it.

use std::fmt::Write;

use arrow::datatypes::TimeUnit;

pub const DAY: i64 = 86_400;
const NANOS: i128 = 1_000_000_000;

/// A point on the calendar: seconds since 1970 as the text says them, and the offset from UTC that stood behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub seconds: i64,
    pub nanos: u32,
    pub offset: Option<i32>,
}

impl Stamp {
    /// Nanoseconds since 1970, in UTC when there is an offset.
    pub fn instant(self) -> i128 {
        i128::from(self.seconds - i64::from(self.offset.unwrap_or(0))) * NANOS + i128::from(self.nanos)
    }
}

pub fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

pub fn digits_of(unit: TimeUnit) -> usize {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

/// The value in `unit`; `None` when it is finer than that or out of range.
pub fn to_unit(nanos: i128, unit: TimeUnit) -> Option<i64> {
    let step = NANOS / i128::from(per_second(unit));
    if nanos % step != 0 {
        return None;
    }
    i64::try_from(nanos / step).ok()
}

pub fn from_unit(value: i64, unit: TimeUnit) -> i128 {
    i128::from(value) * (NANOS / i128::from(per_second(unit)))
}

/// Days since 1970 of `YYYY-MM-DD`.
pub fn parse_date(text: &str) -> Option<i64> {
    let mut rest = text.as_bytes();
    let days = take_date(&mut rest)?;
    rest.is_empty().then_some(days)
}

/// `YYYY-MM-DD`, with or without `HH:MM`, `:SS`, `.FRACTION` and an offset.
pub fn parse_stamp(text: &str) -> Option<Stamp> {
    let mut rest = text.as_bytes();
    let days = take_date(&mut rest)?;
    let midnight = days.checked_mul(DAY)?;
    if rest.is_empty() {
        return Some(Stamp { seconds: midnight, nanos: 0, offset: None });
    }
    take(&mut rest, b"T ")?;
    let (seconds, nanos) = take_time(&mut rest).filter(|(seconds, _)| *seconds < DAY)?;
    let offset = if rest.is_empty() { None } else { Some(take_offset(&mut rest)?) };
    Some(Stamp { seconds: midnight.checked_add(seconds)?, nanos, offset })
}

/// Nanoseconds since midnight of `HH:MM[:SS[.FRACTION]]`, up to `24:00`.
pub fn parse_time(text: &str) -> Option<i128> {
    let mut rest = text.as_bytes();
    let (seconds, nanos) = take_time(&mut rest)?;
    rest.is_empty().then_some(i128::from(seconds) * NANOS + i128::from(nanos))
}

fn take(rest: &mut &[u8], any_of: &[u8]) -> Option<u8> {
    let (first, tail) = rest.split_first()?;
    any_of.contains(first).then_some(())?;
    *rest = tail;
    Some(*first)
}

fn take_number(rest: &mut &[u8], digits: usize) -> Option<i64> {
    if rest.len() < digits {
        return None;
    }
    let (head, tail) = rest.split_at(digits);
    let mut value: i64 = 0;
    for byte in head {
        value = value.checked_mul(10)?.checked_add(i64::from(byte.checked_sub(b'0').filter(|d| *d < 10)?))?;
    }
    *rest = tail;
    Some(value)
}

fn take_date(rest: &mut &[u8]) -> Option<i64> {
    let sign = take(rest, b"+-");
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits < 4 || (sign.is_none() && digits > 4) {
        return None;
    }
    let year = take_number(rest, digits)?;
    let year = if sign == Some(b'-') { -year } else { year };
    take(rest, b"-")?;
    let month = take_number(rest, 2)?;
    take(rest, b"-")?;
    let day = take_number(rest, 2)?;
    if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) || year.abs() > 400_000_000_000 {
        return None;
    }
    Some(days_from_civil(year, month, day))
}

fn take_time(rest: &mut &[u8]) -> Option<(i64, u32)> {
    let hour = take_number(rest, 2)?;
    take(rest, b":")?;
    let minute = take_number(rest, 2)?;
    let mut second = 0;
    let mut nanos = 0;
    if take(rest, b":").is_some() {
        second = take_number(rest, 2)?;
        if take(rest, b".").is_some() {
            let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            let (head, tail) = rest.split_at(digits);
            if head.iter().skip(9).any(|b| *b != b'0') {
                return None;
            }
            for place in 0..9 {
                nanos = nanos * 10 + u32::from(head.get(place).map_or(0, |b| b - b'0'));
            }
            *rest = tail;
        }
    }
    let midnight = hour == 24 && minute == 0 && second == 0 && nanos == 0;
    ((hour < 24 || midnight) && minute < 60 && second < 60).then_some((hour * 3600 + minute * 60 + second, nanos))
}

/// `Z`, or `±HH:MM` (also `±HHMM`, `±HH`), with or without a space before.
fn take_offset(rest: &mut &[u8]) -> Option<i32> {
    take(rest, b" ");
    let sign = take(rest, b"Zz+-")?;
    let mut seconds = 0;
    if sign == b'+' || sign == b'-' {
        let hours = take_number(rest, 2)?;
        take(rest, b":");
        let minutes = if rest.is_empty() { 0 } else { take_number(rest, 2)? };
        if hours > 23 || minutes > 59 {
            return None;
        }
        seconds = (hours * 3600 + minutes * 60) as i32;
    }
    rest.is_empty().then_some(if sign == b'-' { -seconds } else { seconds })
}

/// Appends `YYYY-MM-DD`.
pub fn write_date(out: &mut String, days: i64) {
    let (year, month, day) = civil_from_days(days);
    if !(0..=9999).contains(&year) {
        out.push(if year < 0 { '-' } else { '+' });
    }
    push_number(out, year.abs(), 4);
    out.push('-');
    push_number(out, month, 2);
    out.push('-');
    push_number(out, day, 2);
}

/// Appends `YYYY-MM-DD HH:MM:SS.FRACTION`, with all digits of the unit, so that equal units sort by time.
pub fn write_stamp(out: &mut String, value: i64, unit: TimeUnit) {
    write_stamp_as(out, from_unit(value, unit), ' ', digits_of(unit));
}

/// Appends a stamp in a given shape; `digits` of the fraction, of which there are nine at most.
pub fn write_stamp_as(out: &mut String, nanos: i128, separator: char, digits: usize) {
    let seconds = nanos.div_euclid(NANOS) as i64;
    write_date(out, seconds.div_euclid(DAY));
    out.push(separator);
    write_clock(out, seconds.rem_euclid(DAY), nanos.rem_euclid(NANOS) as i64, digits);
}

/// Appends `HH:MM:SS.FRACTION`.
pub fn write_time(out: &mut String, value: i64, unit: TimeUnit) {
    let nanos = from_unit(value, unit);
    write_clock(out, (nanos / NANOS) as i64, (nanos % NANOS) as i64, digits_of(unit));
}

fn write_clock(out: &mut String, seconds: i64, nanos: i64, digits: usize) {
    push_number(out, seconds / 3600, 2);
    out.push(':');
    push_number(out, seconds / 60 % 60, 2);
    out.push(':');
    push_number(out, seconds % 60, 2);
    if digits > 0 {
        out.push('.');
        push_number(out, nanos / 10_i64.pow(9 - digits.min(9) as u32), digits.min(9));
    }
}

fn push_number(out: &mut String, value: i64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    let mut rest = value;
    while rest > 0 {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let at = at.min(digits.len() - width);
    out.extend(digits[at..].iter().map(|b| char::from(*b)));
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01. Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Appends `P1Y2M3DT4.5S`-like text: months, days and nanoseconds, each with its own sign.
pub fn write_interval(out: &mut String, months: i32, days: i32, nanos: i64) {
    let sign = if nanos < 0 { "-" } else { "" };
    let (whole, fraction) = (nanos.unsigned_abs() / 1_000_000_000, nanos.unsigned_abs() % 1_000_000_000);
    // Writing to a string does not fail.
    let _ = write!(out, "P{months}M{days}DT{sign}{whole}.{fraction:09}S");
}

/// The inverse of [`write_interval`], which also takes years, weeks, hours and minutes.
pub fn parse_interval(text: &str) -> Option<(i32, i32, i64)> {
    let mut rest = text.strip_prefix('P')?;
    if rest.is_empty() {
        return None;
    }
    let (mut months, mut days, mut nanos, mut clock) = (0_i64, 0_i64, 0_i128, false);
    while !rest.is_empty() {
        if let Some(tail) = rest.strip_prefix('T') {
            if clock || tail.is_empty() {
                return None;
            }
            (rest, clock) = (tail, true);
            continue;
        }
        let end = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let (number, unit) = (&rest[..end], rest[end..].chars().next()?);
        rest = &rest[end + 1..];
        let whole = || number.parse::<i64>().ok();
        match (clock, unit) {
            (false, 'Y') => months = months.checked_add(whole()?.checked_mul(12)?)?,
            (false, 'M') => months = months.checked_add(whole()?)?,
            (false, 'W') => days = days.checked_add(whole()?.checked_mul(7)?)?,
            (false, 'D') => days = days.checked_add(whole()?)?,
            (true, 'H') => nanos += i128::from(whole()?) * 3600 * NANOS,
            (true, 'M') => nanos += i128::from(whole()?) * 60 * NANOS,
            (true, 'S') => nanos += seconds(number)?,
            _ => return None,
        }
    }
    Some((months.try_into().ok()?, days.try_into().ok()?, nanos.try_into().ok()?))
}

/// `-4.5` in nanoseconds.
fn seconds(number: &str) -> Option<i128> {
    let (negative, number) = number.strip_prefix('-').map_or((false, number), |rest| (true, rest));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 9 || !(whole.bytes().chain(fraction.bytes())).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos = i128::from(whole.parse::<i64>().ok()?) * NANOS + format!("{fraction:0<9}").parse::<i128>().ok()?;
    Some(if negative { -nanos } else { nanos })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stamps_that_people_write() {
        let noon = 1_706_702_400;
        let cases = [
            ("2024-01-31 12:00:00", Some((noon, 0, None))),
            ("2024-01-31T12:00", Some((noon, 0, None))),
            ("2024-01-31T12:00:00.5Z", Some((noon, 500_000_000, Some(0)))),
            ("2024-01-31 12:00:00.000 +00:00", Some((noon, 0, Some(0)))),
            ("2024-01-31 12:00:00-0130", Some((noon, 0, Some(-5400)))),
            ("2024-01-31", Some((noon - 43_200, 0, None))),
            ("2024-01-31 12:00:00.1234567891", None),
            ("2024-02-30", None),
            ("2024-1-31", None),
            ("12024-01-31", None),
            ("2024-01-31 24:00:00", None),
            ("2024-01-31 12:00:00 ", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|(seconds, nanos, offset)| Stamp { seconds, nanos, offset });
            assert_eq!(parse_stamp(text), expected, "{text}");
        }
    }

    #[test]
    fn a_day_ends_at_24_00() {
        assert_eq!(parse_time("24:00:00"), Some(i128::from(DAY) * NANOS));
        for text in ["24:00:01", "24:01", "25:00", "24:00:00.1"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    #[test]
    fn intervals_that_people_write() {
        assert_eq!(parse_interval("P1Y2M3DT4H5M6.5S"), Some((14, 3, 14_706_500_000_000)));
        assert_eq!(parse_interval("P2W"), Some((0, 14, 0)));
        for text in ["", "P", "PT", "1D", "P1H", "PT1D", "P1.5D"] {
            assert_eq!(parse_interval(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_date_comes_back(days: i32) {
            let mut text = String::new();
            write_date(&mut text, i64::from(days));
            prop_assert_eq!(parse_date(&text), Some(i64::from(days)));
        }

        #[test]
        fn every_stamp_comes_back(value: i64, unit in 0..4_usize) {
            let unit = [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond][unit];
            // Seconds that are years of eleven digits are nobody's.
            let value = if unit == TimeUnit::Second { value / 1000 } else { value };
            let mut text = String::new();
            write_stamp(&mut text, value, unit);
            let back = parse_stamp(&text).and_then(|stamp| to_unit(stamp.instant(), unit));
            prop_assert_eq!(back, Some(value), "{}", text);
        }

        #[test]
        fn every_interval_comes_back(months: i32, days: i32, nanos: i64) {
            let mut text = String::new();
            write_interval(&mut text, months, days, nanos);
            prop_assert_eq!(parse_interval(&text), Some((months, days, nanos)), "{}", text);
        }
    }
}
