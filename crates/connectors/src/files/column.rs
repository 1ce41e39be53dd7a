//! Columns of Arrow out of texts: the one decoder of CSV fields, Excel cells, and JSON strings and numbers with a declared type.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BinaryBuilder, BooleanBuilder, Decimal128Builder, FixedSizeBinaryBuilder, PrimitiveBuilder, StringBuilder,
    new_null_array,
};
use arrow::datatypes::{
    DataType, Date32Type, Field, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, Time64MicrosecondType, Time64NanosecondType, TimeUnit,
    TimestampMicrosecondType, TimestampNanosecondType,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use trib_core::logical::{FieldExt, Logical};
use trib_core::{Error, Result};

use super::value;

/// Rows of a batch that cannot be delivered, each with its first reason.
#[derive(Debug, Default)]
pub struct Refused(pub std::collections::BTreeMap<usize, String>);

impl Refused {
    pub fn add(&mut self, row: usize, reason: impl FnOnce() -> String) {
        self.0.entry(row).or_insert_with(reason);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Text of one value; `None` is NULL.
pub type Cell<'a> = Option<Cow<'a, [u8]>>;

/// Decodes one column. A text that is not a value of the type gives NULL and a reason for its row.
pub fn decode<'a>(field: &Field, len: usize, cells: impl Iterator<Item = Cell<'a>>, refused: &mut Refused) -> Result<ArrayRef> {
    let mut column = Column { field, refused };
    Ok(match field.data_type() {
        DataType::Boolean => {
            let mut builder = BooleanBuilder::with_capacity(len);
            for (row, cell) in cells.enumerate() {
                builder.append_option(column.value(row, cell, value::boolean));
            }
            Arc::new(builder.finish())
        }
        DataType::Int16 => column.primitive::<Int16Type>(len, cells, |t| value::integer(t)?.try_into().ok()),
        DataType::Int32 => column.primitive::<Int32Type>(len, cells, |t| value::integer(t)?.try_into().ok()),
        DataType::Int64 => column.primitive::<Int64Type>(len, cells, value::integer),
        // A declared `real` asks for the nearest one.
        DataType::Float32 => column.primitive::<Float32Type>(len, cells, |t| std::str::from_utf8(t).ok()?.parse().ok()),
        DataType::Float64 => column.primitive::<Float64Type>(len, cells, value::float),
        DataType::Decimal128(p, s) => {
            let mut builder = Decimal128Builder::with_capacity(len).with_precision_and_scale(*p, *s)?;
            for (row, cell) in cells.enumerate() {
                builder.append_option(column.value(row, cell, |t| value::decimal(t, *p, *s)));
            }
            Arc::new(builder.finish())
        }
        DataType::Date32 => column.primitive::<Date32Type>(len, cells, value::date),
        DataType::Time64(TimeUnit::Microsecond) => {
            column.primitive::<Time64MicrosecondType>(len, cells, |t| value::time(t).filter(|n| n % 1000 == 0).map(|n| n / 1000))
        }
        DataType::Time64(TimeUnit::Nanosecond) => column.primitive::<Time64NanosecondType>(len, cells, value::time),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let zoned = zone.is_some();
            let array = column.primitive::<TimestampMicrosecondType>(len, cells, |t| instant(t, zoned)?.in_unit(6));
            arrow::compute::cast(&array, field.data_type())?
        }
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
            let zoned = zone.is_some();
            let array = column.primitive::<TimestampNanosecondType>(len, cells, |t| instant(t, zoned)?.in_unit(9));
            arrow::compute::cast(&array, field.data_type())?
        }
        DataType::Utf8 if field.logical() == Some(Logical::Json) => {
            column.text(len, cells, |t| std::str::from_utf8(t).ok().filter(|t| serde_json::from_str::<serde::de::IgnoredAny>(t).is_ok()))
        }
        DataType::Utf8 => column.text(len, cells, |t| std::str::from_utf8(t).ok()),
        DataType::Binary => {
            let mut builder = BinaryBuilder::with_capacity(len, len * 16);
            for (row, cell) in cells.enumerate() {
                builder.append_option(column.value(row, cell, |t| BASE64.decode(t).ok()));
            }
            Arc::new(builder.finish())
        }
        DataType::FixedSizeBinary(16) => {
            let mut builder = FixedSizeBinaryBuilder::with_capacity(len, 16);
            for (row, cell) in cells.enumerate() {
                match column.value(row, cell, value::uuid) {
                    Some(id) => builder.append_value(id)?,
                    None => builder.append_null(),
                }
            }
            Arc::new(builder.finish())
        }
        DataType::Null => new_null_array(&DataType::Null, len),
        _ => return Err(Error::internal("a text column was given a type that text is not decoded into").detail(field.to_string())),
    })
}

