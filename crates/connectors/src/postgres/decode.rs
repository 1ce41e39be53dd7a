//! From the server's binary `COPY` format straight into Arrow's builders.
//!
//! The stream is a header of 19 bytes and an extension, then for each row a 16-bit number of columns and for each column a
//! 32-bit length (-1 for NULL) and its bytes; a row of -1 columns ends it. Integers are big-endian.
//! Source: <https://www.postgresql.org/docs/current/sql-copy.html>, "Binary Format".

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryBuilder, BooleanArray, BooleanBuilder, Date32Builder, Decimal128Builder, Decimal256Builder,
    FixedSizeBinaryBuilder, Float32Builder, Float64Builder, Int16Builder, Int32Builder, Int64Builder, IntervalMonthDayNanoBuilder,
    ListArray, NullBufferBuilder, RecordBatch, RecordBatchOptions, StringBuilder, Time64MicrosecondBuilder, TimestampMicrosecondBuilder,
    UInt32Builder,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::compute;
use arrow::datatypes::{DataType, Field, FieldRef, IntervalMonthDayNano, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::Value;
use trib_core::{Code, Error, RejectedRow, Result};

use super::numeric::{self, NotDecimal};
use super::pg_type::{ArrayRule, InfinityRule, Kind, PgType, Rules, SpecialNumberRule};

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
/// PostgreSQL counts from 2000-01-01, Arrow from 1970-01-01.
pub const EPOCH_DAYS: i32 = 10_957;
pub const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// A batch, and the rows that were left out of it.
pub struct Decoded {
    pub batch: RecordBatch,
    pub rejected: Vec<RejectedRow>,
}

/// Decodes one `COPY` stream into batches of one schema.
pub struct Decoder {
    schema: SchemaRef,
    columns: Vec<Builder>,
    /// Columns that tell a person which row it is.
    key: Vec<usize>,
    started: bool,
    ended: bool,
    /// The beginning of a row whose end has not come.
    carry: Vec<u8>,
    rows: usize,
    bytes: usize,
    bad: Vec<BadRow>,
}

struct BadRow {
    row: usize,
    column: usize,
    reason: String,
}

/// Why a value was not taken.
enum Bad {
    /// The user wants NULL instead.
    Null,
    /// The row cannot be delivered.
    Row(String),
    /// The bytes are not of the type that was discovered.
    Type,
}

impl Decoder {
    /// `types` are the types of the columns of `schema`; `key` names the columns that identify a row, as far as they are read.
    pub fn new(schema: SchemaRef, types: &[PgType], key: &[String], rules: Rules) -> Self {
        let columns = types.iter().zip(schema.fields()).map(|(t, field)| Builder::of_column(t, field, rules)).collect();
        let key = key.iter().filter_map(|name| schema.index_of(name).ok()).collect();
        Self { schema, columns, key, started: false, ended: false, carry: Vec::new(), rows: 0, bytes: 0, bad: Vec::new() }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes on the wire of the rows that [`Decoder::finish`] will give.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the next piece of the stream, which may hold several rows or a part of one.
    pub fn push(&mut self, data: &[u8]) -> Result<()> {
        self.bytes += data.len();
        if self.carry.is_empty() {
            let used = self.take(data)?;
            self.carry.extend_from_slice(&data[used..]);
        } else {
            let mut whole = std::mem::take(&mut self.carry);
            whole.extend_from_slice(data);
            let used = self.take(&whole)?;
            whole.drain(..used);
            self.carry = whole;
        }
        Ok(())
    }

    /// The rows so far as a batch.
    pub fn finish(&mut self) -> Result<Decoded> {
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        let mut arrays: Vec<ArrayRef> =
            self.columns.iter_mut().zip(self.schema.fields()).map(|(column, field)| column.finish(field)).collect::<Result<_>>()?;
        let bad = std::mem::take(&mut self.bad);
        let mut rejected = Vec::with_capacity(bad.len());
        let mut kept = rows;
        if !bad.is_empty() {
            rejected = self.describe(&arrays, &bad)?;
            let mut keep = vec![true; rows];
            for row in &bad {
                keep[row.row] = false;
            }
            let keep = BooleanArray::from(keep);
            kept = keep.true_count();
            for array in &mut arrays {
                *array = compute::filter(array, &keep)?;
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(kept));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options).map_err(|e| changed("a column").source(e))?;
        Ok(Decoded { batch, rejected })
    }

    /// Decodes the whole rows at the beginning of `data`; gives how many bytes they are.
    fn take(&mut self, data: &[u8]) -> Result<usize> {
        let mut at = 0;
        if !self.started {
            let Some(header) = data.get(..19) else { return Ok(0) };
            if &header[..11] != SIGNATURE {
                return Err(malformed());
            }
            let extension = u32::from_be_bytes([header[15], header[16], header[17], header[18]]) as usize;
            if data.len() < 19 + extension {
                return Ok(0);
            }
            at = 19 + extension;
            self.started = true;
        }
        while let Some(end) = self.row_end(data, at)? {
            if self.ended {
                return Ok(data.len());
            }
            self.row(&data[at + 2..end])?;
            at = end;
        }
        Ok(at)
    }

    /// Where the row that begins at `at` ends; `None` when its end is not there yet.
    fn row_end(&mut self, data: &[u8], at: usize) -> Result<Option<usize>> {
        let Some(count) = data.get(at..at + 2) else { return Ok(None) };
        let count = i16::from_be_bytes([count[0], count[1]]);
        if count == -1 {
            self.ended = true;
            return Ok(Some(at + 2));
        }
        if usize::try_from(count) != Ok(self.columns.len()) {
            return Err(malformed());
        }
        let mut end = at + 2;
        for _ in 0..count {
            let Some(length) = data.get(end..).and_then(<[u8]>::first_chunk) else { return Ok(None) };
            end += 4 + usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
        }
        Ok((end <= data.len()).then_some(end))
    }

    fn row(&mut self, mut data: &[u8]) -> Result<()> {
        for (i, column) in self.columns.iter_mut().enumerate() {
            let (length, rest) = data.split_first_chunk().ok_or_else(malformed)?;
            let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
                column.append_null();
                data = rest;
                continue;
            };
            let (value, rest) = rest.split_at_checked(length).ok_or_else(malformed)?;
            data = rest;
            match column.append(value) {
                Ok(()) => {}
                Err(Bad::Null) => column.append_null(),
                Err(Bad::Row(reason)) => {
                    column.append_null();
                    self.bad.push(BadRow { row: self.rows, column: i, reason });
                }
                Err(Bad::Type) => return Err(changed(self.schema.field(i).name())),
            }
        }
        self.rows += 1;
        Ok(())
    }

    fn describe(&self, arrays: &[ArrayRef], bad: &[BadRow]) -> Result<Vec<RejectedRow>> {
        let options = FormatOptions::default();
        let formatters = arrays.iter().map(|a| ArrayFormatter::try_new(a.as_ref(), &options)).collect::<Result<Vec<_>, _>>()?;
        let text = |column: usize, row: usize| formatters[column].value(row).to_string();
        let name = |column: usize| self.schema.field(column).name();
        let one = |bad: &[BadRow]| {
            let row = bad.first().map_or(0, |b| b.row);
            let reasons: Vec<String> = bad.iter().map(|b| format!("{}: {}", name(b.column), b.reason)).collect();
            let place: Vec<String> = self.key.iter().map(|k| format!("{}={}", name(*k), text(*k, row))).collect();
            // What could not be decoded is left out: NULL would be another value.
            let decoded = (0..arrays.len()).filter(|i| bad.iter().all(|b| b.column != *i));
            let values = decoded.map(|i| (name(i).clone(), if arrays[i].is_null(row) { Value::Null } else { Value::String(text(i, row)) }));
            RejectedRow { place: place.join(", "), reason: reasons.join("; "), row: Value::Object(values.collect()) }
        };
        Ok(bad.chunk_by(|a, b| a.row == b.row).map(one).collect())
    }
}

fn malformed() -> Error {
    Error::new(Code::SystemError, "the server's COPY stream is not what it should be")
}

fn changed(column: &str) -> Error {
    Error::new(Code::DataInvalid, "a column's type has changed since the table was discovered")
        .detail(column)
        .hint("run again: the new type is then handled by the stream's contract")
}

/// The builder of one column. A row costs one `match` per column, and no allocation.
enum Builder {
    Bool(BooleanBuilder),
    Int2(Int16Builder),
    Int4(Int32Builder),
    Int8(Int64Builder),
    Oid(UInt32Builder),
    Float4(Float32Builder),
    Float8(Float64Builder),
    Decimal128(Decimal128Builder, i8, SpecialNumberRule),
    Decimal256(Decimal256Builder, i8, SpecialNumberRule),
    NumericText(StringBuilder, String),
    Text(StringBuilder),
    Jsonb(StringBuilder),
    Bytea(BinaryBuilder),
    Date(Date32Builder, InfinityRule),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder, InfinityRule),
    Interval(IntervalMonthDayNanoBuilder, InfinityRule),
    Uuid(FixedSizeBinaryBuilder),
    List(Box<ListBuilder>),
}

