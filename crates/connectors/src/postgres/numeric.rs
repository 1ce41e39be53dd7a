//! PostgreSQL's binary `numeric`: digits of base 10000, most significant first, with the place of the first.
//!
//! A value is `sign * Σ digit[i] * 10000^(weight - i)`. The header is four 16-bit integers: number of digits, weight, sign, and the display
//! scale (decimal digits after the point). Neither leading nor trailing zero digits are stored. Source: `numeric_send` in
//! `src/backend/utils/adt/numeric.c`.

use std::fmt::Write as _;

use arrow::datatypes::i256;
use bytes::BufMut;

const POSITIVE: u16 = 0x0000;
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const POSITIVE_INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;

/// Powers of ten.
const POWERS: [u64; 20] = {
    let mut powers = [1; 20];
    let mut i = 1;
    while i < powers.len() {
        powers[i] = powers[i - 1] * 10;
        i += 1;
    }
    powers
};

/// Why a numeric is not a decimal of the wanted scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotDecimal {
    /// `NaN` or an infinity, as PostgreSQL writes it.
    Special(&'static str),
    /// More digits than the declared type has: it is not the type that was discovered.
    DoesNotFit,
    Malformed,
}

struct Parts<'a> {
    weight: i32,
    sign: u16,
    scale: usize,
    digits: &'a [u8],
}

impl<'a> Parts<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, NotDecimal> {
        let (header, digits) = bytes.split_first_chunk::<8>().ok_or(NotDecimal::Malformed)?;
        let field = |i: usize| u16::from_be_bytes([header[i], header[i + 1]]);
        if digits.len() != usize::from(field(0)) * 2 {
            return Err(NotDecimal::Malformed);
        }
        Ok(Self { weight: i32::from(field(2).cast_signed()), sign: field(4), scale: usize::from(field(6)), digits })
    }

    fn special(&self) -> Option<&'static str> {
        match self.sign {
            NAN => Some("NaN"),
            POSITIVE_INFINITY => Some("Infinity"),
            NEGATIVE_INFINITY => Some("-Infinity"),
            _ => None,
        }
    }

    fn digits(&self) -> impl ExactSizeIterator<Item = u16> + use<'a> {
        self.digits.chunks_exact(2).map(|d| u16::from_be_bytes([d[0], d[1]]))
    }

    /// Splits off what the last digit has beyond `scale`: the power of ten that the digits before it are to be multiplied by, the
    /// part of the last digit that counts, and the power of ten for the whole.
    fn tail(&self, scale: i8) -> Result<(u32, u16, u32), NotDecimal> {
        let count = self.digits.len() as i32 / 2;
        let shift = 4 * (self.weight - count + 1) + i32::from(scale);
        let last = u16::from_be_bytes([self.digits[self.digits.len() - 2], self.digits[self.digits.len() - 1]]);
        // Divisors that the compiler knows cost a multiplication.
        let (rest, part) = match shift {
            0.. => return Ok((4, last, shift.cast_unsigned())),
            -1 => (last % 10, last / 10),
            -2 => (last % 100, last / 100),
            -3 => (last % 1000, last / 1000),
            _ => return Err(NotDecimal::DoesNotFit),
        };
        if rest == 0 { Ok(((4 + shift).cast_unsigned(), part, 0)) } else { Err(NotDecimal::DoesNotFit) }
    }
}

/// The value times `10^scale`.
#[inline]
pub fn to_i128(bytes: &[u8], scale: i8) -> Result<i128, NotDecimal> {
    let parts = Parts::read(bytes)?;
    if let Some(special) = parts.special() {
        return Err(NotDecimal::Special(special));
    }
    let count = parts.digits.len() / 2;
    if count == 0 {
        return Ok(0);
    }
    let (step, last, shift) = parts.tail(scale)?;
    let head = parts.digits().take(count - 1);
    let value = match POWERS.get(shift as usize) {
        // Sixteen decimal digits and nineteen zeros: no step can overflow.
        Some(power) if count <= 4 => {
            let head = head.fold(0u64, |sum, digit| sum * 10_000 + u64::from(digit));
            i128::from(head * POWERS[step as usize] + u64::from(last)) * i128::from(*power)
        }
        _ => head
            .map(i128::from)
            .try_fold(0i128, |sum, digit| sum.checked_mul(10_000)?.checked_add(digit))
            .and_then(|head| head.checked_mul(10i128.pow(step))?.checked_add(i128::from(last)))
            .and_then(|magnitude| magnitude.checked_mul(10i128.checked_pow(shift)?))
            .ok_or(NotDecimal::DoesNotFit)?,
    };
    Ok(if parts.sign == NEGATIVE { -value } else { value })
}

