//! Single values out of their text. Each function takes exactly what its type means and nothing that "looks like" it; `None` is
//! not such a value.

/// Days before 1970-01-01 in the proleptic Gregorian calendar, counted from 0000-03-01.
const EPOCH_DAYS: i64 = 719_468;

pub fn boolean(text: &[u8]) -> Option<bool> {
    match text {
        b"true" | b"TRUE" | b"True" => Some(true),
        b"false" | b"FALSE" | b"False" => Some(false),
        _ => None,
    }
}

/// An integer with an optional sign.
pub fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() {
        return None;
    }
    let mut value: i64 = 0;
    if digits.len() <= 18 {
        // Cannot overflow.
        for &c in digits {
            let d = c.wrapping_sub(b'0');
            if d > 9 {
                return None;
            }
            value = value * 10 + i64::from(d);
        }
        return Some(if negative { -value } else { value });
    }
    for &c in digits {
        let d = c.wrapping_sub(b'0');
        if d > 9 {
            return None;
        }
        value = value.checked_mul(10)?;
        value = if negative { value.checked_sub(i64::from(d))? } else { value.checked_add(i64::from(d))? };
    }
    Some(value)
}

/// A decimal as its unscaled integer. Digits beyond `scale` must be zeros: nothing is rounded.
pub fn decimal(text: &[u8], precision: u8, scale: i8) -> Option<i128> {
    let (negative, rest) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let scale = u32::try_from(scale).ok()?;
    // Nearly all decimals fit into 18 digits, where plain arithmetic cannot overflow.
    let value =
        if rest.len() + scale as usize <= 18 { decimal_digits::<i64>(rest, scale)?.into() } else { decimal_digits::<i128>(rest, scale)? };
    let fits = precision >= 38 || value < 10i128.pow(u32::from(precision));
    fits.then_some(if negative { -value } else { value })
}

trait Digits: Copy {
    const ZERO: Self;
    fn push(self, digit: u8) -> Option<Self>;
}

impl Digits for i64 {
    const ZERO: Self = 0;
    fn push(self, digit: u8) -> Option<Self> {
        Some(self * 10 + i64::from(digit))
    }
}

impl Digits for i128 {
    const ZERO: Self = 0;
    fn push(self, digit: u8) -> Option<Self> {
        // Decimals have at most 38 digits, less than an i128 holds.
        (self < 10i128.pow(37)).then(|| self * 10 + i128::from(digit))
    }
}

fn decimal_digits<T: Digits>(text: &[u8], scale: u32) -> Option<T> {
    let mut value = T::ZERO;
    let mut i = 0;
    while let Some(c) = text.get(i).filter(|c| **c != b'.') {
        let d = c.wrapping_sub(b'0');
        if d > 9 {
            return None;
        }
        value = value.push(d)?;
        i += 1;
    }
    let fraction = text.get(i + 1..).unwrap_or_default();
    if i + fraction.len() == 0 {
        return None;
    }
    let mut left = scale;
    for c in fraction {
        let d = c.wrapping_sub(b'0');
        if d > 9 || (left == 0 && d != 0) {
            return None;
        }
        if left > 0 {
            value = value.push(d)?;
            left -= 1;
        }
    }
    for _ in 0..left {
        value = value.push(0)?;
    }
    Some(value)
}