struct ListBuilder {
    items: Builder,
    offsets: Vec<i32>,
    length: i32,
    nulls: NullBufferBuilder,
}

impl Builder {
    fn of_column(t: &PgType, field: &Field, rules: Rules) -> Self {
        match (t.array, rules.arrays, field.data_type()) {
            (true, ArrayRule::List, DataType::List(item)) => Builder::List(Box::new(ListBuilder {
                items: Self::of_kind(t.kind, item.data_type(), rules),
                offsets: vec![0],
                length: 0,
                nulls: NullBufferBuilder::new(0),
            })),
            (true, ..) => Builder::Text(StringBuilder::new()),
            (false, ..) => Self::of_kind(t.kind, field.data_type(), rules),
        }
    }

    fn of_kind(kind: Kind, arrow: &DataType, rules: Rules) -> Self {
        match (kind, arrow) {
            (Kind::Bool, _) => Builder::Bool(BooleanBuilder::new()),
            (Kind::Int2, _) => Builder::Int2(Int16Builder::new()),
            (Kind::Int4, _) => Builder::Int4(Int32Builder::new()),
            (Kind::Int8, _) => Builder::Int8(Int64Builder::new()),
            (Kind::Oid, _) => Builder::Oid(UInt32Builder::new()),
            (Kind::Float4, _) => Builder::Float4(Float32Builder::new()),
            (Kind::Float8, _) => Builder::Float8(Float64Builder::new()),
            (Kind::Numeric(_), DataType::Decimal128(_, scale)) => Builder::Decimal128(Decimal128Builder::new(), *scale, rules.special),
            (Kind::Numeric(_), DataType::Decimal256(_, scale)) => Builder::Decimal256(Decimal256Builder::new(), *scale, rules.special),
            (Kind::Numeric(_), _) => Builder::NumericText(StringBuilder::new(), String::new()),
            (Kind::Text(_) | Kind::Json | Kind::Spelled, _) => Builder::Text(StringBuilder::new()),
            (Kind::Jsonb, _) => Builder::Jsonb(StringBuilder::new()),
            (Kind::Bytea, _) => Builder::Bytea(BinaryBuilder::new()),
            (Kind::Date, _) => Builder::Date(Date32Builder::new(), rules.infinity),
            (Kind::Time, _) => Builder::Time(Time64MicrosecondBuilder::new()),
            (Kind::Timestamp | Kind::TimestampTz, _) => Builder::Timestamp(TimestampMicrosecondBuilder::new(), rules.infinity),
            (Kind::Interval, _) => Builder::Interval(IntervalMonthDayNanoBuilder::new(), rules.infinity),
            (Kind::Uuid, _) => Builder::Uuid(FixedSizeBinaryBuilder::new(16)),
        }
    }

