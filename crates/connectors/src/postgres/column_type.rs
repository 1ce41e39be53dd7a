//! The type that a column gets at the destination.

use arrow::datatypes::{DataType, Field, TimeUnit};
use trib_core::logical::{FieldExt, Logical};
use trib_core::{Code, ColumnType, Error, Result};

use super::pg_type::{DIALECT, Kind, PgType};

/// The type for a field: the source's own where the field comes from PostgreSQL, otherwise the one that holds all values of the Arrow type.
pub fn column_type(field: &Field) -> Result<ColumnType> {
    if let Some(native) = field.native(DIALECT) {
        let native = PgType::parse(native);
        // A type that is not built in may not be there; and a transform may have changed the values but not the annotation.
        if native.is_built_in() && native.explains(field) {
            return Ok(ColumnType::exact(native.name));
        }
    }
    match field.logical() {
        Some(Logical::Uuid) => return Ok(ColumnType::exact("uuid")),
        Some(Logical::Json) => {
            return Ok(ColumnType::lossy("jsonb", "jsonb keeps values, but not spacing, the order of keys and repeated keys"));
        }
        None => {}
    }
    of_arrow(field.data_type()).map_err(|e| e.detail(format!("{} ({})", field.name(), field.data_type())))
}

fn of_arrow(t: &DataType) -> Result<ColumnType> {
    use DataType as T;
    const NANOS: &str = "nanoseconds are cut to microseconds";
    Ok(match t {
        T::Boolean => ColumnType::exact("boolean"),
        T::Int8 | T::UInt8 | T::Int16 => ColumnType::exact("smallint"),
        T::UInt16 | T::Int32 => ColumnType::exact("integer"),
        T::UInt32 | T::Int64 => ColumnType::exact("bigint"),
        T::UInt64 => ColumnType::exact("numeric(20,0)"),
        T::Float16 | T::Float32 => ColumnType::exact("real"),
        T::Float64 => ColumnType::exact("double precision"),
        T::Decimal32(p, s) | T::Decimal64(p, s) | T::Decimal128(p, s) | T::Decimal256(p, s) => match s {
            0.. => ColumnType::exact(format!("numeric({p},{s})")),
            _ => ColumnType::exact(format!("numeric({},0)", i16::from(*p) - i16::from(*s))),
        },
        T::Utf8 | T::LargeUtf8 | T::Utf8View | T::Null => ColumnType::exact("text"),
        T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_) => ColumnType::exact("bytea"),
        T::Date32 | T::Date64 => ColumnType::exact("date"),
        T::Time64(TimeUnit::Nanosecond) => ColumnType::lossy("time without time zone", NANOS),
        T::Time32(_) | T::Time64(_) => ColumnType::exact("time without time zone"),
        T::Timestamp(unit, zone) => {
            let native = if zone.is_some() { "timestamp with time zone" } else { "timestamp without time zone" };
            match unit {
                TimeUnit::Nanosecond => ColumnType::lossy(native, NANOS),
                _ => ColumnType::exact(native),
            }
        }
        T::Interval(_) | T::Duration(TimeUnit::Nanosecond) => ColumnType::lossy("interval", NANOS),
        T::Duration(_) => ColumnType::lossy("interval", "the length stays, but comes back as months, days and time"),
        T::Struct(_) | T::Map(..) => nested(),
        T::List(item) | T::LargeList(item) | T::FixedSizeList(item, _) | T::ListView(item) | T::LargeListView(item) => {
            let element = of_arrow(item.data_type())?;
            if PgType::parse(&element.native).array || element.native == "jsonb" {
                return Ok(nested());
            }
            ColumnType { native: format!("{}[]", element.native), lossy: element.lossy }
        }
        T::Dictionary(_, value) => of_arrow(value)?,
        T::RunEndEncoded(_, value) => of_arrow(value.data_type())?,
        T::Union(..) => {
            return Err(Error::new(Code::Unsupported, "PostgreSQL has no type for the column")
                .hint("make it JSON with `columns: {…: {nested: json}}`, or leave it out with `drop: true`"));
        }
    })
}

fn nested() -> ColumnType {
    ColumnType::lossy("jsonb", "stored as JSON: values keep their meaning, but types inside are JSON's")
}

/// The type that a column has in a staging table: the final one where its values can be written in binary, text otherwise.
pub fn staged(t: &PgType) -> PgType {
    match (t.kind, t.array) {
        (Kind::Spelled, false) => PgType::parse("text"),
        (Kind::Spelled, true) => PgType::parse("text[]"),
        _ => t.clone(),
    }
}

/// The type that values arriving for a column of type `t` are staged as, given how they arrive.
pub fn staged_for(t: &PgType, arriving: &DataType) -> PgType {
    let spelled = matches!(arriving, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    if t.array && spelled { PgType::parse("text") } else { staged(t) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn natives_win_while_they_explain_the_values() {
        let field = |t: DataType, native: &str| Field::new("c", t, true).with_native(DIALECT, native);
        let cases = [
            (field(DataType::Utf8, "character(10)"), "character(10)"),
            (field(DataType::Utf8, "inet"), "inet"),
            (field(DataType::Utf8, "numeric"), "numeric"),
            (field(DataType::Utf8, "numeric(15,2)"), "numeric(15,2)"),
            (field(DataType::Utf8, "integer[]"), "integer[]"),
            // Hashed on the way, cast on the way, and a type of the source's own.
            (field(DataType::Utf8, "integer"), "text"),
            (field(DataType::Int64, "integer"), "bigint"),
            (field(DataType::Utf8, "mood"), "text"),
        ];
        for (field, native) in cases {
            assert_eq!(column_type(&field).unwrap().native, native);
        }
    }

    #[test]
    fn arrow_types() {
        let list = |t| DataType::List(Arc::new(Field::new("item", t, true)));
        let cases = [
            (DataType::UInt64, "numeric(20,0)"),
            (DataType::Decimal256(76, 10), "numeric(76,10)"),
            (DataType::Decimal128(10, -3), "numeric(13,0)"),
            (list(DataType::Int32), "integer[]"),
            (list(list(DataType::Int32)), "jsonb"),
            (DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8)), "text"),
        ];
        for (t, native) in cases {
            assert_eq!(of_arrow(&t).unwrap().native, native, "{t}");
        }
        assert!(of_arrow(&DataType::Timestamp(TimeUnit::Nanosecond, None)).unwrap().lossy.is_some());
    }
}
