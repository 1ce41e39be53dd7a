//! YAML 1.2 into a tree in which every node knows its place.
//!
//! Scalars are read by the core schema of YAML 1.2: `NO`, `on` and `yes` are text. A key that stands twice in a map is an
//! error. Anchors, aliases and merge keys (`<<`) are followed.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use saphyr::Scalar;
use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};
use serde_json::{Number, Value};
use trib_core::{Code, Error, Result};

use crate::place::At;

/// A file with this many nodes after its aliases were followed is not a configuration, but an attack or a mistake.
const MOST_NODES: usize = 1_000_000;

/// One value of a file. It is never shown as a whole, since it may hold secrets.
#[derive(Clone, PartialEq)]
pub struct Node {
    pub at: At,
    pub content: Content,
    /// The text came, at least partly, from a variable: it may be a secret, and may stand for a number.
    pub filled: bool,
    /// Where the text itself begins, when each of its lines is one of the file from there on, all beginning in one column.
    pub begins: Option<At>,
}

#[derive(Clone, PartialEq)]
pub enum Content {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, PartialEq)]
pub struct Entry {
    pub key: String,
    /// Where the key stands.
    pub at: At,
    pub value: Node,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({}:{}:{})", self.at.file, self.at.line, self.at.column)
    }
}

impl Node {
    pub fn new(at: At, content: Content) -> Self {
        Self { at, content, filled: false, begins: None }
    }

    pub fn empty_map(at: At) -> Self {
        Self::new(at, Content::Map(Vec::new()))
    }

    pub fn text(at: At, text: impl Into<String>) -> Self {
        Self::new(at, Content::Text(text.into()))
    }

    /// A value that stands in no file, all of it placed where it belongs.
    pub fn of_json(at: &At, value: &Value) -> Self {
        let content = match value {
            Value::Null => Content::Null,
            Value::Bool(b) => Content::Bool(*b),
            Value::Number(n) => Content::Number(n.clone()),
            Value::String(text) => Content::Text(text.clone()),
            Value::Array(items) => Content::List(items.iter().map(|item| Self::of_json(at, item)).collect()),
            Value::Object(map) => {
                let entry = |(key, value): (&String, &Value)| Entry { key: key.clone(), at: at.clone(), value: Self::of_json(at, value) };
                Content::Map(map.iter().map(entry).collect())
            }
        };
        Self::new(at.clone(), content)
    }

    pub fn entries(&self) -> &[Entry] {
        match &self.content {
            Content::Map(entries) => entries,
            _ => &[],
        }
    }

    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|e| e.key == key)
    }

    /// The value of a key, or the item of a list at a place counted from 0.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.content {
            Content::List(items) => items.get(key.parse::<usize>().ok()?),
            _ => self.entry(key).map(|e| &e.value),
        }
    }

    /// The node at the end of a path of keys.
    pub fn at_path(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The place of the key at the end of the path, or of the deepest part of the path that is there.
    pub fn place(&self, path: &[&str]) -> &At {
        let mut at = &self.at;
        let mut node = self;
        for key in path {
            let Some(value) = node.get(key) else { break };
            (at, node) = (node.entry(key).map_or(&value.at, |e| &e.at), value);
        }
        at
    }

    /// An error about the setting below this node that it names, placed in the file: where its text is SQL and the error has a place in that, there;
    /// otherwise at the setting, or at the deepest part of its path that is there.
    pub fn mark(&self, error: Error) -> Error {
        let setting = error.place().setting.clone().unwrap_or_default();
        let path: Vec<&str> = setting.split('.').collect();
        let begins = self.at_path(&path).and_then(|node| node.begins.clone());
        let at = self.place(&path).clone();
        error.within(&*at.file, |line, column| match (begins, line) {
            (Some(begins), Some(line)) => (Some(begins.line + line - 1), column.map(|column| begins.column + column - 1)),
            _ => (Some(at.line), Some(at.column)),
        })
    }

    /// This node with `over` laid on it: maps merge, everything else is replaced, and a null takes away.
    #[must_use]
    pub fn overlaid(&self, over: &Node) -> Node {
        let (Content::Map(below), Content::Map(above)) = (&self.content, &over.content) else {
            return over.clone();
        };
        let mut merged = below.clone();
        for entry in above {
            match merged.iter_mut().find(|e| e.key == entry.key) {
                Some(known) => {
                    known.value = known.value.overlaid(&entry.value);
                    known.at = entry.at.clone();
                }
                None => merged.push(entry.clone()),
            }
        }
        Node::new(over.at.clone(), Content::Map(merged))
    }

    pub fn to_json(&self) -> Value {
        match &self.content {
            Content::Null => Value::Null,
            Content::Bool(b) => Value::Bool(*b),
            Content::Number(n) => Value::Number(n.clone()),
            Content::Text(t) => Value::String(t.clone()),
            Content::List(items) => items.iter().map(Node::to_json).collect(),
            Content::Map(entries) => Value::Object(entries.iter().map(|e| (e.key.clone(), e.value.to_json())).collect()),
        }
    }

    /// What kind of value this is, for people.
    pub fn kind(&self) -> &'static str {
        match &self.content {
            Content::Null => "nothing",
            Content::Bool(_) => "true or false",
            Content::Number(_) => "a number",
            Content::Text(_) => "text",
            Content::List(_) => "a list",
            Content::Map(_) => "a map",
        }
    }
}