/// The value times `10^scale`, for decimals of more than 38 digits.
pub fn to_i256(bytes: &[u8], scale: i8) -> Result<i256, NotDecimal> {
    let parts = Parts::read(bytes)?;
    if let Some(special) = parts.special() {
        return Err(NotDecimal::Special(special));
    }
    let count = parts.digits.len() / 2;
    if count == 0 {
        return Ok(i256::ZERO);
    }
    let (step, last, shift) = parts.tail(scale)?;
    let small = |n: u16| i256::from_i128(i128::from(n));
    let value = parts
        .digits()
        .take(count - 1)
        .try_fold(i256::ZERO, |sum, digit| sum.checked_mul(small(10_000))?.checked_add(small(digit)))
        .and_then(|head| head.checked_mul(small(10u16.pow(step)))?.checked_add(small(last)))
        .and_then(|magnitude| magnitude.checked_mul(small(10).checked_pow(shift)?))
        .ok_or(NotDecimal::DoesNotFit)?;
    Ok(if parts.sign == NEGATIVE { value.wrapping_neg() } else { value })
}

/// The value as PostgreSQL would write it, with its display scale.
pub fn to_text(bytes: &[u8], out: &mut String) -> Result<(), NotDecimal> {
    let parts = Parts::read(bytes)?;
    out.clear();
    if let Some(special) = parts.special() {
        out.push_str(special);
        return Ok(());
    }
    if parts.sign == NEGATIVE {
        out.push('-');
    }
    let digits: Vec<u16> = parts.digits().collect();
    let digit = |place: i32| usize::try_from(parts.weight - place).ok().and_then(|i| digits.get(i)).copied().unwrap_or(0);
    // Writing to a String cannot fail.
    let _ = write!(out, "{}", digit(parts.weight.max(0)));
    for place in (0..parts.weight.max(0)).rev() {
        let _ = write!(out, "{:04}", digit(place));
    }
    if parts.scale > 0 {
        out.push('.');
        let point = out.len();
        for place in 1..=parts.scale.div_ceil(4) {
            let _ = write!(out, "{:04}", digit(-(place as i32)));
        }
        out.truncate(point + parts.scale);
    }
    Ok(())
}

/// Writes length and value of `value / 10^scale`.
pub fn put_i128(value: i128, scale: i8, out: &mut Vec<u8>) {
    let pad = (4 - scale.rem_euclid(4)) % 4;
    let padding = POWERS[usize::from(pad.unsigned_abs())];
    let magnitude = value.unsigned_abs();
    let groups_after_point = (i32::from(scale) + i32::from(pad)) / 4;
    let shown = scale.max(0).unsigned_abs().into();
    if let Some(padded) = u64::try_from(magnitude).ok().and_then(|magnitude| magnitude.checked_mul(padding)) {
        put_u64(padded, groups_after_point, value < 0, shown, out);
    } else if let Some(mut rest) = magnitude.checked_mul(padding.into()) {
        let mut groups = [0u16; 11];
        let mut at = groups.len();
        while rest > 0 {
            at -= 1;
            groups[at] = (rest % 10_000) as u16;
            rest /= 10_000;
        }
        let first = groups.len() - at;
        put_groups(&groups[at..], first as i32 - groups_after_point - 1, value < 0, shown, out);
    } else {
        let zeros = usize::from(scale.min(0).unsigned_abs());
        put_decimal(&format!("{value}{:0<zeros$}", ""), scale.max(0), out);
    }
}

