//! Which Delta type a column gets, and what of its meaning is kept beside it.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, IntervalUnit, TimeUnit};
use trib_core::logical::{FieldExt, Logical};
use trib_core::{Code, ColumnType, Error, Result};

/// Field metadata in the Delta schema. Arrow's own extension key is not used there: a reader that knows `arrow.uuid` would not
/// take it on text.
const LOGICAL: &str = "trib:logical";
const NATIVE: &str = "trib:native";
/// What a text column holds that Delta has no type for; it is read back as that.
const HOLDS: &str = "trib:holds";

/// What [`HOLDS`] says of a type.
fn holds(t: &DataType) -> Option<&'static str> {
    Some(match t {
        DataType::Time32(_) | DataType::Time64(_) => "time",
        DataType::Interval(_) => "interval",
        DataType::Duration(TimeUnit::Second) => "duration s",
        DataType::Duration(TimeUnit::Millisecond) => "duration ms",
        DataType::Duration(TimeUnit::Microsecond) => "duration us",
        DataType::Duration(TimeUnit::Nanosecond) => "duration ns",
        _ => return None,
    })
}

/// The type that holds all of what [`holds`] names.
fn held(what: &str) -> Option<DataType> {
    Some(match what {
        "time" => DataType::Time64(TimeUnit::Nanosecond),
        "interval" => DataType::Interval(IntervalUnit::MonthDayNano),
        "duration s" => DataType::Duration(TimeUnit::Second),
        "duration ms" => DataType::Duration(TimeUnit::Millisecond),
        "duration us" => DataType::Duration(TimeUnit::Microsecond),
        "duration ns" => DataType::Duration(TimeUnit::Nanosecond),
        _ => return None,
    })
}

