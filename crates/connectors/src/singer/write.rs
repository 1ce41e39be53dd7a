//! Batches as Singer's messages.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use serde_json::{Map, Value, json};
use trib_core::Result;
use trib_kit::json::{Forms, lines};
use trib_kit::records::schema::of_field;

/// A SCHEMA message, as one line.
pub fn schema_line(stream: &str, schema: &Schema, key: &[String], bookmarks: &[String]) -> Result<Vec<u8>> {
    line(&json!({
        "type": "SCHEMA", "stream": stream, "schema": stream_schema(schema), "key_properties": key, "bookmark_properties": bookmarks,
    }))
}

/// The JSON Schema of a stream's records.
pub fn stream_schema(schema: &Schema) -> Value {
    let properties: Map<String, Value> = schema.fields().iter().map(|f| (f.name().clone(), of_field(f))).collect();
    json!({"type": "object", "properties": properties})
}

/// A STATE message, as one line.
pub fn state_line(state: &Value) -> Result<Vec<u8>> {
    line(&json!({"type": "STATE", "value": state}))
}

fn line(message: &Value) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// A batch's RECORD messages, one line each. `extracted` is the time at which the rows were read, as RFC 3339 has it.
pub fn record_lines(stream: &str, batch: &RecordBatch, extracted: &str, out: &mut Vec<u8>) -> Result<()> {
    let head = format!(r#"{{"type":"RECORD","stream":{},"record":"#, serde_json::to_string(stream)?);
    let tail = format!(r#","time_extracted":{}}}"#, serde_json::to_string(extracted)?);
    lines(Forms::default(), batch, &head, &tail, out)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use arrow::array::{ArrayRef, AsArray, BinaryArray, Decimal128Array, StringArray, TimestampMicrosecondArray};
    use arrow::datatypes::{DataType, Field, TimeUnit};
    use trib_core::logical::{FieldExt, Logical};
    use trib_kit::records::{Decoder, schema};
    use trib_kit::tape::Tape;

    #[test]
    fn what_is_written_is_read() {
        let fields = vec![
            Field::new("d", DataType::Decimal128(38, 20), true),
            Field::new("j", DataType::Utf8, true).with_logical(Logical::Json),
            Field::new("b", DataType::Binary, true),
            Field::new("t", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
            Field::new("s", DataType::Utf8, true),
        ];
        let columns: Vec<ArrayRef> = vec![
            Arc::new(
                Decimal128Array::from(vec![Some(i128::from(u64::MAX) * 1_000_000_000_000_001), None])
                    .with_precision_and_scale(38, 20)
                    .unwrap(),
            ),
            Arc::new(StringArray::from(vec![Some("{\"a\":\n1.10}"), None])),
            Arc::new(BinaryArray::from_opt_vec(vec![Some(&[0u8, 255]), None])),
            Arc::new(TimestampMicrosecondArray::from(vec![Some(1_600_000_000_123_456), None]).with_timezone("UTC")),
            Arc::new(StringArray::from(vec![Some("a\n\"é"), None])),
        ];
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
        let mut lines = Vec::new();
        record_lines("s", &batch, "2026-01-01T00:00:00Z", &mut lines).unwrap();
        let text = String::from_utf8(lines).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        let columns = schema::columns(&stream_schema(&batch.schema()), true).unwrap();
        let mut decoder = Decoder::new("s", columns, &[]).unwrap();
        for line in text.lines() {
            let record = serde_json::from_str::<Map<String, Value>>(line).unwrap();
            assert_eq!(record["time_extracted"], "2026-01-01T00:00:00Z");
            let raw = line.split_once(r#""record":"#).unwrap().1.rsplit_once(r#","time_extracted""#).unwrap().0;
            let mut tape = Tape::default();
            let node = tape.parse(raw.as_bytes(), 0, raw.len()).unwrap();
            decoder.add(trib_kit::records::Value::new(&tape, raw.as_bytes(), node), 1);
        }
        let back = decoder.take().unwrap().unwrap().batch;
        for (i, name) in ["d", "j", "b", "t", "s"].iter().enumerate() {
            if *name != "j" {
                assert_eq!(back.column(i), batch.column(i), "{name}");
            }
        }
        assert_eq!(back.column(1).as_string::<i32>().value(0), r#"{"a": 1.10}"#);
    }
}
