//! Records into Arrow columns, by the stream's JSON schema.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Float64Builder, Int64Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use chrono::{DateTime, NaiveDate, NaiveDateTime};
use serde_json::Value;
use trib_core::Result;
use trib_core::load::RejectedRow;
use trib_core::logical::{FieldExt, Logical};
use trib_kit::tape::Kind;

use super::records::Record;

/// The one column of a stream whose schema says nothing: the whole record.
pub(super) const WHOLE: &str = "record";

/// The columns that a JSON schema stands for. What has no single simple type is JSON text.
pub(super) fn arrow_schema(schema: &Value) -> Schema {
    let properties = schema.get("properties").and_then(Value::as_object).filter(|p| !p.is_empty());
    match properties {
        None => Schema::new(vec![Field::new(WHOLE, DataType::Utf8, true).with_logical(Logical::Json)]),
        Some(properties) => Schema::new(properties.iter().map(|(name, schema)| field(name, schema)).collect::<Vec<_>>()),
    }
}

fn field(name: &str, schema: &Value) -> Field {
    let types: Vec<&str> = match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let simple: Vec<&str> = types.into_iter().filter(|t| *t != "null").collect();
    let text = |key: &str| schema.get(key).and_then(Value::as_str).unwrap_or_default();
    let zone = |zoned: bool| DataType::Timestamp(TimeUnit::Microsecond, zoned.then(|| "UTC".into()));
    let data_type = match (simple.as_slice(), text("format"), text("airbyte_type")) {
        (["integer"], ..) => DataType::Int64,
        (["number"], _, "integer" | "big_integer") => DataType::Int64,
        (["number"] | ["integer", "number"] | ["number", "integer"], ..) => DataType::Float64,
        (["boolean"], ..) => DataType::Boolean,
        (["string"], "date-time", "timestamp_without_timezone") => zone(false),
        (["string"], "date-time", _) => zone(true),
        (["string"], "date", _) => DataType::Date32,
        (["string"], ..) => DataType::Utf8,
        _ => return Field::new(name, DataType::Utf8, true).with_logical(Logical::Json),
    };
    Field::new(name, data_type, true)
}

enum Column {
    Integer(Int64Builder),
    Float(Float64Builder),
    Boolean(BooleanBuilder),
    Text(StringBuilder),
    Json(StringBuilder),
    Date(Date32Builder),
    Time(TimestampMicrosecondBuilder, bool),
}

/// A value on its way into its column.
enum Cell<'a> {
    Null,
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Text(Cow<'a, str>),
}

/// Rows on their way into a batch.
pub(super) struct Columns {
    schema: SchemaRef,
    columns: Vec<Column>,
    by_name: HashMap<String, usize>,
    /// Which names stood where in the last record, as they were written, and their columns: the next record mostly has the same order.
    order: Vec<(Vec<u8>, Option<usize>)>,
    rows: usize,
    /// The key, to name rows by.
    key: Vec<String>,
}

impl Columns {
    pub(super) fn new(schema: SchemaRef, key: Vec<String>) -> Self {
        let columns = schema.fields().iter().map(Column::new).collect();
        let by_name = schema.fields().iter().enumerate().map(|(i, f)| (f.name().clone(), i)).collect();
        Self { schema, columns, by_name, order: Vec::new(), rows: 0, key }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Adds a record. One with a value that its column cannot hold is given back, with the reason.
    pub(super) fn push(&mut self, record: Record<'_>) -> Option<RejectedRow> {
        let mut values: Vec<Option<Record<'_>>> = vec![None; self.columns.len()];
        for (place, (name, value)) in record.fields().enumerate() {
            if let Some(column) = self.column_of(place, name) {
                values[column] = Some(value);
            }
        }
        if self.columns.len() == 1 && values[0].is_none() && self.schema.field(0).name() == WHOLE {
            values[0] = Some(record);
        }
        let mut cells = Vec::with_capacity(values.len());
        for (index, value) in values.into_iter().enumerate() {
            let column = &self.columns[index];
            let cell = match value.filter(|v| v.kind() != Kind::Null) {
                None => Cell::Null,
                Some(value) => match column.read(value) {
                    Some(cell) => cell,
                    None => return Some(self.rejected(record, index)),
                },
            };
            cells.push(cell);
        }
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            column.push(cell);
        }
        self.rows += 1;
        None
    }

    fn rejected(&self, record: Record<'_>, column: usize) -> RejectedRow {
        let row = record.value();
        let place: Vec<String> = self.key.iter().filter_map(|k| Some(format!("{k}={}", row.get(k)?))).collect();
        let reason = format!("the value of {} is no {}", self.schema.field(column).name(), self.columns[column].named());
        RejectedRow { place: place.join(", "), reason, row }
    }