    #[inline]
    fn append(&mut self, bytes: &[u8]) -> Result<(), Bad> {
        match self {
            Builder::Bool(b) => match bytes {
                [value] => b.append_value(*value != 0),
                _ => return Err(Bad::Type),
            },
            Builder::Int2(b) => b.append_value(i16::from_be_bytes(fixed(bytes)?)),
            Builder::Int4(b) => b.append_value(i32::from_be_bytes(fixed(bytes)?)),
            Builder::Int8(b) => b.append_value(i64::from_be_bytes(fixed(bytes)?)),
            Builder::Oid(b) => b.append_value(u32::from_be_bytes(fixed(bytes)?)),
            Builder::Float4(b) => b.append_value(f32::from_be_bytes(fixed(bytes)?)),
            Builder::Float8(b) => b.append_value(f64::from_be_bytes(fixed(bytes)?)),
            Builder::Decimal128(b, scale, rule) => b.append_value(numeric::to_i128(bytes, *scale).map_err(|e| not_decimal(e, *rule))?),
            Builder::Decimal256(b, scale, rule) => b.append_value(numeric::to_i256(bytes, *scale).map_err(|e| not_decimal(e, *rule))?),
            Builder::NumericText(b, text) => {
                numeric::to_text(bytes, text).map_err(|_| Bad::Type)?;
                b.append_value(text);
            }
            Builder::Text(b) => b.append_value(utf8(bytes)?),
            Builder::Jsonb(b) => match bytes {
                // The format's version, the only one so far.
                [1, text @ ..] => b.append_value(utf8(text)?),
                _ => return Err(Bad::Type),
            },
            Builder::Bytea(b) => b.append_value(bytes),
            Builder::Date(b, rule) => match i32::from_be_bytes(fixed(bytes)?) {
                i32::MAX | i32::MIN => return Err(infinite(*rule)),
                days => match days.checked_add(EPOCH_DAYS) {
                    Some(days) => b.append_value(days),
                    None => return Err(Bad::Type),
                },
            },
            Builder::Time(b) => b.append_value(i64::from_be_bytes(fixed(bytes)?)),
            Builder::Timestamp(b, rule) => match i64::from_be_bytes(fixed(bytes)?) {
                i64::MAX | i64::MIN => return Err(infinite(*rule)),
                micros => match micros.checked_add(EPOCH_MICROS) {
                    Some(micros) => b.append_value(micros),
                    // Years from 294247 on.
                    None => return Err(Bad::Row("the time is later than 64 bits of microseconds reach".to_owned())),
                },
            },
            Builder::Interval(b, rule) => b.append_value(interval(bytes, *rule)?),
            Builder::Uuid(b) => b.append_value(bytes).map_err(|_| Bad::Type)?,
            Builder::List(list) => list.append(bytes)?,
        }
        Ok(())
    }

