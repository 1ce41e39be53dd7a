//! ISO 8601 durations: calendar months, and exact time.

use std::time::Duration;

use chrono::{DateTime, FixedOffset, Months, TimeDelta};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    months: i32,
    micros: i64,
}

impl Span {
    /// `P1Y2M3DT4H5M6.7S`, `P2W`; a sign may stand before it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (sign, rest) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text.strip_prefix('+').unwrap_or(text)),
        };
        let rest = rest.strip_prefix('P')?;
        let (date, time) = rest.split_once('T').unwrap_or((rest, ""));
        if date.is_empty() && time.is_empty() {
            return None;
        }
        let mut span = Self::default();
        for (amount, unit) in amounts(date)? {
            match unit {
                'Y' => span.months += (amount * 12.0) as i32,
                'M' => span.months += amount as i32,
                'W' => span.micros += micros(amount, 7 * 86_400)?,
                'D' => span.micros += micros(amount, 86_400)?,
                _ => return None,
            }
        }
        for (amount, unit) in amounts(time)? {
            let seconds = match unit {
                'H' => 3600,
                'M' => 60,
                'S' => 1,
                _ => return None,
            };
            span.micros += micros(amount, seconds)?;
        }
        Some(Self { months: sign * span.months, micros: i64::from(sign) * span.micros })
    }

    pub(super) const fn micros(micros: i64) -> Self {
        Self { months: 0, micros }
    }

    pub(super) const fn seconds(seconds: i64) -> Self {
        Self::micros(seconds * 1_000_000)
    }

    /// Without months, which have no length of their own.
    pub(super) fn to_std(self) -> Option<Duration> {
        (self.months == 0).then(|| u64::try_from(self.micros).ok().map(Duration::from_micros)).flatten()
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

fn micros(amount: f64, seconds: i64) -> Option<i64> {
    let micros = amount * seconds as f64 * 1e6;
    (micros.abs() < 9e18).then_some(micros.round() as i64)
}

fn amounts(text: &str) -> Option<Vec<(f64, char)>> {
    let mut found = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ',')?;
        let unit = rest[end..].chars().next()?;
        let amount: f64 = rest[..end].replace(',', ".").parse().ok()?;
        if amount > 1e12 {
            return None;
        }
        found.push((amount, unit));
        rest = &rest[end + unit.len_utf8()..];
    }
    Some(found)
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
