//! Arrow values as JSON text.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use arrow::json::writer::{EncoderOptions, make_encoder};
use serde_json::Value;
use trib_core::Result;

/// Each value of a column as one JSON text; NULL stays NULL.
pub fn column(field: &FieldRef, array: &ArrayRef) -> Result<ArrayRef> {
    let (field, array) = encodable(field, array)?;
    let options = EncoderOptions::default().with_explicit_nulls(true);
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

/// One row as a JSON object, for people and for another try. Values that JSON has no form for appear as text.
pub fn row(batch: &RecordBatch, row: usize) -> Value {
    let slice = batch.slice(row, 1);
    let mut object = serde_json::Map::new();
    for (field, array) in slice.schema().fields().iter().zip(slice.columns()) {
        let value = column(field, array).ok().and_then(|text| {
            let text = arrow::array::cast::AsArray::as_string_opt::<i32>(&text)?.clone();
            if text.is_null(0) { Some(Value::Null) } else { serde_json::from_str(text.value(0)).ok() }
        });
        object.insert(field.name().clone(), value.unwrap_or_else(|| Value::String("(cannot be shown)".into())));
    }
    Value::Object(object)
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
