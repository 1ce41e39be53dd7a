//! Which components there are and what belongs in their fields: the table in `components.txt`, and a manifest held against it.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Map, Value};
use trib_core::error::closest;

/// One thing that is wrong with a manifest, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Such as `streams[2].retriever.paginator`.
    pub path: String,
    pub what: String,
}

pub(super) struct FieldRule {
    pub(super) name: &'static str,
    pub(super) required: bool,
    pub(super) rule: Rule,
}

pub(super) enum Rule {
    Any,
    Null,
    Text,
    Int,
    Number,
    Bool,
    Map,
    List(Box<Rule>),
    MapOf(Box<Rule>),
    OneOf(Vec<&'static str>),
    Component(&'static str),
    Either(Vec<Rule>),
}

pub(super) static TABLE: LazyLock<HashMap<&'static str, Vec<FieldRule>>> = LazyLock::new(|| {
    let mut table: HashMap<&'static str, Vec<FieldRule>> = HashMap::new();
    let mut current = "";
    for line in include_str!("components.txt").lines().filter(|l| !l.starts_with('#')) {
        match line.strip_prefix("  ").and_then(|field| field.split_once(": ")) {
            None => {
                current = line;
                table.entry(current).or_default();
            }
            Some((name, rule)) => {
                let required = name.ends_with('!');
                let field = FieldRule { name: name.trim_end_matches('!'), required, rule: parse_rule(rule) };
                table.entry(current).or_default().push(field);
            }
        }
    }
    table
});

