//! Rows as JSON objects in the forms of JSON Schema: decimals digit for digit, bytes as base64, points in time with a zone unless they may have none, JSON
//! columns as they are.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::error::ArrowError;
use arrow::json::writer::{Encoder, EncoderFactory, EncoderOptions, NullableEncoder, make_encoder};
use arrow::util::display::ArrayFormatter;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use trib_core::Result;
use trib_core::logical::{FieldExt, Logical};

use crate::shown;

/// Gives each row of a batch as the text of a JSON object, on one line. NULL is written too.
pub fn records(batch: &RecordBatch, each: impl FnMut(usize, &[u8]) -> Result<()>) -> Result<()> {
    records_as(Forms::default(), batch, each)
}

/// Appends each row of a batch as a line: its object between two texts.
pub fn lines(forms: Forms, batch: &RecordBatch, head: &str, tail: &str, out: &mut Vec<u8>) -> Result<()> {
    records_as(forms, batch, |_, record| {
        for part in [head.as_bytes(), record, tail.as_bytes(), b"\n"] {
            out.extend_from_slice(part);
        }
        Ok(())
    })
}

fn records_as(forms: Forms, batch: &RecordBatch, mut each: impl FnMut(usize, &[u8]) -> Result<()>) -> Result<()> {
    let rows = StructArray::from(batch.clone());
    let field: FieldRef = Arc::new(Field::new("record", rows.data_type().clone(), false));
    let options = EncoderOptions::default().with_explicit_nulls(true).with_encoder_factory(Arc::new(forms));
    let mut encoder = make_encoder(&field, &rows, &options)?;
    let mut text = Vec::new();
    for row in 0..rows.len() {
        text.clear();
        encoder.encode(row, &mut text);
        each(row, &text)?;
    }
    Ok(())
}

/// Where JSON Schema has another form for a value than Arrow's encoder.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forms {
    /// Points in time that have no zone are written without one.
    pub local_times: bool,
}

impl EncoderFactory for Forms {
    fn make_default_encoder<'a>(
        &self,
        field: &'a FieldRef,
        array: &'a dyn Array,
        options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let nulls = array.logical_nulls();
        let encoder: Box<dyn Encoder + 'a> = match (field.logical(), array.data_type()) {
            (Some(Logical::Json), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) => {
                Box::new(Raw(cast(array, &DataType::Utf8)?))
            }
            (Some(Logical::Uuid), DataType::FixedSizeBinary(16)) => Box::new(Uuids(cast(array, &DataType::Binary)?)),
            (_, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_)) => {
                Box::new(Base64(cast(array, &DataType::Binary)?))
            }
            // JSON Schema's points in time have a zone.
            (_, DataType::Timestamp(_, None)) if !self.local_times => Box::new(Shown::new(array, "Z")?),
            _ => return Exact.make_default_encoder(field, array, options),
        };
        Ok(Some(NullableEncoder::new(encoder, nulls)))
    }
}

struct Raw(ArrayRef);

impl Encoder for Raw {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        // Whoever writes a record on a line needs it to be one. Line ends stand in JSON only between its parts.
        out.extend(self.0.as_string::<i32>().value(row).bytes().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { b }));
    }
}

struct Base64(ArrayRef);

impl Encoder for Base64 {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let _ = write!(out, "\"{}\"", STANDARD.encode(self.0.as_binary::<i32>().value(row)));
    }
}

struct Uuids(ArrayRef);

impl Encoder for Uuids {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let id = uuid::Uuid::from_slice(self.0.as_binary::<i32>().value(row)).unwrap_or_default();
        let _ = write!(out, "\"{id}\"");
    }
}

/// Where Arrow's encoder fails, or writes its failure in the place of a value.
#[derive(Clone, Copy, Debug)]
pub struct Exact;

impl EncoderFactory for Exact {
    fn make_default_encoder<'a>(
        &self,
        _field: &'a FieldRef,
        array: &'a dyn Array,
        _options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let encoder: Box<dyn Encoder + 'a> = match array.data_type() {
            DataType::Null => Box::new(Nothing),
            DataType::Date32 | DataType::Date64 | DataType::Time32(_) | DataType::Time64(_) | DataType::Timestamp(..) => {
                Box::new(Shown::new(array, "")?)
            }
            _ => return Ok(None),
        };
        Ok(Some(NullableEncoder::new(encoder, array.logical_nulls())))
    }
}

/// A column without a type has no values.
struct Nothing;

impl Encoder for Nothing {
    fn encode(&mut self, _row: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(b"null");
    }
}

/// Dates and times, whose text needs no escapes.
struct Shown<'a> {
    array: &'a dyn Array,
    formatter: ArrayFormatter<'a>,
    zone: &'static str,
    text: String,
}

impl<'a> Shown<'a> {
    fn new(array: &'a dyn Array, zone: &'static str) -> Result<Self, ArrowError> {
        Ok(Self { array, formatter: ArrayFormatter::try_new(array, &shown::OPTIONS)?, zone, text: String::new() })
    }
}

impl Encoder for Shown<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        self.text.clear();
        // Every date and time has a text.
        let _ = shown::write(&mut self.text, &self.formatter, self.array, row);
        let _ = write!(out, "\"{}{}\"", self.text, self.zone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Date32Array, NullArray, Time64MicrosecondArray, TimestampMicrosecondArray};

    #[test]
    fn what_arrow_cannot_write_is_no_error_in_the_place_of_a_value() {
        let columns: [(&str, ArrayRef); 5] = [
            ("nothing", Arc::new(NullArray::new(2))),
            ("time", Arc::new(Time64MicrosecondArray::from(vec![86_400_000_000, 0]))),
            ("day", Arc::new(Date32Array::from(vec![Some(i32::MAX), None]))),
            ("local", Arc::new(TimestampMicrosecondArray::from(vec![0, i64::MAX]))),
            ("zoned", Arc::new(TimestampMicrosecondArray::from(vec![0, i64::MAX]).with_timezone("UTC"))),
        ];
        let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true))).unwrap();
        let mut text = Vec::new();
        lines(Forms::default(), &batch, "", "", &mut text).unwrap();
        let expected = concat!(
            r#"{"nothing":null,"time":"24:00:00","day":"+5881580-07-11","local":"1970-01-01T00:00:00Z","zoned":"1970-01-01T00:00:00Z"}"#,
            "\n",
            r#"{"nothing":null,"time":"00:00:00","day":null,"local":"+294247-01-10T04:00:54.775807Z","zoned":"+294247-01-10T04:00:54.775807Z"}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
