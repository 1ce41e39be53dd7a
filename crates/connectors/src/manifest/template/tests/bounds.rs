//! No template, however odd, panics, hangs or fills the memory.

use proptest::prelude::*;

use super::{Scope, Template, TemplateError, context, eval, literal_eval, python_repr, scope};

#[test]
fn work_and_text_are_bounded() {
    let nested_loops = "{% for a in l %}".repeat(12) + "x" + &"{% endfor %}".repeat(12);
    for source in [
        format!("{{% set l = [1] * 100 %}}{nested_loops}"),
        "{{ 'a' * 1000000000000 }}".into(),
        "{{ '%999999999d' % 1 }}".into(),
        "{{ '{:>999999999}'.format(1) }}".into(),
        "{{ 'x'.zfill(999999999) }}".into(),
        "{{ [0] * 99999999999 }}".into(),
        "{% set l = [0] %}{% for i in 'x' * 999 %}{{ l.extend(l) }}{% endfor %}".into(),
        "{% set ns = namespace(s='ab') %}{% for i in 'x' * 99 %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}".into(),
        "{% set ns = namespace(s='ab') %}{% for i in 'x' * 99 %}{% set ns.s = ns.s.replace('', ns.s) %}{% endfor %}".into(),
        "{% set ns = namespace(l=[]) %}{% for i in 'x' * 9999 %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}".into(),
        "{% set a = [] %}{% set b = [a] %}{{ a.append(b) }}{{ a }}".into(),
        "{% set a = [] %}{{ a.append(a) or a == [a] }}{{ a | string }}".into(),
        "{% set a = [] %}{% set b = [] %}{{ a.append(b) }}{{ b.append(a) }}{{ a == b }}".into(),
        "{{ ('a' * 30) | regex_search('^(a|a?)+(?=b)\\\\1$') }}".into(),
    ] {
        let given = eval(&source);
        assert!(matches!(given, Err(TemplateError::Limit(_))), "{source}: {given:?}");
    }
    assert!(eval("{{ 9 ** 9 ** 9 }}").is_err());
}

#[test]
fn nesting_is_bounded() {
    for source in [
        format!("{{{{ {} }}}}", "(".repeat(5_000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(5_000)),
        format!("{{{{ {}1 }}}}", "-".repeat(5_000)),
        format!("{{{{ 1{} }}}}", "+1".repeat(5_000)),
        format!("{{{{ record{} }}}}", ".a".repeat(5_000)),
        format!("{{{{ record{} }}}}", "[0]".repeat(5_000)),
        format!("{{{{ record{} }}}}", "|list".repeat(5_000)),
        format!("{{% if 1 %}}{}{{% endif %}}", "{% elif 1 %}".repeat(5_000)),
        "{% if 1 %}".repeat(5_000),
        format!("{{{{ {} }}}}", "1 if 1 else ".repeat(5_000)),
        "x{{".repeat(90_000),
    ] {
        let error = Template::compile(&source).unwrap_err();
        assert!(matches!(error, TemplateError::Syntax(_)), "{error}");
    }
    let long = format!("{{{{ [{}] | length }}}}", "'x', ".repeat(3_000));
    assert_eq!(eval(&long), Ok(3_000.into()), "length alone is no depth");
    assert_eq!(literal_eval(&"[".repeat(100_000)), None);
    assert_eq!(literal_eval(&"-".repeat(100_000)), None);
}

/// Pieces that meet in odd ways.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(vec![
            "{{",
            "}}",
            "{%",
            "%}",
            " ",
            "config",
            "record",
            ".",
            "[",
            "]",
            "(",
            ")",
            "'",
            "|",
            ",",
            ":",
            "+",
            "-",
            "*",
            "/",
            "//",
            "%",
            "**",
            "~",
            "==",
            "<",
            "in",
            "not",
            "if",
            "else",
            "and",
            "for x in",
            "endfor",
            "endif",
            "set x =",
            "x",
            "1",
            "0",
            "1.5",
            "'a'",
            "''",
            "none",
            "true",
            "[1, 2]",
            "{'a': 1}",
            "items()",
            "get('a')",
            "tags",
            "ids",
            "children",
            "now_utc()",
            "duration('P1M')",
            "string",
            "list",
            "length",
            "sort",
            "map('string')",
            "join('-')",
            "int",
            "default(1)",
            "round(2)",
            "tojson",
            "strftime('%Y%s%f')",
            "split('a')",
            "format(1, 'b')",
            "'{:>9}{0[0]}'",
            "'%s%05d'",
            "regex_search('(.)')",
            "slice(2)",
            "batch(3)",
            "groupby('n')",
            "is defined",
            "is odd",
            "[::-1]",
            "loop.index",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,6}",
    ]
}

fn source() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::collection::vec(piece(), 0..24).prop_map(|pieces| pieces.concat()),
        proptest::collection::vec(piece(), 1..10).prop_map(|pieces| format!("{{{{ {} }}}}", pieces.join(" "))),
        proptest::collection::vec(piece(), 1..6)
            .prop_map(|pieces| format!("{{% for x in record.tags %}}{{{{ x {} }}}}{{% endfor %}}", pieces.join(" "))),
    ]
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_filter("JSON has finite numbers", |float| float.is_finite()).prop_map(Into::into),
        ".{0,12}".prop_map(serde_json::Value::String),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(serde_json::Value::Array),
            proptest::collection::vec((".{0,6}", inner), 0..5).prop_map(|entries| serde_json::Value::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn any_template_ends(source in source()) {
        let context = context();
        let scope = scope(&context);
        if let Ok(template) = Template::compile(&source) {
            _ = template.eval(&scope, None);
            _ = template.truthy(&scope);
        }
    }

    #[test]
    fn any_text_is_read_or_left(text in "[\\[\\](){},:'\"0-9eE._+\\\\nxTrueNone #-]{0,24}|\\PC{0,16}") {
        _ = literal_eval(&text);
    }

    #[test]
    fn a_value_survives_a_template(value in json()) {
        prop_assert_eq!(literal_eval(&python_repr(&value)), Some(value.clone()));
        // Through the text, and by the way that spares it.
        let scope = Scope::new().with("record", &value);
        let long_way = Template::compile("{% if true %}{{ [record] }}{% endif %}").unwrap().eval(&scope, None);
        let short_way = Template::compile("{{ [record] }}").unwrap().eval(&scope, None);
        prop_assert_eq!(&short_way, &Ok(serde_json::json!([value])));
        prop_assert_eq!(long_way, short_way);
    }

    #[test]
    fn dates_are_read_or_refused(text in "[0-9TZW:+., -]{0,30}", format in "(%[aAbBcdfGHIjmMpSuUVwWxXyYzZs%_]|[ :T-]){0,8}") {
        use super::super::datetime;
        _ = datetime::parse_iso(&text);
        if let Ok(moment) = datetime::parse(&text, &format) {
            _ = datetime::format(&moment, &format);
        }
    }
}
