//! JSON values straight into Arrow's builders. A value that does not fit leaves a NULL and a reason, and the row is taken out later, so that one bad value never
//! ends the parsing of a line.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder, Int64Builder, ListArray, NullBufferBuilder,
    StringBuilder, StructArray, Time64MicrosecondBuilder, TimestampMicrosecondBuilder,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use trib_core::logical::{FieldExt, Logical};
use trib_core::{Error, Result};

use super::value::Value;
use crate::tape::Kind;
use crate::value;

/// One column while its batch grows.
pub enum Column {
    Boolean(BooleanBuilder),
    Integer(Int64Builder),
    Double(Float64Builder),
    Decimal {
        builder: Decimal128Builder,
        precision: u8,
        scale: i8,
    },
    /// Text as it is, numbers and truth values as their JSON.
    Text(StringBuilder),
    /// Any value as its JSON.
    Json(StringBuilder),
    Binary(BinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    /// Without a zone the text is taken for UTC, as Singer's specification has it and Airbyte's programs mean it.
    Instant(TimestampMicrosecondBuilder),
    /// What a clock on a wall shows: text with a zone is something else.
    Clock(TimestampMicrosecondBuilder),
    Struct(Struct),
    List(List),
}

pub struct Struct {
    pub columns: Columns,
    valid: NullBufferBuilder,
}

pub struct List {
    item: Box<Column>,
    field: FieldRef,
    offsets: Vec<i32>,
    valid: NullBufferBuilder,
}

/// Columns that are found by name.
pub struct Columns {
    pub fields: Fields,
    pub columns: Vec<Column>,
    by_name: HashMap<String, usize>,
    /// Which column stood at which place in the last record: the next one mostly has the same order.
    order: Vec<usize>,
    rows: usize,
}

/// What is wrong with the row that is being read: the first thing.
#[derive(Default)]
pub struct Unfit(pub Option<String>);

impl Unfit {
    fn mark(&mut self, reason: impl FnOnce() -> String) {
        self.0.get_or_insert_with(reason);
    }
}

impl Columns {
    pub fn new(fields: &Fields) -> Result<Self> {
        let columns = fields.iter().map(|f| Column::new(f)).collect::<Result<Vec<_>>>()?;
        let by_name = fields.iter().enumerate().map(|(i, f)| (f.name().clone(), i)).collect();
        Ok(Self { fields: fields.clone(), columns, by_name, order: Vec::new(), rows: 0 })
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Ends a row: columns that it did not have are NULL. A row in which nothing was read is a NULL everywhere.
    pub fn end_row(&mut self) {
        self.rows += 1;
        for column in &mut self.columns {
            if column.len() < self.rows {
                column.null();
            }
        }
    }

    /// The columns' arrays; the builders begin anew.
    pub fn finish(&mut self) -> Result<Vec<ArrayRef>> {
        self.rows = 0;
        self.columns.iter_mut().map(Column::finish).collect()
    }

    /// Takes the values of an object, without ending the row.
    pub fn take(&mut self, object: Value<'_>, unfit: &mut Unfit) {
        let mut children = object.children();
        let mut place = 0;
        while let (Some(name), Some(value)) = (children.next(), children.next()) {
            let found = name.string().and_then(|name| self.find(place, &name));
            place += 1;
            // Fields that the schema does not know are left out, as the specification has it. Of two values under one name, the first counts.
            if let Some(at) = found.filter(|at| self.columns[*at].len() == self.rows) {
                self.columns[at].take(value, self.fields[at].name(), unfit);
            }
        }
    }

    /// The column of a name that stands at `place` in the record.
    fn find(&mut self, place: usize, name: &str) -> Option<usize> {
        if let Some(&at) = self.order.get(place)
            && self.fields[at].name() == name
        {
            return Some(at);
        }
        let at = *self.by_name.get(name)?;
        if place < self.order.len() {
            self.order[place] = at;
        } else if place == self.order.len() {
            self.order.push(at);
        }
        Some(at)
    }
}

impl Column {
    fn new(field: &Field) -> Result<Self> {
        Ok(match field.data_type() {
            DataType::Boolean => Column::Boolean(BooleanBuilder::new()),
            DataType::Int64 => Column::Integer(Int64Builder::new()),
            DataType::Float64 => Column::Double(Float64Builder::new()),
            DataType::Decimal128(precision, scale) => {
                let builder = Decimal128Builder::new().with_precision_and_scale(*precision, *scale)?;
                Column::Decimal { builder, precision: *precision, scale: *scale }
            }
            DataType::Utf8 if field.logical() == Some(Logical::Json) => Column::Json(StringBuilder::new()),
            DataType::Utf8 => Column::Text(StringBuilder::new()),
            DataType::Binary => Column::Binary(BinaryBuilder::new()),
            DataType::Date32 => Column::Date(Date32Builder::new()),
            DataType::Time64(_) => Column::Time(Time64MicrosecondBuilder::new()),
            DataType::Timestamp(_, Some(_)) => {
                Column::Instant(TimestampMicrosecondBuilder::new().with_data_type(field.data_type().clone()))
            }
            DataType::Timestamp(..) => Column::Clock(TimestampMicrosecondBuilder::new()),
            DataType::Struct(fields) => Column::Struct(Struct { columns: Columns::new(fields)?, valid: NullBufferBuilder::new(0) }),
            DataType::List(item) => {
                let column = Box::new(Column::new(item)?);
                Column::List(List { item: column, field: item.clone(), offsets: vec![0], valid: NullBufferBuilder::new(0) })
            }
            other => {
                return Err(
                    Error::internal("a column has a type that JSON Schema does not give").detail(format!("{}: {other}", field.name()))
                );
            }
        })
    }