/// Reads one document. `first_line` is where `text` begins in the file (1 but for front matter). An empty file is an empty map.
pub fn parse(file: &str, text: &str, first_line: usize) -> Result<Node> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let origin = At { file: file.into(), line: first_line, column: 1 };
    let mut builder = Builder { origin, lines: text.lines().collect(), anchors: HashMap::new(), nodes: 0 };
    let mut events = Events { parser: Parser::new_from_str(text), origin: builder.origin.clone() };
    let mut document = None;
    while let Some((event, span)) = events.next()? {
        match event {
            Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            _ if document.is_some() => {
                let error = Error::new(Code::ConfigInvalid, "the file holds more than one YAML document")
                    .hint("put what stands after `---` into a file of its own");
                return Err(events.place(span).mark(error));
            }
            event => document = Some(builder.node(event, span, &mut events)?),
        }
    }
    Ok(match document {
        None => Node::empty_map(builder.origin),
        Some(Node { content: Content::Null, at, .. }) => Node::empty_map(at),
        Some(node) => node,
    })
}

struct Events<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    origin: At,
}

impl<'a> Events<'a> {
    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok(event)) => Ok(Some(event)),
            Some(Err(e)) => {
                let marker = *e.marker();
                let error = Error::new(Code::ConfigInvalid, "the file is not YAML").detail(e.info());
                Err(self.place(Span::empty(marker)).mark(error))
            }
        }
    }

    fn place(&self, span: Span) -> At {
        At { file: self.origin.file.clone(), line: self.origin.line + span.start.line() - 1, column: span.start.col() + 1 }
    }

    /// The next event within a collection, which must come.
    fn inside(&mut self) -> Result<(Event<'a>, Span)> {
        self.next()?.ok_or_else(|| self.origin.mark(Error::internal("the YAML parser stopped within a collection")))
    }
}

struct Builder<'a> {
    origin: At,
    lines: Vec<&'a str>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

