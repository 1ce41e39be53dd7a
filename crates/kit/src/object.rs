//! Rows as JSON objects for people and for another try, and single values as JSON text.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use arrow::json::writer::{EncoderOptions, make_encoder};
use serde_json::{Map, Value};
use trib_core::Result;

use crate::json::Exact;

/// Each value of a column as one JSON text; NULL stays NULL.
pub fn column(field: &FieldRef, array: &ArrayRef) -> Result<ArrayRef> {
    let (field, array) = encodable(field, array)?;
    let options = EncoderOptions::default().with_explicit_nulls(true).with_encoder_factory(Arc::new(Exact));
    let mut encoder = make_encoder(&field, &array, &options)?;
    let mut texts = StringBuilder::with_capacity(array.len(), array.len() * 16);
    let mut buffer = Vec::new();
    for i in 0..array.len() {
        if array.is_null(i) {
            texts.append_null();
        } else {
            buffer.clear();
            encoder.encode(i, &mut buffer);
            texts.append_value(String::from_utf8_lossy(&buffer));
        }
    }
    Ok(Arc::new(texts.finish()))
}

/// One row as a JSON object, for people and for another try. Values that JSON has no form for appear as text, and so do numbers that would not come
/// back as they are.
pub fn row(batch: &RecordBatch, row: usize) -> Map<String, Value> {
    let slice = batch.slice(row, 1);
    let one = |(field, array): (&FieldRef, &ArrayRef)| {
        let value = if array.is_null(0) { Ok(Value::Null) } else { value(field, array) };
        (field.name().clone(), value.unwrap_or_else(|_| Value::String("(cannot be shown)".into())))
    };
    slice.schema().fields().iter().zip(slice.columns()).map(one).collect()
}

/// The one value of an array that is not NULL.
fn value(field: &FieldRef, array: &ArrayRef) -> Result<Value> {
    let t = field.data_type();
    let text = if t.is_floating() { cast(array, &DataType::Utf8)? } else { column(field, array)? };
    let text = text.as_string::<i32>().value(0);
    let parsed: Option<Value> = serde_json::from_str(text).ok();
    // JSON has no NaN, and a parser may take the nearest number for one with many digits.
    let kept = parsed.filter(|value| !(t.is_floating() || t.is_nested()) || value.to_string().as_str() == text);
    Ok(kept.unwrap_or_else(|| Value::String(text.to_owned())))
}

/// The JSON encoder knows no decimals that keep their digits, no intervals, and no binary but hex: those go as text.
fn encodable(field: &FieldRef, array: &ArrayRef) -> Result<(FieldRef, ArrayRef)> {
    let textual =
        matches!(field.data_type(), DataType::Decimal128(..) | DataType::Decimal256(..) | DataType::Interval(_) | DataType::Duration(_));
    if !textual {
        return Ok((field.clone(), array.clone()));
    }
    let text = cast(array, &DataType::Utf8)?;
    Ok((Arc::new(Field::new(field.name(), DataType::Utf8, true)), text))
}

/// A batch of rejected rows read back: objects as they were written by [`row`].
pub fn read_rows(rows: &[Value], schema: &Schema) -> Result<RecordBatch> {
    let mut decoder = arrow::json::ReaderBuilder::new(Arc::new(schema.clone()))
        .with_batch_size(rows.len().max(1))
        .with_coerce_primitive(true)
        .build_decoder()?;
    decoder.serialize(rows)?;
    Ok(decoder.flush()?.unwrap_or_else(|| RecordBatch::new_empty(Arc::new(schema.clone()))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Decimal128Array, Float32Array, Float64Array, Int64Array, StringArray, UInt64Array};

    #[test]
    fn rows_come_back_as_they_were() {
        let columns: [(&str, ArrayRef); 6] = [
            ("float", Arc::new(Float64Array::from(vec![0.1, f64::INFINITY, 1.0e-300, -123_456.789_012_345_67, f64::MIN_POSITIVE]))),
            ("single", Arc::new(Float32Array::from(vec![0.1, f32::MAX, f32::NEG_INFINITY, 1.0, -0.0]))),
            ("big", Arc::new(Int64Array::from(vec![i64::MAX, i64::MIN, 0, -1, (1 << 53) + 1]))),
            ("unsigned", Arc::new(UInt64Array::from(vec![u64::MAX, 0, 1, 2, 3]))),
            ("exact", Arc::new(Decimal128Array::from(vec![10i128.pow(37), 1, -1, 0, 150]).with_precision_and_scale(38, 2).unwrap())),
            ("text", Arc::new(StringArray::from(vec!["\u{1}\"\\", "ü", "", "1", "null"]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let rows: Vec<Value> = (0..batch.num_rows()).map(|i| Value::Object(row(&batch, i))).collect();
        // Through the control database and back.
        let stored: Vec<Value> = rows.iter().map(|r| serde_json::from_str(&r.to_string()).unwrap()).collect();
        assert_eq!(read_rows(&stored, batch.schema_ref()).unwrap(), batch);
        let nan = RecordBatch::try_from_iter([("n", Arc::new(Float64Array::from(vec![f64::NAN])) as ArrayRef)]).unwrap();
        assert_eq!(Value::Object(row(&nan, 0)), serde_json::json!({"n": "NaN"}));
    }
}
