//! From Arrow's arrays straight into the server's binary `COPY` format (described in [`super::decode`]).

use arrow::array::cast::AsArray;
use arrow::array::types::{
    Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNanoType,
    Time64MicrosecondType, TimestampMicrosecondType, UInt32Type,
};
use arrow::array::{Array, ArrayRef, BinaryArray, BooleanArray, FixedSizeBinaryArray, ListArray, RecordBatch, StringArray};
use arrow::buffer::NullBuffer;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, IntervalMonthDayNano, TimeUnit, i256};
use arrow::json::{LineDelimitedWriter, WriterBuilder, writer::LineDelimited};
use arrow::util::display::ArrayFormatter;
use bytes::BufMut;
use serde::de::IgnoredAny;
use serde_json::Value;
use std::sync::Arc;
use trib_core::{Error, RejectedRow, Result};
use trib_kit::shown;

use super::decode::{EPOCH_DAYS, EPOCH_MICROS};
use super::numeric;
use super::pg_type::{Kind, PgType};

/// What a COPY stream begins with.
pub const HEADER: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What it ends with.
pub const TRAILER: [u8; 2] = (-1i16).to_be_bytes();

/// A column of the stream.
#[derive(Clone, Debug)]
pub struct Target {
    pub name: String,
    /// The type of the column that the server copies into.
    pub t: PgType,
    /// Rows without a value here are rejected: they could be matched with nothing.
    pub required: bool,
    /// JSON that does not come from PostgreSQL is parsed first, since one bad value would end the whole stream.
    pub check_json: bool,
}

/// A batch in the forms that the writer knows.
pub struct Prepared<'t> {
    targets: &'t [Target],
    arrays: Vec<ArrayRef>,
    rows: usize,
}

impl<'t> Prepared<'t> {
    /// `columns` are the places in the batch of each target's values.
    pub fn new(batch: &RecordBatch, targets: &'t [Target], columns: &[usize]) -> Result<Self> {
        let unfit = |t: &Target| format!("column {}: the value does not fit {}, the type of the table's column", t.name, t.t.name);
        let prepare = |(target, at): (&Target, &usize)| canonical(batch.column(*at), &target.t).map_err(|e| e.detail(unfit(target)));
        let arrays = targets.iter().zip(columns).map(prepare).collect::<Result<_>>()?;
        Ok(Self { targets, arrays, rows: batch.num_rows() })
    }

    pub fn rows(&self) -> Rows<'_> {
        let columns = self.targets.iter().zip(&self.arrays).map(|(target, array)| Column::new(array, target)).collect();
        Rows { prepared: self, columns, next: 0, written: 0, rejected: Vec::new() }
    }
}

/// Writes the rows of a batch, some at a time.
pub struct Rows<'a> {
    prepared: &'a Prepared<'a>,
    columns: Vec<Column<'a>>,
    next: usize,
    written: u64,
    rejected: Vec<RejectedRow>,
}

impl Rows<'_> {
    /// Writes rows until `out` holds about `most` bytes. False when none are left.
    pub fn write(&mut self, out: &mut Vec<u8>, most: usize) -> bool {
        let count = (self.columns.len() as i16).to_be_bytes();
        while self.next < self.prepared.rows && out.len() < most {
            let start = out.len();
            let row = self.next;
            self.next += 1;
            out.extend_from_slice(&count);
            let bad = self.columns.iter().enumerate().find_map(|(i, column)| Some((i, column.put(row, out).err()?)));
            match bad {
                None => self.written += 1,
                Some((column, reason)) => {
                    out.truncate(start);
                    self.reject(row, column, &reason);
                }
            }
        }
        self.next < self.prepared.rows
    }

    pub fn finish(self) -> (u64, Vec<RejectedRow>) {
        (self.written, self.rejected)
    }

    fn reject(&mut self, row: usize, column: usize, reason: &str) {
        let targets = self.prepared.targets;
        let text = |i: usize| {
            let array = &self.prepared.arrays[i];
            match ArrayFormatter::try_new(array.as_ref(), &shown::OPTIONS) {
                Ok(formatter) if array.is_valid(row) => shown::text(&formatter, array, row).map_or(Value::Null, Value::String),
                _ => Value::Null,
            }
        };
        let values: serde_json::Map<String, Value> = targets.iter().enumerate().map(|(i, t)| (t.name.clone(), text(i))).collect();
        let key = targets.iter().filter(|t| t.required).filter_map(|t| Some(format!("{}={}", t.name, values.get(&t.name)?.as_str()?)));
        self.rejected.push(RejectedRow {
            place: key.collect::<Vec<_>>().join(", "),
            reason: format!("{}: {reason}", targets[column].name),
            row: Value::Object(values),
        });
    }
}

