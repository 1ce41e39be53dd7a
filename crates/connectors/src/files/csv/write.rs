//! From batches to CSV: NULL is an empty field, an empty text is a quoted one.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use trib_core::Result;
use trib_core::logical::{FieldExt, Logical};
use trib_kit::shown;

use super::dialect::Dialect;

/// The header line; nothing when the dialect has none.
pub fn header(schema: &Schema, dialect: &Dialect) -> Vec<u8> {
    let mut line = Vec::new();
    if dialect.header {
        for (i, field) in schema.fields().iter().enumerate() {
            if i > 0 {
                line.push(dialect.delimiter);
            }
            text(&mut line, field.name(), dialect);
        }
        line.push(b'\n');
    }
    line
}

/// Writes the rows of a batch.
pub fn rows(batch: &RecordBatch, dialect: &Dialect, buffer: &mut Vec<u8>, out: &mut dyn Write) -> Result<()> {
    let plain: Vec<ArrayRef> = batch.schema().fields().iter().zip(batch.columns()).map(|(f, a)| printable(f, a)).collect::<Result<_>>()?;
    let options = shown::OPTIONS;
    let columns: Vec<Column<'_>> = plain.iter().map(|array| Column::of(array, &options)).collect::<Result<_>>()?;
    let mut word = String::new();
    buffer.clear();
    for row in 0..batch.num_rows() {
        for (i, column) in columns.iter().enumerate() {
            if i > 0 {
                buffer.push(dialect.delimiter);
            }
            match column {
                Column::Text(values) if values.is_valid(row) => text(buffer, values.value(row), dialect),
                // Numbers and times hold nothing that needs quotes, whatever the dialect.
                Column::Other(array, formatter) if array.is_valid(row) => {
                    word.clear();
                    shown::write(&mut word, formatter, array.as_ref(), row)?;
                    text(buffer, &word, dialect);
                }
                _ => {}
            }
        }
        buffer.push(b'\n');
        if buffer.len() > 256 << 10 {
            out.write_all(buffer)?;
            buffer.clear();
        }
    }
    Ok(out.write_all(buffer)?)
}

enum Column<'a> {
    Text(&'a arrow::array::StringArray),
    Other(&'a ArrayRef, ArrayFormatter<'a>),
}

impl<'a> Column<'a> {
    fn of(array: &'a ArrayRef, options: &'a FormatOptions<'a>) -> Result<Self> {
        Ok(match array.as_string_opt::<i32>() {
            Some(text) => Column::Text(text),
            None => Column::Other(array, ArrayFormatter::try_new(array, options)?),
        })
    }
}

/// The same values in a type that prints them so that they can be read back.
pub fn printable(field: &Field, array: &ArrayRef) -> Result<ArrayRef> {
    Ok(match array.data_type() {
        DataType::LargeUtf8 | DataType::Utf8View => cast(array, &DataType::Utf8)?,
        DataType::Dictionary(_, value) => printable(field, &cast(array, value)?)?,
        DataType::Timestamp(unit, Some(zone)) if zone.as_ref() != "UTC" => cast(array, &DataType::Timestamp(*unit, Some("UTC".into())))?,
        DataType::FixedSizeBinary(16) if field.logical() == Some(Logical::Uuid) => {
            let ids = array.as_fixed_size_binary();
            let text = ids.iter().map(|id| id.and_then(|id| uuid::Uuid::from_slice(id).ok()).map(|id| id.to_string()));
            Arc::new(text.collect::<arrow::array::StringArray>())
        }
        t if t.is_binary() || matches!(t, DataType::FixedSizeBinary(_)) => {
            let bytes = cast(array, &DataType::Binary)?;
            let text = bytes.as_binary::<i32>().iter().map(|b| b.map(|b| BASE64.encode(b)));
            Arc::new(text.collect::<arrow::array::StringArray>())
        }
        _ => array.clone(),
    })
}

/// One field. Quoted when it must be, and when it would be taken for NULL.
fn text(line: &mut Vec<u8>, value: &str, dialect: &Dialect) {
    let bytes = value.as_bytes();
    let quote = dialect.quote.unwrap_or(b'"');
    let special = |b: &u8| *b == dialect.delimiter || *b == quote || *b == b'\n' || *b == b'\r';
    let needed = bytes.iter().any(special)
        || dialect.nulls.iter().any(|n| n == bytes)
        || (bytes.first().copied() == dialect.comment && dialect.comment.is_some());
    if !needed {
        line.extend_from_slice(bytes);
        return;
    }
    line.push(quote);
    for &b in bytes {
        if Some(b) == dialect.escape || (b == quote && dialect.escape.is_some()) {
            line.push(dialect.escape.unwrap_or(quote));
        } else if b == quote {
            line.push(quote);
        }
        line.push(b);
    }
    line.push(quote);
}
