//! One column's values, on their way to an array.

use std::sync::Arc;

use arrow::array::types::{
    Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNanoType,
    Time64MicrosecondType, TimestampMicrosecondType, UInt32Type,
};
use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, FixedSizeBinaryArray, NullBufferBuilder, PrimitiveArray, StringArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, IntervalMonthDayNano, i256};
use trib_core::{Error, Result};

use super::super::numeric;
use super::super::pg_type::{ArrayRule, InfinityRule, Kind, PgType, Rules, SpecialNumberRule};
use super::list::List;
use super::rows::Fields;
use super::value::{self, Bad, fixed};

/// The bytes are not of the type that was discovered.
#[derive(Debug)]
pub struct WrongType;

/// The places of values whose rows cannot be delivered, with the reasons.
pub type Unfit = Vec<(usize, String)>;

pub struct Column {
    values: Values,
    missing: Missing,
}

/// Exactly one place for each value; what stands where one is missing does not matter.
enum Values {
    Bool(Vec<bool>),
    Int2(Vec<i16>),
    Int4(Vec<i32>),
    Int8(Vec<i64>),
    Oid(Vec<u32>),
    Float4(Vec<f32>),
    Float8(Vec<f64>),
    Decimal128(Vec<i128>, i8, SpecialNumberRule),
    Decimal256(Vec<i256>, i8, SpecialNumberRule),
    NumericText(Bytes, String),
    Text(Bytes),
    Jsonb(Bytes),
    Bytea(Bytes),
    Date(Vec<i32>, InfinityRule),
    Time(Vec<i64>),
    Timestamp(Vec<i64>, InfinityRule),
    Interval(Vec<IntervalMonthDayNano>, InfinityRule),
    Uuid(Vec<[u8; 16]>),
    List(Box<List>),
}

impl Column {
    pub fn new(t: &PgType, field: &Field, rules: Rules) -> Self {
        let values = match (t.array, rules.arrays, field.data_type()) {
            (true, ArrayRule::List, DataType::List(item)) => {
                Values::List(Box::new(List::new(Self::of(Values::new(t.kind, item.data_type(), rules)))))
            }
            (true, ..) => Values::Text(Bytes::default()),
            (false, ..) => Values::new(t.kind, field.data_type(), rules),
        };
        Self::of(values)
    }

    fn of(values: Values) -> Self {
        Self { values, missing: Missing::default() }
    }

    pub fn decode(&mut self, fields: Fields<'_>) -> Result<(), WrongType> {
        let missing = &mut self.missing;
        match &mut self.values {
            Values::Bool(v) => missing.fill(v, fields, value::bool),
            Values::Int2(v) => missing.fill(v, fields, |b| fixed(b).map(i16::from_be_bytes)),
            Values::Int4(v) => missing.fill(v, fields, |b| fixed(b).map(i32::from_be_bytes)),
            Values::Int8(v) | Values::Time(v) => missing.fill(v, fields, |b| fixed(b).map(i64::from_be_bytes)),
            Values::Oid(v) => missing.fill(v, fields, |b| fixed(b).map(u32::from_be_bytes)),
            Values::Float4(v) => missing.fill(v, fields, |b| fixed(b).map(f32::from_be_bytes)),
            Values::Float8(v) => missing.fill(v, fields, |b| fixed(b).map(f64::from_be_bytes)),
            Values::Decimal128(v, scale, rule) => {
                missing.fill(v, fields, |b| numeric::to_i128(b, *scale).map_err(|e| value::not_decimal(e, *rule)))
            }
            Values::Decimal256(v, scale, rule) => {
                missing.fill(v, fields, |b| numeric::to_i256(b, *scale).map_err(|e| value::not_decimal(e, *rule)))
            }
            Values::NumericText(v, text) => missing.fill(&mut v.lengths, fields, |b| {
                numeric::to_text(b, text).map_err(|_| Bad::Type)?;
                Ok(append(&mut v.bytes, text.as_bytes()))
            }),
            Values::Text(v) | Values::Bytea(v) => missing.fill(&mut v.lengths, fields, |b| Ok(append(&mut v.bytes, b))),
            Values::Jsonb(v) => missing.fill(&mut v.lengths, fields, |b| Ok(append(&mut v.bytes, value::jsonb(b)?))),
            Values::Date(v, rule) => missing.fill(v, fields, |b| value::date(b, *rule)),
            Values::Timestamp(v, rule) => missing.fill(v, fields, |b| value::timestamp(b, *rule)),
            Values::Interval(v, rule) => missing.fill(v, fields, |b| value::interval(b, *rule)),
            Values::Uuid(v) => missing.fill(v, fields, fixed),
            Values::List(list) => list.decode(fields, missing),
        }
    }

