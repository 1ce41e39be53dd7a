//! Rows as JSON objects in the forms of JSON Schema: decimals digit for digit, bytes as base64, points in time with a zone unless they may have none, JSON
//! columns as they are.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::error::ArrowError;
use arrow::json::writer::{Encoder, EncoderFactory, EncoderOptions, NullableEncoder, make_encoder};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use trib_core::Result;
use trib_core::logical::{FieldExt, Logical};

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
        _options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let nulls = array.logical_nulls();
        let encoder: Box<dyn Encoder> = match (field.logical(), array.data_type()) {
            (Some(Logical::Json), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) => {
                Box::new(Raw(cast(array, &DataType::Utf8)?))
            }
            (Some(Logical::Uuid), DataType::FixedSizeBinary(16)) => Box::new(Uuids(cast(array, &DataType::Binary)?)),
            (_, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_)) => {
                Box::new(Base64(cast(array, &DataType::Binary)?))
            }
            // JSON Schema's points in time have a zone.
            (_, DataType::Timestamp(unit, None)) if !self.local_times => {
                let zoned = cast(array, &DataType::Timestamp(*unit, Some("UTC".into())))?;
                Box::new(Shown(zoned))
            }
            _ => return Ok(None),
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

/// Values whose text needs no escapes.
struct Shown(ArrayRef);

impl Encoder for Shown {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        const OPTIONS: FormatOptions<'_> = FormatOptions::new().with_display_error(true);
        if let Ok(formatter) = ArrayFormatter::try_new(&self.0, &OPTIONS) {
            let _ = write!(out, "\"{}\"", formatter.value(row));
        }
    }
}
