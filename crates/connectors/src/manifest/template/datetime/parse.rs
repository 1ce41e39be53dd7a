//! Reading dates: `strptime` in the C locale, and the reference's own tokens.

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveTime, TimeDelta, Weekday};

use super::{DateError, Moment, in_range, utc_offset};

const DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
const MONTHS: [&str; 12] =
    ["january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december"];

/// Reads a moment in one of the reference's formats (see [`super::format`]); without an offset it is UTC.
pub(crate) fn parse(text: &str, format: &str) -> Result<Moment, DateError> {
    let whole = || text.trim().replace('_', "").parse::<i64>().map_err(|_| DateError::Mismatch);
    let epoch = |micros: Option<i64>| {
        let moment = micros.and_then(DateTime::from_timestamp_micros).filter(|moment| in_range(moment.date_naive()));
        moment.map(Moment::from_utc).ok_or(DateError::Range)
    };
    match format {
        "%s" => epoch(whole()?.checked_mul(1_000_000)),
        "%ms" => epoch(whole()?.checked_mul(1_000)),
        "%epoch_microseconds" => epoch(Some(whole()?)),
        "%s_as_float" => {
            let seconds: f64 = text.trim().parse().map_err(|_| DateError::Mismatch)?;
            let micros = (seconds * 1e6).round_ties_even();
            epoch((micros.abs() < 9e18).then_some(micros as i64))
        }
        _ => {
            let moment = strptime(text, &format.replace("%_ms", "%f"))?;
            Ok(Moment { offset: moment.offset.or(Some(utc_offset())), ..moment })
        }
    }
}

/// `datetime.strptime`: naive unless the format has `%z`.
pub(crate) fn strptime(text: &str, format: &str) -> Result<Moment, DateError> {
    let mut seen = Vec::new();
    let directives = compile(format, &mut seen)?;
    let mut fields = Fields::default();
    if matches(text.as_bytes(), &directives, &mut fields) { fields.moment() } else { Err(DateError::Mismatch) }
}

#[derive(Clone, Copy, Debug)]
enum Part {
    Literal(u8),
    /// One or more of any white space.
    Space,
    Directive(char),
}

fn compile(format: &str, seen: &mut Vec<char>) -> Result<Vec<Part>, DateError> {
    let mut parts = Vec::with_capacity(format.len());
    let mut chars = format.chars();
    while let Some(char) = chars.next() {
        match char {
            '%' => match chars.next().ok_or(DateError::Format)? {
                '%' => parts.push(Part::Literal(b'%')),
                composite @ ('c' | 'x' | 'X') => parts.extend(compile(
                    match composite {
                        'c' => "%a %b %d %H:%M:%S %Y",
                        'x' => "%m/%d/%y",
                        _ => "%H:%M:%S",
                    },
                    seen,
                )?),
                directive if "aAbBdfGHIjmMpSuUVwWyYzZ".contains(directive) && !seen.contains(&directive) => {
                    seen.push(directive);
                    parts.push(Part::Directive(directive));
                }
                _ => return Err(DateError::Format),
            },
            _ if char.is_whitespace() => {
                if !matches!(parts.last(), Some(Part::Space)) {
                    parts.push(Part::Space);
                }
            }
            _ => parts.extend(char.encode_utf8(&mut [0; 4]).bytes().map(Part::Literal)),
        }
    }
    Ok(parts)
}

#[derive(Clone, Debug, Default)]
struct Fields {
    year: Option<i32>,
    month: Option<u32>,
    day: Option<u32>,
    hour: u32,
    hour12: Option<u32>,
    afternoon: Option<bool>,
    minute: u32,
    second: u32,
    micros: u32,
    ordinal: Option<u32>,
    weekday: Option<u32>,
    iso_year: Option<i32>,
    iso_week: Option<u32>,
    /// A week of the year, and whether it begins on Sunday.
    week: Option<(u32, bool)>,
    offset: Option<FixedOffset>,
}

