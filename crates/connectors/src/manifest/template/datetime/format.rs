//! Writing dates: `strftime` as glibc does it in the C locale, and the reference's own tokens.

use std::fmt::Write as _;

use chrono::{Datelike, NaiveDate, Timelike};

use super::{Moment, in_range};

const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const MONTHS: [&str; 12] =
    ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];

/// Writes a moment in one of the reference's formats: `%s` (seconds), `%s_as_float`, `%ms` (milliseconds), `%epoch_microseconds`, or a
/// `strftime` format in which `%_ms` stands for three digits of milliseconds.
pub(crate) fn format(moment: &Moment, format: &str) -> String {
    let micros = moment.instant().timestamp_micros();
    match format {
        // Through a float, as the reference does: towards zero, with the float's rounding.
        "%s" => format!("{}", moment.timestamp().trunc() as i64),
        "%s_as_float" => super::super::repr::python_float(moment.timestamp()),
        "%epoch_microseconds" => format!("{}", (moment.timestamp() * 1e6).trunc() as i64),
        "%ms" => format!("{}", (micros as f64 / 1e6 * 1000.0).trunc() as i64),
        _ if format.contains("%_ms") => {
            let micros = moment.local.nanosecond() / 1_000;
            let text = strftime(moment, &format.replace("%_ms", "%f"));
            text.replace(&format!("{micros:06}"), &format!("{:03}", micros / 1_000))
        }
        _ => strftime(moment, format),
    }
}

/// `datetime.strftime`.
pub(crate) fn strftime(moment: &Moment, format: &str) -> String {
    let mut out = String::with_capacity(format.len() + 16);
    let mut chars = format.chars().peekable();
    while let Some(char) = chars.next() {
        if char != '%' {
            out.push(char);
            continue;
        }
        let mut flag = None;
        while let Some(found) = chars.next_if(|char| matches!(char, '-' | '_' | '0' | '^' | '#')) {
            flag = Some(found);
        }
        let Some(directive) = chars.next() else {
            out.push('%');
            out.extend(flag);
            break;
        };
        if !directed(moment, directive, flag, &mut out) {
            out.push('%');
            out.extend(flag);
            out.push(directive);
        }
    }
    out
}

/// Appends what a directive stands for; false if there is no such directive.
fn directed(moment: &Moment, directive: char, flag: Option<char>, out: &mut String) -> bool {
    let (date, time) = (moment.local.date(), moment.local.time());
    let mut number = |value: i64, width: usize, pad: char| {
        _ = match flag {
            Some('-') => write!(out, "{value}"),
            Some('_') => write!(out, "{value:>width$}"),
            Some('0') => write!(out, "{value:0>width$}"),
            _ if pad == ' ' => write!(out, "{value:>width$}"),
            _ => write!(out, "{value:0>width$}"),
        };
    };
    let hour12 = i64::from(time.hour12().1);
    let day = &DAYS[date.weekday().num_days_from_monday() as usize];
    let month = &MONTHS[date.month0() as usize];
    match directive {
        'd' => number(date.day().into(), 2, '0'),
        'e' => number(date.day().into(), 2, ' '),
        'm' => number(date.month().into(), 2, '0'),
        'y' => number((date.year() % 100).into(), 2, '0'),
        'C' => number((date.year() / 100).into(), 2, '0'),
        'Y' => number(date.year().into(), 1, '0'),
        'H' => number(time.hour().into(), 2, '0'),
        'k' => number(time.hour().into(), 2, ' '),
        'I' => number(hour12, 2, '0'),
        'l' => number(hour12, 2, ' '),
        'M' => number(time.minute().into(), 2, '0'),
        'S' => number(time.second().into(), 2, '0'),
        'f' => number((time.nanosecond() / 1_000).into(), 6, '0'),
        'j' => number(date.ordinal().into(), 3, '0'),
        'G' => number(date.iso_week().year().into(), 1, '0'),
        'g' => number((date.iso_week().year() % 100).into(), 2, '0'),
        'V' => number(date.iso_week().week().into(), 2, '0'),
        'U' => number(week_of_year(date, date.weekday().num_days_from_sunday()), 2, '0'),
        'W' => number(week_of_year(date, date.weekday().num_days_from_monday()), 2, '0'),
        'u' => number(date.weekday().number_from_monday().into(), 1, '0'),
        'w' => number(date.weekday().num_days_from_sunday().into(), 1, '0'),
        // The system's own time zone in Python; ours is UTC.
        's' => number(moment.local.and_utc().timestamp(), 1, '0'),
        'a' => cased(&day[..3], flag, out),
        'A' => cased(day, flag, out),
        'b' | 'h' => cased(&month[..3], flag, out),
        'B' => cased(month, flag, out),
        'p' if flag == Some('#') => out.push_str(if time.hour() < 12 { "am" } else { "pm" }),
        'p' => out.push_str(if time.hour() < 12 { "AM" } else { "PM" }),
        'P' => out.push_str(if time.hour() < 12 { "am" } else { "pm" }),
        'Z' => out.push_str(&moment.zone_name()),
        'z' => out.push_str(&moment.offset_text("")),
        'c' => out.push_str(&strftime(moment, "%a %b %e %H:%M:%S %Y")),
        'x' | 'D' => out.push_str(&strftime(moment, "%m/%d/%y")),
        'X' | 'T' => out.push_str(&strftime(moment, "%H:%M:%S")),
        'r' => out.push_str(&strftime(moment, "%I:%M:%S %p")),
        'R' => out.push_str(&strftime(moment, "%H:%M")),
        'F' => out.push_str(&strftime(moment, "%Y-%m-%d")),
        'n' => out.push('\n'),
        't' => out.push('\t'),
        '%' => out.push('%'),
        _ => return false,
    }
    true
}

fn cased(name: &str, flag: Option<char>, out: &mut String) {
    match flag {
        Some('^' | '#') => out.push_str(&name.to_uppercase()),
        _ => out.push_str(name),
    }
}

/// Weeks that have begun by `date`, where `weekday` counts from the day that weeks begin on.
fn week_of_year(date: NaiveDate, weekday: u32) -> i64 {
    debug_assert!(in_range(date));
    i64::from((date.ordinal() + 6 - weekday) / 7)
}
