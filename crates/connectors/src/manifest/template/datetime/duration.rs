//! ISO 8601 durations: months and years are calendar steps, the rest is a fixed span.

use std::fmt;

use chrono::{Datelike, NaiveDate};

use super::{DateError, Delta, Moment, in_range};

/// `P1Y2M3DT4H5M6S`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Duration {
    pub(crate) years: i64,
    pub(crate) months: i64,
    pub(crate) rest: Delta,
}

impl Duration {
    pub(crate) fn of(rest: Delta) -> Self {
        Self { years: 0, months: 0, rest }
    }

    /// Reads `[+-]PnYnMnWnDTnHnMnS`. All but years and months may have a fraction.
    pub(crate) fn parse(text: &str) -> Result<Self, DateError> {
        let (negative, body) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let body = body.strip_prefix('P').filter(|body| !body.is_empty()).ok_or(DateError::Mismatch)?;
        let (date, time) = match body.split_once('T') {
            Some((date, time)) => (date, time),
            None => (body, ""),
        };
        let mut duration = Self::of(Delta::ZERO);
        let mut seconds = 0.0;
        let mut date = Components(date);
        duration.years = date.whole('Y')?;
        duration.months = date.whole('M')?;
        seconds += date.take('W')?.unwrap_or(0.0) * 604_800.0;
        seconds += date.take('D')?.unwrap_or(0.0) * 86_400.0;
        let mut time = Components(time);
        seconds += time.take('H')?.unwrap_or(0.0) * 3_600.0;
        seconds += time.take('M')?.unwrap_or(0.0) * 60.0;
        seconds += time.take('S')?.unwrap_or(0.0);
        if !date.0.is_empty() || !time.0.is_empty() {
            return Err(DateError::Mismatch);
        }
        duration.rest = Delta::from_seconds(seconds)?;
        Ok(if negative { duration.negated() } else { duration })
    }

    /// Without years and months it is a plain span.
    pub(crate) fn as_delta(&self) -> Option<Delta> {
        (self.years == 0 && self.months == 0).then_some(self.rest)
    }

    pub(crate) fn negated(&self) -> Self {
        Self { years: -self.years, months: -self.months, rest: self.rest.negated() }
    }

    pub(crate) fn plus(&self, other: &Self) -> Result<Self, DateError> {
        Ok(Self {
            years: self.years.saturating_add(other.years),
            months: self.months.saturating_add(other.months),
            rest: self.rest.plus(other.rest)?,
        })
    }

    pub(crate) fn times(&self, factor: i128) -> Result<Self, DateError> {
        let times = |value: i64| i64::try_from(factor).ok().and_then(|factor| value.checked_mul(factor)).ok_or(DateError::Range);
        Ok(Self { years: times(self.years)?, months: times(self.months)?, rest: self.rest.times(factor)? })
    }

    /// The date after the calendar steps: a day that the month lacks becomes its last.
    fn step(&self, date: NaiveDate) -> Result<NaiveDate, DateError> {
        let steps = i128::from(self.years) * 12 + i128::from(self.months);
        let month = i128::from(date.year()) * 12 + i128::from(date.month0()) + steps;
        let year = i32::try_from(month.div_euclid(12)).map_err(|_| DateError::Range)?;
        let month = month.rem_euclid(12) as u32 + 1;
        (28..=date.day().max(28))
            .rev()
            .map(|last| date.day().min(last))
            .find_map(|day| NaiveDate::from_ymd_opt(year, month, day))
            .filter(|date| in_range(*date))
            .ok_or(DateError::Range)
    }

    pub(crate) fn after_moment(&self, moment: Moment) -> Result<Moment, DateError> {
        let local = self.step(moment.local.date())?.and_time(moment.local.time());
        Moment { local, ..moment }.plus(self.rest)
    }

    pub(crate) fn after_date(&self, date: NaiveDate) -> Result<NaiveDate, DateError> {
        self.rest.after(self.step(date)?)
    }

    pub(crate) fn before_date(&self, date: NaiveDate) -> Result<NaiveDate, DateError> {
        self.rest.before(self.negated().step(date)?)
    }

    pub(crate) fn repr(&self) -> String {
        let rest = self.rest;
        format!(
            "isodate.duration.Duration({}, {}, {}, years={}, months={})",
            rest.days(),
            rest.seconds(),
            rest.microseconds(),
            self.years,
            self.months
        )
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.years != 0 {
            write!(f, "{} years, ", self.years)?;
        }
        if self.months != 0 {
            write!(f, "{} month{}, ", self.months, if self.months > 1 { "s" } else { "" })?;
        }
        self.rest.fmt(f)
    }
}

/// What is left of `1Y2M`: numbers, each before its letter, in a fixed order.
struct Components<'a>(&'a str);

impl Components<'_> {
    fn take(&mut self, letter: char) -> Result<Option<f64>, DateError> {
        let end = self.0.find(|char: char| !char.is_ascii_digit() && !matches!(char, '.' | ',')).unwrap_or(self.0.len());
        let (digits, rest) = self.0.split_at(end);
        let Some(rest) = rest.strip_prefix(letter) else { return Ok(None) };
        self.0 = rest;
        let well_formed = digits.starts_with(|char: char| char.is_ascii_digit()) && digits.ends_with(|char: char| char.is_ascii_digit());
        if !well_formed {
            return Err(DateError::Mismatch);
        }
        digits.replace(',', ".").parse().map(Some).map_err(|_| DateError::Mismatch)
    }

    fn whole(&mut self, letter: char) -> Result<i64, DateError> {
        match self.take(letter)? {
            None => Ok(0),
            Some(number) if number.fract() == 0.0 && number < 1e6 => Ok(number as i64),
            Some(_) => Err(DateError::Range),
        }
    }
}
