//! JSON Schema, as Singer and Airbyte use it, into Arrow's types and back.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use serde_json::{Map, Value, json};
use trib_core::logical::{FieldExt, Logical};
use trib_core::{Code, Error, Result};

/// References to references, and objects in objects, end here.
const DEEPEST: usize = 32;
/// Digits that a decimal may have here; beyond, numbers are kept as text with all their digits.
const MOST_DIGITS: i64 = 38;

/// The columns of a stream whose records follow `schema`. With `nested`, objects with declared properties become structs and arrays lists; without,
/// both become JSON texts.
pub fn columns(schema: &Value, nested: bool) -> Result<SchemaRef> {
    let properties = schema.get("properties").and_then(Value::as_object).ok_or_else(|| {
        Error::new(Code::DataInvalid, "the stream's schema declares no properties").hint("it needs `{type: object, properties: {…}}`")
    })?;
    let reader = Reader { root: schema, nested };
    Ok(Arc::new(Schema::new(properties.iter().map(|(name, schema)| reader.field(name, schema, 0)).collect::<Vec<_>>())))
}

/// What a schema allows, one entry for each alternative.
enum Kind<'a> {
    Null,
    Boolean,
    Integer,
    Number(&'a Map<String, Value>),
    Text(&'a Map<String, Value>),
    Object(&'a Map<String, Value>),
    Array(&'a Map<String, Value>),
    Anything,
}

struct Reader<'a> {
    root: &'a Value,
    nested: bool,
}

impl<'a> Reader<'a> {
    fn field(&self, name: &str, schema: &'a Value, depth: usize) -> Field {
        let mut kinds = Vec::new();
        self.kinds(schema, depth, &mut kinds);
        kinds.retain(|k| !matches!(k, Kind::Null));
        self.typed(name, &kinds, depth)
    }

    fn kinds(&self, schema: &'a Value, depth: usize, out: &mut Vec<Kind<'a>>) {
        let Some(object) = schema.as_object().filter(|_| depth < DEEPEST) else {
            return out.push(Kind::Anything);
        };
        if let Some(target) = object.get("$ref").and_then(Value::as_str) {
            return match target.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer)) {
                Some(schema) => self.kinds(schema, depth + 1, out),
                None => out.push(Kind::Anything),
            };
        }
        // Of `allOf`, the part that says a type; parts that only add conditions change no type.
        for key in ["anyOf", "oneOf", "allOf"] {
            if let Some(parts) = object.get(key).and_then(Value::as_array) {
                let typed = |part: &&Value| key != "allOf" || part.get("type").is_some() || part.get("$ref").is_some();
                parts.iter().filter(typed).for_each(|part| self.kinds(part, depth + 1, out));
                if !out.is_empty() {
                    return;
                }
            }
        }
        let kind = |name: &str| match name {
            "null" => Kind::Null,
            "boolean" => Kind::Boolean,
            "integer" => Kind::Integer,
            "number" if object.get("airbyte_type").and_then(Value::as_str) == Some("integer") => Kind::Integer,
            "number" => Kind::Number(object),
            "string" => Kind::Text(object),
            "object" => Kind::Object(object),
            "array" => Kind::Array(object),
            _ => Kind::Anything,
        };
        match object.get("type") {
            Some(Value::String(name)) => out.push(kind(name)),
            Some(Value::Array(names)) => out.extend(names.iter().map(|name| kind(name.as_str().unwrap_or_default()))),
            _ => out.push(untyped(object)),
        }
    }

    /// The field that holds all of these.
    fn typed(&self, name: &str, kinds: &[Kind<'a>], depth: usize) -> Field {
        let plain = |t| Field::new(name, t, true);
        let json = || plain(DataType::Utf8).with_logical(Logical::Json);
        let all = |of: fn(&Kind<'_>) -> bool| !kinds.is_empty() && kinds.iter().all(of);
        if all(|k| matches!(k, Kind::Boolean)) {
            return plain(DataType::Boolean);
        }
        if all(|k| matches!(k, Kind::Integer)) {
            return plain(DataType::Int64);
        }
        if all(|k| matches!(k, Kind::Integer | Kind::Number(_))) {
            return number(name, kinds);
        }
        if all(|k| matches!(k, Kind::Text(_))) {
            return text(name, kinds);
        }
        if all(|k| matches!(k, Kind::Text(_) | Kind::Integer | Kind::Number(_) | Kind::Boolean)) {
            return plain(DataType::Utf8);
        }
        match kinds {
            [Kind::Object(object)] if self.nested => match object.get("properties").and_then(Value::as_object) {
                Some(properties) if !properties.is_empty() && !is_open(object) => {
                    let fields: Fields = properties.iter().map(|(name, schema)| self.field(name, schema, depth + 1)).collect();
                    plain(DataType::Struct(fields))
                }
                _ => json(),
            },
            [Kind::Array(object)] if self.nested => match object.get("items") {
                Some(items) if items.is_object() => plain(DataType::List(Arc::new(self.field("item", items, depth + 1)))),
                _ => json(),
            },
            _ => json(),
        }
    }
}

/// The type of a schema that does not name one, by what else it says.
fn untyped(object: &Map<String, Value>) -> Kind<'_> {
    if object.contains_key("properties") {
        return Kind::Object(object);
    }
    if object.contains_key("items") {
        return Kind::Array(object);
    }
    if object.contains_key("format") || object.contains_key("pattern") || object.contains_key("maxLength") {
        return Kind::Text(object);
    }
    let constant = object.get("const").map(std::slice::from_ref);
    let values = constant.or_else(|| object.get("enum").and_then(Value::as_array).map(Vec::as_slice)).unwrap_or_default();
    let every = |is: fn(&Value) -> bool| !values.is_empty() && values.iter().all(|v| v.is_null() || is(v));
    if every(Value::is_string) {
        Kind::Text(object)
    } else if every(Value::is_boolean) {
        Kind::Boolean
    } else if every(Value::is_i64) {
        Kind::Integer
    } else {
        Kind::Anything
    }
}

/// Says that records have more than the declared properties, which a struct would lose.
fn is_open(object: &Map<String, Value>) -> bool {
    object.contains_key("patternProperties") || object.get("additionalProperties").is_some_and(|more| more != &Value::Bool(false))
}

fn number(name: &str, kinds: &[Kind<'_>]) -> Field {
    let double = Field::new(name, DataType::Float64, true);
    let (mut whole, mut scale) = (0, 0);
    for kind in kinds {
        let (w, s) = match kind {
            Kind::Number(object) => match digits(object) {
                Some(digits) => digits,
                None => return double,
            },
            _ => (19, 0),
        };
        (whole, scale) = (whole.max(w), scale.max(s));
    }
    decimal(name, whole + scale, scale)
}

fn decimal(name: &str, precision: i64, scale: i64) -> Field {
    if precision > MOST_DIGITS || scale > precision {
        return Field::new(name, DataType::Utf8, true);
    }
    Field::new(name, DataType::Decimal128(precision.max(1) as u8, scale as i8), true)
}

/// Digits before and after the point, where `multipleOf` says that the number is a decimal.
fn digits(object: &Map<String, Value>) -> Option<(i64, i64)> {
    let scale = power_of_ten(object.get("multipleOf")?)?;
    let scale = -scale.min(0);
    let limits = [("maximum", "exclusiveMaximum"), ("minimum", "exclusiveMinimum")];
    let whole = limits.into_iter().filter_map(|(limit, exclusive)| {
        let (value, excluded) = match (object.get(limit), object.get(exclusive)) {
            (_, Some(value @ Value::Number(_))) => (value, true),
            (Some(value), excluded) => (value, excluded == Some(&Value::Bool(true))),
            _ => return None,
        };
        let value = value.as_f64()?.abs();
        if value < 1.0 {
            return Some(0);
        }
        let power = value.log10().round();
        let exact = (10f64.powf(power) - value).abs() <= value * 1e-12;
        Some(if exact && excluded {
            power as i64
        } else if exact {
            power as i64 + 1
        } else {
            value.log10().floor() as i64 + 1
        })
    });
    Some((whole.max().unwrap_or(MOST_DIGITS - scale), scale))
}

/// `n` of a number that is ten to the power of `n`.
fn power_of_ten(value: &Value) -> Option<i64> {
    let text = value.to_string().to_lowercase();
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i64 = exponent.parse().ok()?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0');
    let zeros = significant.strip_prefix('1')?;
    zeros.bytes().all(|b| b == b'0').then(|| exponent - fraction.len() as i64 + zeros.len() as i64)
}

fn text(name: &str, kinds: &[Kind<'_>]) -> Field {
    let plain = |t| Field::new(name, t, true);
    let mut formats = kinds.iter().filter_map(|k| if let Kind::Text(object) = k { Some(*object) } else { None });
    let Some(first) = formats.next() else { return plain(DataType::Utf8) };
    let format = |object: &Map<String, Value>| object.get("format").and_then(Value::as_str).map(str::to_owned);
    // Text of two forms is only text.
    if formats.any(|other| format(other) != format(first)) {
        return plain(DataType::Utf8);
    }
    if first.get("contentEncoding").and_then(Value::as_str) == Some("base64") {
        return plain(DataType::Binary);
    }
    match format(first).as_deref() {
        Some("date-time") if first.get("airbyte_type").and_then(Value::as_str) == Some("timestamp_without_timezone") => {
            plain(DataType::Timestamp(TimeUnit::Microsecond, None))
        }
        Some("date-time") => plain(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        Some("date") => plain(DataType::Date32),
        Some("time") => plain(DataType::Time64(TimeUnit::Microsecond)),
        Some("uuid") => plain(DataType::Utf8).with_logical(Logical::Uuid),
        Some("singer.decimal" | "x-singer.decimal") => {
            let number = |key: &str| first.get(key).and_then(Value::as_i64);
            decimal(name, number("precision").unwrap_or(MOST_DIGITS), number("scale").unwrap_or(18))
        }
        _ => plain(DataType::Utf8),
    }
}

/// The JSON Schema of a column, so that whoever reads it by [`columns`] gets the same type.
pub fn of_field(field: &Field) -> Value {
    let of = |name: &str| if field.is_nullable() { json!([name, "null"]) } else { json!([name]) };
    match field.data_type() {
        DataType::Boolean => json!({"type": of("boolean")}),
        t if t.is_integer() => match range(t) {
            Some((minimum, maximum)) => json!({"type": of("integer"), "minimum": minimum, "maximum": maximum}),
            None => json!({"type": of("integer")}),
        },
        t if t.is_floating() => json!({"type": of("number")}),
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            // Powers of ten as text, since they are beyond what a double or an integer says exactly.
            let power = |n: i64| serde_json::from_str::<Value>(&format!("1e{n}")).unwrap_or_default();
            let (whole, scale) = (i64::from(*precision) - i64::from(*scale), i64::from(*scale));
            let negative = serde_json::from_str::<Value>(&format!("-1e{whole}")).unwrap_or_default();
            json!({"type": of("number"), "multipleOf": power(-scale), "exclusiveMaximum": power(whole), "exclusiveMinimum": negative})
        }
        DataType::Timestamp(..) => json!({"type": of("string"), "format": "date-time"}),
        DataType::Date32 | DataType::Date64 => json!({"type": of("string"), "format": "date"}),
        DataType::Time32(_) | DataType::Time64(_) => json!({"type": of("string"), "format": "time"}),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => json!({"type": of("string"), "contentEncoding": "base64"}),
        DataType::FixedSizeBinary(_) if field.logical() != Some(Logical::Uuid) => {
            json!({"type": of("string"), "contentEncoding": "base64"})
        }
        DataType::Struct(fields) => {
            let properties: Map<String, Value> = fields.iter().map(|f| (f.name().clone(), of_field(f))).collect();
            json!({"type": of("object"), "properties": properties})
        }
        DataType::List(item) | DataType::LargeList(item) => json!({"type": of("array"), "items": of_field(item)}),
        _ => match field.logical() {
            Some(Logical::Uuid) => json!({"type": of("string"), "format": "uuid"}),
            // Any JSON value. All types are named, since there are targets that leave out a column without one.
            Some(Logical::Json) => {
                let types = ["object", "array", "string", "number", "integer", "boolean", "null"];
                let types = if field.is_nullable() { &types[..] } else { &types[..6] };
                json!({"type": types})
            }
            None => json!({"type": of("string")}),
        },
    }
}

/// What an integer may be. Programs that make tables choose the width by it; one beyond 64 signed bits is a text to some of them.
fn range(integer: &DataType) -> Option<(i64, i64)> {
    Some(match integer {
        DataType::Int8 => (i8::MIN.into(), i8::MAX.into()),
        DataType::Int16 => (i16::MIN.into(), i16::MAX.into()),
        DataType::Int32 => (i32::MIN.into(), i32::MAX.into()),
        DataType::Int64 => (i64::MIN, i64::MAX),
        DataType::UInt8 => (0, u8::MAX.into()),
        DataType::UInt16 => (0, u16::MAX.into()),
        DataType::UInt32 => (0, u32::MAX.into()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types() {
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let list = |t| DataType::List(Arc::new(Field::new("item", t, true)));
        let cases = [
            (r#"{"type": "integer"}"#, DataType::Int64),
            (r#"{"type": ["null", "integer"], "minimum": 1}"#, DataType::Int64),
            (r#"{"type": "number"}"#, DataType::Float64),
            (r#"{"type": ["integer", "number"]}"#, DataType::Float64),
            (r#"{"type": "number", "multipleOf": 0.01, "maximum": 10000000000, "exclusiveMaximum": true}"#, DataType::Decimal128(12, 2)),
            (r#"{"type": "number", "multipleOf": 0.01, "exclusiveMaximum": 1e10, "exclusiveMinimum": -1e10}"#, DataType::Decimal128(12, 2)),
            (r#"{"type": "number", "multipleOf": 0.01, "maximum": 100}"#, DataType::Decimal128(5, 2)),
            (r#"{"type": "number", "multipleOf": 0.001, "maximum": 99.999}"#, DataType::Decimal128(5, 3)),
            (r#"{"type": "number", "multipleOf": 1e-9}"#, DataType::Decimal128(38, 9)),
            (r#"{"type": "number", "multipleOf": 0.5}"#, DataType::Float64),
            (r#"{"type": "number", "multipleOf": 1e-38, "maximum": 1e62, "exclusiveMaximum": true}"#, DataType::Utf8),
            (r#"{"type": "string", "format": "x-singer.decimal", "precision": 20, "scale": 4}"#, DataType::Decimal128(20, 4)),
            (r#"{"type": ["string", "null"], "format": "date-time"}"#, utc.clone()),
            (r#"{"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}"#, utc.clone()),
            (r#"{"anyOf": [{"type": "string", "format": "date-time"}, {"type": ["string", "null"]}]}"#, DataType::Utf8),
            (r#"{"type": "string", "format": "date"}"#, DataType::Date32),
            (r#"{"type": ["string", "integer"]}"#, DataType::Utf8),
            (r#"{"enum": ["a", null]}"#, DataType::Utf8),
            (r##"{"$ref": "#/definitions/when"}"##, utc),
            (r#"{"type": "array", "items": {"type": "string"}}"#, list(DataType::Utf8)),
            (
                r#"{"type": "object", "properties": {"a": {"type": "integer"}}}"#,
                DataType::Struct(vec![Field::new("a", DataType::Int64, true)].into()),
            ),
            (r#"{"type": "string", "contentEncoding": "base64"}"#, DataType::Binary),
        ];
        for (schema, expected) in cases {
            let whole =
                format!(r#"{{"properties": {{"c": {schema}}}, "definitions": {{"when": {{"type": "string", "format": "date-time"}}}}}}"#);
            let got = columns(&serde_json::from_str(&whole).unwrap(), true).unwrap();
            assert_eq!(got.field(0).data_type(), &expected, "{schema}");
            assert_eq!(got.field(0).logical(), None, "{schema}");
        }
        for schema in [
            "{}",
            r#"{"type": "object"}"#,
            r#"{"type": "array"}"#,
            r#"{"type": ["string", "object"]}"#,
            r#"{"type": "object", "properties": {"a": {}}, "additionalProperties": true}"#,
            r##"{"$ref": "#/properties/c"}"##,
        ] {
            let got = columns(&serde_json::from_str(&format!(r#"{{"properties": {{"c": {schema}}}}}"#)).unwrap(), true).unwrap();
            assert_eq!(got.field(0).logical(), Some(Logical::Json), "{schema}");
        }
    }

    #[test]
    fn there_and_back() {
        let fields = vec![
            Field::new("i", DataType::Int64, false),
            Field::new("d", DataType::Decimal128(12, 2), true),
            Field::new("e", DataType::Decimal128(38, 38), true),
            Field::new("f", DataType::Decimal128(20, 0), true),
            Field::new("t", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
            Field::new("b", DataType::Binary, true),
            Field::new("u", DataType::Utf8, true).with_logical(Logical::Uuid),
            Field::new("j", DataType::Utf8, true).with_logical(Logical::Json),
            Field::new("l", DataType::List(Arc::new(Field::new("item", DataType::Date32, true))), true),
        ];
        let properties: Map<String, Value> = fields.iter().map(|f| (f.name().clone(), of_field(f))).collect();
        let back = columns(&json!({"properties": properties}), true).unwrap();
        for field in &fields {
            let got = back.field_with_name(field.name()).unwrap();
            assert_eq!((got.data_type(), got.logical()), (field.data_type(), field.logical()), "{}", field.name());
        }
    }

    #[test]
    fn integers_say_how_wide_they_are() {
        let of = |t: DataType| of_field(&Field::new("i", t, false));
        assert_eq!(of(DataType::Int16), json!({"type": ["integer"], "minimum": -32768, "maximum": 32767}));
        assert_eq!(of(DataType::Int64), json!({"type": ["integer"], "minimum": i64::MIN, "maximum": i64::MAX}));
        assert_eq!(of(DataType::UInt64), json!({"type": ["integer"]}));
    }
}
