//! Windows that begin with a day, a week or a month.

use chrono::{Datelike, Days, Months, NaiveTime, Weekday};

use super::super::time::Time;
use super::point::Point;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clamp {
    Day,
    Week(Weekday),
    Month,
}

impl Clamp {
    /// The nearest beginning that is not earlier (`up`) or not later.
    pub(super) fn clamp(self, point: &Point, up: bool) -> Point {
        match point {
            Point::Time(time) => Point::Time(self.time(*time, up).unwrap_or(*time)),
            other => other.clone(),
        }
    }

    fn time(self, time: Time, up: bool) -> Option<Time> {
        let midnight = time.with_time(NaiveTime::MIN).single()?;
        match self {
            Clamp::Day if up && midnight != time => midnight.checked_add_days(Days::new(1)),
            Clamp::Day => Some(midnight),
            // The time of day counts for nothing in weeks and months, as in the reference.
            Clamp::Week(first) => {
                let ahead = (7 + first.num_days_from_monday() - time.weekday().num_days_from_monday()) % 7;
                let later = midnight.checked_add_days(Days::new(u64::from(ahead)))?;
                if up || ahead == 0 { Some(later) } else { later.checked_sub_days(Days::new(7)) }
            }
            Clamp::Month if time.day() == 1 => Some(midnight),
            Clamp::Month => {
                let first = midnight.with_day(1)?;
                if up { first.checked_add_months(Months::new(1)) } else { Some(first) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;

    #[test]
    fn windows_begin_where_they_should() {
        let time = |t: &str| Point::Time(DateTime::parse_from_rfc3339(&format!("{t}:00Z")).unwrap());
        // 2026-01-01 is a Thursday.
        let cases = [
            (Clamp::Day, "2026-01-01T12:00", "2026-01-02T00:00", "2026-01-01T00:00"),
            (Clamp::Day, "2026-01-01T00:00", "2026-01-01T00:00", "2026-01-01T00:00"),
            (Clamp::Week(Weekday::Mon), "2026-01-01T00:00", "2026-01-05T00:00", "2025-12-29T00:00"),
            (Clamp::Week(Weekday::Thu), "2026-01-01T08:00", "2026-01-01T00:00", "2026-01-01T00:00"),
            (Clamp::Week(Weekday::Sat), "2026-01-01T00:00", "2026-01-03T00:00", "2025-12-27T00:00"),
            (Clamp::Month, "2025-12-31T10:00", "2026-01-01T00:00", "2025-12-01T00:00"),
            (Clamp::Month, "2026-01-01T10:00", "2026-01-01T00:00", "2026-01-01T00:00"),
        ];
        for (clamp, at, up, down) in cases {
            assert_eq!((clamp.clamp(&time(at), true), clamp.clamp(&time(at), false)), (time(up), time(down)), "{clamp:?} {at}");
        }
    }
}