    fn append_null(&mut self) {
        match self {
            Builder::Bool(b) => b.append_null(),
            Builder::Int2(b) => b.append_null(),
            Builder::Int4(b) => b.append_null(),
            Builder::Int8(b) => b.append_null(),
            Builder::Oid(b) => b.append_null(),
            Builder::Float4(b) => b.append_null(),
            Builder::Float8(b) => b.append_null(),
            Builder::Decimal128(b, ..) => b.append_null(),
            Builder::Decimal256(b, ..) => b.append_null(),
            Builder::NumericText(b, _) | Builder::Text(b) | Builder::Jsonb(b) => b.append_null(),
            Builder::Bytea(b) => b.append_null(),
            Builder::Date(b, _) => b.append_null(),
            Builder::Time(b) => b.append_null(),
            Builder::Timestamp(b, _) => b.append_null(),
            Builder::Interval(b, _) => b.append_null(),
            Builder::Uuid(b) => b.append_null(),
            Builder::List(list) => {
                list.offsets.push(list.length);
                list.nulls.append_null();
            }
        }
    }

    /// The column as an array of the field's type. The builder is empty afterwards, with room for as much again: equal allocations
    /// are used again, where growing ones would leave holes.
    fn finish(&mut self, field: &FieldRef) -> Result<ArrayRef> {
        /// `room!(builder, Type)`: the array, leaving a new builder with room for about as many values: batches have the same bytes, not the same rows,
        /// and one row too many would double the allocation.
        macro_rules! room {
            ($builder:ident, $type:ident) => {{
                let array = $builder.finish();
                *$builder = $type::with_capacity(array.len() + array.len() / 16);
                array
            }};
            ($builder:ident, $type:ident, bytes) => {{
                let array = $builder.finish();
                let bytes = array.value_data().len();
                *$builder = $type::with_capacity(array.len() + array.len() / 16, bytes + bytes / 8);
                array
            }};
        }
        Ok(match self {
            Builder::Bool(b) => Arc::new(room!(b, BooleanBuilder)),
            Builder::Int2(b) => Arc::new(room!(b, Int16Builder)),
            Builder::Int4(b) => Arc::new(room!(b, Int32Builder)),
            Builder::Int8(b) => Arc::new(room!(b, Int64Builder)),
            Builder::Oid(b) => Arc::new(room!(b, UInt32Builder)),
            Builder::Float4(b) => Arc::new(room!(b, Float32Builder)),
            Builder::Float8(b) => Arc::new(room!(b, Float64Builder)),
            Builder::Decimal128(b, ..) => Arc::new(room!(b, Decimal128Builder).with_data_type(field.data_type().clone())),
            Builder::Decimal256(b, ..) => Arc::new(room!(b, Decimal256Builder).with_data_type(field.data_type().clone())),
            Builder::NumericText(b, _) | Builder::Text(b) | Builder::Jsonb(b) => Arc::new(room!(b, StringBuilder, bytes)),
            Builder::Bytea(b) => Arc::new(room!(b, BinaryBuilder, bytes)),
            Builder::Date(b, _) => Arc::new(room!(b, Date32Builder)),
            Builder::Time(b) => Arc::new(room!(b, Time64MicrosecondBuilder)),
            Builder::Timestamp(b, _) => Arc::new(room!(b, TimestampMicrosecondBuilder).with_data_type(field.data_type().clone())),
            Builder::Interval(b, _) => Arc::new(room!(b, IntervalMonthDayNanoBuilder)),
            Builder::Uuid(b) => Arc::new(b.finish()),
            Builder::List(list) => {
                let DataType::List(item) = field.data_type() else {
                    return Err(Error::internal("a list builder stands for a column that is no list"));
                };
                let items = list.items.finish(item)?;
                let offsets = std::mem::replace(&mut list.offsets, vec![0]);
                list.length = 0;
                Arc::new(ListArray::try_new(item.clone(), OffsetBuffer::new(ScalarBuffer::from(offsets)), items, list.nulls.finish())?)
            }
        })
    }
}

