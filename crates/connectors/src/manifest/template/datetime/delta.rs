//! `datetime.timedelta`.

use std::fmt;

use chrono::{Days, NaiveDate, NaiveDateTime};

use super::{DateError, in_range};

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;
/// Python's limit is 999 999 999 days, which does not fit 64 bits of microseconds; no date is that far from another.
const MAX: i64 = 100_000_000 * DAY;

/// A span of time in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Delta(pub(crate) i64);

impl Delta {
    pub(crate) const ZERO: Self = Self(0);

    pub(crate) fn from_days(days: i64) -> Self {
        Self(days.saturating_mul(DAY))
    }

    pub(crate) fn between(start: NaiveDateTime, end: NaiveDateTime) -> Self {
        Self(end.signed_duration_since(start).num_microseconds().unwrap_or(0))
    }

    /// From seconds and days as Python rounds them: half to even.
    pub(crate) fn from_seconds(seconds: f64) -> Result<Self, DateError> {
        let micros = (seconds * 1e6).round_ties_even();
        if micros.abs() <= MAX as f64 { Ok(Self(micros as i64)) } else { Err(DateError::Range) }
    }

    fn checked(micros: Option<i64>) -> Result<Self, DateError> {
        micros.filter(|micros| micros.abs() <= MAX).map(Self).ok_or(DateError::Range)
    }

    pub(crate) fn plus(self, other: Self) -> Result<Self, DateError> {
        Self::checked(self.0.checked_add(other.0))
    }

    pub(crate) fn times(self, factor: i128) -> Result<Self, DateError> {
        Self::checked(i64::try_from(factor).ok().and_then(|factor| self.0.checked_mul(factor)))
    }

    pub(crate) fn negated(self) -> Self {
        Self(-self.0)
    }

    pub(crate) fn days(self) -> i64 {
        self.0.div_euclid(DAY)
    }

    pub(crate) fn seconds(self) -> i64 {
        self.0.rem_euclid(DAY) / SECOND
    }

    pub(crate) fn microseconds(self) -> i64 {
        self.0.rem_euclid(SECOND)
    }

    pub(crate) fn total_seconds(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// A date some days on: the part below a day does not count.
    pub(crate) fn after(self, date: NaiveDate) -> Result<NaiveDate, DateError> {
        let days = Days::new(self.days().unsigned_abs());
        let moved = if self.days() < 0 { date.checked_sub_days(days) } else { date.checked_add_days(days) };
        moved.filter(|date| in_range(*date)).ok_or(DateError::Range)
    }

    /// A date some days before, which Python counts by the whole days of the span itself, not of its negation.
    pub(crate) fn before(self, date: NaiveDate) -> Result<NaiveDate, DateError> {
        Self::from_days(-self.days()).after(date)
    }

    pub(crate) fn repr(self) -> String {
        let parts = [("days", self.days()), ("seconds", self.seconds()), ("microseconds", self.microseconds())];
        let parts: Vec<String> = parts.iter().filter(|(_, value)| *value != 0).map(|(name, value)| format!("{name}={value}")).collect();
        format!("datetime.timedelta({})", if parts.is_empty() { "0".into() } else { parts.join(", ") })
    }
}

impl fmt::Display for Delta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, seconds, micros) = (self.days(), self.seconds(), self.microseconds());
        if days != 0 {
            write!(f, "{days} day{}, ", if days.abs() == 1 { "" } else { "s" })?;
        }
        write!(f, "{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)?;
        if micros != 0 {
            write!(f, ".{micros:06}")?;
        }
        Ok(())
    }
}
