//! One value's bytes.

use arrow::datatypes::IntervalMonthDayNano;

use super::super::numeric::NotDecimal;
use super::super::pg_type::{InfinityRule, SpecialNumberRule};
use super::{EPOCH_DAYS, EPOCH_MICROS};

/// Why a value was not taken.
pub enum Bad {
    /// The user wants NULL instead.
    Null,
    /// The row cannot be delivered.
    Row(String),
    /// The bytes are not of the type that was discovered.
    Type,
}

#[inline]
pub fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Bad> {
    bytes.try_into().map_err(|_| Bad::Type)
}

#[inline]
pub fn take_i32(bytes: &mut &[u8]) -> Result<i32, Bad> {
    let (first, rest) = bytes.split_first_chunk().ok_or(Bad::Type)?;
    *bytes = rest;
    Ok(i32::from_be_bytes(*first))
}

pub fn bool(bytes: &[u8]) -> Result<bool, Bad> {
    fixed(bytes).map(|[value]| value != 0)
}

#[inline]
pub fn date(bytes: &[u8], rule: InfinityRule) -> Result<i32, Bad> {
    match i32::from_be_bytes(fixed(bytes)?) {
        i32::MAX | i32::MIN => Err(infinite(rule)),
        days => days.checked_add(EPOCH_DAYS).ok_or(Bad::Type),
    }
}

#[inline]
pub fn timestamp(bytes: &[u8], rule: InfinityRule) -> Result<i64, Bad> {
    match i64::from_be_bytes(fixed(bytes)?) {
        i64::MAX | i64::MIN => Err(infinite(rule)),
        // Years from 294247 on.
        micros => {
            micros.checked_add(EPOCH_MICROS).ok_or_else(|| Bad::Row("the time is later than 64 bits of microseconds reach".to_owned()))
        }
    }
}

/// `interval_send`: microseconds, days, months.
pub fn interval(bytes: &[u8], rule: InfinityRule) -> Result<IntervalMonthDayNano, Bad> {
    let (micros, mut rest) = bytes.split_first_chunk().ok_or(Bad::Type)?;
    let micros = i64::from_be_bytes(*micros);
    let (days, months) = (take_i32(&mut rest)?, take_i32(&mut rest)?);
    if matches!((micros, days, months), (i64::MAX, i32::MAX, i32::MAX) | (i64::MIN, i32::MIN, i32::MIN)) {
        return Err(infinite(rule));
    }
    let nanos = micros.checked_mul(1000).ok_or_else(|| Bad::Row("the interval is longer than 64 bits of nanoseconds reach".to_owned()))?;
    Ok(IntervalMonthDayNano::new(months, days, nanos))
}

/// The text of a `jsonb`, behind the format's version, which is the only one so far.
#[inline]
pub fn jsonb(bytes: &[u8]) -> Result<&[u8], Bad> {
    bytes.strip_prefix(&[1]).ok_or(Bad::Type)
}

#[cold]
pub fn not_decimal(e: NotDecimal, rule: SpecialNumberRule) -> Bad {
    match (e, rule) {
        (NotDecimal::Special(_), SpecialNumberRule::Null) => Bad::Null,
        (NotDecimal::Special(name), _) => Bad::Row(format!("{name} is no decimal; `numeric_special` can make it NULL, or the column text")),
        (NotDecimal::DoesNotFit | NotDecimal::Malformed, _) => Bad::Type,
    }
}

#[cold]
fn infinite(rule: InfinityRule) -> Bad {
    match rule {
        InfinityRule::Null => Bad::Null,
        InfinityRule::Reject => Bad::Row("infinity is no point in time; `infinity: null` makes it NULL".to_owned()),
    }
}
