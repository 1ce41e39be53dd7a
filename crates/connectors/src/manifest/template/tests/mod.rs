mod bounds;
mod dates;

use chrono::{DateTime, TimeZone, Utc};
use serde_json::{Value, json};

use super::literal::{Literal, literal};
use super::repr::python_repr;
use super::{LiteralType, Scope, Template, TemplateError, is_falsy, python_str};

fn context() -> Value {
    json!({
        "config": {
            "name": "Ada", "empty": "", "none": null, "count": 3, "ratio": 0.25, "on": true, "ids": [4, 8],
            "nested": {"a": {"b": [{"c": "deep"}]}}, "zip": "01234", "exp": "2e3", "pair": "7,8", "json": "{\"k\": [1, null]}",
            "quoted": "it's", "start": "2026-02-03T04:05:06.5+01:00", "items": "shadowed"
        },
        "record": {
            "id": 11, "tags": ["x", "y"], "created": 1_770_000_000, "price": 19.99, "_key": "under", "title": "Ünï \"code\"",
            "children": [{"n": "a", "v": 2}, {"n": "b", "v": 1}]
        },
        "stream_slice": {"start": "2026-01-01", "shop": "s1"},
        "parameters": {"path": "orders"}
    })
}

fn now() -> DateTime<Utc> {
    Utc.timestamp_millis_opt(1_772_346_615_250).unwrap()
}

fn scope(context: &Value) -> Scope<'_> {
    context.as_object().unwrap().iter().fold(Scope::new().at(now()), |scope, (name, value)| scope.with(name, value))
}

fn eval(source: &str) -> Result<Value, TemplateError> {
    Template::compile(source)?.eval(&scope(&context()), None)
}

fn literal_eval(text: &str) -> Option<Value> {
    literal(text).and_then(Literal::into_json)
}

/// The value of a template as Python writes it.
fn text(source: &str, scope: &Scope<'_>) -> String {
    python_str(&Template::compile(source).unwrap().eval(scope, None).unwrap())
}

fn error_kind(error: &TemplateError) -> &'static str {
    match error {
        TemplateError::Syntax(_) => "syntax",
        TemplateError::Undeclared(_) => "undeclared",
        TemplateError::Undefined(_) => "undefined",
        TemplateError::Failed(_) => "failed",
        TemplateError::Limit(_) => "limit",
    }
}

#[test]
fn templates_give_what_the_reference_gives() {
    let (context, mut section, mut seen, mut wrong) = (context(), "", 0, Vec::new());
    let scope = scope(&context);
    let mut lines = include_str!("cases.txt").lines();
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title;
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let expected = lines.next().unwrap().trim_start();
        let given = Template::compile(line).and_then(|template| match section {
            "condition" => template.truthy(&scope).map(Value::Bool),
            _ => template.eval(&scope, None),
        });
        let same = match &given {
            Ok(value) => expected.strip_prefix("= ").is_some_and(|json| serde_json::from_str::<Value>(json).unwrap() == *value),
            Err(error) => expected.strip_prefix("! ") == Some(error_kind(error)),
        };
        if !same {
            wrong.push(format!("{section}: {line}\n  {expected}\n  given {given:?}"));
        }
        seen += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 200, "only {seen} cases were found");
}

#[test]
fn a_place_may_allow_only_some_types() {
    use LiteralType::{Boolean, Float, Integer, List, Mapping, String, Tuple};
    for (source, valid, expected) in [
        ("{{ record.id }}", &[Integer][..], json!(11)),
        ("{{ record.id }}", &[String], json!("11")),
        ("{{ record.id }}", &[Float], json!("11")),
        ("{{ config.zip }}", &[Integer], json!("01234")),
        ("{{ config.on }}", &[Integer], json!(true)),
        ("{{ config.on }}", &[Float], json!("True")),
        ("{{ config.none }}", &[String, List], json!("None")),
        ("{{ config.ids }}", &[String, List], json!([4, 8])),
        ("{{ (4, 8) }}", &[String, List], json!("(4, 8)")),
        ("{{ (4, 8) }}", &[Tuple], json!([4, 8])),
        ("{{ config.nested }}", &[Boolean], json!("{'a': {'b': [{'c': 'deep'}]}}")),
        ("{{ config.nested.a.b[0] }}", &[Mapping], json!({"c": "deep"})),
        ("'x'", &[String], json!("x")),
        ("5", &[String], json!("5")),
        ("{{ 'a' + 1 }}", &[Integer], json!("{{ 'a' + 1 }}")),
    ] {
        let template = Template::compile(source).unwrap();
        assert_eq!(template.eval(&scope(&context()), Some(valid)), Ok(expected), "{source} as {valid:?}");
    }
}

#[test]
fn an_entry_of_a_map_that_gives_nothing_is_null() {
    for source in ["{{ config.absent }}", "{{ config.absent.deeper }}", "{{ config.empty }}", ""] {
        let template = Template::compile(source).unwrap();
        assert_eq!(template.eval_or_null(&scope(&context()), None), Ok(Value::Null), "{source}");
    }
    let template = Template::compile("{{ absent }}").unwrap();
    assert_eq!(template.eval_or_null(&scope(&context()), None), Err(TemplateError::Undeclared(vec!["absent".into()])));
}

