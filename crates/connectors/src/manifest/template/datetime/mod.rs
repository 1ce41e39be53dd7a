//! Dates and times as the reference knows them: Python's `datetime`, `date` and `timedelta`, ISO texts, and its own format tokens.

mod delta;
mod duration;
mod format;
mod iso;
mod parse;

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, Timelike, Utc};

pub(crate) use delta::Delta;
pub(crate) use duration::Duration;
pub(crate) use format::format;
pub(super) use format::strftime;
pub(crate) use iso::parse_iso;
pub(crate) use parse::parse;
pub(super) use parse::strptime;

use super::error::Fault;

/// Why a date could not be read or written. The text itself is not in the message: it may come from a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DateError {
    #[error("the text is not a date of the expected format")]
    Mismatch,
    #[error("the date format has a directive that cannot be read")]
    Format,
    #[error("the date is outside the years 1 to 9999")]
    Range,
}

impl From<DateError> for Fault {
    fn from(error: DateError) -> Self {
        Fault::Failed(error.to_string())
    }
}

/// A point in local time, with its offset from UTC unless it is naive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) local: NaiveDateTime,
    pub(crate) offset: Option<FixedOffset>,
}

pub(super) fn utc_offset() -> FixedOffset {
    use chrono::Offset;
    Utc.fix()
}

/// Python's years.
pub(super) fn in_range(date: NaiveDate) -> bool {
    use chrono::Datelike;
    (1..=9999).contains(&date.year())
}

impl Moment {
    pub(crate) fn from_utc(moment: DateTime<Utc>) -> Self {
        let local = moment.naive_utc();
        let local = local.with_nanosecond(local.nanosecond() % 1_000_000_000 / 1_000 * 1_000).unwrap_or(local);
        Self { local, offset: Some(utc_offset()) }
    }

    /// The same point in UTC; a naive one is taken to be UTC.
    pub(crate) fn utc(&self) -> NaiveDateTime {
        match self.offset {
            Some(offset) => self.local.checked_sub_offset(offset).unwrap_or(self.local),
            None => self.local,
        }
    }

    /// As a point in time; a naive one is taken to be UTC.
    pub(crate) fn instant(&self) -> DateTime<Utc> {
        self.utc().and_utc()
    }

    pub(super) fn in_utc(self) -> Self {
        Self { local: self.utc(), offset: Some(utc_offset()) }
    }

    /// Seconds since 1970, as Python's `timestamp()` rounds them.
    pub(super) fn timestamp(&self) -> f64 {
        self.instant().timestamp_micros() as f64 / 1e6
    }

    pub(super) fn plus(self, delta: Delta) -> Result<Self, DateError> {
        match self.local.checked_add_signed(chrono::TimeDelta::microseconds(delta.0)) {
            Some(local) if in_range(local.date()) => Ok(Self { local, ..self }),
            _ => Err(DateError::Range),
        }
    }

    /// `isoformat(separator)`.
    pub(super) fn isoformat(&self, separator: char) -> String {
        let micros = self.local.nanosecond() / 1_000;
        let fraction = if micros == 0 { String::new() } else { format!(".{micros:06}") };
        format!("{}{separator}{}{fraction}{}", self.local.format("%Y-%m-%d"), self.local.format("%H:%M:%S"), self.offset_text(":"))
    }

    /// `+02:00`, or nothing for a naive one.
    pub(super) fn offset_text(&self, colon: &str) -> String {
        let Some(offset) = self.offset else { return String::new() };
        let seconds = offset.local_minus_utc();
        let (sign, seconds) = (if seconds < 0 { '-' } else { '+' }, seconds.abs());
        let tail = if seconds % 60 == 0 { String::new() } else { format!("{colon}{:02}", seconds % 60) };
        format!("{sign}{:02}{colon}{:02}{tail}", seconds / 3600, seconds / 60 % 60)
    }

    /// `tzname()`.
    pub(super) fn zone_name(&self) -> String {
        match self.offset {
            None => String::new(),
            Some(offset) if offset.local_minus_utc() == 0 => "UTC".into(),
            Some(_) => format!("UTC{}", self.offset_text(":")),
        }
    }

    pub(super) fn repr(&self) -> String {
        let micros = self.local.nanosecond() / 1_000;
        let time = self.local.format("%-S").to_string();
        let time = match (&*time, micros) {
            ("0", 0) => String::new(),
            (_, 0) => format!(", {time}"),
            _ => format!(", {time}, {micros}"),
        };
        let zone = if self.offset.is_some() { ", tzinfo=datetime.timezone.utc" } else { "" };
        format!("datetime.datetime({}{time}{zone})", self.local.format("%Y, %-m, %-d, %-H, %-M"))
    }
}

impl PartialEq for Moment {
    /// As in Python, a naive and an aware one are never equal.
    fn eq(&self, other: &Self) -> bool {
        self.offset.is_some() == other.offset.is_some() && self.utc() == other.utc()
    }
}