/// Writes `value / 10000^groups_after_point`. The groups are put together in a register: most numbers are a few groups long.
#[inline]
fn put_u64(value: u64, groups_after_point: i32, negative: bool, scale: u16, out: &mut Vec<u8>) {
    if value == 0 {
        out.extend_from_slice(&head(0, 0, false, scale));
        return;
    }
    let (mut rest, mut dropped) = (value, 0);
    while rest.is_multiple_of(10_000) {
        rest /= 10_000;
        dropped += 1;
    }
    let (mut groups, mut count) = (0u128, 0);
    while rest > 0 {
        groups = groups >> 16 | u128::from(rest % 10_000) << 112;
        rest /= 10_000;
        count += 1;
    }
    out.extend_from_slice(&head(count, count as i32 + dropped - groups_after_point - 1, negative, scale));
    // Writing a known number of bytes and cutting some off is cheaper than writing some.
    out.extend_from_slice(&groups.to_be_bytes());
    out.truncate(out.len() - (16 - 2 * count));
}

/// Writes length and value of `value / 10^scale`.
pub fn put_i256(value: i256, scale: i8, out: &mut Vec<u8>) {
    match value.to_i128() {
        Some(small) => put_i128(small, scale, out),
        None => put_decimal(&value.to_string(), scale, out),
    }
}

/// Writes an integer in decimal digits, divided by `10^scale`.
fn put_decimal(integer: &str, scale: i8, out: &mut Vec<u8>) {
    let (negative, digits) = match integer.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, integer),
    };
    let scale = usize::from(scale.unsigned_abs());
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    put_digits(negative, whole.as_bytes(), fraction.as_bytes(), out);
}

/// Writes length and value of a number in text form: what PostgreSQL itself would take. `None` when it is not a number.
pub fn put_text(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let text = text.trim();
    let special = match text.to_ascii_lowercase().as_str() {
        "nan" => Some(NAN),
        "inf" | "infinity" | "+inf" | "+infinity" => Some(POSITIVE_INFINITY),
        "-inf" | "-infinity" => Some(NEGATIVE_INFINITY),
        _ => None,
    };
    if let Some(sign) = special {
        out.put_i32(8);
        for field in [0, 0, sign, 0] {
            out.put_u16(field);
        }
        return Some(());
    }
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    // The server's own limits: 131072 digits before the point, 16383 after it.
    if whole.len() + fraction.len() == 0 || !all_digits(whole) || !all_digits(fraction) || exponent.abs() > 131_072 {
        return None;
    }
    let (mut whole, mut fraction) = (whole.to_owned(), fraction.to_owned());
    match exponent {
        0 => {}
        1.. => {
            let moved = exponent.cast_unsigned() as usize;
            fraction = format!("{fraction:0<moved$}");
            whole.push_str(&fraction[..moved]);
            fraction.drain(..moved);
        }
        _ => {
            let moved = exponent.unsigned_abs() as usize;
            whole = format!("{whole:0>moved$}");
            fraction.insert_str(0, &whole[whole.len() - moved..]);
            whole.truncate(whole.len() - moved);
        }
    }
    if whole.trim_start_matches('0').len() > 131_072 || fraction.len() > 16_383 {
        return None;
    }
    put_digits(negative, whole.trim_start_matches('0').as_bytes(), fraction.as_bytes(), out);
    Some(())
}

/// `whole` and `fraction` are ASCII digits.
fn put_digits(negative: bool, whole: &[u8], fraction: &[u8], out: &mut Vec<u8>) {
    let value = |digits: &[u8]| digits.iter().fold(0u16, |sum, d| sum * 10 + u16::from(d - b'0'));
    let mut groups: Vec<u16> = Vec::with_capacity(whole.len() / 4 + fraction.len() / 4 + 2);
    let (first, rest) = whole.split_at(whole.len() % 4);
    if !first.is_empty() {
        groups.push(value(first));
    }
    groups.extend(rest.chunks(4).map(value));
    let mut weight = groups.len() as i32 - 1;
    for chunk in fraction.chunks(4) {
        groups.push(value(chunk) * 10u16.pow(4 - chunk.len() as u32));
    }
    let leading = groups.iter().take_while(|g| **g == 0).count();
    weight -= leading as i32;
    put_groups(&groups[leading..], weight, negative, fraction.len() as u16, out);
}