    /// The column of a name that stands at `place` in the record.
    fn column_of(&mut self, place: usize, name: Record<'_>) -> Option<usize> {
        if let Some((known, column)) = self.order.get(place)
            && known == name.bytes()
        {
            return *column;
        }
        let column = name.text().and_then(|text| self.by_name.get(&*text).copied());
        let entry = (name.bytes().to_vec(), column);
        match self.order.get_mut(place) {
            Some(known) => *known = entry,
            // Records with names of their own, each a little different, are not worth remembering.
            None if place < 1000 => self.order.push(entry),
            None => {}
        }
        column
    }

    /// What was added since the last batch.
    pub(super) fn batch(&mut self) -> Result<RecordBatch> {
        self.rows = 0;
        let arrays: Vec<ArrayRef> = self.columns.iter_mut().map(Column::finish).collect();
        Ok(RecordBatch::try_new(self.schema.clone(), arrays)?)
    }
}

impl Column {
    fn new(field: &FieldRef) -> Self {
        match field.data_type() {
            DataType::Int64 => Column::Integer(Int64Builder::new()),
            DataType::Float64 => Column::Float(Float64Builder::new()),
            DataType::Boolean => Column::Boolean(BooleanBuilder::new()),
            DataType::Date32 => Column::Date(Date32Builder::new()),
            DataType::Timestamp(_, zone) => {
                Column::Time(TimestampMicrosecondBuilder::new().with_data_type(field.data_type().clone()), zone.is_some())
            }
            _ if field.logical() == Some(Logical::Json) => Column::Json(StringBuilder::new()),
            _ => Column::Text(StringBuilder::new()),
        }
    }

    fn named(&self) -> &'static str {
        match self {
            Column::Integer(_) => "whole number",
            Column::Float(_) => "number",
            Column::Boolean(_) => "truth value",
            Column::Text(_) | Column::Json(_) => "text",
            Column::Date(_) => "date",
            Column::Time(..) => "time",
        }
    }

    /// The value as this column holds it. APIs are careless with types: what reads as the type of its column is taken for it.
    fn read<'a>(&self, value: Record<'a>) -> Option<Cell<'a>> {
        match self {
            Column::Integer(_) => integer(value).map(Cell::Integer),
            Column::Float(_) => bare(value)?.parse().ok().map(Cell::Float),
            Column::Boolean(_) => boolean(value).map(Cell::Boolean),
            Column::Text(_) if value.kind() == Kind::String => value.text().map(Cell::Text),
            Column::Text(_) | Column::Json(_) => Some(Cell::Text(value.compact())),
            Column::Date(_) => date(&value.text().filter(|_| value.kind() == Kind::String)?).map(|d| Cell::Integer(d.into())),
            Column::Time(_, zoned) => time(value.text().filter(|_| value.kind() == Kind::String)?.trim(), *zoned).map(Cell::Integer),
        }
    }

    fn push(&mut self, cell: Cell<'_>) {
        match (self, cell) {
            (Column::Integer(column), Cell::Integer(value)) => column.append_value(value),
            (Column::Float(column), Cell::Float(value)) => column.append_value(value),
            (Column::Boolean(column), Cell::Boolean(value)) => column.append_value(value),
            (Column::Text(column) | Column::Json(column), Cell::Text(value)) => column.append_value(value),
            (Column::Date(column), Cell::Integer(value)) => column.append_option(i32::try_from(value).ok()),
            (Column::Time(column, _), Cell::Integer(value)) => column.append_value(value),
            (Column::Integer(column), _) => column.append_null(),
            (Column::Float(column), _) => column.append_null(),
            (Column::Boolean(column), _) => column.append_null(),
            (Column::Text(column) | Column::Json(column), _) => column.append_null(),
            (Column::Date(column), _) => column.append_null(),
            (Column::Time(column, _), _) => column.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Column::Integer(column) => Arc::new(column.finish()),
            Column::Float(column) => Arc::new(column.finish()),
            Column::Boolean(column) => Arc::new(column.finish()),
            Column::Text(column) | Column::Json(column) => Arc::new(column.finish()),
            Column::Date(column) => Arc::new(column.finish()),
            Column::Time(column, _) => Arc::new(column.finish()),
        }
    }
}

