//! Paths into JSON values with `*` and `**`, as the reference's `dpath` walks them: lists from their end.

use serde_json::{Map, Value};

/// A list is not made longer than by this for an index far beyond its end.
const MOST_ADDED: usize = 10_000;

/// The value at a path of keys and indices; a text path is split at `/` beforehand by [`split`].
pub(super) fn get<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |at, key| step(at, key))
}

pub(super) fn get_mut<'a>(value: &'a mut Value, path: &[String]) -> Option<&'a mut Value> {
    path.iter().try_fold(value, |at, key| match at {
        Value::Object(map) => map.get_mut(key),
        Value::Array(items) => {
            let index = index(key, items.len())?;
            items.get_mut(index)
        }
        _ => None,
    })
}

fn step<'a>(at: &'a Value, key: &str) -> Option<&'a Value> {
    match at {
        Value::Object(map) => map.get(key),
        Value::Array(items) => items.get(index(key, items.len())?),
        _ => None,
    }
}

fn index(key: &str, length: usize) -> Option<usize> {
    let index: i64 = key.parse().ok()?;
    if index < 0 { length.checked_sub(index.unsigned_abs() as usize) } else { Some(index as usize) }
}

/// A path that is written as one text.
pub(super) fn split(path: &str) -> Vec<String> {
    path.trim_start_matches('/').split('/').map(str::to_owned).collect()
}

/// The values that a path with wildcards finds.
pub(super) fn values(value: &Value, glob: &[String]) -> Vec<Value> {
    let mut found = Vec::new();
    each_match(value, glob, &mut Vec::new(), &mut |_, value| found.push(value.clone()));
    found
}

fn each_match(value: &Value, glob: &[String], path: &mut Vec<String>, found: &mut dyn FnMut(&[String], &Value)) {
    let Some((first, rest)) = glob.split_first() else {
        if !path.is_empty() {
            found(path, value);
        }
        return;
    };
    if first == "**" {
        each_match(value, rest, path, found);
    }
    for (key, child) in children(value) {
        if first == "**" || matches(&key, first) {
            path.push(key);
            each_match(child, if first == "**" { glob } else { rest }, path, found);
            path.pop();
        }
    }
}

fn children(value: &Value) -> Vec<(String, &Value)> {
    match value {
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), v)).collect(),
        Value::Array(items) => items.iter().enumerate().rev().map(|(i, v)| (i.to_string(), v)).collect(),
        _ => Vec::new(),
    }
}

/// `*` and `?` as a shell has them.
fn matches(text: &str, glob: &str) -> bool {
    if !glob.contains(['*', '?', '[']) {
        return text == glob;
    }
    globset::GlobBuilder::new(glob).literal_separator(false).build().is_ok_and(|g| g.compile_matcher().is_match(text))
}

/// Sets the value at a path, making objects on the way.
pub(super) fn set(value: &mut Value, path: &[String], new: Value) {
    let Some((last, parents)) = path.split_last() else { return };
    let mut at = value;
    for key in parents {
        at = enter(at, key);
        if !at.is_array() && !at.is_object() {
            *at = Value::Object(Map::new());
        }
    }
    *enter(at, last) = new;
}

/// The place of a key, made when it is not there. What is neither list nor object becomes an object.
fn enter<'a>(at: &'a mut Value, key: &str) -> &'a mut Value {
    let in_list = match at {
        Value::Array(items) => key.parse::<usize>().ok().filter(|index| *index < items.len() + MOST_ADDED),
        _ => None,
    };
    if in_list.is_none() && !at.is_object() {
        *at = Value::Object(Map::new());
    }
    match (at, in_list) {
        (Value::Array(items), Some(index)) => {
            if items.len() <= index {
                items.resize(index + 1, Value::Null);
            }
            &mut items[index]
        }
        (Value::Object(map), _) => map.entry(key).or_insert(Value::Null),
        (other, _) => other,
    }
}

/// Replaces what a path finds. `false` when it finds nothing.
pub(super) fn replace(value: &mut Value, glob: &[String], new: &Value) -> bool {
    let mut paths = Vec::new();
    each_match(value, glob, &mut Vec::new(), &mut |path, _| paths.push(path.to_vec()));
    for path in &paths {
        if let Some(place) = get_mut(value, path) {
            *place = new.clone();
        }
    }
    !paths.is_empty()
}

