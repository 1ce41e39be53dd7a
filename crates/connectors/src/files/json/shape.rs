//! What a sample of JSON values has in common, as an Arrow type.
//!
//! Values of one kind get that kind's type; where kinds clash, and where nothing but null was seen, the
//! column is JSON text, which holds everything exactly as it stood.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use trib_core::logical::{FieldExt, Logical};

use trib_kit::tape::{Kind, Node, Tape};
use trib_kit::value;

/// Objects with more names than this are maps whose names are data.
const MOST_FIELDS: usize = 1000;

#[derive(Clone, Debug, Default)]
pub struct Shape {
    boolean: bool,
    number: bool,
    string: bool,
    object: bool,
    array: bool,
    not_integer: bool,
    not_double: bool,
    exponent: bool,
    whole: usize,
    scale: usize,
    /// Names of objects in the order in which they were first seen.
    names: Vec<String>,
    fields: HashMap<String, Shape>,
    items: Option<Box<Shape>>,
}

impl Shape {
    pub fn see(&mut self, node: Node, tape: &Tape, text: &[u8]) {
        match tape.kind(node) {
            Kind::Null => {}
            Kind::True | Kind::False => self.boolean = true,
            Kind::String => self.string = true,
            Kind::Number => self.number(tape.raw(node, text)),
            Kind::Array => {
                self.array = true;
                let items = self.items.get_or_insert_default();
                tape.children(node).for_each(|item| items.see(item, tape, text));
            }
            Kind::Object => {
                self.object = true;
                let mut children = tape.children(node);
                while let (Some(name), Some(value)) = (children.next(), children.next()) {
                    // A name that is no text is refused when its row is read.
                    let Some(name) = tape.string(name, text).ok().and_then(|n| String::from_utf8(n.into_owned()).ok()) else { continue };
                    if self.names.len() > MOST_FIELDS {
                        return;
                    }
                    if !self.fields.contains_key(&name) {
                        self.names.push(name.clone());
                    }
                    self.fields.entry(name).or_default().see(value, tape, text);
                }
            }
        }
    }

    fn number(&mut self, raw: &[u8]) {
        self.number = true;
        let digits = raw.strip_prefix(b"-").unwrap_or(raw);
        let whole = digits.iter().take_while(|c| c.is_ascii_digit()).count();
        let scale = digits.get(whole + 1..).map_or(0, |f| f.iter().take_while(|c| c.is_ascii_digit()).count());
        self.not_integer |= value::integer(raw).is_none();
        self.exponent |= digits.iter().any(|c| matches!(c, b'e' | b'E'));
        self.whole = self.whole.max(whole);
        self.scale = self.scale.max(scale);
        if digits.len() > 15 {
            let text = std::str::from_utf8(raw).unwrap_or_default();
            self.not_double |= !text.parse().is_ok_and(|v| value::float_is_exact(text, v));
        }
    }

    /// Fields of the rows themselves.
    pub fn fields(&self) -> Vec<FieldRef> {
        self.names.iter().filter_map(|name| Some(Arc::new(self.fields.get(name)?.field(name)))).collect()
    }

    fn field(&self, name: &str) -> Field {
        let json = || Field::new(name, DataType::Utf8, true).with_logical(Logical::Json);
        let of = |t| Field::new(name, t, true);
        match (self.boolean, self.number, self.string, self.object, self.array) {
            (true, false, false, false, false) => of(DataType::Boolean),
            (false, true, false, false, false) => match () {
                () if !self.not_integer => of(DataType::Int64),
                () if !self.not_double => of(DataType::Float64),
                () if !self.exponent && self.whole + self.scale <= 38 => of(DataType::Decimal128(38, self.scale as i8)),
                () => json(),
            },
            (false, false, true, false, false) => of(DataType::Utf8),
            (false, false, false, true, false) if !self.names.is_empty() && self.names.len() <= MOST_FIELDS => {
                of(DataType::Struct(self.fields().into()))
            }
            (false, false, false, false, true) => match &self.items {
                Some(items) if items.is_known() => of(DataType::List(Arc::new(items.field("item")))),
                _ => json(),
            },
            _ => json(),
        }
    }

    fn is_known(&self) -> bool {
        self.boolean || self.number || self.string || self.object || self.array
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types(rows: &[&str]) -> Vec<String> {
        let (mut shape, mut tape) = (Shape::default(), Tape::default());
        for row in rows {
            tape.clear();
            let node = tape.parse(row.as_bytes(), 0, row.len()).unwrap();
            shape.see(node, &tape, row.as_bytes());
        }
        let name = |f: &FieldRef| if f.logical() == Some(Logical::Json) { "json".to_owned() } else { f.data_type().to_string() };
        shape.fields().iter().map(|f| format!("{}: {}", f.name(), name(f))).collect()
    }

    #[test]
    fn shapes() {
        let cases: [(&[&str], &[&str]); 11] = [
            (&[r#"{"a":1}"#, r#"{"b":"x","a":null}"#], &["a: Int64", "b: Utf8"]),
            (&[r#"{"a":1}"#, r#"{"a":1.5}"#], &["a: Float64"]),
            (&[r#"{"a":9007199254740993}"#, r#"{"a":1.5}"#], &["a: Decimal128(38, 1)"]),
            (&[r#"{"a":18446744073709551616}"#], &["a: Decimal128(38, 0)"]),
            (&[r#"{"a":18446744073709551617}"#], &["a: Decimal128(38, 0)"]),
            (&[r#"{"a":1}"#, r#"{"a":"x"}"#], &["a: json"]),
            (&[r#"{"a":null}"#], &["a: json"]),
            (&[r#"{"a":{}}"#], &["a: json"]),
            (&[r#"{"a":[]}"#], &["a: json"]),
            (&[r#"{"a":[1,null]}"#, r#"{"a":[]}"#], &["a: List(Int64)"]),
            (&[r#"{"a":{"b":true}}"#, r#"{"a":{"c":[{"d":1}]}}"#], &["a: Struct(\"b\": Boolean, \"c\": List(Struct(\"d\": Int64)))"]),
        ];
        for (rows, expected) in cases {
            assert_eq!(types(rows), expected, "{rows:?}");
        }
    }
}
