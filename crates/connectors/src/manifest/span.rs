//! ISO 8601 durations: calendar months, and exact time.

use std::time::Duration as StdDuration;

use chrono::{DateTime, FixedOffset, Months, TimeDelta};

use super::template::datetime::Duration;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    months: i32,
    micros: i64,
}

impl Span {
    /// `P1Y2M3DT4H5M6.7S`, `P2W`; a sign may stand before it. What templates take for a duration is one here.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let read = Duration::parse(text.trim()).ok()?;
        Some(Self { months: i32::try_from(read.years * 12 + read.months).ok()?, micros: read.rest.0 })
    }

    pub(super) const fn micros(micros: i64) -> Self {
        Self { months: 0, micros }
    }

    pub(super) const fn seconds(seconds: i64) -> Self {
        Self::micros(seconds * 1_000_000)
    }

    /// Without months, which have no length of their own.
    pub(super) fn to_std(self) -> Option<StdDuration> {
        (self.months == 0).then(|| u64::try_from(self.micros).ok().map(StdDuration::from_micros)).flatten()
    }

    pub(super) fn is_zero(self) -> bool {
        self == Self::default()
    }

    /// `None` beyond the calendar's end.
    pub(super) fn after(self, time: DateTime<FixedOffset>) -> Option<DateTime<FixedOffset>> {
        let months = Months::new(self.months.unsigned_abs());
        let moved = if self.months < 0 { time.checked_sub_months(months) } else { time.checked_add_months(months) }?;
        moved.checked_add_signed(TimeDelta::microseconds(self.micros))
    }

    pub(super) fn before(self, time: DateTime<FixedOffset>) -> Option<DateTime<FixedOffset>> {
        Self { months: -self.months, micros: -self.micros }.after(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        let cases = [
            ("P1D", Some((0, 86_400_000_000))),
            ("PT1S", Some((0, 1_000_000))),
            ("PT0.5S", Some((0, 500_000))),
            ("P1Y2M", Some((14, 0))),
            ("P2W", Some((0, 14 * 86_400_000_000))),
            ("-P1DT1H", Some((0, -90_000_000_000))),
            ("P", None),
            ("1D", None),
            ("P1X", None),
            ("P1é", None),
        ];
        for (text, expected) in cases {
            assert_eq!(Span::parse(text), expected.map(|(months, micros)| Span { months, micros }), "{text}");
        }
    }

    #[test]
    fn months_end_where_the_calendar_says() {
        let time = |t: &str| DateTime::parse_from_rfc3339(t).unwrap();
        let month = Span::parse("P1M").unwrap();
        let november = month.after(time("2025-10-31T00:00:00Z")).unwrap();
        assert_eq!(november, time("2025-11-30T00:00:00Z"));
        assert_eq!(month.after(november).unwrap(), time("2025-12-30T00:00:00Z"));
    }
}