impl ListBuilder {
    /// `array_send` of `src/backend/utils/adt/arrayfuncs.c`: dimensions, whether there are NULLs, the element type,
    /// then for each dimension its length and lower bound, then the elements.
    fn append(&mut self, bytes: &[u8]) -> Result<(), Bad> {
        let mut rest = bytes;
        let dimensions = take_i32(&mut rest)?;
        let (_has_nulls, _element) = (take_i32(&mut rest)?, take_i32(&mut rest)?);
        match dimensions {
            0 => {}
            1 => {
                let (length, bound) = (take_i32(&mut rest)?, take_i32(&mut rest)?);
                if bound != 1 {
                    return Err(Bad::Row(format!("the array begins at {bound}, and a list has no bounds; `arrays: text` keeps them")));
                }
                for _ in 0..length {
                    let appended = match usize::try_from(take_i32(&mut rest)?) {
                        Err(_) => Err(Bad::Null),
                        Ok(length) => {
                            let (value, after) = rest.split_at_checked(length).ok_or(Bad::Type)?;
                            rest = after;
                            self.items.append(value)
                        }
                    };
                    match appended {
                        Ok(()) => {}
                        Err(Bad::Null) => self.items.append_null(),
                        Err(e) => return Err(e),
                    }
                    self.length += 1;
                }
            }
            n => return Err(Bad::Row(format!("the array has {n} dimensions, and a list has one; `arrays: text` keeps them"))),
        }
        self.offsets.push(self.length);
        self.nulls.append_non_null();
        Ok(())
    }
}

#[inline]
fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Bad> {
    bytes.try_into().map_err(|_| Bad::Type)
}

#[inline]
fn utf8(bytes: &[u8]) -> Result<&str, Bad> {
    std::str::from_utf8(bytes).map_err(|_| Bad::Row("the text is not UTF-8 (the database's encoding is SQL_ASCII)".to_owned()))
}

#[inline]
fn take_i32(bytes: &mut &[u8]) -> Result<i32, Bad> {
    let (first, rest) = bytes.split_first_chunk().ok_or(Bad::Type)?;
    *bytes = rest;
    Ok(i32::from_be_bytes(*first))
}

#[cold]
fn not_decimal(e: NotDecimal, rule: SpecialNumberRule) -> Bad {
    match (e, rule) {
        (NotDecimal::Special(_), SpecialNumberRule::Null) => Bad::Null,
        (NotDecimal::Special(name), _) => Bad::Row(format!("{name} is no decimal; `numeric_special` can make it NULL, or the column text")),
        (NotDecimal::DoesNotFit | NotDecimal::Malformed, _) => Bad::Type,
    }
}

#[cold]
fn infinite(rule: InfinityRule) -> Bad {
    match rule {
        InfinityRule::Null => Bad::Null,
        InfinityRule::Reject => Bad::Row("infinity is no point in time; `infinity: null` makes it NULL".to_owned()),
    }
}

/// `interval_send`: microseconds, days, months.
fn interval(bytes: &[u8], rule: InfinityRule) -> Result<IntervalMonthDayNano, Bad> {
    let (micros, mut rest) = bytes.split_first_chunk().ok_or(Bad::Type)?;
    let micros = i64::from_be_bytes(*micros);
    let (days, months) = (take_i32(&mut rest)?, take_i32(&mut rest)?);
    if matches!((micros, days, months), (i64::MAX, i32::MAX, i32::MAX) | (i64::MIN, i32::MIN, i32::MIN)) {
        return Err(infinite(rule));
    }
    let nanos = micros.checked_mul(1000).ok_or_else(|| Bad::Row("the interval is longer than 64 bits of nanoseconds reach".to_owned()))?;
    Ok(IntervalMonthDayNano::new(months, days, nanos))
}
