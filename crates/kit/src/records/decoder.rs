//! The records of one stream into batches.

use std::sync::Arc;

use arrow::array::{Array, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use trib_core::{Code, Emitter, Error, RejectedRow, Result};

use super::column::{Columns, Unfit};
use super::value::Value;

/// A batch is given on when it has this many rows, or about this many bytes of JSON.
const ROWS: usize = 8192;
const BYTES: usize = 4 << 20;
/// As much of a rejected record is kept.
const KEPT: usize = 64 << 10;

pub struct Decoder {
    pub stream: Arc<str>,
    schema: SchemaRef,
    columns: Columns,
    /// Columns without which no row may be.
    key: Vec<usize>,
    /// JSON that went into the batch.
    bytes: usize,
    records: u64,
    refused: Vec<(usize, RejectedRow)>,
}

/// A batch, and the records that are not in it.
pub struct Decoded {
    pub batch: RecordBatch,
    pub rejected: Vec<RejectedRow>,
}

impl Decoder {
    /// `key` names columns that every record must have.
    pub fn new(stream: &str, schema: SchemaRef, key: &[String]) -> Result<Self> {
        let columns = Columns::new(schema.fields())?;
        let place = |name: &String| {
            schema.index_of(name).map_err(|_| {
                Error::new(Code::DataInvalid, "a key property is not among the schema's properties").detail(name).stream(stream)
            })
        };
        let key = key.iter().map(place).collect::<Result<_>>()?;
        Ok(Self { stream: stream.into(), schema, columns, key, bytes: 0, records: 0, refused: Vec::new() })
    }

    /// Takes a record; `line` is where it stands. True when the batch is full.
    pub fn add(&mut self, record: Value<'_>, line: u64) -> bool {
        let mut unfit = Unfit::default();
        let row = self.columns.rows();
        self.columns.take(record, &mut unfit);
        self.columns.end_row();
        let record = record.bytes();
        if let Some(reason) = unfit.0 {
            let kept = if record.len() <= KEPT { serde_json::from_slice(record).ok() } else { None };
            let cut = || String::from_utf8_lossy(&record[..record.len().min(KEPT)]).into();
            self.refused.push((row, RejectedRow { place: format!("line {line}"), reason, row: kept.unwrap_or_else(cut) }));
        }
        self.records += 1;
        self.bytes += record.len();
        row + 1 >= ROWS || self.bytes >= BYTES
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// JSON that waits in the batch.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives what has come so far.
    pub fn take(&mut self) -> Result<Option<Decoded>> {
        let rows = self.columns.rows();
        if rows == 0 {
            return Ok(None);
        }
        let columns = self.columns.finish()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let mut batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        let refused = std::mem::take(&mut self.refused);
        if !refused.is_empty() {
            let mut keep = vec![true; rows];
            refused.iter().for_each(|(row, _)| keep[*row] = false);
            batch = filter_record_batch(&batch, &BooleanArray::from(keep))?;
        }
        self.bytes = 0;
        self.require_key(&batch, rows)?;
        Ok(Some(Decoded { batch, rejected: refused.into_iter().map(|(_, row)| row).collect() }))
    }

    /// Gives on what has come so far. Blocks.
    pub fn give(&mut self, out: &mut Emitter) -> Result<()> {
        let Some(decoded) = self.take()? else { return Ok(()) };
        for row in decoded.rejected {
            out.reject_blocking(&self.stream, row)?;
        }
        out.batch_blocking(&self.stream, decoded.batch)
    }

    fn require_key(&self, batch: &RecordBatch, rows: usize) -> Result<()> {
        let Some(&column) = self.key.iter().find(|c| batch.column(**c).null_count() > 0) else {
            return Ok(());
        };
        Err(Error::new(Code::DataInvalid, "a record has no value for a key property")
            .detail(self.schema.field(column).name())
            .stream(self.stream.as_ref())
            .row(format!("among records {} to {}", self.records - rows as u64 + 1, self.records))
            .hint("the SCHEMA message names it under `key_properties`: each record needs it"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::schema;
    use crate::tape::Tape;
    use serde_json::json;

    fn add(decoder: &mut Decoder, record: &str, line: u64) {
        let mut tape = Tape::default();
        let node = tape.parse(record.as_bytes(), 0, record.len()).unwrap();
        decoder.add(Value::new(&tape, record.as_bytes(), node), line);
    }

    fn rows(schema: &serde_json::Value, nested: bool, records: &[&str]) -> (Vec<String>, Vec<String>) {
        let mut decoder = Decoder::new("s", schema::columns(schema, nested).unwrap(), &[]).unwrap();
        for (i, record) in records.iter().enumerate() {
            add(&mut decoder, record, i as u64 + 1);
        }
        let Some(decoded) = decoder.take().unwrap() else { return (vec![], vec![]) };
        let mut out = Vec::new();
        let mut writer = arrow::json::LineDelimitedWriter::new(&mut out);
        writer.write(&decoded.batch).unwrap();
        writer.finish().unwrap();
        let lines = String::from_utf8(out).unwrap().lines().map(str::to_owned).collect();
        (lines, decoded.rejected.into_iter().map(|r| format!("{}: {}", r.place, r.reason)).collect())
    }

    #[test]
    fn values() {
        let properties = json!({
            "i": {"type": "integer"}, "n": {"type": "number"}, "d": {"type": "number", "multipleOf": 0.01}, "s": {"type": "string"},
            "t": {"type": "string", "format": "date-time"}, "j": {}, "b": {"type": "boolean"},
            "c": {"type": "string", "format": "date-time", "airbyte_type": "timestamp_without_timezone"},
            "o": {"type": "object", "properties": {"a": {"type": "integer"}, "l": {"type": "array", "items": {"type": "string"}}}},
        });
        let schema = json!({"properties": properties});
        let (got, rejected) = rows(
            &schema,
            true,
            &[
                r#"{"i": 1, "n": 2.5, "d": 12.30, "s": "a\u00e9\n", "t": "2020-01-01T00:00:00+01:00", "j": {"x": [1.10, null]}, "b": true}"#,
                r#"{"o": {"l": ["x", null], "unknown": 3, "a": 7}, "i": 9223372036854775807, "extra": {"deep": [1]}}"#,
                r#"{"s": null, "o": null, "i": 3.0, "d": "0.5", "c": "2020-01-01T10:30"}"#,
                r#"{"o": {}}"#,
                "{}",
            ],
        );
        assert_eq!(rejected, Vec::<String>::new());
        assert_eq!(
            got,
            [
                r#"{"i":1,"n":2.5,"d":12.30,"s":"aé\n","t":"2019-12-31T23:00:00Z","j":"{\"x\": [1.10, null]}","b":true}"#,
                r#"{"i":9223372036854775807,"o":{"a":7,"l":["x",null]}}"#,
                r#"{"i":3,"d":0.50,"c":"2020-01-01T10:30:00"}"#,
                r#"{"o":{}}"#,
                "{}",
            ]
        );
    }

    #[test]
    fn a_bad_value_takes_only_its_row() {
        let schema = json!({"properties": {"i": {"type": "integer"}, "l": {"type": "array", "items": {"type": "integer"}}, "t": {"type": "string", "format": "date-time"}}});
        let (got, rejected) = rows(
            &schema,
            true,
            &[
                r#"{"i": "one", "l": [1]}"#,
                r#"{"i": 2, "l": [2, "x", 3]}"#,
                r#"{"i": 9223372036854775808}"#,
                r#"{"i": 4, "t": "soon"}"#,
                r#"{"i": {"a": [1, 2]}, "l": {"b": 1}}"#,
                r#"{"i": 6, "l": [6]}"#,
            ],
        );
        assert_eq!(got, [r#"{"i":6,"l":[6]}"#]);
        assert_eq!(
            rejected,
            [
                r#"line 1: i: "one" is no integer"#,
                r#"line 2: l: "x" is no integer"#,
                "line 3: i: 9223372036854775808 is no integer",
                r#"line 4: t: "soon" is no date-time"#,
                "line 5: i: an object is no integer",
            ]
        );
    }

    #[test]
    fn what_no_column_holds_is_json() {
        let schema = json!({"properties": {"o": {"type": "object", "properties": {"a": {"type": "number"}}}, "u": {"type": "number", "multipleOf": 1e-50}, "m": {"type": ["string", "number"]}}});
        let (got, _) =
            rows(&schema, false, &[r#"{"o": {"a": 1.10, "b": 2}, "u": 0.12345678901234567890123456789012345678901234567890, "m": 1.50}"#]);
        assert_eq!(got, [r#"{"o":"{\"a\": 1.10, \"b\": 2}","u":"0.12345678901234567890123456789012345678901234567890","m":"1.50"}"#]);
    }

    #[test]
    fn a_key_must_be_there() {
        let schema = schema::columns(&json!({"properties": {"id": {"type": "integer"}}}), false).unwrap();
        let mut decoder = Decoder::new("s", schema, &["id".into()]).unwrap();
        add(&mut decoder, r#"{"id": 1}"#, 1);
        add(&mut decoder, r#"{"other": 1}"#, 2);
        let error = decoder.take().err().unwrap();
        assert_eq!(error.place().row.as_deref(), Some("among records 1 to 2"));
    }
}