fn put_groups(groups: &[u16], weight: i32, negative: bool, scale: u16, out: &mut Vec<u8>) {
    let trailing = groups.iter().rev().take_while(|g| **g == 0).count();
    let groups = &groups[..groups.len() - trailing];
    let weight = if groups.is_empty() { 0 } else { weight };
    out.extend_from_slice(&head(groups.len(), weight, negative && !groups.is_empty(), scale));
    for group in groups {
        out.extend_from_slice(&group.to_be_bytes());
    }
}

/// What stands before the groups: the value's length, and the header.
#[inline]
fn head(groups: usize, weight: i32, negative: bool, scale: u16) -> [u8; 12] {
    let length = 8 + 2 * groups as u128;
    let sign = if negative { NEGATIVE } else { POSITIVE };
    let fields = length << 64 | (groups as u128) << 48 | u128::from((weight as i16).cast_unsigned()) << 32;
    let mut head = [0; 12];
    head.copy_from_slice(&(fields | u128::from(sign) << 16 | u128::from(scale)).to_be_bytes()[4..]);
    head
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out);
        assert_eq!(i32::from_be_bytes(out[..4].try_into().unwrap()) as usize, out.len() - 4);
        out[4..].to_vec()
    }

    #[test]
    fn text_there_and_back() {
        for text in [
            "0",
            "0.00",
            "1",
            "-1",
            "10000",
            "0.0001",
            "0.00010",
            "123456789.987654321",
            "-0.5",
            "99999999999999999999.99",
            "100000000",
            "NaN",
            "Infinity",
            "-Infinity",
            "0.00000000000000000001",
        ] {
            let mut back = String::new();
            to_text(&encoded(|out| put_text(text, out).unwrap()), &mut back).unwrap();
            assert_eq!(back, text);
        }
        for (text, plain) in [("1e3", "1000"), ("1.5E-3", "0.0015"), ("+7", "7"), (".5", "0.5"), ("12345e-2", "123.45"), ("007", "7")] {
            let mut back = String::new();
            to_text(&encoded(|out| put_text(text, out).unwrap()), &mut back).unwrap();
            assert_eq!(back, plain);
        }
        for text in ["", "abc", "1.2.3", "--1", "1e", "."] {
            assert!(put_text(text, &mut Vec::new()).is_none(), "{text:?}");
        }
    }

    #[test]
    fn extremes() {
        for value in [i128::from(i64::MAX), 10i128.pow(38) - 1, -(10i128.pow(38) - 1), i128::from(u64::MAX) * 3] {
            for scale in [0, 1, 2, 3, 4, 37, 38] {
                assert_eq!(to_i128(&encoded(|out| put_i128(value, scale, out)), scale), Ok(value), "{value} {scale}");
            }
        }
        let big = i256::from_string(&"9".repeat(76)).unwrap();
        for scale in [0, 3, 76] {
            assert_eq!(to_i256(&encoded(|out| put_i256(big, scale, out)), scale), Ok(big));
        }
    }

    proptest! {
        #[test]
        fn decimals_there_and_back(value: i128, scale in 0i8..=38) {
            let value = value % 10i128.pow(38);
            prop_assert_eq!(to_i128(&encoded(|out| put_i128(value, scale, out)), scale), Ok(value));
            let wide = i256::from_i128(value);
            prop_assert_eq!(to_i256(&encoded(|out| put_i256(wide, scale, out)), scale), Ok(wide));
        }

        #[test]
        fn small_decimals_there_and_back(value: i64, scale in 0i8..=18) {
            prop_assert_eq!(to_i128(&encoded(|out| put_i128(value.into(), scale, out)), scale), Ok(value.into()));
        }
    }
}