/// Matches greedily and steps back where that leads nowhere, as Python's regular expression does. No directive stands twice, so the ways
/// to try are few.
fn matches(text: &[u8], parts: &[Part], fields: &mut Fields) -> bool {
    let Some((part, rest)) = parts.split_first() else { return text.is_empty() };
    match part {
        Part::Literal(byte) => text.first().is_some_and(|found| found.eq_ignore_ascii_case(byte)) && matches(&text[1..], rest, fields),
        Part::Space => {
            let spaces = text.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            (1..=spaces).rev().any(|length| matches(&text[length..], rest, fields))
        }
        Part::Directive(directive) => {
            let mut attempt = |length: usize, set: &dyn Fn(&mut Fields)| {
                let mut tried = fields.clone();
                set(&mut tried);
                let matched = matches(&text[length..], rest, &mut tried);
                if matched {
                    *fields = tried;
                }
                matched
            };
            each_reading(text, *directive, &mut attempt)
        }
    }
}

type Attempt<'t> = dyn FnMut(usize, &dyn Fn(&mut Fields)) -> bool + 't;

/// Tries every reading of a directive at the start of `text`, longest first.
fn each_reading(text: &[u8], directive: char, attempt: &mut Attempt<'_>) -> bool {
    match directive {
        'Y' | 'G' => number(text, 4, 4, 0..=9999, &mut |length, value| {
            attempt(length, &|fields| *if directive == 'Y' { &mut fields.year } else { &mut fields.iso_year } = Some(value as i32))
        }),
        'y' => number(text, 2, 2, 0..=99, &mut |length, value| {
            let year = if value < 69 { 2000 + value } else { 1900 + value };
            attempt(length, &|fields| fields.year = Some(year as i32))
        }),
        'm' => number(text, 1, 2, 1..=12, &mut |length, value| attempt(length, &|fields| fields.month = Some(value))),
        'd' => {
            let spaced = text.first() == Some(&b' ');
            let digits = if spaced { &text[1..] } else { text };
            let longest = if spaced { 1 } else { 2 };
            number(digits, 1, longest, 1..=31, &mut |length, value| {
                attempt(length + usize::from(spaced), &|fields| fields.day = Some(value))
            })
        }
        'H' => number(text, 1, 2, 0..=23, &mut |length, value| attempt(length, &|fields| fields.hour = value)),
        'I' => number(text, 1, 2, 1..=12, &mut |length, value| attempt(length, &|fields| fields.hour12 = Some(value))),
        'M' => number(text, 1, 2, 0..=59, &mut |length, value| attempt(length, &|fields| fields.minute = value)),
        'S' => number(text, 1, 2, 0..=61, &mut |length, value| attempt(length, &|fields| fields.second = value)),
        'f' => number(text, 1, 6, 0..=999_999, &mut |length, value| {
            attempt(length, &|fields| fields.micros = value * 10_u32.pow(6 - length as u32))
        }),
        'j' => number(text, 1, 3, 1..=366, &mut |length, value| attempt(length, &|fields| fields.ordinal = Some(value))),
        'u' => number(text, 1, 1, 1..=7, &mut |length, value| attempt(length, &|fields| fields.weekday = Some(value - 1))),
        'w' => number(text, 1, 1, 0..=6, &mut |length, value| attempt(length, &|fields| fields.weekday = Some((value + 6) % 7))),
        'U' | 'W' => {
            number(text, 1, 2, 0..=53, &mut |length, value| attempt(length, &|fields| fields.week = Some((value, directive == 'U'))))
        }
        'V' => number(text, 1, 2, 0..=53, &mut |length, value| attempt(length, &|fields| fields.iso_week = Some(value))),
        'a' | 'A' => names(text, &DAYS, directive == 'a', &mut |length, at| attempt(length, &|fields| fields.weekday = Some(at))),
        'b' | 'B' => names(text, &MONTHS, directive == 'b', &mut |length, at| attempt(length, &|fields| fields.month = Some(at + 1))),
        'p' => names(text, &["am", "pm"], false, &mut |length, at| attempt(length, &|fields| fields.afternoon = Some(at == 1))),
        'Z' => names(text, &["utc", "gmt"], false, &mut |length, _| attempt(length, &|_| {})),
        'z' => offsets(text).into_iter().any(|(length, offset)| attempt(length, &|fields| fields.offset = Some(offset))),
        _ => false,
    }
}

fn number(
    text: &[u8],
    shortest: usize,
    longest: usize,
    range: std::ops::RangeInclusive<u32>,
    attempt: &mut dyn FnMut(usize, u32) -> bool,
) -> bool {
    let digits = text.iter().take(longest).take_while(|byte| byte.is_ascii_digit()).count();
    (shortest..=digits).rev().any(|length| {
        let value = text[..length].iter().fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
        range.contains(&value) && attempt(length, value)
    })
}