pub fn float(text: &[u8]) -> Option<f64> {
    // Rust also takes `infinity` and `nan` in any case, which are values of a double.
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Whether a double prints this number again: then storing it as a double loses nothing that the text said.
pub fn float_is_exact(text: &str, value: f64) -> bool {
    if !value.is_finite() {
        return false;
    }
    let printed = format!("{value:e}");
    canonical(text) == canonical(&printed)
}

/// Significant digits without leading and trailing zeros, and the power of ten of the first; both say which number it is.
fn canonical(text: &str) -> (String, i64) {
    let text = text.trim_start_matches(['-', '+']);
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent: i64 = exponent.parse().unwrap_or(0);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let significant = all.trim_start_matches('0');
    let leading = (all.len() - significant.len()) as i64;
    let significant = significant.trim_end_matches('0');
    if significant.is_empty() {
        return (String::new(), 0);
    }
    (significant.to_owned(), whole.len() as i64 - leading + exponent)
}

fn two(text: &[u8], at: usize) -> Option<u32> {
    let (a, b) = (text.get(at)?.wrapping_sub(b'0'), text.get(at + 1)?.wrapping_sub(b'0'));
    (a <= 9 && b <= 9).then(|| u32::from(a) * 10 + u32::from(b))
}

/// `YYYY-MM-DD` as days since 1970. Years before 0 or after 9999 have a sign and up to six digits.
pub fn date(text: &[u8]) -> Option<i32> {
    let (year, rest) = match text {
        [sign @ (b'+' | b'-'), rest @ ..] => {
            let digits = rest.len().checked_sub(6).filter(|n| (4..=6).contains(n))?;
            let year = integer(&rest[..digits]).filter(|_| rest[0].is_ascii_digit())?;
            (if *sign == b'-' { -year } else { year }, &rest[digits..])
        }
        _ => (i64::from(two(text, 0)? * 100 + two(text, 2)?), text.get(4..)?),
    };
    if rest.len() != 6 || rest[0] != b'-' || rest[3] != b'-' {
        return None;
    }
    let (month, day) = (two(rest, 1)?, two(rest, 4)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if day == 0 || day > length {
        return None;
    }
    // Howard Hinnant's days_from_civil: years begin in March, so that the leap day is the last.
    let y = year - i64::from(month <= 2);
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let day_of_year = i64::from((153 * ((month + 9) % 12) + 2) / 5 + day - 1);
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    i32::try_from(era * 146_097 + day_of_era - EPOCH_DAYS).ok()
}

/// `HH:MM[:SS[.fraction]]` as nanoseconds since midnight, and the bytes that were read.
fn clock(text: &[u8]) -> Option<(i64, usize)> {
    let (hour, minute) = (two(text, 0)?, two(text, 3)?);
    if text[2] != b':' || hour > 23 || minute > 59 {
        return None;
    }
    let mut nanos = i64::from(hour * 3600 + minute * 60) * 1_000_000_000;
    let mut at = 5;
    if text.get(at) == Some(&b':') {
        let second = two(text, 6)?;
        if second > 59 {
            return None;
        }
        nanos += i64::from(second) * 1_000_000_000;
        at = 8;
        if matches!(text.get(at), Some(b'.' | b',')) {
            let digits = text[at + 1..].iter().take_while(|c| c.is_ascii_digit()).count();
            if digits == 0 || digits > 9 {
                return None;
            }
            nanos += integer(&text[at + 1..=at + digits])? * 10i64.pow(9 - digits as u32);
            at += digits + 1;
        }
    }
    Some((nanos, at))
}

/// A time of day in nanoseconds.
pub fn time(text: &[u8]) -> Option<i64> {
    let (nanos, used) = clock(text)?;
    (used == text.len()).then_some(nanos)
}

/// A point in time, or on a calendar when it has no zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instant {
    /// Since 1970; in UTC when `zoned`.
    pub seconds: i64,
    pub nanos: i64,
    pub zoned: bool,
}

impl Instant {
    /// In units of `10^-digits` seconds; `None` when it has finer digits or is out of range.
    pub fn in_unit(self, digits: u32) -> Option<i64> {
        let step = 10i64.pow(9 - digits);
        if self.nanos % step != 0 {
            return None;
        }
        self.seconds.checked_mul(10i64.pow(digits))?.checked_add(self.nanos / step)
    }
}

/// ISO 8601: a date, then optionally `T` or a space, a time of day, and `Z` or an offset.
pub fn instant(text: &[u8]) -> Option<Instant> {
    let Some(split) = text.iter().position(|b| matches!(b, b'T' | b' ' | b't')) else {
        return Some(Instant { seconds: i64::from(date(text)?) * 86_400, nanos: 0, zoned: false });
    };
    let days = i64::from(date(&text[..split])?);
    let (nanos, used) = clock(&text[split + 1..])?;
    let seconds = days * 86_400 + nanos.div_euclid(1_000_000_000);
    let nanos = nanos.rem_euclid(1_000_000_000);
    let rest = &text[split + 1 + used..];
    let zone = rest.strip_prefix(b" ").unwrap_or(rest);
    match zone {
        [] if rest.is_empty() => Some(Instant { seconds, nanos, zoned: false }),
        b"Z" | b"z" | b"UTC" => Some(Instant { seconds, nanos, zoned: true }),
        [sign @ (b'+' | b'-'), rest @ ..] => {
            let (hours, minutes) = match rest.len() {
                2 => (two(rest, 0)?, 0),
                4 => (two(rest, 0)?, two(rest, 2)?),
                5 if rest[2] == b':' => (two(rest, 0)?, two(rest, 3)?),
                _ => return None,
            };
            if hours > 18 || minutes > 59 {
                return None;
            }
            let offset = i64::from(hours * 3600 + minutes * 60);
            Some(Instant { seconds: if *sign == b'+' { seconds - offset } else { seconds + offset }, nanos, zoned: true })
        }
        _ => None,
    }
}

/// 8-4-4-4-12 hex digits.
pub fn uuid(text: &[u8]) -> Option<[u8; 16]> {
    if text.len() != 36 {
        return None;
    }
    uuid::Uuid::try_parse_ascii(text).ok().map(uuid::Uuid::into_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, NaiveDate};
    use proptest::prelude::*;

    #[test]
    fn integers() {
        let cases = [
            ("0", Some(0)),
            ("-7", Some(-7)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("", None),
            ("-", None),
            ("1_000", None),
            ("1.0", None),
            (" 1", None),
        ];
        for (text, expected) in cases {
            assert_eq!(integer(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn decimals_are_never_rounded() {
        let cases = [
            ("1.10", 15, 2, Some(110)),
            ("-0.5", 15, 2, Some(-50)),
            (".5", 15, 2, Some(50)),
            ("5.", 15, 2, Some(500)),
            ("1.100", 15, 2, Some(110)),
            ("1.101", 15, 2, None),
            ("12345", 4, 0, None),
            (".", 15, 2, None),
            ("1e3", 15, 2, None),
            ("99999999999999999999999999999999999999", 38, 0, Some(99_999_999_999_999_999_999_999_999_999_999_999_999)),
            ("199999999999999999999999999999999999999", 38, 0, None),
        ];
        for (text, p, s, expected) in cases {
            assert_eq!(decimal(text.as_bytes(), p, s), expected, "{text}");
        }
    }

    #[test]
    fn instants() {
        let cases = [
            ("1970-01-01", Some((0, 0, false))),
            ("1970-01-02T00:00:01", Some((86_401, 0, false))),
            ("1970-01-01 01:00:00+01:00", Some((0, 0, true))),
            ("1969-12-31 23:59:59.5Z", Some((-1, 500_000_000, true))),
            ("1970-01-01 00:00:00 UTC", Some((0, 0, true))),
            ("1970-01-01 00:00", Some((0, 0, false))),
            ("1970-01-01 24:00:00", None),
            ("1970-13-01", None),
            ("2023-02-29", None),
            ("+12345-01-01", Some((327_403_382_400, 0, false))),
            ("-0001-12-31T00:00:00Z", Some((-62_167_305_600, 0, true))),
            ("12345-01-01", None),
            ("1970-01-01 ", None),
            ("01/02/1970", None),
        ];
        for (text, expected) in cases {
            assert_eq!(instant(text.as_bytes()).map(|i| (i.seconds, i.nanos, i.zoned)), expected, "{text}");
        }
    }

    #[test]
    fn doubles_that_say_the_same() {
        let cases = [
            ("19.99", true),
            ("1e5", true),
            ("100000.0", true),
            ("0.1000000000000000055", false),
            ("12345678901234567890", false),
            ("-0.5", true),
        ];
        for (text, expected) in cases {
            assert_eq!(float_is_exact(text, text.parse().unwrap()), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn dates_agree_with_chrono(days in -719_000i32..2_900_000) {
            let text = (NaiveDate::default() + chrono::Duration::days(days.into())).format("%Y-%m-%d").to_string();
            prop_assert_eq!(date(text.as_bytes()), Some(days));
        }

        #[test]
        fn instants_agree_with_chrono(micros in -60_000_000_000_000_000i64..250_000_000_000_000_000) {
            let at = DateTime::from_timestamp_micros(micros).unwrap();
            let text = at.format("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string();
            prop_assert_eq!(instant(text.as_bytes()).and_then(|i| i.in_unit(6)), Some(micros));
        }
    }
}