#[test]
fn text_is_written_as_python_writes_the_value() {
    for (source, expected) in [
        ("{{ config.on }}", "True"),
        ("{{ 1e3 }}", "1000.0"),
        ("1e3", "1000.0"),
        ("{{ config.zip }}", "01234"),
        ("a{{ config.none }}", "aNone"),
    ] {
        assert_eq!(text(source, &scope(&context())), expected, "{source}");
    }
}

#[test]
fn header_names_ignore_case_and_a_slice_has_attributes_beside_its_keys() {
    let (headers, slice) = (json!({"X-Next": "n"}), json!({"shop": "s1"}));
    let attributes = json!({"extra_fields": {"k": "v"}, "partition": {"shop": "s1"}});
    let scope = Scope::new().with_headers("headers", &headers).with_attributes("stream_slice", &slice, &attributes);
    for (source, expected) in [
        ("{{ headers['x-next'] }}{{ headers.get('X-NEXT') }}{{ 'x-Next' in headers }}{{ headers['absent'] }}", "nnTrue"),
        ("{{ stream_partition.extra_fields['k'] }}{{ stream_slice.shop }}{{ stream_slice['shop'] }}", "vs1s1"),
        ("{{ stream_slice.partition }}", "{'shop': 's1'}"),
    ] {
        assert_eq!(text(source, &scope), expected, "{source}");
    }
}

#[test]
fn a_template_changes_only_its_own_view_of_a_value() {
    let context = context();
    let template =
        Template::compile("{% set _ = record.update({'id': 12}) %}{{ record.id }}{{ record.tags.append('z') or record.tags }}").unwrap();
    for _ in 0..2 {
        assert_eq!(template.eval(&scope(&context), None).unwrap(), "12['x', 'y', 'z']");
    }
}

#[test]
fn messages_hold_no_values() {
    let secret = json!({"key": "s3cret-value", "list": ["s3cret-value"]});
    for source in [
        "{{ config.key | hash(config.key) }}",
        "{{ str_to_datetime(config.key) }}",
        "{{ config.key.index('x') }}",
        "{{ duration(config.key) }}",
        "{{ today_with_timezone(config.key) }}",
        "{{ config.list.index('x') }}",
        "{{ config.key | regex_search(config.key ~ '(') }}",
        "{{ config[config.key].x }}",
        "{{ (config | attr(config.key)).x }}",
        "{{ ('{0.' ~ config.key ~ '.x}').format(config) }}",
        "{{ ([config] | map(attribute=config.key) | first).x }}",
        "{{ config.list | map(config.key) }}",
        "{{ 5 | hmac('x', config.key) }}",
        "{{ config.key % 5 }}{{ (config.key ~ '%(q)s') % {} }}",
        "{{ absent }}",
    ] {
        let template = Template::compile(source).unwrap();
        match template.eval(&Scope::new().with("config", &secret), None) {
            Err(error) => assert!(!error.to_string().contains("s3cret"), "{source}: {error}"),
            Ok(value) => assert_eq!(value, json!(source), "only the template's own text may come back"),
        }
    }
}

#[test]
fn python_writes_values() {
    for (value, text) in [
        (json!(null), "None"),
        (json!([true, 1.0, 1e22, 1e-7, -0.0, "a"]), "[True, 1.0, 1e+22, 1e-07, -0.0, 'a']"),
        (json!({"it's": "\"both'\"", "n": "\n\t\\\u{7f}\u{200b}é\u{1f600}"}), r#"{"it's": '"both\'"', 'n': '\n\t\\\x7f\u200bé😀'}"#),
        (json!(18_446_744_073_709_551_615_u64), "18446744073709551615"),
    ] {
        assert_eq!(python_repr(&value), text);
        assert_eq!(literal_eval(text), Some(value.clone()), "and reads them back");
        assert_eq!(python_str(&value), text);
    }
    assert_eq!(python_str(&json!("it's")), "it's");
}

#[test]
fn few_values_are_false() {
    for value in [
        json!(null),
        json!(false),
        json!(0),
        json!(0.0),
        json!(""),
        json!("0"),
        json!("0.0"),
        json!("False"),
        json!("[]"),
        json!([]),
        json!({}),
    ] {
        assert!(is_falsy(&value), "{value}");
    }
    for value in [json!(true), json!(-1), json!("no"), json!(" "), json!("0.00"), json!("None"), json!([null]), json!({"a": 0})] {
        assert!(!is_falsy(&value), "{value}");
    }
}

#[test]
fn text_without_braces_is_constant() {
    assert!(Template::compile("https://{host}/x").unwrap().is_constant());
    assert!(!Template::compile("{{ 1 }}").unwrap().is_constant());
    assert_eq!(eval("line\r\nend\n"), Ok(json!("line\nend")), "line ends as Jinja leaves them");
}