    fn len(&self) -> usize {
        use arrow::array::ArrayBuilder;
        match self {
            Column::Boolean(b) => b.len(),
            Column::Integer(b) => b.len(),
            Column::Double(b) => b.len(),
            Column::Decimal { builder, .. } => builder.len(),
            Column::Text(b) | Column::Json(b) => b.len(),
            Column::Binary(b) => b.len(),
            Column::Date(b) => b.len(),
            Column::Time(b) => b.len(),
            Column::Instant(b) | Column::Clock(b) => b.len(),
            Column::Struct(s) => s.valid.len(),
            Column::List(l) => l.valid.len(),
        }
    }

    fn null(&mut self) {
        match self {
            Column::Boolean(b) => b.append_null(),
            Column::Integer(b) => b.append_null(),
            Column::Double(b) => b.append_null(),
            Column::Decimal { builder, .. } => builder.append_null(),
            Column::Text(b) | Column::Json(b) => b.append_null(),
            Column::Binary(b) => b.append_null(),
            Column::Date(b) => b.append_null(),
            Column::Time(b) => b.append_null(),
            Column::Instant(b) | Column::Clock(b) => b.append_null(),
            Column::Struct(s) => {
                s.columns.end_row();
                s.valid.append_null();
            }
            Column::List(l) => {
                l.offsets.push(l.item.len() as i32);
                l.valid.append_null();
            }
        }
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        Ok(match self {
            Column::Boolean(b) => Arc::new(b.finish()),
            Column::Integer(b) => Arc::new(b.finish()),
            Column::Double(b) => Arc::new(b.finish()),
            Column::Decimal { builder, .. } => Arc::new(builder.finish()),
            Column::Text(b) | Column::Json(b) => Arc::new(b.finish()),
            Column::Binary(b) => Arc::new(b.finish()),
            Column::Date(b) => Arc::new(b.finish()),
            Column::Time(b) => Arc::new(b.finish()),
            Column::Instant(b) | Column::Clock(b) => Arc::new(b.finish()),
            Column::Struct(s) => {
                let valid = s.valid.finish();
                Arc::new(StructArray::try_new(s.columns.fields.clone(), s.columns.finish()?, valid)?)
            }
            Column::List(l) => {
                let offsets = OffsetBuffer::new(std::mem::replace(&mut l.offsets, vec![0]).into());
                Arc::new(ListArray::try_new(l.field.clone(), offsets, l.item.finish()?, l.valid.finish())?)
            }
        })
    }

    /// In the words of JSON Schema.
    fn wants(&self) -> &'static str {
        match self {
            Column::Boolean(_) => "boolean",
            Column::Integer(_) => "integer",
            Column::Double(_) => "number",
            Column::Decimal { .. } => "decimal number",
            Column::Text(_) => "string",
            Column::Json(_) => "JSON value",
            Column::Binary(_) => "base64 string",
            Column::Date(_) => "date",
            Column::Time(_) => "time",
            Column::Instant(_) => "date-time",
            Column::Clock(_) => "date-time without a zone",
            Column::Struct(_) => "object",
            Column::List(_) => "array",
        }
    }

