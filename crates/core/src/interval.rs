//! Intervals of time: which of them were computed, and which are due. Pure.

use chrono::{Datelike, Days, Months, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};

/// More intervals than this in one run are a mistake: a date of the year 1, cut into hours.
const MOST: usize = 100_000;

/// How long an interval is. All begin where the calendar's do, in UTC; weeks on Mondays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    Hour,
    Day,
    Week,
    Month,
    Year,
}

impl Period {
    /// Where the interval that holds this time begins.
    pub fn floor(self, time: NaiveDateTime) -> NaiveDateTime {
        let day = time.date();
        let date = match self {
            Period::Hour => return day.and_time(NaiveTime::from_hms_opt(time.hour(), 0, 0).unwrap_or_default()),
            Period::Day => Some(day),
            Period::Week => day.checked_sub_days(Days::new(u64::from(day.weekday().num_days_from_monday()))),
            Period::Month => day.with_day(1),
            Period::Year => NaiveDate::from_ymd_opt(day.year(), 1, 1),
        };
        date.unwrap_or(day).and_time(NaiveTime::default())
    }

    /// Where the interval that begins here ends.
    fn end(self, from: NaiveDateTime) -> NaiveDateTime {
        let end = match self {
            Period::Hour => from.checked_add_signed(TimeDelta::hours(1)),
            Period::Day => from.checked_add_days(Days::new(1)),
            Period::Week => from.checked_add_days(Days::new(7)),
            Period::Month => from.checked_add_months(Months::new(1)),
            Period::Year => from.checked_add_months(Months::new(12)),
        };
        end.unwrap_or(NaiveDateTime::MAX)
    }

    /// The interval that holds this time.
    pub fn around(self, time: NaiveDateTime) -> Interval {
        let from = self.floor(time);
        Interval { from, until: self.end(from) }
    }

    /// The intervals that hold the times from `from` on and before `until`, in their order.
    pub fn cut(self, from: NaiveDateTime, until: NaiveDateTime) -> Result<Vec<Interval>> {
        let mut all = Vec::new();
        let mut at = self.floor(from);
        while at < until {
            let interval = Interval { from: at, until: self.end(at) };
            at = interval.until;
            all.push(interval);
            if all.len() > MOST {
                return Err(Error::new(Code::ConfigInvalid, "there are more intervals than a run may have")
                    .detail(format!("more than {MOST} from {from} to {until}"))
                    .hint("set `begin:` to the first time that counts, or a longer `batch_size:`"));
            }
        }
        Ok(all)
    }
}

/// The times from `from` on and before `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    pub from: NaiveDateTime,
    pub until: NaiveDateTime,
}

/// Times that were dealt with: intervals in their order, that do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Intervals(Vec<Interval>);

impl Intervals {
    pub fn first(&self) -> Option<Interval> {
        self.0.first().copied()
    }

    pub fn last(&self) -> Option<Interval> {
        self.0.last().copied()
    }

    pub fn hold(&self, interval: Interval) -> bool {
        self.0.iter().any(|i| i.from <= interval.from && interval.until <= i.until)
    }

    /// Forgets what lies from here on.
    pub fn forget_from(&mut self, time: NaiveDateTime) {
        self.0.retain(|i| i.from < time);
        if let Some(last) = self.0.last_mut() {
            last.until = last.until.min(time);
        }
    }

    pub fn add(&mut self, mut new: Interval) {
        let apart = |i: &Interval| i.until < new.from || new.until < i.from;
        let (mut kept, met): (Vec<Interval>, Vec<Interval>) = self.0.iter().copied().partition(apart);
        for i in met {
            new = Interval { from: new.from.min(i.from), until: new.until.max(i.until) };
        }
        kept.push(new);
        kept.sort_by_key(|i| i.from);
        self.0 = kept;
    }
}

/// The intervals from `begin` to the one that holds `greatest` which were not dealt with, and those that may have more rows by now:
/// the last one that was dealt with, which may have been half over, and what lies up to `lookback` before it.
pub fn due(period: Period, done: &Intervals, begin: NaiveDateTime, greatest: NaiveDateTime, lookback: TimeDelta) -> Result<Vec<Interval>> {
    let last = period.around(greatest);
    let open = done.last().map_or(last.from, |i| period.floor(i.until - TimeDelta::seconds(1)).min(last.from));
    let again = open.checked_sub_signed(lookback).unwrap_or(NaiveDateTime::MIN);
    let mut all = period.cut(begin, last.until)?;
    all.retain(|i| i.until > again || !done.hold(*i));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> NaiveDateTime {
        let text = if text.len() == 10 { format!("{text}T00:00:00") } else { text.to_owned() };
        text.parse().unwrap()
    }

    fn intervals(all: &[(&str, &str)]) -> Intervals {
        let mut intervals = Intervals::default();
        for (from, until) in all {
            intervals.add(Interval { from: time(from), until: time(until) });
        }
        intervals
    }

    #[test]
    fn periods_begin_with_the_calendar() {
        let cases = [
            (Period::Hour, "2024-02-29T13:00:00", "2024-02-29T14:00:00"),
            (Period::Day, "2024-02-29", "2024-03-01"),
            (Period::Week, "2024-02-26", "2024-03-04"),
            (Period::Month, "2024-02-01", "2024-03-01"),
            (Period::Year, "2024-01-01", "2025-01-01"),
        ];
        for (period, from, until) in cases {
            assert_eq!(period.around(time("2024-02-29T13:14:15")), Interval { from: time(from), until: time(until) }, "{period:?}");
        }
        assert!(Period::Hour.cut(time("0001-01-01"), time("2024-01-01")).is_err());
    }

    #[test]
    fn intervals_that_touch_become_one() {
        let all = intervals(&[("2024-01-01", "2024-01-02"), ("2024-01-03", "2024-01-04"), ("2024-01-02", "2024-01-03")]);
        assert_eq!(all, intervals(&[("2024-01-01", "2024-01-04")]));
        assert!(all.hold(Interval { from: time("2024-01-02"), until: time("2024-01-04") }));
        assert!(!all.hold(Interval { from: time("2024-01-03"), until: time("2024-01-05") }));
        let mut cut = all;
        cut.forget_from(time("2024-01-03"));
        assert_eq!(cut, intervals(&[("2024-01-01", "2024-01-03")]));
    }

    #[test]
    fn what_is_missing_is_due_and_the_last_again() {
        let starts = |done: &Intervals, begin: &str, greatest: &str, days: i64| -> Vec<String> {
            let due = due(Period::Day, done, time(begin), time(greatest), TimeDelta::days(days)).unwrap();
            due.iter().map(|i| i.from.format("%d").to_string()).collect()
        };
        let none = Intervals::default();
        assert_eq!(starts(&none, "2024-01-01", "2024-01-03T05:00:00", 0), ["01", "02", "03"]);
        let holed = intervals(&[("2024-01-01", "2024-01-03"), ("2024-01-04", "2024-01-06")]);
        assert_eq!(starts(&holed, "2024-01-01", "2024-01-07", 0), ["03", "05", "06", "07"]);
        assert_eq!(starts(&holed, "2024-01-01", "2024-01-05", 0), ["03", "05"]);
        assert_eq!(starts(&holed, "2024-01-01", "2024-01-05", 1), ["03", "04", "05"]);
        assert_eq!(starts(&holed, "2023-12-31", "2024-01-05", 0), ["31", "03", "05"]);
    }
}