/// Brings an array into the one form that the type's writer knows. No copy where it already has it.
fn canonical(array: &ArrayRef, t: &PgType) -> Result<ArrayRef> {
    let wanted = match array.data_type() {
        DataType::Struct(_) | DataType::Map(..) => return json_text(array),
        list if is_list(list) && !t.array => return json_text(array),
        list if is_list(list) => DataType::List(Arc::new(Field::new("item", form(t.kind, item(list)), true))),
        other => form(t.kind, other),
    };
    if *array.data_type() == wanted {
        return Ok(array.clone());
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    Ok(cast_with_options(array, &wanted, &options)?)
}

fn form(kind: Kind, from: &DataType) -> DataType {
    match (kind, from) {
        (Kind::Bool, _) => DataType::Boolean,
        (Kind::Int2, _) => DataType::Int16,
        (Kind::Int4, _) => DataType::Int32,
        (Kind::Int8, _) => DataType::Int64,
        (Kind::Oid, _) => DataType::UInt32,
        (Kind::Float4, _) => DataType::Float32,
        (Kind::Float8, _) => DataType::Float64,
        (Kind::Numeric(_), DataType::Decimal128(..) | DataType::Decimal256(..)) => from.clone(),
        (Kind::Numeric(_), DataType::Decimal32(p, s) | DataType::Decimal64(p, s)) => DataType::Decimal128(*p, *s),
        (Kind::Numeric(_), DataType::UInt64) => DataType::Decimal128(20, 0),
        (Kind::Numeric(_), t) if t.is_integer() => DataType::Decimal128(19, 0),
        (Kind::Uuid, DataType::FixedSizeBinary(16)) => DataType::FixedSizeBinary(16),
        (Kind::Numeric(_) | Kind::Text(_) | Kind::Json | Kind::Jsonb | Kind::Spelled | Kind::Uuid, _) => DataType::Utf8,
        (Kind::Bytea, _) => DataType::Binary,
        (Kind::Date, _) => DataType::Date32,
        (Kind::Time, _) => DataType::Time64(TimeUnit::Microsecond),
        // The zone says how to show the instant, and changes nothing about it.
        (Kind::Timestamp | Kind::TimestampTz, DataType::Timestamp(_, zone)) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        (Kind::Timestamp, _) => DataType::Timestamp(TimeUnit::Microsecond, None),
        (Kind::TimestampTz, _) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        (Kind::Interval, _) => DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano),
    }
}

fn is_list(t: &DataType) -> bool {
    matches!(
        t,
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) | DataType::ListView(_) | DataType::LargeListView(_)
    )
}

fn item(t: &DataType) -> &DataType {
    match t {
        DataType::List(f) | DataType::LargeList(f) | DataType::FixedSizeList(f, _) | DataType::ListView(f) | DataType::LargeListView(f) => {
            f.data_type()
        }
        other => other,
    }
}

/// Nested values, each as one JSON text.
fn json_text(array: &ArrayRef) -> Result<ArrayRef> {
    const BEFORE: &str = "{\"v\":";
    let batch = RecordBatch::try_from_iter_with_nullable([("v", array.clone(), true)])?;
    let mut writer: LineDelimitedWriter<_> = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::new());
    writer.write(&batch)?;
    writer.finish()?;
    let text = String::from_utf8(writer.into_inner()).map_err(|_| Error::internal("JSON was written that is not UTF-8"))?;
    let values = text.lines().enumerate().map(|(i, line)| {
        let inner = line.strip_prefix(BEFORE).and_then(|l| l.strip_suffix('}'));
        inner.filter(|_| array.is_valid(i))
    });
    let values: StringArray = values.collect();
    if values.len() != array.len() {
        return Err(Error::internal("JSON has another number of values than its column"));
    }
    Ok(Arc::new(values))
}

