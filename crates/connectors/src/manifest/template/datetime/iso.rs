//! ISO 8601 texts as `dateutil.parser.isoparse` reads them: calendar, week and ordinal dates, any single separator, times down to the hour.

use chrono::{Datelike, Days, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, Weekday};

use super::{DateError, Moment, in_range, utc_offset};

/// Reads a date or a date and time. Without an offset the moment is naive.
pub(crate) fn parse_iso(text: &str) -> Result<Moment, DateError> {
    if !text.is_ascii() {
        return Err(DateError::Mismatch);
    }
    let (date, end) = match calendar_date(text) {
        Ok((fields, end)) => (NaiveDate::from_ymd_opt(fields.0, fields.1, fields.2), end),
        Err(_) => uncommon_date(text)?,
    };
    let date = date.filter(|date| in_range(*date)).ok_or(DateError::Mismatch)?;
    if end >= text.len() {
        return Ok(Moment { local: date.and_time(NaiveTime::MIN), offset: None });
    }
    let time = Time::parse(text.get(end + 1..).unwrap_or(""))?;
    let next_day = time.hour == 24;
    let clock = NaiveTime::from_hms_micro_opt(if next_day { 0 } else { time.hour }, time.minute, time.second, time.micros);
    let local: NaiveDateTime = date.and_time(clock.ok_or(DateError::Mismatch)?);
    let local = if next_day { local.checked_add_days(Days::new(1)).ok_or(DateError::Range)? } else { local };
    Ok(Moment { local, offset: time.offset })
}

/// Python's `int()` of a slice, which may be shorter than asked for.
fn digits(text: &str, from: usize, length: usize) -> Result<u32, DateError> {
    let part = text.get(from..text.len().min(from + length)).unwrap_or("");
    let valid = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    valid.then(|| part.parse().ok()).flatten().ok_or(DateError::Mismatch)
}

fn has(text: &str, at: usize, char: u8) -> bool {
    text.as_bytes().get(at) == Some(&char)
}

fn calendar_date(text: &str) -> Result<((i32, u32, u32), usize), DateError> {
    if text.len() < 4 {
        return Err(DateError::Mismatch);
    }
    let year = digits(text, 0, 4)? as i32;
    if text.len() == 4 {
        return Ok(((year, 1, 1), 4));
    }
    let dashed = has(text, 4, b'-');
    let mut at = if dashed { 5 } else { 4 };
    if text.len() < at + 2 {
        return Err(DateError::Mismatch);
    }
    let month = digits(text, at, 2)?;
    at += 2;
    if at >= text.len() {
        return if dashed { Ok(((year, month, 1), at)) } else { Err(DateError::Mismatch) };
    }
    if dashed {
        if !has(text, at, b'-') {
            return Err(DateError::Mismatch);
        }
        at += 1;
    }
    if text.len() < at + 2 {
        return Err(DateError::Mismatch);
    }
    Ok(((year, month, digits(text, at, 2)?), at + 2))
}

/// Week dates (`2026-W05-2`) and ordinal dates (`2026-033`).
fn uncommon_date(text: &str) -> Result<(Option<NaiveDate>, usize), DateError> {
    if text.len() < 4 {
        return Err(DateError::Mismatch);
    }
    let year = digits(text, 0, 4)? as i32;
    let dashed = has(text, 4, b'-');
    let mut at = 4 + usize::from(dashed);
    if has(text, at, b'W') {
        let week = digits(text, at + 1, 2)?;
        at += 3;
        let mut day = 1;
        if text.len() > at {
            if has(text, at, b'-') != dashed {
                return Err(DateError::Mismatch);
            }
            at += usize::from(dashed);
            day = digits(text, at, 1)?;
            at += 1;
        }
        if !(1..=53).contains(&week) || !(1..=7).contains(&day) {
            return Err(DateError::Mismatch);
        }
        let days = u64::from((week - 1) * 7 + day - 1);
        let first = NaiveDate::from_isoywd_opt(year, 1, Weekday::Mon);
        return Ok((first.and_then(|first| first.checked_add_days(Days::new(days))), at));
    }
    if text.len() < at + 3 {
        return Err(DateError::Mismatch);
    }
    let ordinal = digits(text, at, 3)?;
    let date = NaiveDate::from_yo_opt(year, ordinal).filter(|date| date.year() == year);
    Ok((date, at + 3))
}

#[derive(Default)]
struct Time {
    hour: u32,
    minute: u32,
    second: u32,
    micros: u32,
    offset: Option<FixedOffset>,
}

impl Time {
    fn parse(text: &str) -> Result<Self, DateError> {
        if text.len() < 2 {
            return Err(DateError::Mismatch);
        }
        let mut time = Self::default();
        let (mut at, mut colons) = (0, false);
        for field in 0..5 {
            if at >= text.len() {
                break;
            }
            if matches!(text.as_bytes()[at], b'-' | b'+' | b'Z' | b'z') {
                time.offset = Some(iso_offset(&text[at..])?);
                at = text.len();
                break;
            }
            if field == 1 && has(text, at, b':') {
                colons = true;
                at += 1;
            } else if field == 2 && colons {
                if !has(text, at, b':') {
                    return Err(DateError::Mismatch);
                }
                at += 1;
            }
            match field {
                0..=2 => {
                    let value = digits(text, at, 2)?;
                    *[&mut time.hour, &mut time.minute, &mut time.second][field] = value;
                    at += 2;
                }
                3 if has(text, at, b'.') || has(text, at, b',') => {
                    let length = text[at + 1..].bytes().take_while(u8::is_ascii_digit).count();
                    if length > 0 {
                        let kept = length.min(6);
                        time.micros = digits(text, at + 1, kept)? * 10_u32.pow(6 - kept as u32);
                        at += 1 + length;
                    }
                }
                _ => {}
            }
        }
        if at < text.len() {
            return Err(DateError::Mismatch);
        }
        let midnight = time.minute == 0 && time.second == 0 && time.micros == 0;
        if time.hour == 24 && !midnight { Err(DateError::Mismatch) } else { Ok(time) }
    }
}

fn iso_offset(text: &str) -> Result<FixedOffset, DateError> {
    if text.eq_ignore_ascii_case("z") {
        return Ok(utc_offset());
    }
    if !matches!(text.len(), 3 | 5 | 6) || !text.starts_with(['+', '-']) {
        return Err(DateError::Mismatch);
    }
    let hours = digits(text, 1, 2)?;
    let minutes = match text.len() {
        3 => 0,
        _ if has(text, 3, b':') => digits(text, 4, 2)?,
        _ => digits(text, 3, 3)?,
    };
    if hours > 23 || minutes > 59 {
        return Err(DateError::Mismatch);
    }
    let seconds = (hours * 3_600 + minutes * 60) as i32;
    FixedOffset::east_opt(if text.starts_with('-') { -seconds } else { seconds }).ok_or(DateError::Mismatch)
}