impl Builder<'_> {
    fn node(&mut self, event: Event<'_>, span: Span, events: &mut Events<'_>) -> Result<Node> {
        let at = events.place(span);
        self.count(1, &at)?;
        let (anchor, node) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let content = scalar(text, style, tag.as_ref(), &at)?;
                let begins = if let Content::Text(text) = &content { self.begins(&at, text) } else { None };
                (anchor, Node { begins, ..Node::new(at, content) })
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match events.inside()? {
                        (Event::SequenceEnd, _) => break,
                        (event, span) => items.push(self.node(event, span, events)?),
                    }
                }
                (anchor, Node::new(at, Content::List(items)))
            }
            Event::MappingStart(anchor, _) => {
                let content = Content::Map(self.entries(events)?);
                (anchor, Node::new(at, content))
            }
            Event::Alias(anchor) => {
                let known = self.anchors.get(&anchor).cloned();
                let node = known.ok_or_else(|| at.mark(Error::new(Code::ConfigInvalid, "the alias names no anchor before it")))?;
                self.count(size(&node), &at)?;
                (0, node)
            }
            _ => return Err(at.mark(Error::internal("an event of the YAML parser is out of place"))),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn entries(&mut self, events: &mut Events<'_>) -> Result<Vec<Entry>> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = events.inside()?;
            if event == Event::MappingEnd {
                break;
            }
            let at = events.place(span);
            let Event::Scalar(key, style, ..) = event else {
                return Err(at.mark(Error::new(Code::ConfigInvalid, "the key of a map must be text")));
            };
            let key = key.into_owned();
            let (event, span) = events.inside()?;
            let value = self.node(event, span, events)?;
            if key == "<<" && style == ScalarStyle::Plain {
                merged.push(value);
                continue;
            }
            if let Some(first) = entries.iter().find(|e| e.key == key) {
                let error = Error::new(Code::ConfigInvalid, "a key stands twice in one map")
                    .detail(format!("`{key}` in line {} and in line {}", first.at.line, at.line))
                    .setting(key)
                    .hint("keep one of them");
                return Err(at.mark(error));
            }
            entries.push(Entry { key, at, value });
        }
        for node in merged {
            let maps = match node.content {
                Content::List(items) => items,
                content => vec![Node { content, ..node }],
            };
            for entry in maps.into_iter().flat_map(|m| if let Content::Map(entries) = m.content { entries } else { Vec::new() }) {
                if !entries.iter().any(|e| e.key == entry.key) {
                    entries.push(entry);
                }
            }
        }
        Ok(entries)
    }

    /// See [`Node::begins`]: `at` is the value's quote, or the first character that is none of its blank lines.
    fn begins(&self, at: &At, text: &str) -> Option<At> {
        let blank = text.lines().position(|line| !line.is_empty())?;
        let first = (at.line - self.origin.line).checked_sub(blank)?;
        let behind = |row: usize, column: usize| {
            let line = self.lines.get(row).copied().unwrap_or_default();
            line.char_indices().nth(column - 1).map_or("", |(i, _)| &line[i..])
        };
        let stands = |column: &usize| text.lines().enumerate().all(|(i, line)| behind(first + i, *column).starts_with(line));
        let column = [at.column, at.column + 1].into_iter().find(stands)?;
        Some(At { line: at.line - blank, column, ..at.clone() })
    }

    fn count(&mut self, nodes: usize, at: &At) -> Result<()> {
        self.nodes += nodes;
        if self.nodes > MOST_NODES {
            return Err(at.mark(Error::new(Code::ConfigInvalid, "the file's aliases unfold into too many values")));
        }
        Ok(())
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.content {
        Content::List(items) => items.iter().map(size).sum(),
        Content::Map(entries) => entries.iter().map(|e| size(&e.value)).sum(),
        _ => 0,
    }
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle, tag: Option<&Cow<'_, Tag>>, at: &At) -> Result<Content> {
    let raw = text.clone();
    let Some(value) = Scalar::parse_from_cow_and_metadata(text, style, tag) else {
        return Err(at.mark(Error::new(Code::ConfigInvalid, "the value is not what its tag says")));
    };
    Ok(match value {
        Scalar::Null => Content::Null,
        Scalar::Boolean(b) => Content::Bool(b),
        Scalar::Integer(i) => Content::Number(i.into()),
        Scalar::FloatingPoint(float) => {
            // An integer too large for 64 bits stays text, digit for digit, rather than becoming a float.
            let digits = raw.trim_start_matches(['-', '+']);
            let whole = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            match (whole, raw.parse::<u64>(), Number::from_f64(float.into_inner())) {
                (true, Ok(unsigned), _) => Content::Number(unsigned.into()),
                (false, _, Some(number)) => Content::Number(number),
                _ => Content::Text(raw.into_owned()),
            }
        }
        Scalar::String(s) => Content::Text(s.into_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tree(text: &str) -> Node {
        parse("f.yaml", text, 1).unwrap()
    }

    #[test]
    fn scalars_follow_the_core_schema() {
        let cases = [
            ("NO", json!("NO")),
            ("on", json!("on")),
            ("yes", json!("yes")),
            ("true", json!(true)),
            ("~", json!(null)),
            ("", json!(null)),
            ("12", json!(12)),
            ("\"12\"", json!("12")),
            ("0x10", json!(16)),
            ("1.5", json!(1.5)),
            ("18446744073709551615", json!(u64::MAX)),
            ("123456789012345678901234567890", json!("123456789012345678901234567890")),
            (".inf", json!(".inf")),
            ("2024-01-01", json!("2024-01-01")),
            ("12:30:45", json!("12:30:45")),
        ];
        for (text, expected) in cases {
            assert_eq!(tree(&format!("v: {text}")).get("v").unwrap().to_json(), expected, "{text}");
        }
    }

    #[test]
    fn nodes_know_their_places() {
        let node = tree("a:\n  b: [x, y]\n");
        assert_eq!((node.place(&["a", "b"]).line, node.place(&["a", "b"]).column), (2, 3));
        let Content::List(items) = &node.at_path(&["a", "b"]).unwrap().content else { panic!() };
        assert_eq!((items[1].at.line, items[1].at.column), (2, 10));
        assert_eq!(parse("m.sql", "a: 1", 7).unwrap().place(&["a"]).line, 7);
    }

    #[test]
    fn errors_about_sql_stand_where_the_sql_does() {
        let text = "a:\n  plain: select 1 x\n  quoted: \"select 1 x\"\n  doubled: 'it''s'\n  block: |\n    select\n\n      1 x\n  \
                    folded: >\n    select\n    1 x\n  several: select\n    1 x\n  list:\n    - {sql: select 1 x}\n";
        let node = parse("f.yaml", text, 11).unwrap();
        let cases = [
            ("a.plain", (1, 10), "f.yaml:12:19"),
            ("a.quoted", (1, 10), "f.yaml:13:21"),
            ("a.doubled", (1, 2), "f.yaml:14:3"),
            ("a.block", (3, 5), "f.yaml:18:9"),
            ("a.folded", (1, 10), "f.yaml:19:3"),
            ("a.several", (1, 10), "f.yaml:22:3"),
            ("a.list.0.sql", (1, 10), "f.yaml:25:22"),
            ("a.nothing", (1, 10), "f.yaml:11:1"),
        ];
        for (setting, (line, column), place) in cases {
            let error = Error::internal("x").setting(setting).file("", Some(line), Some(column));
            assert_eq!(node.mark(error).place().to_string(), format!("{place}, setting {setting}"));
        }
    }

    #[test]
    fn anchors_and_merge_keys() {
        let node = tree("base: &b {x: 1, y: 2}\nuse: {<<: *b, y: 3}\nlist: [*b]\n");
        assert_eq!(node.get("use").unwrap().to_json(), json!({"y": 3, "x": 1}));
        assert_eq!(node.get("list").unwrap().to_json(), json!([{"x": 1, "y": 2}]));
    }

    #[test]
    fn unfolding_aliases_is_bounded() {
        let lines = (1..8).map(|i| format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(", ")));
        let text = format!("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n{}", lines.collect::<String>());
        assert_eq!(parse("f", &text, 1).unwrap_err().code(), Code::ConfigInvalid);
    }

    #[test]
    fn what_is_not_one_document_of_yaml() {
        let cases = [
            ("a: 1\nb: 2\na: 3\n", "f.yaml:3:1, setting a", "`a` in line 1 and in line 3"),
            ("a: [1\n", "f.yaml:2:1", ""),
            ("a: 1\n---\nb: 1\n", "f.yaml:3:1", ""),
            ("? [a]\n: 1\n", "f.yaml:1:3", ""),
        ];
        for (text, place, detail) in cases {
            let error = parse("f.yaml", text, 1).unwrap_err();
            assert_eq!(error.code(), Code::ConfigInvalid);
            assert_eq!(error.place().to_string(), place, "{text}");
            assert!(error.detail_text().unwrap_or_default().contains(detail), "{error}");
        }
    }

    #[test]
    fn overlaying_merges_maps_and_replaces_the_rest() {
        let below = tree("a: {x: 1, y: 2}\nl: [1, 2]\ngone: 1\n");
        let above = tree("a: {y: 3}\nl: [9]\ngone: ~\n");
        assert_eq!(below.overlaid(&above).to_json(), json!({"a": {"x": 1, "y": 3}, "l": [9], "gone": null}));
    }
}