/// Removes what a path finds. In a list, only the last item goes; others become null, so that indices stay.
pub(super) fn delete(value: &mut Value, glob: &[String]) {
    if !glob.iter().any(|g| g.contains(['*', '?', '['])) {
        return remove(value, glob);
    }
    let mut paths = Vec::new();
    each_match(value, glob, &mut Vec::new(), &mut |path, _| paths.push(path.to_vec()));
    paths.iter().for_each(|path| remove(value, path));
}

/// Removes the lists that a path finds, from lists and objects alike.
pub(super) fn delete_lists(value: &mut Value, glob: &[String]) {
    let mut paths = Vec::new();
    // Lists are walked from their end, so that what goes does not move what is still to go.
    each_match(value, glob, &mut Vec::new(), &mut |path, found| {
        if found.is_array() {
            paths.push(path.to_vec());
        }
    });
    for path in &paths {
        let Some((last, parents)) = path.split_last() else { continue };
        match get_mut(value, parents) {
            Some(Value::Object(map)) => drop(map.shift_remove(last)),
            Some(Value::Array(items)) => {
                if let Some(index) = index(last, items.len()).filter(|i| *i < items.len()) {
                    items.remove(index);
                }
            }
            _ => {}
        }
    }
}

/// Removes every leaf that satisfies a condition, wherever it is.
pub(super) fn delete_leaves<E>(value: &mut Value, condition: &mut dyn FnMut(&Value) -> Result<bool, E>) -> Result<(), E> {
    let mut paths = Vec::new();
    leaves(value, &mut Vec::new(), condition, &mut paths)?;
    paths.iter().for_each(|path| remove(value, path));
    Ok(())
}

fn leaves<E>(
    value: &Value,
    path: &mut Vec<String>,
    condition: &mut dyn FnMut(&Value) -> Result<bool, E>,
    found: &mut Vec<Vec<String>>,
) -> Result<(), E> {
    for (key, child) in children(value) {
        path.push(key);
        if child.is_object() || child.is_array() {
            leaves(child, path, condition, found)?;
        } else if condition(child)? {
            found.push(path.clone());
        }
        path.pop();
    }
    Ok(())
}

fn remove(value: &mut Value, path: &[String]) {
    let Some((last, parents)) = path.split_last() else { return };
    match get_mut(value, parents) {
        Some(Value::Object(map)) => {
            map.shift_remove(last);
        }
        Some(Value::Array(items)) => {
            if let Some(index) = index(last, items.len()) {
                if index + 1 == items.len() {
                    items.pop();
                } else if let Some(item) = items.get_mut(index) {
                    *item = Value::Null;
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn path(text: &str) -> Vec<String> {
        split(text)
    }

    #[test]
    fn wildcards_find_values() {
        let value = json!({"g": [{"i": [{"id": 1}, {"id": 2}]}, {"i": []}, {"i": [{"id": 3}]}], "x": {"y": 1}});
        assert_eq!(values(&value, &path("g/*/i/*")), [json!({"id": 3}), json!({"id": 2}), json!({"id": 1})]);
        assert_eq!(values(&value, &path("g/*/i")), [json!([{"id": 3}]), json!([]), json!([{"id": 1}, {"id": 2}])]);
        assert_eq!(values(&value, &path("**/y")), [json!(1)]);
        assert_eq!(get(&value, &path("g/-1/i/0/id")), Some(&json!(3)));
    }

    #[test]
    fn removing_keeps_indices() {
        let mut value = json!({"l": [1, 2, 3], "o": {"a": 1, "b": 2}});
        delete(&mut value, &path("l/0"));
        delete(&mut value, &path("o/*"));
        delete(&mut value, &path("nothing/here"));
        assert_eq!(value, json!({"l": [null, 2, 3], "o": {}}));
        delete(&mut value, &path("l/2"));
        assert_eq!(value, json!({"l": [null, 2], "o": {}}));
    }

    #[test]
    fn setting_makes_the_way() {
        let mut value = json!({"a": 5, "l": [{}]});
        set(&mut value, &path("a/b/c"), json!(1));
        set(&mut value, &path("l/0/k"), json!(2));
        assert_eq!(value, json!({"a": {"b": {"c": 1}}, "l": [{"k": 2}]}));
    }
}
