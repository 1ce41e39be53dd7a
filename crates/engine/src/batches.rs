//! A query's result in batches: the rows of one interval of a time column are computed together, and replace those that the table has of it.
//!
//! State holds the intervals that were computed. What is due is decided by [`trib_core::interval`]; here are the texts that systems
//! understand and the state's form.

use arrow::datatypes::DataType;
use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta};
use serde::{Deserialize, Serialize};
use trib_core::interval::{Interval, Intervals, Period, due};
use trib_core::load::{RowScope, Rows};
use trib_core::{Code, Error, Read, Result, Split, SplitEnd, State, StreamRead};
use trib_kit::cursor::{same_cursor, stored};

/// How a query's result is cut.
#[derive(Clone, Debug)]
pub struct Batches {
    /// A column of the result that is a date or a time. Rows in which it is NULL belong to no interval.
    pub column: String,
    pub period: Period,
    /// Intervals up to this much before the last one are computed again.
    pub lookback: TimeDelta,
    /// Nothing before this counts; left out, the least value of the first run.
    pub begin: Option<NaiveDateTime>,
    /// Everything is computed in one piece, and replaces the whole table.
    pub whole: bool,
}

/// A stream's state.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Computed {
    cursor: Option<String>,
    /// How long the intervals were.
    period: Option<Period>,
    done: Intervals,
}

/// The least and the greatest value of the column, as the system writes them.
pub type Ends = Option<(String, String)>;

/// One batch: its interval, and the column's texts for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    pub interval: Interval,
    pub from: String,
    pub until: String,
}

impl Batches {
    /// From where on the ends are looked for, in the column's text; `None` is everywhere. Where something was computed before, nothing that lies before its last
    /// interval is looked at.
    pub fn looks_from(&self, read: &StreamRead, state: &State, data_type: &DataType) -> Result<Option<String>> {
        self.check(data_type)?;
        let from = match &read.read {
            Read::Range { .. } => None,
            _ if self.whole => self.begin,
            _ => match self.computed(read, state)?.done.last() {
                Some(last) => Some(self.period.floor(last.until - TimeDelta::seconds(1))),
                None => self.begin,
            },
        };
        Ok(from.map(|time| written(time, data_type, "")))
    }

    /// The batches that a read consists of, in their order.
    pub fn due(&self, read: &StreamRead, state: &State, ends: Ends, data_type: &DataType) -> Result<Vec<Batch>> {
        let sample = ends.as_ref().map(|(_, greatest)| greatest.clone()).unwrap_or_default();
        let ends = ends.map(|(least, greatest)| Ok::<_, Error>((parsed(&least)?, parsed(&greatest)?))).transpose()?;
        let intervals = match &read.read {
            Read::Range { since, until, .. } => {
                let given = |text: &Option<String>| text.as_deref().map(parsed).transpose();
                let since = given(since)?.or(ends.map(|(least, _)| least));
                let until = given(until)?.or(ends.map(|(_, greatest)| self.period.around(greatest).until));
                match (since, until) {
                    (Some(since), Some(until)) => self.period.cut(since, until)?,
                    _ => Vec::new(),
                }
            }
            _ if self.whole => match ends {
                Some((least, greatest)) => {
                    let from = self.begin.unwrap_or_else(|| self.period.floor(least));
                    vec![Interval { from, until: self.period.around(greatest).until }]
                }
                None => Vec::new(),
            },
            _ => {
                let done = self.computed(read, state)?.done;
                let last = done.last().map(|i| i.until - TimeDelta::seconds(1));
                let begin = self.begin.or(done.first().map(|i| i.from)).or(ends.map(|(least, _)| least));
                match (begin, ends.map(|(_, greatest)| greatest).max(last)) {
                    (Some(begin), Some(greatest)) => due(self.period, &done, begin, greatest, self.lookback)?,
                    _ => Vec::new(),
                }
            }
        };
        let text = |time| written(time, data_type, &sample);
        Ok(intervals.into_iter().map(|i| Batch { interval: i, from: text(i.from), until: text(i.until) }).collect())
    }

    /// The split of a batch.
    pub fn split(&self, stream: &str, batch: &Batch, spec: serde_json::Value) -> Split {
        let rows = Rows::Between { from: batch.from.clone(), until: batch.until.clone() };
        let covers = (!self.whole).then(|| RowScope { column: self.column.clone(), rows });
        Split { covers, ..Split::new(stream, spec) }
    }

    /// The state once these intervals were computed too.
    pub fn advance(
        &self,
        reads: &[StreamRead],
        state: &State,
        ends: &[SplitEnd],
        interval: impl Fn(&Split) -> Result<Option<Interval>>,
    ) -> Result<State> {
        let mut next = state.clone();
        for read in reads {
            let mut computed = self.computed(read, &next)?;
            (computed.cursor, computed.period) = (Some(self.column.clone()), Some(self.period));
            for end in ends.iter().filter(|e| e.split.streams.contains(&read.stream)) {
                if let Some(interval) = interval(&end.split)? {
                    computed.done.add(interval);
                }
            }
            next.streams.insert(read.stream.clone(), serde_json::to_value(computed)?);
        }
        Ok(next)
    }

