//! Points in time as cursors have them, read and written in the reference's formats.

use chrono::{DateTime, FixedOffset, Offset, TimeZone, Utc};
use serde_json::Value;

use super::template::datetime::{self, Moment};
use super::template::python_str;

pub(super) type Time = DateTime<FixedOffset>;

/// A record's or a state's value; `None` when it is not of this format.
pub(super) fn parse(value: &Value, format: &str) -> Option<Time> {
    let text = match value {
        Value::String(text) => text.clone(),
        // Whole seconds of a fraction count.
        Value::Number(n) if matches!(format, "%s" | "%ms" | "%epoch_microseconds") && n.is_f64() => {
            format!("{}", n.as_f64()?.trunc() as i64)
        }
        Value::Number(n) => n.to_string(),
        Value::Null => return None,
        other => python_str(other),
    };
    let Moment { local, offset } = datetime::parse(&text, format).ok()?;
    offset.unwrap_or_else(|| Utc.fix()).from_local_datetime(&local).single()
}

pub(super) fn format(time: Time, format: &str) -> String {
    datetime::format(&Moment { local: time.naive_local(), offset: Some(*time.offset()) }, format)
}

pub(super) fn now() -> Time {
    Utc::now().fixed_offset()
}