    /// Takes the text of a string; false when it is no such value.
    fn text(&mut self, text: &str) -> bool {
        let bytes = text.as_bytes();
        match self {
            Column::Text(b) => {
                b.append_value(text);
                true
            }
            Column::Instant(b) => append(value::instant(bytes).and_then(|i| i.in_unit(6)), |v| b.append_value(v)),
            Column::Clock(b) => append(value::instant(bytes).filter(|i| !i.zoned).and_then(|i| i.in_unit(6)), |v| b.append_value(v)),
            Column::Date(b) => {
                // Some taps give a date the time of midnight.
                let midnight =
                    || value::instant(bytes).filter(|i| i.nanos == 0 && i.seconds % 86_400 == 0).map(|i| (i.seconds / 86_400) as i32);
                append(value::date(bytes).or_else(midnight), |v| b.append_value(v))
            }
            Column::Time(b) => append(value::time(bytes).filter(|n| n % 1000 == 0), |v| b.append_value(v / 1000)),
            Column::Binary(b) => append(STANDARD.decode(bytes).ok(), |v| b.append_value(v)),
            Column::Decimal { builder, precision, scale } => append(decimal(bytes, *precision, *scale), |v| builder.append_value(v)),
            _ => false,
        }
    }

    /// Takes a value; what it is not, where it does not fit.
    fn take(&mut self, value: Value<'_>, name: &str, unfit: &mut Unfit) {
        let kind = value.kind();
        if kind == Kind::Null {
            return self.null();
        }
        let took = match self {
            Column::Json(b) => append(value.raw(), |v| b.append_value(v)),
            Column::Struct(inner) if kind == Kind::Object => {
                inner.columns.take(value, unfit);
                inner.columns.end_row();
                inner.valid.append_non_null();
                true
            }
            Column::List(list) if kind == Kind::Array => {
                for item in value.children() {
                    list.item.take(item, name, unfit);
                }
                list.offsets.push(list.item.len() as i32);
                list.valid.append_non_null();
                true
            }
            Column::Boolean(b) if matches!(kind, Kind::True | Kind::False) => {
                b.append_value(kind == Kind::True);
                true
            }
            // Text for text; numbers and truth values keep every character, whether they stand in quotes or not.
            Column::Text(b) if matches!(kind, Kind::Number | Kind::True | Kind::False) => append(value.raw(), |v| b.append_value(v)),
            _ if kind == Kind::String => value.string().is_some_and(|text| self.text(&text)),
            _ if kind == Kind::Number => self.number(value.bytes()),
            _ => false,
        };
        if !took {
            unfit.mark(|| format!("{name}: {} is no {}", value.shown(), self.wants()));
            self.null();
        }
    }

    fn number(&mut self, text: &[u8]) -> bool {
        match self {
            Column::Integer(b) => append(value::integer(text).or_else(|| whole(text)), |v| b.append_value(v)),
            Column::Double(b) => append(value::float(text), |v| b.append_value(v)),
            Column::Decimal { builder, precision, scale } => append(decimal(text, *precision, *scale), |v| builder.append_value(v)),
            _ => false,
        }
    }
}

/// `1.0` and `1e3` are integers in JSON Schema.
fn whole(text: &[u8]) -> Option<i64> {
    decimal(text, 19, 0)?.try_into().ok()
}

/// Hands a value on, when there is one.
fn append<T>(value: Option<T>, to: impl FnOnce(T)) -> bool {
    value.map(to).is_some()
}

/// A number as its unscaled integer, digit for digit.
fn decimal(text: &[u8], precision: u8, scale: i8) -> Option<i128> {
    if !text.iter().any(|b| matches!(b, b'e' | b'E')) {
        return value::decimal(text, precision, scale);
    }
    let text = std::str::from_utf8(text).ok()?;
    let (mantissa, exponent) = text.split_once(['e', 'E'])?;
    let exponent: i32 = exponent.parse().ok().filter(|e| (-100..=100).contains(e))?;
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |m| ("-", m));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = format!("{whole}{fraction}");
    let mut point = whole.len() as i32 + exponent;
    if point < 0 {
        digits.insert_str(0, &"0".repeat(point.unsigned_abs() as usize));
        point = 0;
    }
    while (digits.len() as i32) < point {
        digits.push('0');
    }
    let (whole, fraction) = digits.split_at(point as usize);
    value::decimal(format!("{sign}{whole}.{fraction}").as_bytes(), precision, scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_keep_their_digits() {
        let cases = [
            ("1.10", Some(110)),
            ("-0.07", Some(-7)),
            ("1e2", Some(10_000)),
            ("1.5E+1", Some(1500)),
            ("25e-1", Some(250)),
            ("7e-2", Some(7)),
            ("7e-3", None),
            ("-1.25e1", Some(-1250)),
            ("1.005", None),
            ("1e99", None),
        ];
        for (text, expected) in cases {
            assert_eq!(decimal(text.as_bytes(), 15, 2), expected, "{text}");
        }
    }
}
