//! One level for all of a record.

use serde_json::{Map, Value};

/// Leaves move to the top. A name that is taken, and every name once a list was opened, is led by its way there, with dots.
pub(super) fn flatten(record: Map<String, Value>, lists: bool) -> Map<String, Value> {
    let mut flat = Map::new();
    let mut led = false;
    let mut stack = vec![(Value::Object(record), "_".to_owned())];
    while let Some((value, name)) = stack.pop() {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    let key = if led || flat.contains_key(&key) { format!("{name}.{key}") } else { key };
                    stack.push((value, key));
                }
            }
            Value::Array(items) if lists => {
                for (i, item) in items.into_iter().enumerate() {
                    led = true;
                    stack.push((item, format!("{name}.{i}")));
                }
            }
            leaf => {
                flat.insert(name, leaf);
            }
        }
    }
    flat
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn leaves_come_to_the_top() {
        let Value::Object(record) = json!({"a": {"x": 1, "l": [1, {"z": 2}]}, "b": "v", "e": {}}) else { panic!() };
        assert_eq!(Value::Object(flatten(record.clone(), false)), json!({"b": "v", "l": [1, {"z": 2}], "x": 1}));
        assert_eq!(Value::Object(flatten(record, true)), json!({"b": "v", "l.1.z": 2, "l.0": 1, "x": 1}));
    }
}
