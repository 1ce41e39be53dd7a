//! Columns of Arrow out of texts: the one decoder of CSV fields, Excel cells, and JSON strings and numbers with a declared type.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BinaryBuilder, BooleanBuilder, Decimal128Builder, Decimal256Builder, FixedSizeBinaryBuilder,
    PrimitiveBuilder, StringBuilder, new_null_array,
};
use arrow::compute::kernels::cast_utils::parse_decimal;
use arrow::datatypes::{
    DataType, Date32Type, Decimal256Type, Field, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use trib_core::logical::{FieldExt, Logical};
use trib_core::{Error, Result};

use trib_kit::value;

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

/// Decodes one column, of any type that is not nested. A text that is not a value of the type gives NULL and a reason for its row.
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
        DataType::Int8 => column.primitive::<Int8Type>(len, cells, |t| value::integer(t)?.try_into().ok()),
        DataType::Int16 => column.primitive::<Int16Type>(len, cells, |t| value::integer(t)?.try_into().ok()),
        DataType::Int32 => column.primitive::<Int32Type>(len, cells, |t| value::integer(t)?.try_into().ok()),
        DataType::Int64 => column.primitive::<Int64Type>(len, cells, value::integer),
        DataType::UInt8 => column.primitive::<UInt8Type>(len, cells, |t| value::integer(t)?.try_into().ok()),
        DataType::UInt16 => column.primitive::<UInt16Type>(len, cells, |t| value::integer(t)?.try_into().ok()),
        DataType::UInt32 => column.primitive::<UInt32Type>(len, cells, |t| value::integer(t)?.try_into().ok()),
        DataType::UInt64 => column.primitive::<UInt64Type>(len, cells, |t| std::str::from_utf8(t).ok()?.parse().ok()),
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
        DataType::Decimal256(p, s) => {
            let mut builder = Decimal256Builder::with_capacity(len).with_precision_and_scale(*p, *s)?;
            for (row, cell) in cells.enumerate() {
                builder
                    .append_option(column.value(row, cell, |t| parse_decimal::<Decimal256Type>(std::str::from_utf8(t).ok()?, *p, *s).ok()));
            }
            Arc::new(builder.finish())
        }
        DataType::Date32 => column.primitive::<Date32Type>(len, cells, value::date),
        DataType::Time32(unit) => {
            let step = 10i64.pow(9 - digits(*unit));
            let ticks = column
                .primitive::<Int32Type>(len, cells, |t| value::time(t).filter(|n| n % step == 0).and_then(|n| (n / step).try_into().ok()));
            arrow::compute::cast(&ticks, field.data_type())?
        }
        DataType::Time64(unit) => {
            let step = 10i64.pow(9 - digits(*unit));
            let ticks = column.primitive::<Int64Type>(len, cells, |t| value::time(t).filter(|n| n % step == 0).map(|n| n / step));
            arrow::compute::cast(&ticks, field.data_type())?
        }
        DataType::Timestamp(unit, zone) => {
            // A text without a zone is no zoned time: which zone it would be is for the user to say. A zoned text is no plain one either.
            let of = |t: &[u8]| value::instant(t).filter(|i| i.zoned == zone.is_some())?.in_unit(digits(*unit));
            let ticks = column.primitive::<Int64Type>(len, cells, of);
            arrow::compute::cast(&ticks, field.data_type())?
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
        DataType::FixedSizeBinary(16) if field.logical() == Some(Logical::Uuid) => {
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
        t @ (DataType::LargeUtf8 | DataType::Utf8View) => {
            let text = column.text(len, cells, |t| std::str::from_utf8(t).ok());
            arrow::compute::cast(&text, t)?
        }
        t @ (DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_)) => {
            arrow::compute::cast(&decode(&field.clone().with_data_type(DataType::Binary), len, cells, column.refused)?, t)?
        }
        DataType::Dictionary(_, value) => {
            let plain = decode(&field.clone().with_data_type(value.as_ref().clone()), len, cells, column.refused)?;
            arrow::compute::cast(&plain, field.data_type())?
        }
        _ => return Err(Error::internal("a text column was given a type that text is not decoded into").detail(field.to_string())),
    })
}

/// Whether an empty text is a value of the type.
pub fn is_text(t: &DataType) -> bool {
    match t {
        DataType::Dictionary(_, value) => is_text(value),
        t => t.is_string() || t.is_binary(),
    }
}

/// Decimal digits of a second that a unit holds.
fn digits(unit: TimeUnit) -> u32 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
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
                Some(text) => {
                    let valid = valid(text);
                    if valid.is_none() {
                        self.refuse(row, text);
                    }
                    builder.append_option(valid);
                }
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
            Err(_) => {
                format!("column {}: not valid UTF-8 (if the file has another encoding, set `csv: {{encoding: …}}`)", self.field.name())
            }
        });
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// The type as it is stored, with all that tells it from others.
pub fn native_name(field: &Field) -> String {
    match field.data_type() {
        DataType::Time32(unit) | DataType::Time64(unit) | DataType::Timestamp(unit, _) => format!("{}({})", sql_name(field), digits(*unit)),
        _ => sql_name(field),
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
        DataType::Time32(_) | DataType::Time64(_) => "time".into(),
        DataType::Timestamp(_, None) => "timestamp".into(),
        DataType::Timestamp(_, Some(_)) => "timestamptz".into(),
        DataType::Utf8 if field.logical() == Some(Logical::Json) => "json".into(),
        t if t.is_string() => "text".into(),
        DataType::FixedSizeBinary(16) if field.logical() == Some(Logical::Uuid) => "uuid".into(),
        t if t.is_binary() => "bytes".into(),
        other => other.to_string(),
    }
}
