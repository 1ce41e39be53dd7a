//! Records into Arrow columns, by the stream's JSON schema.

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

/// Rows on their way into a batch.
pub(super) struct Columns {
    schema: SchemaRef,
    columns: Vec<Column>,
    rows: usize,
    /// The key, to name rows by.
    key: Vec<String>,
}

impl Columns {
    pub(super) fn new(schema: SchemaRef, key: Vec<String>) -> Self {
        let columns = schema.fields().iter().map(Column::new).collect();
        Self { schema, columns, rows: 0, key }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Adds a record. One with a value that its column cannot hold is given back, with the reason.
    pub(super) fn push(&mut self, record: &Value) -> Option<RejectedRow> {
        let whole = self.schema.fields().len() == 1 && self.schema.field(0).name() == WHOLE && record.get(WHOLE).is_none();
        let names = || self.schema.fields().iter().map(|f| f.name().as_str());
        if !whole {
            let misfit = names().zip(&self.columns).find(|(name, column)| !column.takes(record.get(*name).unwrap_or(&Value::Null)));
            if let Some((name, column)) = misfit {
                let place: Vec<String> = self.key.iter().filter_map(|k| Some(format!("{k}={}", record.get(k)?))).collect();
                let reason = format!("the value of {name} is no {}", column.named());
                return Some(RejectedRow { place: place.join(", "), reason, row: record.clone() });
            }
        }
        for (field, column) in self.schema.fields().iter().zip(&mut self.columns) {
            let value = if whole { record } else { record.get(field.name()).unwrap_or(&Value::Null) };
            column.push(value);
        }
        self.rows += 1;
        None
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

    fn takes(&self, value: &Value) -> bool {
        value.is_null()
            || match self {
                Column::Integer(_) => integer(value).is_some(),
                Column::Float(_) => float(value).is_some(),
                Column::Boolean(_) => boolean(value).is_some(),
                Column::Text(_) | Column::Json(_) => true,
                Column::Date(_) => date(value).is_some(),
                Column::Time(_, zoned) => time(value, *zoned).is_some(),
            }
    }

    fn push(&mut self, value: &Value) {
        match self {
            Column::Integer(column) => column.append_option(integer(value)),
            Column::Float(column) => column.append_option(float(value)),
            Column::Boolean(column) => column.append_option(boolean(value)),
            Column::Text(column) => match value {
                Value::Null => column.append_null(),
                Value::String(text) => column.append_value(text),
                other => column.append_value(other.to_string()),
            },
            Column::Json(column) => match value {
                Value::Null => column.append_null(),
                other => column.append_value(other.to_string()),
            },
            Column::Date(column) => column.append_option(date(value)),
            Column::Time(column, zoned) => column.append_option(time(value, *zoned)),
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

// APIs are careless with types: what reads as the type of its column is taken for it.

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(n) => n.as_i64().or_else(|| n.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 9e15).map(|f| f as i64)),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Number(n) => n.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(b) => Some(*b),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

fn date(value: &Value) -> Option<i32> {
    let text = value.as_str()?.trim();
    let day = NaiveDate::parse_from_str(text.get(..10)?, "%Y-%m-%d").ok()?;
    // A date with a time of day is one only at midnight.
    let rest = &text[10..];
    let midnight = rest.is_empty() || time(value, true).is_some_and(|t| t.rem_euclid(86_400_000_000) == 0);
    midnight.then(|| day.to_epoch_days())
}

/// Microseconds since 1970. A zoned column takes times without a zone as UTC; one without takes only those.
fn time(value: &Value, zoned: bool) -> Option<i64> {
    let text = value.as_str()?.trim();
    let naive = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"].iter().find_map(|f| NaiveDateTime::parse_from_str(text, f).ok());
    let naive = naive.or_else(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().map(|d| d.and_time(chrono::NaiveTime::MIN)));
    if let Some(naive) = naive {
        return Some(naive.and_utc().timestamp_micros());
    }
    let formats = ["%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%d %H:%M:%S%.f%z"];
    let exact = DateTime::parse_from_rfc3339(text).ok().or_else(|| formats.iter().find_map(|f| DateTime::parse_from_str(text, f).ok()))?;
    Some(if zoned { exact.timestamp_micros() } else { exact.naive_local().and_utc().timestamp_micros() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::util::pretty::pretty_format_batches;
    use serde_json::json;

    #[test]
    fn records_become_columns() {
        let schema = json!({"properties": {
            "id": {"type": "integer"}, "n": {"type": ["null", "number"]}, "b": {"type": "boolean"}, "s": {"type": ["string", "null"]},
            "at": {"type": "string", "format": "date-time"}, "d": {"type": "string", "format": "date"}, "o": {"type": "object"},
            "u": {"type": ["string", "integer"]}}});
        let mut columns = Columns::new(Arc::new(arrow_schema(&schema)), vec!["id".into()]);
        let good = json!({"id": 1, "n": 1.5, "b": true, "s": "x", "at": "2026-01-02T03:04:05.5+02:00", "d": "2026-01-02", "o": {"k": [1]}, "u": "a"});
        assert!(columns.push(&good).is_none());
        assert!(columns.push(&json!({"id": "2", "n": null, "s": 5, "at": "2026-01-02", "u": 7})).is_none());
        for (wrong, named) in [(json!({"id": "x"}), "id"), (json!({"id": 3, "at": "soon"}), "at"), (json!({"id": 1.5}), "id")] {
            let rejected = columns.push(&wrong).unwrap();
            assert!(rejected.reason.contains(named), "{rejected:?}");
        }
        let shown = pretty_format_batches(&[columns.batch().unwrap()]).unwrap().to_string();
        let cells = |line: &str| line.split('|').map(str::trim).filter(|c| !c.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        let rows: Vec<Vec<String>> = shown.lines().filter(|l| l.starts_with('|')).map(cells).collect();
        assert_eq!(rows[1], ["1", "1.5", "true", "x", "2026-01-02T01:04:05.500Z", "2026-01-02", "{\"k\":[1]}", "\"a\""]);
        assert_eq!(rows[2], ["2", "5", "2026-01-02T00:00:00Z", "7"]);
    }

    #[test]
    fn without_a_schema_the_record_is_the_column() {
        let mut columns = Columns::new(Arc::new(arrow_schema(&json!({"type": "object", "properties": {}}))), Vec::new());
        assert!(columns.push(&json!({"x": 1})).is_none());
        let batch = columns.batch().unwrap();
        assert_eq!(batch.schema().field(0).name(), WHOLE);
        assert_eq!(arrow::util::display::array_value_to_string(batch.column(0), 0).unwrap(), "{\"x\":1}");
    }
}