/// Characters that Delta allows in names only by column mapping, which not every reader knows.
const FORBIDDEN: [char; 10] = [' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '='];

/// The column as it is stored: one of the Arrow types that Delta types read back as, with our annotations in its metadata.
pub fn stored(field: &Field) -> Result<Field> {
    if field.name().contains(FORBIDDEN) {
        return Err(Error::new(Code::Unsupported, "a column of a Delta table cannot have this name")
            .detail(format!("{:?}", field.name()))
            .hint("rename it under `columns:`, or use `naming: snake_case`"));
    }
    let data_type = stored_type(field.data_type(), field.logical()).map_err(|e| match e.detail_text() {
        Some(inner) => {
            let detail = format!("column {}: {inner}", field.name());
            let hint = e.hint_text().unwrap_or("cast it under `columns:`").to_owned();
            Error::new(e.code(), e.message()).detail(detail).hint(hint)
        }
        None => e,
    })?;
    let mut metadata = std::collections::HashMap::new();
    match field.logical() {
        Some(Logical::Uuid) => drop(metadata.insert(LOGICAL.to_owned(), "uuid".to_owned())),
        Some(Logical::Json) => drop(metadata.insert(LOGICAL.to_owned(), "json".to_owned())),
        None => {}
    }
    if let Some(what) = holds(field.data_type()) {
        metadata.insert(HOLDS.to_owned(), what.to_owned());
    }
    for key in [NATIVE, LOGICAL, HOLDS] {
        if let Some(value) = field.metadata().get(key) {
            metadata.insert(key.to_owned(), value.clone());
        }
    }
    Ok(Field::new(field.name(), data_type, field.is_nullable()).with_metadata(metadata))
}

fn stored_type(t: &DataType, logical: Option<Logical>) -> Result<DataType> {
    #[allow(clippy::enum_glob_use)]
    use DataType::*;
    Ok(match t {
        Boolean | Int8 | Int16 | Int32 | Int64 | Float32 | Float64 | Date32 | Utf8 | Binary => t.clone(),
        Null | LargeUtf8 | Utf8View | Time32(_) | Time64(_) | Interval(_) | Duration(_) => Utf8,
        FixedSizeBinary(16) if logical == Some(Logical::Uuid) => Utf8,
        LargeBinary | BinaryView | FixedSizeBinary(_) => Binary,
        UInt8 => Int16,
        UInt16 => Int32,
        UInt32 => Int64,
        UInt64 => Decimal128(20, 0),
        Float16 => Float32,
        Date64 => Date32,
        Decimal32(p, s) | Decimal64(p, s) | Decimal128(p, s) | Decimal256(p, s) => decimal(*p, *s)?,
        Timestamp(_, Some(_)) => Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Timestamp(_, None) => Timestamp(TimeUnit::Microsecond, None),
        Dictionary(_, value) => stored_type(value, None)?,
        RunEndEncoded(_, values) => stored_type(values.data_type(), None)?,
        List(f) | LargeList(f) | FixedSizeList(f, _) | ListView(f) | LargeListView(f) => {
            List(Arc::new(Field::new("element", stored_type(f.data_type(), f.logical())?, f.is_nullable())))
        }
        Struct(fields) => {
            let stored: Result<Vec<Field>> = fields.iter().map(|f| stored(f)).collect();
            Struct(Fields::from(stored?))
        }
        Map(entries, _) => {
            let Struct(pair) = entries.data_type() else {
                return Err(Error::internal("a map's entries are not a struct"));
            };
            let [key, value] = pair.as_ref() else {
                return Err(Error::internal("a map's entries are not a pair"));
            };
            let pair = vec![
                Field::new("key", stored_type(key.data_type(), key.logical())?, false),
                Field::new("value", stored_type(value.data_type(), value.logical())?, value.is_nullable()),
            ];
            Map(Arc::new(Field::new("key_value", Struct(Fields::from(pair)), false)), false)
        }
        Union(..) => {
            return Err(Error::new(Code::Unsupported, "a Delta table has no such type")
                .detail(t.to_string())
                .hint("cast the column to text"));
        }
    })
}

/// Delta's decimals have up to 38 digits and no negative scale.
fn decimal(precision: u8, scale: i8) -> Result<DataType> {
    let (precision, scale) = if scale < 0 { (i16::from(precision) - i16::from(scale), 0) } else { (i16::from(precision), scale) };
    if precision > 38 {
        return Err(Error::new(Code::Unsupported, "a Delta decimal has at most 38 digits")
            .detail(format!("decimal({precision},{scale})"))
            .hint(format!("cast the column to decimal(38,{}) if its values fit, or to text, which keeps every digit", scale.min(18))));
    }
    Ok(DataType::Decimal128(precision as u8, scale))
}

/// The type in Delta's words.
pub fn name(t: &DataType) -> String {
    match t {
        DataType::Boolean => "boolean".into(),
        DataType::Int8 => "byte".into(),
        DataType::Int16 => "short".into(),
        DataType::Int32 => "integer".into(),
        DataType::Int64 => "long".into(),
        DataType::Float32 => "float".into(),
        DataType::Float64 => "double".into(),
        DataType::Decimal128(p, s) => format!("decimal({p},{s})"),
        DataType::Date32 => "date".into(),
        DataType::Timestamp(_, Some(_)) => "timestamp".into(),
        DataType::Timestamp(_, None) => "timestamp_ntz".into(),
        DataType::Binary => "binary".into(),
        DataType::List(f) => format!("array<{}>", name(f.data_type())),
        DataType::Struct(fields) => {
            let fields: Vec<String> = fields.iter().map(|f| format!("{}:{}", f.name(), native(f))).collect();
            format!("struct<{}>", fields.join(","))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) if pair.len() == 2 => format!("map<{},{}>", name(pair[0].data_type()), name(pair[1].data_type())),
            _ => "map".into(),
        },
        _ => "string".into(),
    }
}

/// The type of a stored column, with what it holds: a column of times takes no other text.
pub fn native(stored: &Field) -> String {
    let name = name(stored.data_type());
    match stored.metadata().get(HOLDS) {
        Some(what) => format!("{name} ({what})"),
        None => name,
    }
}

/// See [`trib_core::Destination::column_type`].
pub fn column_type(field: &Field) -> Result<ColumnType> {
    let native = native(&stored(field)?);
    Ok(match lossy(field.data_type()) {
        Some(why) => ColumnType::lossy(native, why),
        None => ColumnType::exact(native),
    })
}