/// Text without a zone is no zoned time: which zone it would be is for the user to say. A zoned text is no plain one either.
fn instant(text: &[u8], zoned: bool) -> Option<value::Instant> {
    value::instant(text).filter(|i| i.zoned == zoned)
}

struct Column<'a> {
    field: &'a Field,
    refused: &'a mut Refused,
}

impl Column<'_> {
    fn primitive<'a, T: ArrowPrimitiveType>(
        &mut self,
        len: usize,
        cells: impl Iterator<Item = Cell<'a>>,
        parse: impl Fn(&[u8]) -> Option<T::Native>,
    ) -> ArrayRef {
        let mut builder = PrimitiveBuilder::<T>::with_capacity(len);
        for (row, cell) in cells.enumerate() {
            builder.append_option(self.value(row, cell, &parse));
        }
        Arc::new(builder.finish())
    }

    fn text<'a>(&mut self, len: usize, cells: impl Iterator<Item = Cell<'a>>, valid: impl Fn(&[u8]) -> Option<&str>) -> ArrayRef {
        let mut builder = StringBuilder::with_capacity(len, len * 16);
        for (row, cell) in cells.enumerate() {
            match &cell {
                None => builder.append_null(),
                Some(text) => match valid(text) {
                    Some(text) => builder.append_value(text),
                    None => {
                        self.refuse(row, text);
                        builder.append_null();
                    }
                },
            }
        }
        Arc::new(builder.finish())
    }

    fn value<T>(&mut self, row: usize, cell: Cell<'_>, parse: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
        let text = cell?;
        let value = parse(&text);
        if value.is_none() {
            self.refuse(row, &text);
        }
        value
    }

    #[cold]
    fn refuse(&mut self, row: usize, text: &[u8]) {
        self.refused.add(row, || match std::str::from_utf8(text) {
            Ok(text) => format!("column {}: {} is not {}", self.field.name(), shortened(text), sql_name(self.field)),
            Err(_) => format!("column {}: not valid UTF-8 (if the file has another encoding, set `csv: {{encoding: …}}`)", self.field.name()),
        });
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// The type as a project would declare it.
pub fn sql_name(field: &Field) -> String {
    match field.data_type() {
        DataType::Int16 => "smallint".into(),
        DataType::Int32 => "integer".into(),
        DataType::Int64 => "bigint".into(),
        DataType::Float32 => "real".into(),
        DataType::Float64 => "double".into(),
        DataType::Decimal128(p, s) => format!("decimal({p},{s})"),
        DataType::Boolean => "boolean".into(),
        DataType::Date32 => "date".into(),
        DataType::Time64(_) => "time".into(),
        DataType::Timestamp(_, None) => "timestamp".into(),
        DataType::Timestamp(_, Some(_)) => "timestamptz".into(),
        DataType::Utf8 if field.logical() == Some(Logical::Json) => "json".into(),
        DataType::Utf8 => "text".into(),
        DataType::FixedSizeBinary(16) => "uuid".into(),
        DataType::Binary => "base64 of bytes".into(),
        other => other.to_string(),
    }
}