fn parse_rule(text: &'static str) -> Rule {
    let alternatives = split(text);
    if alternatives.len() > 1 {
        return Rule::Either(alternatives.into_iter().map(parse_rule).collect());
    }
    let within = |open, close| text.strip_prefix(open).and_then(|t: &'static str| t.strip_suffix(close));
    if let Some(inner) = within('[', ']') {
        return Rule::List(Box::new(parse_rule(inner)));
    }
    if let Some(inner) = within('{', '}') {
        return Rule::MapOf(Box::new(parse_rule(inner)));
    }
    if let Some(inner) = within('(', ')') {
        return Rule::OneOf(inner.split('/').collect());
    }
    match text {
        "any" => Rule::Any,
        "null" => Rule::Null,
        "text" => Rule::Text,
        "int" => Rule::Int,
        "number" => Rule::Number,
        "bool" => Rule::Bool,
        "map" => Rule::Map,
        "list" => Rule::List(Box::new(Rule::Any)),
        name => Rule::Component(name),
    }
}

/// Splits at `|` outside of brackets.
fn split(text: &'static str) -> Vec<&'static str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '[' | '{' | '(' => depth += 1,
            ']' | '}' | ')' => depth -= 1,
            '|' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Everything that is wrong with a manifest whose references are resolved and whose types are filled in. Components that need Python
/// code of their own are not wrong: they block their stream when it is made.
pub(super) fn problems(manifest: &Map<String, Value>) -> Vec<Problem> {
    let mut problems = Vec::new();
    component("DeclarativeSource", manifest, "", &mut problems);
    if !["streams", "dynamic_streams", "objects"].iter().any(|name| manifest.contains_key(*name)) {
        note(&mut problems, "", "the manifest has neither `streams` nor `dynamic_streams`, nor `objects` to write to".to_owned());
    }
    let known = TABLE.get("DeclarativeSource").map(Vec::as_slice).unwrap_or_default();
    for key in manifest.keys().filter(|k| *k != "type" && *k != super::parameters::PARAMETERS) {
        if !known.iter().any(|f| f.name == key) {
            let near = closest(key, known.iter().map(|f| f.name)).map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
            note(&mut problems, key, format!("a manifest has no such part{near}"));
        }
    }
    problems
}

fn note(problems: &mut Vec<Problem>, path: &str, what: String) {
    // The same component stands in many places: a few say it all.
    if problems.len() < 50 {
        problems.push(Problem { path: path.to_owned(), what });
    }
}

fn component(kind: &str, own: &Map<String, Value>, path: &str, problems: &mut Vec<Problem>) {
    let Some(fields) = TABLE.get(kind) else { return };
    for field in fields {
        let at = join(path, field.name);
        match own.get(field.name) {
            // A field that is written and left empty is one that was not written, as far as the reference goes.
            None | Some(Value::Null) if field.required => note(problems, &at, format!("{kind} needs `{}`", field.name)),
            None | Some(Value::Null) => {}
            Some(value) => check(&field.rule, value, &at, problems),
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn check(rule: &Rule, value: &Value, path: &str, problems: &mut Vec<Problem>) {
    match (rule, value) {
        (Rule::List(rule), Value::Array(items)) => {
            items.iter().enumerate().for_each(|(i, item)| check(rule, item, &format!("{path}[{i}]"), problems));
        }
        (Rule::MapOf(rule), Value::Object(map)) => map.iter().for_each(|(key, item)| check(rule, item, &join(path, key), problems)),
        (Rule::Component(name), Value::Object(map)) => match map.get("type").and_then(Value::as_str) {
            Some(kind) if kind == *name => component(name, map, path, problems),
            _ => wrong_component(&[name], map, path, problems),
        },
        (Rule::Either(rules), value) => either(rules, value, path, problems),
        (rule, value) if fits(rule, value) => {}
        (rule, value) => note(problems, path, format!("expected {}, found {}", describe(rule), kind_of(value))),
    }
}

/// Of several rules the one that the value means is the one that is reported on.
fn either(rules: &[Rule], value: &Value, path: &str, problems: &mut Vec<Problem>) {
    let shape = |rule: &&Rule| {
        matches!(
            (rule, value),
            (Rule::List(_), Value::Array(_)) | (Rule::MapOf(_), Value::Object(_)) | (Rule::Component(_), Value::Object(_))
        )
    };
    if let Value::Object(map) = value
        && let Some(kind) = map.get("type").and_then(Value::as_str)
    {
        let names: Vec<&'static str> = rules.iter().filter_map(|r| if let Rule::Component(n) = r { Some(*n) } else { None }).collect();
        if names.contains(&kind) {
            return component(kind, map, path, problems);
        }
        if !names.is_empty() && !rules.iter().any(|r| matches!(r, Rule::MapOf(_) | Rule::Map | Rule::Any)) {
            return wrong_component(&names, map, path, problems);
        }
    }
    if rules.iter().any(|rule| fits(rule, value)) {
        return;
    }
    match rules.iter().find(shape) {
        Some(rule) => check(rule, value, path, problems),
        None => {
            let all: Vec<String> = rules.iter().map(describe).collect();
            note(problems, path, format!("expected {}, found {}", all.join(" or "), kind_of(value)));
        }
    }
}

fn fits(rule: &Rule, value: &Value) -> bool {
    match rule {
        Rule::Any => true,
        Rule::Null => value.is_null(),
        Rule::Text => value.is_string(),
        Rule::Int => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|f| f.fract() == 0.0),
        Rule::Number => value.is_number(),
        Rule::Bool => value.is_boolean(),
        Rule::Map => value.is_object(),
        Rule::OneOf(texts) => value.as_str().is_some_and(|t| texts.contains(&t)),
        Rule::Either(rules) => rules.iter().any(|rule| fits(rule, value)),
        Rule::List(_) => value.is_array() && is_sound(rule, value),
        Rule::MapOf(_) | Rule::Component(_) => value.is_object() && is_sound(rule, value),
    }
}

fn is_sound(rule: &Rule, value: &Value) -> bool {
    let mut problems = Vec::new();
    check(rule, value, "", &mut problems);
    problems.is_empty()
}

fn wrong_component(expected: &[&'static str], map: &Map<String, Value>, path: &str, problems: &mut Vec<Problem>) {
    // Python code of some version or other: it blocks its stream when that is made, and nothing else.
    if map.contains_key("class_name") && map.get("type").and_then(Value::as_str).is_some_and(|t| t.starts_with("Custom")) {
        return;
    }
    let list = expected.join(", ");
    let what = match map.get("type").and_then(Value::as_str) {
        None => format!("the component does not say its `type`; expected one of {list}"),
        Some(kind) if TABLE.contains_key(kind) => format!("{kind} cannot stand here; expected one of {list}"),
        Some(kind) => match closest(kind, TABLE.keys().copied()) {
            Some(near) => format!("there is no component {kind}; did you mean {near}?"),
            None => format!("there is no component {kind}; expected one of {list}"),
        },
    };
    note(problems, path, what);
}

fn describe(rule: &Rule) -> String {
    match rule {
        Rule::Any => "anything".to_owned(),
        Rule::Null => "nothing".to_owned(),
        Rule::Text => "text".to_owned(),
        Rule::Int => "a whole number".to_owned(),
        Rule::Number => "a number".to_owned(),
        Rule::Bool => "true or false".to_owned(),
        Rule::Map | Rule::MapOf(_) => "a map".to_owned(),
        Rule::List(_) => "a list".to_owned(),
        Rule::OneOf(texts) => format!("one of {}", texts.join(", ")),
        Rule::Component(name) => (*name).to_owned(),
        Rule::Either(rules) => rules.iter().map(describe).collect::<Vec<_>>().join(" or "),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(manifest: Value) -> Vec<String> {
        let Value::Object(map) = manifest else { panic!() };
        problems(&map).into_iter().map(|p| format!("{}: {}", p.path, p.what)).collect()
    }

    fn stream(retriever: Value) -> Value {
        json!({"type": "DeclarativeSource", "version": "7.0.0", "check": {"type": "CheckStream", "stream_names": ["a"]},
               "streams": [{"type": "DeclarativeStream", "retriever": retriever}]})
    }

    #[test]
    fn wrong_components_are_named_with_their_path() {
        let retriever = |paginator: Value| {
            json!({"type": "SimpleRetriever", "paginator": paginator,
                   "requester": {"type": "HttpRequester", "http_method": "GET", "authenticator": {"type": "CustomAuthenticator", "class_name": "x.Y"}},
                   "record_selector": {"type": "RecordSelector", "extractor": {"type": "DpathExtractor", "field_path": []}}})
        };
        assert!(of(stream(retriever(json!({"type": "NoPagination"})))).is_empty());
        assert!(of(stream(retriever(json!({"type": "CustomPaginator", "class_name": "x.Y"})))).is_empty());
        let cases = [
            (
                json!({"type": "NoPaginaton"}),
                "streams[0].retriever.paginator: there is no component NoPaginaton; did you mean NoPagination?",
            ),
            (
                json!({"type": "DpathExtractor"}),
                "streams[0].retriever.paginator: DpathExtractor cannot stand here; expected one of DefaultPaginator, NoPagination",
            ),
            (
                json!({"type": "DefaultPaginator"}),
                "streams[0].retriever.paginator.pagination_strategy: DefaultPaginator needs `pagination_strategy`",
            ),
            (
                json!({"type": "DefaultPaginator", "pagination_strategy": {"type": "PageIncrement", "start_from_page": "one"}}),
                "streams[0].retriever.paginator.pagination_strategy.start_from_page: expected a whole number, found text",
            ),
        ];
        for (paginator, expected) in cases {
            assert_eq!(of(stream(retriever(paginator))), [expected]);
        }
    }

    #[test]
    fn every_rule_of_the_table_names_components_that_exist() {
        fn names(rule: &Rule, found: &mut Vec<&'static str>) {
            match rule {
                Rule::Component(name) => found.push(name),
                Rule::List(rule) | Rule::MapOf(rule) => names(rule, found),
                Rule::Either(rules) => rules.iter().for_each(|r| names(r, found)),
                _ => {}
            }
        }
        let mut found = Vec::new();
        TABLE.values().flatten().for_each(|f| names(&f.rule, &mut found));
        assert!(found.len() > 200);
        assert!(found.iter().all(|name| TABLE.contains_key(name)), "{:?}", found.iter().find(|n| !TABLE.contains_key(*n)));
    }
}