    fn computed(&self, read: &StreamRead, state: &State) -> Result<Computed> {
        let mut computed: Computed = stored(state, read)?;
        same_cursor(read, computed.cursor.as_deref())?;
        if let (Some(period), Some(last)) = (computed.period.filter(|p| *p != self.period), computed.done.last()) {
            // The last one may have been half over, and shorter ones within it are not done.
            computed.done.forget_from(period.floor(last.until - TimeDelta::seconds(1)));
        }
        Ok(computed)
    }

    fn check(&self, data_type: &DataType) -> Result<()> {
        let wrong = |message, hint: &str| {
            Err(Error::new(Code::ConfigInvalid, message)
                .detail(format!("{}: {data_type}", self.column))
                .setting("batch_size")
                .hint(hint.to_owned()))
        };
        match data_type {
            DataType::Date32 if self.period == Period::Hour => wrong("a date cannot be cut into hours", "say `batch_size: day`"),
            DataType::Date32 | DataType::Timestamp(..) | DataType::Utf8 => Ok(()),
            _ => wrong(
                "`batch_size` needs a cursor that is a date or a time",
                "cast it in the SQL, or leave `batch_size` out and give the model a key",
            ),
        }
    }
}

/// A date or time as databases, Arrow and people write it. With a zone it is brought to UTC.
pub fn parsed(text: &str) -> Result<NaiveDateTime> {
    let iso = text.trim().replacen(' ', "T", 1);
    // PostgreSQL leaves out the minutes of an offset.
    let short = iso.len() > 16 && iso.len() >= 3 && iso.is_char_boundary(iso.len() - 3) && iso[iso.len() - 3..].starts_with(['+', '-']);
    let zoned = if short { format!("{iso}:00") } else { iso.clone() };
    let time = DateTime::parse_from_rfc3339(&zoned).map(|t| t.naive_utc());
    let time = time.or_else(|_| iso.parse::<NaiveDateTime>());
    let time = time.or_else(|_| NaiveDateTime::parse_from_str(&iso, "%Y-%m-%dT%H:%M"));
    let time = time.or_else(|_| iso.parse::<NaiveDate>().map(|d| d.and_time(chrono::NaiveTime::default())));
    time.map_err(|_| {
        Error::new(Code::DataInvalid, "this is not a date or a time")
            .detail(format!("{text:?}"))
            .hint("write 2024-01-31 or 2024-01-31T23:00:00Z")
    })
}

/// A time in the text that compares with a column's values. For text that is the beginning of what values look like, which sorts before all that
/// begin with it; `sample` is one of them.
fn written(time: NaiveDateTime, data_type: &DataType, sample: &str) -> String {
    match data_type {
        DataType::Date32 => time.format("%Y-%m-%d").to_string(),
        DataType::Timestamp(_, Some(_)) => time.format("%Y-%m-%dT%H:%M:%SZ").to_string(),
        DataType::Timestamp(_, None) => time.format("%Y-%m-%dT%H:%M:%S").to_string(),
        _ if time.time() == chrono::NaiveTime::default() => time.format("%Y-%m-%d").to_string(),
        _ => {
            let separator = sample.chars().nth(10).unwrap_or(' ');
            format!("{}{separator}{}", time.format("%Y-%m-%d"), time.format("%H"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_systems_write_them() {
        let at = |text: &str| parsed(text).unwrap().to_string();
        for text in
            ["2024-03-09T05:00:00Z", "2024-03-09 05:00:00+00", "2024-03-09 07:00:00+02:00", "2024-03-09T05:00:00", "2024-03-09 05:00"]
        {
            assert_eq!(at(text), "2024-03-09 05:00:00", "{text}");
        }
        assert_eq!(at("2024-03-09"), "2024-03-09 00:00:00");
        assert!(parsed("yesterday").is_err() && parsed("ä").is_err());
    }

    #[test]
    fn bounds_compare_with_the_column() {
        let time = parsed("2024-03-09T05:00:00Z").unwrap();
        let zoned = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into()));
        assert_eq!(written(time, &zoned, ""), "2024-03-09T05:00:00Z");
        assert_eq!(written(time, &DataType::Utf8, "2024-03-01 11:12:13"), "2024-03-09 05");
        assert_eq!(written(time, &DataType::Utf8, "2024-03-01T11:12:13Z"), "2024-03-09T05");
        assert_eq!(written(parsed("2024-03-09").unwrap(), &DataType::Utf8, "2024-03-01 11:12:13"), "2024-03-09");
    }
}
