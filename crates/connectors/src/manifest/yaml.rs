//! A manifest's YAML, read as the reference reads it: YAML 1.1, in which `yes` and `on` are true and `1_000` is a number.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::{Map, Number, Value};
use trib_core::{Code, Error, Result};

/// A file with this many values after its aliases were followed is no manifest, but an attack or a mistake.
const MOST_NODES: usize = 2_000_000;
/// Deeper than any manifest, and shallow enough for every recursion over it.
const DEEPEST: usize = 200;

/// Reads one document; `file` is for errors.
pub(super) fn parse(file: &str, text: &str) -> Result<Value> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader { file, parser: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0 };
    let mut document = Value::Null;
    let mut found = false;
    while let Some((event, span)) = reader.next()? {
        match event {
            Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            _ if found => return Err(reader.wrong("the file holds more than one YAML document", span)),
            event => {
                document = reader.value(event, span, 0)?;
                found = true;
            }
        }
    }
    Ok(document)
}

struct Reader<'a> {
    file: &'a str,
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: HashMap<usize, (Value, usize)>,
    nodes: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok(event)) => Ok(Some(event)),
            Some(Err(e)) => {
                let at = *e.marker();
                Err(self.wrong("the file is not YAML", Span::empty(at)).detail(e.info().to_owned()))
            }
        }
    }

    fn inside(&mut self) -> Result<(Event<'a>, Span)> {
        self.next()?.ok_or_else(|| Error::internal("the YAML parser stopped within a collection"))
    }

    fn wrong(&self, what: &'static str, span: Span) -> Error {
        Error::new(Code::ConfigInvalid, what).file(self.file, Some(span.start.line()), Some(span.start.col() + 1))
    }

    fn value(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Value> {
        if depth > DEEPEST {
            return Err(self.wrong("the file is nested too deeply", span));
        }
        let before = self.nodes;
        self.count(1, span)?;
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                (anchor, if plain { scalar(&text) } else { Value::String(text.into_owned()) })
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match self.inside()? {
                        (Event::SequenceEnd, _) => break,
                        (event, span) => items.push(self.value(event, span, depth + 1)?),
                    }
                }
                (anchor, Value::Array(items))
            }
            Event::MappingStart(anchor, _) => (anchor, Value::Object(self.map(depth)?)),
            Event::Alias(anchor) => {
                let known = self.anchors.get(&anchor).cloned();
                let (value, nodes) = known.ok_or_else(|| self.wrong("the alias names no anchor before it", span))?;
                self.count(nodes, span)?;
                (0, value)
            }
            _ => return Err(self.wrong("an event of the YAML parser is out of place", span)),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, (value.clone(), self.nodes - before));
        }
        Ok(value)
    }

    fn map(&mut self, depth: usize) -> Result<Map<String, Value>> {
        let mut map = Map::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.inside()?;
            if event == Event::MappingEnd {
                break;
            }
            let Event::Scalar(key, style, ..) = event else { return Err(self.wrong("the key of a map must be text", span)) };
            let key = key.into_owned();
            let (event, span) = self.inside()?;
            let value = self.value(event, span, depth + 1)?;
            if key == "<<" && style == ScalarStyle::Plain {
                merged.push(value);
            } else {
                map.insert(key, value);
            }
        }
        for value in merged {
            let maps = if let Value::Array(items) = value { items } else { vec![value] };
            for (key, value) in maps.into_iter().filter_map(|m| if let Value::Object(m) = m { Some(m) } else { None }).flatten() {
                map.entry(key).or_insert(value);
            }
        }
        Ok(map)
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<()> {
        self.nodes += nodes;
        if self.nodes > MOST_NODES { Err(self.wrong("the file's aliases unfold into too many values", span)) } else { Ok(()) }
    }
}

/// A plain scalar by the rules of YAML 1.1. Dates stay text: manifests mean them as text.
pub(super) fn scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Value::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => return Value::Bool(false),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.')) {
        return Value::String(text.to_owned());
    }
    match integer(text).or_else(|| float(text)) {
        Some(number) => Value::Number(number),
        None => Value::String(text.to_owned()),
    }
}

fn integer(text: &str) -> Option<Number> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => ("-", &text[1..]),
        b'+' => ("", &text[1..]),
        _ => ("", text),
    };
    let clean = digits.replace('_', "");
    let radix = |prefix: &str, radix: u32| clean.strip_prefix(prefix).and_then(|d| i64::from_str_radix(d, radix).ok());
    if let Some(n) = radix("0x", 16).or_else(|| radix("0b", 2)) {
        return Some(if sign == "-" { -n } else { n }.into());
    }
    if !digits.starts_with(|c: char| c.is_ascii_digit()) || !clean.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    if clean.len() > 1 && clean.starts_with('0') {
        // A leading zero means octal, and with an 8 or a 9 no number at all.
        let n = i64::from_str_radix(&clean, 8).ok()?;
        return Some(if sign == "-" { -n } else { n }.into());
    }
    let signed = format!("{sign}{clean}");
    signed.parse::<i64>().ok().map(Number::from).or_else(|| signed.parse::<u64>().ok().map(Number::from))
}

/// A float has a dot, and its exponent a sign: `1e5` is text.
fn float(text: &str) -> Option<Number> {
    let clean = text.replace('_', "");
    let valid = clean.contains('.') && clean.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'+' | b'-' | b'e' | b'E'));
    let exponent = clean.find(['e', 'E']).map(|at| &clean[at + 1..]);
    if !valid || exponent.is_some_and(|e| !e.starts_with(['+', '-'])) {
        return None;
    }
    Number::from_f64(clean.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scalars_follow_yaml_1_1() {
        let cases = [
            ("yes", json!(true)),
            ("off", json!(false)),
            ("1_000", json!(1000)),
            ("0x1F", json!(31)),
            ("010", json!(8)),
            ("08", json!("08")),
            ("1e5", json!("1e5")),
            ("1.5e+3", json!(1500.0)),
            ("-3", json!(-3)),
            ("2024-01-01", json!("2024-01-01")),
            ("1.2.3", json!("1.2.3")),
            ("~", json!(null)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse("m.yaml", text).unwrap(), expected, "{text}");
        }
        assert_eq!(parse("m.yaml", "'yes'").unwrap(), json!("yes"));
        assert_eq!(parse("m.yaml", "a: &x {k: 1}\nb: {<<: *x, l: 2}").unwrap(), json!({"a": {"k": 1}, "b": {"l": 2, "k": 1}}));
    }

    #[test]
    fn bombs_and_towers_are_refused() {
        let lines = (1..9).map(|i| format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(", ")));
        let bomb = format!("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n{}", lines.collect::<String>());
        let tower = "[".repeat(5000);
        for text in [bomb, tower] {
            assert_eq!(parse("m.yaml", &text).unwrap_err().code(), Code::ConfigInvalid);
        }
    }
}
