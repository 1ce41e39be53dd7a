//! A JSON Schema from records.

use serde_json::{Map, Value, json};

use super::sample::format;

/// What all values of one place have in common.
#[derive(Default)]
struct Shape {
    null: bool,
    boolean: bool,
    integer: bool,
    number: bool,
    /// Text, and whether all of it is a date, or a point in time.
    text: Option<(bool, bool)>,
    object: Option<Vec<(String, Shape)>>,
    array: Option<Box<Shape>>,
}

/// The schema that these records follow. Only the key is never null: what a sample does not show may still come.
pub(super) fn of_records(records: &[Value], key: Option<&str>) -> Value {
    let mut shape = Shape::default();
    records.iter().for_each(|record| shape.add(record));
    let mut properties = properties(shape.object.as_deref().unwrap_or_default());
    if let Some(Value::Array(types)) = key.and_then(|k| properties.get_mut(k)?.get_mut("type")) {
        types.retain(|t| t != "null");
    }
    json!({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "additionalProperties": true, "properties": properties})
}

impl Shape {
    fn add(&mut self, value: &Value) {
        match value {
            Value::Null => self.null = true,
            Value::Bool(_) => self.boolean = true,
            Value::Number(n) if n.is_f64() => self.number = true,
            Value::Number(_) => self.integer = true,
            Value::String(text) => {
                let (date, time) = match format(value) {
                    Some("%Y-%m-%d") => (true, false),
                    // A space in place of the `T` is no point in time of JSON Schema's.
                    Some(_) if text.contains('T') && (text.ends_with('Z') || text.get(11..).is_some_and(|t| t.contains(['+', '-']))) => {
                        (false, true)
                    }
                    _ => (false, false),
                };
                let (dates, times) = self.text.get_or_insert((true, true));
                (*dates, *times) = (*dates && date, *times && time);
            }
            Value::Array(items) => {
                let shape = self.array.get_or_insert_default();
                items.iter().for_each(|item| shape.add(item));
            }
            Value::Object(map) => {
                let fields = self.object.get_or_insert_default();
                for (name, value) in map {
                    match fields.iter_mut().find(|(known, _)| known == name) {
                        Some((_, shape)) => shape.add(value),
                        None => {
                            let mut shape = Shape::default();
                            shape.add(value);
                            fields.push((name.clone(), shape));
                        }
                    }
                }
            }
        }
    }

    fn schema(&self) -> Value {
        let named = [
            ("boolean", self.boolean),
            ("integer", self.integer && !self.number),
            ("number", self.number),
            ("string", self.text.is_some()),
            ("object", self.object.is_some()),
            ("array", self.array.is_some()),
        ];
        let mut types: Vec<&str> = named.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect();
        if types.is_empty() {
            // Nothing but null was seen.
            types.push("string");
        }
        let alone = types.len() == 1;
        types.push("null");
        let mut schema = json!({"type": types});
        match self.text {
            Some((true, false)) if alone => schema["format"] = "date".into(),
            Some((false, true)) if alone => schema["format"] = "date-time".into(),
            _ => {}
        }
        if let Some(fields) = &self.object {
            schema["additionalProperties"] = true.into();
            schema["properties"] = Value::Object(properties(fields));
        }
        if let Some(items) = &self.array {
            schema["items"] = items.schema();
        }
        schema
    }
}

fn properties(fields: &[(String, Shape)]) -> Map<String, Value> {
    fields.iter().map(|(name, shape)| (name.clone(), shape.schema())).collect()
}