/// A number as it is written, in quotes or not.
fn bare(value: Record<'_>) -> Option<Cow<'_, str>> {
    match value.kind() {
        Kind::Number => std::str::from_utf8(value.bytes()).ok().map(Cow::Borrowed),
        Kind::String => value.text().map(|t| t.trim().to_owned().into()),
        _ => None,
    }
}

fn integer(value: Record<'_>) -> Option<i64> {
    let text = bare(value)?;
    let whole = |f: f64| (f.fract() == 0.0 && f.abs() < 9e15).then_some(f as i64);
    trib_kit::value::integer(text.as_bytes()).or_else(|| text.parse().ok().filter(|_| value.kind() == Kind::Number).and_then(whole))
}

fn boolean(value: Record<'_>) -> Option<bool> {
    match value.kind() {
        Kind::True => Some(true),
        Kind::False => Some(false),
        Kind::String if value.text()?.eq_ignore_ascii_case("true") => Some(true),
        Kind::String if value.text()?.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

fn date(text: &str) -> Option<i32> {
    let text = text.trim();
    let day = NaiveDate::parse_from_str(text.get(..10)?, "%Y-%m-%d").ok()?;
    // A date with a time of day is one only at midnight.
    let midnight = text.len() == 10 || time(text, true).is_some_and(|t| t.rem_euclid(86_400_000_000) == 0);
    midnight.then(|| day.to_epoch_days())
}

/// Microseconds since 1970. A zoned column takes times without a zone as UTC; one without takes the time as it stands on the clock.
fn time(text: &str, zoned: bool) -> Option<i64> {
    if let Some(instant) = trib_kit::value::instant(text.as_bytes()).filter(|i| zoned || !i.zoned) {
        return instant.seconds.checked_mul(1_000_000)?.checked_add(instant.nanos / 1000);
    }
    let naive = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"].iter().find_map(|f| NaiveDateTime::parse_from_str(text, f).ok());
    if let Some(naive) = naive {
        return Some(naive.and_utc().timestamp_micros());
    }
    let formats = ["%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%d %H:%M:%S%.f%z", "%Y-%m-%dT%H:%M%z", "%Y-%m-%d %H:%M%z"];
    let exact = DateTime::parse_from_rfc3339(text).ok().or_else(|| formats.iter().find_map(|f| DateTime::parse_from_str(text, f).ok()))?;
    Some(if zoned { exact.timestamp_micros() } else { exact.naive_local().and_utc().timestamp_micros() })
}

#[cfg(test)]
mod tests {
    use super::super::records::Records;
    use super::*;
    use arrow::util::pretty::pretty_format_batches;
    use serde_json::json;

    fn push(columns: &mut Columns, record: Value) -> Option<RejectedRow> {
        columns.push(Records::of(&[record]).unwrap().get(0).unwrap())
    }

    #[test]
    fn records_become_columns() {
        let schema = json!({"properties": {
            "id": {"type": "integer"}, "n": {"type": ["null", "number"]}, "b": {"type": "boolean"}, "s": {"type": ["string", "null"]},
            "at": {"type": "string", "format": "date-time"}, "d": {"type": "string", "format": "date"}, "o": {"type": "object"},
            "u": {"type": ["string", "integer"]}}});
        let mut columns = Columns::new(Arc::new(arrow_schema(&schema)), vec!["id".into()]);
        let good = json!({"id": 1, "n": 1.5, "b": true, "s": "x", "at": "2026-01-02T03:04:05.5+02:00", "d": "2026-01-02", "o": {"k": [1]}, "u": "a"});
        assert!(push(&mut columns, good).is_none());
        assert!(push(&mut columns, json!({"id": "2", "n": null, "s": 5, "at": "2026-01-02", "u": 7})).is_none());
        assert!(push(&mut columns, json!({"id": 3, "at": "2026-01-02T03:04+01:00"})).is_none());
        for (wrong, named) in [(json!({"id": "x"}), "id"), (json!({"id": 3, "at": "soon"}), "at"), (json!({"id": 1.5}), "id")] {
            let rejected = push(&mut columns, wrong).unwrap();
            assert!(rejected.reason.contains(named), "{rejected:?}");
        }
        let shown = pretty_format_batches(&[columns.batch().unwrap()]).unwrap().to_string();
        let cells = |line: &str| line.split('|').map(str::trim).filter(|c| !c.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        let rows: Vec<Vec<String>> = shown.lines().filter(|l| l.starts_with('|')).map(cells).collect();
        assert_eq!(rows[1], ["1", "1.5", "true", "x", "2026-01-02T01:04:05.500Z", "2026-01-02", "{\"k\":[1]}", "\"a\""]);
        assert_eq!(rows[2], ["2", "5", "2026-01-02T00:00:00Z", "7"]);
        assert_eq!(rows[3], ["3", "2026-01-02T02:04:00Z"]);
    }

    #[test]
    fn without_a_schema_the_record_is_the_column() {
        let mut columns = Columns::new(Arc::new(arrow_schema(&json!({"type": "object", "properties": {}}))), Vec::new());
        assert!(push(&mut columns, json!({"x": 1})).is_none());
        let batch = columns.batch().unwrap();
        assert_eq!(batch.schema().field(0).name(), WHOLE);
        assert_eq!(arrow::util::display::array_value_to_string(batch.column(0), 0).unwrap(), "{\"x\":1}");
    }
}