    /// The column as an array of the field's type, and which of its values were not taken. It is empty afterwards.
    pub fn finish(&mut self, field: &Field) -> Result<(ArrayRef, Unfit)> {
        let nulls = self.missing.nulls.finish();
        let mut unfit = std::mem::take(&mut self.missing.unfit);
        let array: ArrayRef = match &mut self.values {
            Values::Bool(v) => Arc::new(BooleanArray::new(take(v).into(), nulls)),
            Values::Int2(v) => primitive::<Int16Type>(v, nulls, field),
            Values::Int4(v) => primitive::<Int32Type>(v, nulls, field),
            Values::Int8(v) => primitive::<Int64Type>(v, nulls, field),
            Values::Oid(v) => primitive::<UInt32Type>(v, nulls, field),
            Values::Float4(v) => primitive::<Float32Type>(v, nulls, field),
            Values::Float8(v) => primitive::<Float64Type>(v, nulls, field),
            Values::Decimal128(v, ..) => primitive::<Decimal128Type>(v, nulls, field),
            Values::Decimal256(v, ..) => primitive::<Decimal256Type>(v, nulls, field),
            Values::NumericText(v, _) | Values::Text(v) | Values::Jsonb(v) => Arc::new(v.text(nulls, &mut unfit)),
            Values::Bytea(v) => Arc::new(v.binary(nulls)),
            Values::Date(v, _) => primitive::<Date32Type>(v, nulls, field),
            Values::Time(v) => primitive::<Time64MicrosecondType>(v, nulls, field),
            Values::Timestamp(v, _) => primitive::<TimestampMicrosecondType>(v, nulls, field),
            Values::Interval(v, _) => primitive::<IntervalMonthDayNanoType>(v, nulls, field),
            Values::Uuid(v) => Arc::new(FixedSizeBinaryArray::try_new(16, take(v).into_flattened().into(), nulls)?),
            Values::List(list) => match field.data_type() {
                DataType::List(item) => Arc::new(list.finish(item, nulls, &mut unfit)?),
                _ => return Err(Error::internal("a list stands for a column that is no list")),
            },
        };
        Ok((array, unfit))
    }
}

impl Values {
    fn new(kind: Kind, arrow: &DataType, rules: Rules) -> Self {
        match (kind, arrow) {
            (Kind::Bool, _) => Values::Bool(Vec::new()),
            (Kind::Int2, _) => Values::Int2(Vec::new()),
            (Kind::Int4, _) => Values::Int4(Vec::new()),
            (Kind::Int8, _) => Values::Int8(Vec::new()),
            (Kind::Oid, _) => Values::Oid(Vec::new()),
            (Kind::Float4, _) => Values::Float4(Vec::new()),
            (Kind::Float8, _) => Values::Float8(Vec::new()),
            (Kind::Numeric(_), DataType::Decimal128(_, scale)) => Values::Decimal128(Vec::new(), *scale, rules.special),
            (Kind::Numeric(_), DataType::Decimal256(_, scale)) => Values::Decimal256(Vec::new(), *scale, rules.special),
            (Kind::Numeric(_), _) => Values::NumericText(Bytes::default(), String::new()),
            (Kind::Text(_) | Kind::Json | Kind::Spelled, _) => Values::Text(Bytes::default()),
            (Kind::Jsonb, _) => Values::Jsonb(Bytes::default()),
            (Kind::Bytea, _) => Values::Bytea(Bytes::default()),
            (Kind::Date, _) => Values::Date(Vec::new(), rules.infinity),
            (Kind::Time, _) => Values::Time(Vec::new()),
            (Kind::Timestamp | Kind::TimestampTz, _) => Values::Timestamp(Vec::new(), rules.infinity),
            (Kind::Interval, _) => Values::Interval(Vec::new(), rules.infinity),
            (Kind::Uuid, _) => Values::Uuid(Vec::new()),
        }
    }
}