fn lossy(t: &DataType) -> Option<&'static str> {
    match t {
        DataType::Timestamp(TimeUnit::Nanosecond, _) => Some("digits below the microsecond are cut off"),
        DataType::Date64 => Some("a time of day is cut off"),
        DataType::Dictionary(_, value) => lossy(value),
        // The elements of a list have no place to note what their text holds.
        DataType::List(f) | DataType::LargeList(f) | DataType::FixedSizeList(f, _) if holds(f.data_type()).is_some() => {
            Some("times and intervals in lists come back as text")
        }
        DataType::List(f) | DataType::LargeList(f) | DataType::FixedSizeList(f, _) | DataType::Map(f, _) => lossy(f.data_type()),
        DataType::Struct(fields) => fields.iter().find_map(|f| lossy(f.data_type())),
        _ => None,
    }
}

/// The column as a reader of ours sees it: what the metadata say it holds.
pub fn restored(field: &Field) -> Field {
    let held = field.metadata().get(HOLDS).and_then(|what| held(what));
    let data_type = held.unwrap_or_else(|| restored_type(field.data_type()));
    let mut restored = Field::new(field.name(), data_type, field.is_nullable());
    if let Some(native) = field.metadata().get(NATIVE) {
        restored = restored.with_metadata([(NATIVE.to_owned(), native.clone())].into());
    }
    match field.metadata().get(LOGICAL).map(String::as_str) {
        Some("uuid") => restored.with_logical(Logical::Uuid),
        Some("json") => restored.with_logical(Logical::Json),
        _ => restored,
    }
}

/// Readers may give views; what is stored is none.
fn restored_type(t: &DataType) -> DataType {
    let inner = |f: &Field| Arc::new(restored(f));
    match t {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(f) => DataType::List(inner(f)),
        DataType::Map(f, sorted) => DataType::Map(inner(f), *sorted),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(|f| inner(f)).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types() {
        let utc = |u| DataType::Timestamp(u, Some("UTC".into()));
        let cases = [
            (DataType::UInt8, "short", false),
            (DataType::UInt32, "long", false),
            (DataType::UInt64, "decimal(20,0)", false),
            (DataType::Float16, "float", false),
            (DataType::Decimal256(38, 4), "decimal(38,4)", false),
            (DataType::Decimal128(5, -2), "decimal(7,0)", false),
            (utc(TimeUnit::Second), "timestamp", false),
            (DataType::Timestamp(TimeUnit::Nanosecond, None), "timestamp_ntz", true),
            (DataType::Time64(TimeUnit::Nanosecond), "string (time)", false),
            (DataType::Duration(TimeUnit::Second), "string (duration s)", false),
            (DataType::FixedSizeBinary(4), "binary", false),
            (DataType::Null, "string", false),
            (DataType::LargeList(Arc::new(Field::new("item", DataType::UInt16, true))), "array<integer>", false),
            (DataType::new_list(DataType::Time32(TimeUnit::Second), true), "array<string>", true),
        ];
        for (from, native, lossy) in cases {
            let got = column_type(&Field::new("c", from.clone(), true)).unwrap();
            assert_eq!((got.native.as_str(), got.lossy.is_some()), (native, lossy), "{from}");
        }
    }

    #[test]
    fn a_text_column_is_read_back_as_what_it_holds() {
        let members = Fields::from(vec![Field::new("at", DataType::Time64(TimeUnit::Nanosecond), true)]);
        let types = [
            DataType::Time64(TimeUnit::Nanosecond),
            DataType::Interval(IntervalUnit::MonthDayNano),
            DataType::Duration(TimeUnit::Millisecond),
            DataType::Struct(members),
            DataType::Utf8,
        ];
        for t in types {
            let field = Field::new("c", t.clone(), true);
            assert_eq!(*restored(&stored(&field).unwrap()).data_type(), t);
        }
        assert_eq!(
            *restored(&Field::new("c", DataType::new_list(DataType::Utf8View, true), true)).data_type(),
            DataType::new_list(DataType::Utf8, true)
        );
    }

    #[test]
    fn what_cannot_be_is_refused_with_a_hint() {
        let cases = [Field::new("c", DataType::Decimal256(50, 10), true), Field::new("a b", DataType::Int64, true)];
        for field in cases {
            let error = column_type(&field).unwrap_err();
            assert_eq!(error.code(), Code::Unsupported);
            assert!(error.hint_text().is_some(), "{error}");
        }
    }
}
