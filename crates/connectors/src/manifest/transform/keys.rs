//! Other names for a record's keys.

use serde_json::{Map, Value};

/// `CamelCase` and `with spaces` become `camel_case` and `with_spaces`, at every level of objects.
pub(super) fn to_snake_case(map: Map<String, Value>) -> Map<String, Value> {
    renamed(map, &snake_case)
}

/// One text within the keys becomes another, at every level of objects.
pub(super) fn replace(map: Map<String, Value>, old: &str, new: &str) -> Map<String, Value> {
    renamed(map, &|key| key.replace(old, new))
}

fn renamed(map: Map<String, Value>, rename: &dyn Fn(&str) -> String) -> Map<String, Value> {
    let value = |value| match value {
        Value::Object(inner) => Value::Object(renamed(inner, rename)),
        other => other,
    };
    map.into_iter().map(|(k, v)| (rename(&k), value(v))).collect()
}

fn snake_case(key: &str) -> String {
    let tokens = tokens(key);
    let last = tokens.len().saturating_sub(1);
    let kept =
        tokens.iter().enumerate().filter(|(i, t)| tokens.len() < 3 || *i == 0 || *i == last || !t.is_empty()).map(|(_, t)| t.as_str());
    let mut kept: Vec<&str> = kept.collect();
    if kept.first().is_some_and(|t| t.starts_with(|c: char| c.is_ascii_digit())) {
        kept.insert(0, "");
    }
    kept.join("_").to_lowercase()
}

/// Capitals with what follows them in small letters, small letters, digits; anything else is an empty token.
fn tokens(key: &str) -> Vec<String> {
    #[derive(PartialEq, Clone, Copy)]
    enum Kind {
        Upper,
        Lower,
        Digit,
        Other,
    }
    let kind = |c: char| match c {
        'A'..='Z' => Kind::Upper,
        'a'..='z' => Kind::Lower,
        '0'..='9' => Kind::Digit,
        _ => Kind::Other,
    };
    let mut found: Vec<String> = Vec::new();
    let mut before = None;
    for c in key.chars() {
        let now = kind(c);
        let goes_on = before == Some(now) || (before == Some(Kind::Upper) && now == Kind::Lower);
        if !goes_on {
            found.push(String::new());
        }
        if now != Kind::Other
            && let Some(token) = found.last_mut()
        {
            token.push(c);
        }
        before = Some(now);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_snakes() {
        let cases = [
            ("innerKey", "inner_key"),
            ("TopKey", "top_key"),
            ("Deep.List.0", "deep_list_0"),
            ("HTTPServer", "httpserver"),
            ("2fast", "_2_fast"),
            ("a  b", "a_b"),
            ("_lead", "_lead"),
            ("trail ", "trail_"),
            ("", ""),
        ];
        for (key, expected) in cases {
            assert_eq!(snake_case(key), expected, "{key}");
        }
    }
}