fn names(text: &[u8], names: &[&str], short: bool, attempt: &mut dyn FnMut(usize, u32) -> bool) -> bool {
    (0_u32..).zip(names).any(|(at, name)| {
        let name = if short { &name.as_bytes()[..3] } else { name.as_bytes() };
        text.get(..name.len()).is_some_and(|found| found.eq_ignore_ascii_case(name)) && attempt(name.len(), at)
    })
}

/// `Z`, `+0200`, `+02:00`, `+02:00:30`, `+02:00:30.5`.
fn offsets(text: &[u8]) -> Vec<(usize, FixedOffset)> {
    let Some((sign, rest)) = text.split_first() else { return Vec::new() };
    let negative = match sign {
        b'Z' => return vec![(1, utc_offset())],
        b'+' => false,
        b'-' => true,
        _ => return Vec::new(),
    };
    let two = |at: usize, limit: i32| {
        let pair = rest.get(at..at + 2).filter(|pair| pair.iter().all(u8::is_ascii_digit))?;
        Some(i32::from(pair[0] - b'0') * 10 + i32::from(pair[1] - b'0')).filter(|value| *value < limit)
    };
    let colon = usize::from(rest.get(2) == Some(&b':'));
    let (Some(hours), Some(minutes)) = (two(0, 24), two(2 + colon, 60)) else { return Vec::new() };
    let mut found = Vec::new();
    let mut push = |length: usize, seconds: i32| {
        found.extend(FixedOffset::east_opt(if negative { -seconds } else { seconds }).map(|offset| (length, offset)));
    };
    let mut end = 4 + colon;
    let seconds = (hours * 60 + minutes) * 60;
    let colon = usize::from(rest.get(end) == Some(&b':'));
    if let Some(more) = two(end + colon, 60) {
        push(end + colon + 3, seconds + more);
    }
    end += 1;
    push(end, seconds);
    found
}

impl Fields {
    fn moment(&self) -> Result<Moment, DateError> {
        let hour = match (self.hour12, self.afternoon) {
            (Some(hour), Some(afternoon)) => hour % 12 + if afternoon { 12 } else { 0 },
            (Some(hour), None) => hour,
            (None, _) => self.hour,
        };
        let date = self.date()?;
        // As in Python, a leap second can be written but is no time of day.
        let time = NaiveTime::from_hms_micro_opt(hour, self.minute, self.second, self.micros).ok_or(DateError::Mismatch)?;
        let local = date.and_time(time);
        Ok(Moment { local, offset: self.offset })
    }

    fn date(&self) -> Result<NaiveDate, DateError> {
        let date = match self {
            Fields { iso_year: Some(year), iso_week: Some(week), weekday: Some(weekday), .. } => {
                let weekday = Weekday::try_from(*weekday as u8).map_err(|_| DateError::Mismatch)?;
                NaiveDate::from_isoywd_opt(*year, *week, weekday)
            }
            Fields { iso_year: Some(_), .. } | Fields { iso_week: Some(_), .. } => None,
            Fields { year: Some(year), ordinal: Some(ordinal), month: None, day: None, .. } => NaiveDate::from_yo_opt(*year, *ordinal),
            Fields { year: Some(year), week: Some((week, sunday)), weekday: Some(weekday), month: None, day: None, .. } => {
                of_week(*year, *week, *weekday, *sunday)
            }
            _ => NaiveDate::from_ymd_opt(self.year.unwrap_or(1900), self.month.unwrap_or(1), self.day.unwrap_or(1)),
        };
        date.filter(|date| in_range(*date)).ok_or(DateError::Mismatch)
    }
}

/// `weekday` counts from Monday.
fn of_week(year: i32, week: u32, weekday: u32, sunday: bool) -> Option<NaiveDate> {
    use chrono::Datelike;
    let first = NaiveDate::from_ymd_opt(year, 1, 1)?;
    let (start, day) = if sunday {
        (first.weekday().num_days_from_sunday(), (weekday + 1) % 7)
    } else {
        (first.weekday().num_days_from_monday(), weekday)
    };
    let days = match week {
        0 => i64::from(day) - i64::from(start),
        _ => i64::from((7 - start) % 7 + 7 * (week - 1) + day),
    };
    first.checked_add_signed(TimeDelta::days(days))
}