/// Which values are missing: NULLs, and what was not taken.
#[derive(Debug)]
pub struct Missing {
    nulls: NullBufferBuilder,
    unfit: Unfit,
}

impl Default for Missing {
    fn default() -> Self {
        Self { nulls: NullBufferBuilder::new(0), unfit: Unfit::new() }
    }
}

impl Missing {
    fn fill<'a, T: Default>(
        &mut self,
        out: &mut Vec<T>,
        fields: Fields<'a>,
        read: impl FnMut(&'a [u8]) -> Result<T, Bad>,
    ) -> Result<(), WrongType> {
        out.reserve(fields.len());
        self.fill_from(out, fields.values(), read)
    }

    #[inline]
    pub fn fill_from<V, T: Default>(
        &mut self,
        out: &mut Vec<T>,
        values: impl Iterator<Item = Option<V>>,
        mut read: impl FnMut(V) -> Result<T, Bad>,
    ) -> Result<(), WrongType> {
        for value in values {
            match value.map_or(Err(Bad::Null), &mut read) {
                Ok(value) => {
                    out.push(value);
                    self.nulls.append_non_null();
                }
                Err(bad) => {
                    out.push(T::default());
                    self.append(bad)?;
                }
            }
        }
        Ok(())
    }

    #[cold]
    fn append(&mut self, bad: Bad) -> Result<(), WrongType> {
        match bad {
            Bad::Null => {}
            Bad::Row(reason) => self.unfit.push((self.nulls.len(), reason)),
            Bad::Type => return Err(WrongType),
        }
        self.nulls.append_null();
        Ok(())
    }
}

/// Values of any length, one behind the other.
#[derive(Default)]
struct Bytes {
    bytes: Vec<u8>,
    lengths: Vec<u32>,
}

impl Bytes {
    fn take(&mut self) -> (OffsetBuffer<i32>, Buffer) {
        let offsets = OffsetBuffer::from_lengths(self.lengths.iter().map(|length| *length as usize));
        self.lengths.clear();
        (offsets, take(&mut self.bytes).into())
    }

    fn binary(&mut self, nulls: Option<NullBuffer>) -> BinaryArray {
        let (offsets, bytes) = self.take();
        BinaryArray::new(offsets, bytes, nulls)
    }

    /// Text is checked as a whole; only where that fails each value is looked at.
    fn text(&mut self, nulls: Option<NullBuffer>, unfit: &mut Unfit) -> StringArray {
        let (offsets, bytes) = self.take();
        if let Ok(text) = StringArray::try_new(offsets.clone(), bytes.clone(), nulls.clone()) {
            return text;
        }
        let mut utf8 = |(place, value)| match std::str::from_utf8(value) {
            Ok(text) => Some(text),
            Err(_) => {
                unfit.push((place, "the text is not UTF-8 (the database's encoding is SQL_ASCII)".to_owned()));
                None
            }
        };
        let values = BinaryArray::new(offsets, bytes, nulls);
        values.iter().enumerate().map(|(place, value)| utf8((place, value?))).collect()
    }
}

/// Gives the length, which is under 1 GiB on the wire.
#[inline]
fn append(bytes: &mut Vec<u8>, value: &[u8]) -> u32 {
    bytes.extend_from_slice(value);
    value.len() as u32
}

fn primitive<T: ArrowPrimitiveType>(values: &mut Vec<T::Native>, nulls: Option<NullBuffer>, field: &Field) -> ArrayRef {
    let array = PrimitiveArray::<T>::new(take(values).into(), nulls);
    // Scale and zone stand in the field only.
    let parameters = PrimitiveArray::<T>::is_compatible(field.data_type());
    Arc::new(if parameters { array.with_data_type(field.data_type().clone()) } else { array })
}

/// Leaves room for about as much again: equal allocations are used again, where growing ones would leave holes, and one value too
/// many would double them.
fn take<T>(values: &mut Vec<T>) -> Vec<T> {
    let room = Vec::with_capacity(values.len() + values.len() / 8);
    std::mem::replace(values, room)
}