type Reason = String;

struct Column<'a> {
    nulls: Option<&'a NullBuffer>,
    values: Values<'a>,
    required: bool,
}

/// The values of one column, borrowed so that the loop over rows touches slices only. What most columns have is written in that loop
/// itself, which stays short.
enum Values<'a> {
    Int4(&'a [i32]),
    Int8(&'a [i64]),
    Decimal128(&'a [i128], i8),
    Text(&'a StringArray, TextForm),
    Date(&'a [i32]),
    Timestamp(&'a [i64]),
    Rare(Rare<'a>),
}

enum Rare<'a> {
    Bool(&'a BooleanArray),
    Int2(&'a [i16]),
    Oid(&'a [u32]),
    Float4(&'a [f32]),
    Float8(&'a [f64]),
    Decimal256(&'a [i256], i8),
    NumericText(&'a StringArray),
    Json(&'a StringArray, JsonForm),
    Bytea(&'a BinaryArray),
    Time(&'a [i64]),
    Interval(&'a [IntervalMonthDayNano]),
    Uuid(&'a FixedSizeBinaryArray),
    UuidText(&'a StringArray),
    List(&'a ListArray, Box<Column<'a>>, u32),
}

#[derive(Clone, Copy)]
struct TextForm {
    /// Characters that the column takes.
    most: Option<usize>,
    /// Some value of the batch may have a NUL character.
    check: bool,
}

impl TextForm {
    fn of(array: &StringArray, most: Option<usize>) -> Self {
        let (first, last) = (array.value_offsets()[0] as usize, array.value_offsets()[array.len()] as usize);
        Self { most, check: memchr::memchr(0, &array.value_data()[first..last]).is_some() }
    }
}

#[derive(Clone, Copy)]
struct JsonForm {
    binary: bool,
    check: bool,
}

impl<'a> Column<'a> {
    fn new(array: &'a ArrayRef, target: &Target) -> Self {
        let values = if target.t.array {
            let list = array.as_list::<i32>();
            let items = Column {
                nulls: list.values().nulls(),
                values: Values::of(list.values(), target.t.kind, target.check_json),
                required: false,
            };
            Values::Rare(Rare::List(list, Box::new(items), target.t.oid))
        } else {
            Values::of(array, target.t.kind, target.check_json)
        };
        Self { nulls: array.nulls().filter(|n| n.null_count() > 0), values, required: target.required }
    }

    #[inline]
    fn put(&self, row: usize, out: &mut Vec<u8>) -> Result<(), Reason> {
        if self.nulls.is_some_and(|nulls| nulls.is_null(row)) {
            if self.required {
                return Err("the key has no value".to_owned());
            }
            out.put_i32(-1);
            return Ok(());
        }
        match &self.values {
            Values::Int4(v) => put_fixed::<4, 8>(out, v[row].to_be_bytes()),
            Values::Int8(v) => put_fixed::<8, 12>(out, v[row].to_be_bytes()),
            Values::Decimal128(v, scale) => numeric::put_i128(v[row], *scale, out),
            Values::Text(v, form) => put_text(v.value(row), *form, out)?,
            Values::Date(v) => put_fixed::<4, 8>(out, date(v[row])?.to_be_bytes()),
            Values::Timestamp(v) => put_fixed::<8, 12>(out, timestamp(v[row])?.to_be_bytes()),
            Values::Rare(rare) => rare.put(row, out)?,
        }
        Ok(())
    }
}

impl<'a> Values<'a> {
    fn of(array: &'a ArrayRef, kind: Kind, check_json: bool) -> Self {
        match (kind, array.data_type()) {
            (Kind::Bool, _) => Values::Rare(Rare::Bool(array.as_boolean())),
            (Kind::Int2, _) => Values::Rare(Rare::Int2(array.as_primitive::<Int16Type>().values())),
            (Kind::Int4, _) => Values::Int4(array.as_primitive::<Int32Type>().values()),
            (Kind::Int8, _) => Values::Int8(array.as_primitive::<Int64Type>().values()),
            (Kind::Oid, _) => Values::Rare(Rare::Oid(array.as_primitive::<UInt32Type>().values())),
            (Kind::Float4, _) => Values::Rare(Rare::Float4(array.as_primitive::<Float32Type>().values())),
            (Kind::Float8, _) => Values::Rare(Rare::Float8(array.as_primitive::<Float64Type>().values())),
            (Kind::Numeric(_), DataType::Decimal128(_, s)) => Values::Decimal128(array.as_primitive::<Decimal128Type>().values(), *s),
            (Kind::Numeric(_), DataType::Decimal256(_, s)) => {
                Values::Rare(Rare::Decimal256(array.as_primitive::<Decimal256Type>().values(), *s))
            }
            (Kind::Numeric(_), _) => Values::Rare(Rare::NumericText(array.as_string())),
            (Kind::Text(most), _) => Values::Text(array.as_string(), TextForm::of(array.as_string(), most)),
            (Kind::Spelled, _) => Values::Text(array.as_string(), TextForm::of(array.as_string(), None)),
            (Kind::Json, _) => Values::Rare(Rare::Json(array.as_string(), JsonForm { binary: false, check: check_json })),
            (Kind::Jsonb, _) => Values::Rare(Rare::Json(array.as_string(), JsonForm { binary: true, check: check_json })),
            (Kind::Bytea, _) => Values::Rare(Rare::Bytea(array.as_binary())),
            (Kind::Date, _) => Values::Date(array.as_primitive::<Date32Type>().values()),
            (Kind::Time, _) => Values::Rare(Rare::Time(array.as_primitive::<Time64MicrosecondType>().values())),
            (Kind::Timestamp | Kind::TimestampTz, _) => Values::Timestamp(array.as_primitive::<TimestampMicrosecondType>().values()),
            (Kind::Interval, _) => Values::Rare(Rare::Interval(array.as_primitive::<IntervalMonthDayNanoType>().values())),
            (Kind::Uuid, DataType::FixedSizeBinary(_)) => Values::Rare(Rare::Uuid(array.as_fixed_size_binary())),
            (Kind::Uuid, _) => Values::Rare(Rare::UuidText(array.as_string())),
        }
    }
}

impl Rare<'_> {
    #[inline(never)]
    fn put(&self, row: usize, out: &mut Vec<u8>) -> Result<(), Reason> {
        match self {
            Rare::Bool(v) => out.extend_from_slice(&[0, 0, 0, 1, u8::from(v.value(row))]),
            Rare::Int2(v) => put_fixed::<2, 6>(out, v[row].to_be_bytes()),
            Rare::Oid(v) => put_fixed::<4, 8>(out, v[row].to_be_bytes()),
            Rare::Float4(v) => put_fixed::<4, 8>(out, v[row].to_be_bytes()),
            Rare::Float8(v) => put_fixed::<8, 12>(out, v[row].to_be_bytes()),
            Rare::Decimal256(v, scale) => numeric::put_i256(v[row], *scale, out),
            Rare::NumericText(v) => numeric::put_text(v.value(row), out).ok_or("not a number that numeric can hold")?,
            Rare::Json(v, form) => put_json(v.value(row), *form, out)?,
            Rare::Bytea(v) => put_bytes(v.value(row), out),
            Rare::Time(v) => put_fixed::<8, 12>(out, time(v[row])?.to_be_bytes()),
            Rare::Interval(v) => put_interval(v[row], out),
            Rare::Uuid(v) => put_bytes(v.value(row), out),
            Rare::UuidText(v) => {
                let uuid = uuid::Uuid::parse_str(v.value(row).trim()).map_err(|_| "not a UUID")?;
                put_bytes(uuid.as_bytes(), out);
            }
            Rare::List(list, items, element) => put_list(list, items, *element, row, out)?,
        }
        Ok(())
    }
}

/// Length and value in one write. `M` is `N + 4`, which Rust cannot say yet.
#[inline]
fn put_fixed<const N: usize, const M: usize>(out: &mut Vec<u8>, value: [u8; N]) {
    let mut both = [0u8; M];
    both[..4].copy_from_slice(&(N as u32).to_be_bytes());
    both[4..].copy_from_slice(&value);
    out.extend_from_slice(&both);
}

#[inline]
fn put_bytes(value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(value.len() as u32).to_be_bytes());
    out.extend_from_slice(value);
}

#[inline]
fn put_text(value: &str, form: TextForm, out: &mut Vec<u8>) -> Result<(), Reason> {
    if form.check && memchr::memchr(0, value.as_bytes()).is_some() {
        return Err("the text has a NUL character, which PostgreSQL cannot store".to_owned());
    }
    // The server cuts spaces at the end by itself.
    let most = form.most;
    if most.is_some_and(|most| value.len() > most && value.trim_end_matches(' ').chars().count() > most) {
        return Err(format!("the text is longer than the column's {} characters", most.unwrap_or_default()));
    }
    put_bytes(value.as_bytes(), out);
    Ok(())
}

fn put_json(value: &str, form: JsonForm, out: &mut Vec<u8>) -> Result<(), Reason> {
    if form.check {
        check_json(value, form.binary)?;
    }
    out.put_u32(value.len() as u32 + u32::from(form.binary));
    if form.binary {
        // The format's version.
        out.put_u8(1);
    }
    out.extend_from_slice(value.as_bytes());
    Ok(())
}

fn check_json(value: &str, binary: bool) -> Result<(), Reason> {
    let reason = |e: serde_json::Error| format!("not JSON: {e}");
    // Only escapes can hide what jsonb does not take: NUL and halves of surrogate pairs.
    if !binary || !value.contains("\\u") {
        return serde_json::from_str::<IgnoredAny>(value).map(|_| ()).map_err(reason);
    }
    let parsed: Value = serde_json::from_str(value).map_err(reason)?;
    if has_nul(&parsed) {
        return Err("the JSON has a NUL character (\\u0000), which jsonb cannot store".to_owned());
    }
    Ok(())
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(members) => members.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        _ => false,
    }
}

fn date(days: i32) -> Result<i32, Reason> {
    // 4714-11-24 BC to 5874897-12-31.
    days.checked_sub(EPOCH_DAYS)
        .filter(|days| (-2_451_545..2_145_031_949).contains(days))
        .ok_or_else(|| "the date is outside of PostgreSQL's range".to_owned())
}

fn time(micros: i64) -> Result<i64, Reason> {
    if (0..=86_400_000_000).contains(&micros) { Ok(micros) } else { Err("the time is outside of a day".to_owned()) }
}

fn timestamp(micros: i64) -> Result<i64, Reason> {
    // 4714-11-24 BC to 294276-12-31.
    micros
        .checked_sub(EPOCH_MICROS)
        .filter(|micros| (-211_813_488_000_000_000..9_223_371_331_200_000_000).contains(micros))
        .ok_or_else(|| "the time is outside of PostgreSQL's range".to_owned())
}

fn put_interval(value: IntervalMonthDayNano, out: &mut Vec<u8>) {
    out.put_u32(16);
    out.put_i64(value.nanoseconds / 1000);
    out.put_i32(value.days);
    out.put_i32(value.months);
}

fn put_list(list: &ListArray, items: &Column<'_>, element: u32, row: usize, out: &mut Vec<u8>) -> Result<(), Reason> {
    let offsets = list.value_offsets();
    let (from, to) = (offsets[row] as usize, offsets[row + 1] as usize);
    let start = out.len();
    out.put_u32(0);
    out.put_i32(i32::from(from < to));
    out.put_i32(i32::from(items.nulls.is_some_and(|nulls| (from..to).any(|i| nulls.is_null(i)))));
    out.put_u32(element);
    if from < to {
        out.put_i32((to - from) as i32);
        out.put_i32(1);
        for i in from..to {
            items.put(i, out)?;
        }
    }
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}
