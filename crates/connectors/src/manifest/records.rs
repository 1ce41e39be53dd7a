//! A page's records as the JSON texts that they came as: taken apart where something looks into them, handed on untouched where nothing does.
//! So a record whose columns are known goes into them without a map in between, and a number keeps all its digits.

use std::borrow::Cow;

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::Value;
use trib_core::{Error, Result};
use trib_kit::tape::{Kind, Node, Tape};

use super::upload::FileReference;

/// Records of one stream, in their order.
#[derive(Default)]
pub struct Records {
    text: Bytes,
    tape: Tape,
    roots: Vec<Node>,
    files: Vec<Option<FileReference>>,
}

/// One of them: an object, mostly.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    records: &'a Records,
    node: Node,
}

/// Records in the making.
#[derive(Default)]
pub(super) struct Writer {
    text: Vec<u8>,
    tape: Tape,
    roots: Vec<Node>,
}

#[allow(clippy::iter_without_into_iter, reason = "a borrowed record is no tree, which is what the loop over an owned one gives")]
impl Records {
    pub fn len(&self) -> usize {
        self.roots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Record<'_>> {
        self.roots.iter().map(|node| Record { records: self, node: *node })
    }

    /// Where the file of each record lies, in their order; empty for a stream without files.
    pub fn files(&self) -> &[Option<FileReference>] {
        &self.files
    }

    /// Adds the records' files: one for each, in their order.
    pub(super) fn attach(&mut self, files: Vec<Option<FileReference>>) {
        self.files = files;
    }

    pub(super) fn get(&self, index: usize) -> Option<Record<'_>> {
        self.roots.get(index).map(|node| Record { records: self, node: *node })
    }

    pub(super) fn of(values: &[Value]) -> Result<Self> {
        let mut writer = Writer::default();
        values.iter().try_for_each(|value| writer.push(value))?;
        Ok(writer.finish())
    }

    pub(super) fn retain(&mut self, wanted: impl Fn(&Value) -> bool) {
        let keep: Vec<bool> = self.iter().map(|r| wanted(&r.value())).collect();
        let mut keep = keep.into_iter();
        self.roots.retain(|_| keep.next().unwrap_or(false));
    }

    /// The records at a path in a JSON body, and the body with `null` in their place. `None` where the body, or the way to its records, is not as
    /// plain as it mostly is: then it has to be read as a whole.
    pub(super) fn in_body(body: &Bytes, path: &[String]) -> Option<(Self, Value)> {
        if body.len() > u32::MAX as usize || !is_json(body) {
            return None;
        }
        let mut tape = Tape::default();
        let root = tape.parse(body, 0, body.len()).ok()?;
        let mut found = Self { text: body.clone(), tape, ..Self::default() };
        let mut at = Record { records: &found, node: root };
        for key in path {
            match at.kind() {
                Kind::Object => match at.field(key) {
                    Some(next) => at = next,
                    None => return Some((Self::default(), at.whole(root).value())),
                },
                _ => return None,
            }
        }
        let items: Vec<Record<'_>> = if at.kind() == Kind::Array { at.children().collect() } else { vec![at] };
        // What stands in an array at the top is looked at once more.
        if path.is_empty() && at.kind() == Kind::Array && items.iter().any(|i| i.kind() == Kind::Array) {
            return None;
        }
        let filters = path.is_empty() || at.kind() != Kind::Array;
        let roots = items.into_iter().filter(|i| !filters || i.is_truthy()).map(|i| i.node).collect();
        let rest = if path.is_empty() { Value::Object(serde_json::Map::new()) } else { without(body, at.bytes()) };
        found.roots = roots;
        Some((found, rest))
    }

    /// One record a line. What is no JSON is left out, and counted.
    pub(super) fn in_lines(body: &Bytes) -> (Self, usize) {
        let mut found = Self { text: body.clone(), ..Self::default() };
        let (mut start, mut bad) = (0, 0);
        for line in body.split(|b| *b == b'\n') {
            let end = start + line.len();
            if !line.trim_ascii().is_empty() {
                let parsed = if is_json(line) { found.tape.parse(body, start, end).ok() } else { None };
                match parsed {
                    Some(node) => found.roots.push(node),
                    None => bad += 1,
                }
            }
            start = end + 1;
        }
        (found, bad)
    }
}

impl IntoIterator for Records {
    type Item = Value;
    type IntoIter = std::vec::IntoIter<Value>;

    /// As trees, for those who need them.
    fn into_iter(self) -> Self::IntoIter {
        self.iter().map(Record::value).collect::<Vec<_>>().into_iter()
    }
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter().map(Record::value)).finish()
    }
}

impl Writer {
    pub(super) fn push(&mut self, value: &Value) -> Result<()> {
        let start = self.text.len();
        serde_json::to_writer(&mut self.text, value)?;
        let node = self.tape.parse(&self.text, start, self.text.len());
        self.roots.push(node.map_err(|reason| Error::internal("a record cannot be written as JSON").detail(reason))?);
        Ok(())
    }

    pub(super) fn finish(self) -> Records {
        Records { text: self.text.into(), tape: self.tape, roots: self.roots, files: Vec::new() }
    }
}

impl<'a> Record<'a> {
    /// As a tree.
    pub fn value(self) -> Value {
        // It was held to be JSON when it came.
        serde_json::from_slice(self.bytes()).unwrap_or_default()
    }

    /// The JSON text as it came.
    pub fn bytes(self) -> &'a [u8] {
        self.records.tape.raw(self.node, &self.records.text)
    }

    /// The JSON text on one line.
    pub fn line(self) -> Cow<'a, [u8]> {
        let bytes = self.bytes();
        if memchr::memchr2(b'\n', b'\r', bytes).is_none() { Cow::Borrowed(bytes) } else { Cow::Owned(compact(bytes)) }
    }

    /// The JSON text without any space between its parts.
    pub(super) fn compact(self) -> Cow<'a, str> {
        let bytes = self.bytes();
        let has_space = bytes.iter().any(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r'));
        if has_space { String::from_utf8_lossy(&compact(bytes)).into_owned().into() } else { String::from_utf8_lossy(bytes) }
    }

    pub(super) fn kind(self) -> Kind {
        self.records.tape.kind(self.node)
    }

    /// The content of a string.
    pub(super) fn text(self) -> Option<Cow<'a, str>> {
        match self.records.tape.string(self.node, &self.records.text).ok()? {
            Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
        }
    }

    /// The value under a name; of several, the last.
    pub(super) fn field(self, name: &str) -> Option<Record<'a>> {
        let mut found = None;
        self.fields().filter(|(key, _)| key.is(name)).for_each(|(_, value)| found = Some(value));
        found
    }

    /// Names and values of an object.
    pub(super) fn fields(self) -> impl Iterator<Item = (Record<'a>, Record<'a>)> {
        let mut children = if self.kind() == Kind::Object { Some(self.children()) } else { None };
        std::iter::from_fn(move || {
            let children = children.as_mut()?;
            Some((children.next()?, children.next()?))
        })
    }

    fn children(self) -> impl Iterator<Item = Record<'a>> {
        self.records.tape.children(self.node).map(move |node| Record { records: self.records, node })
    }

    fn whole(self, root: Node) -> Self {
        Record { node: root, ..self }
    }

    fn is(self, name: &str) -> bool {
        let raw = self.bytes();
        let inner = &raw[1..raw.len() - 1];
        inner == name.as_bytes() || (inner.contains(&b'\\') && self.text().as_deref() == Some(name))
    }

    /// As Python sees it.
    fn is_truthy(self) -> bool {
        match self.kind() {
            Kind::Null | Kind::False => false,
            Kind::True => true,
            Kind::Number => super::parameters::truthy(&self.value()),
            Kind::String => self.bytes().len() > 2,
            Kind::Object | Kind::Array => self.children().next().is_some(),
        }
    }
}

/// Whether a text is JSON in every detail, which a tape does not look into.
fn is_json(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok() && serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

/// The body with `null` for a part of it.
fn without(body: &[u8], part: &[u8]) -> Value {
    // The part is a slice of the body.
    let start = part.as_ptr() as usize - body.as_ptr() as usize;
    let rest = [&body[..start], b"null", &body[start + part.len()..]].concat();
    serde_json::from_slice(&rest).unwrap_or_default()
}

fn compact(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let (mut quoted, mut escaped) = (false, false);
    for &byte in text {
        if quoted {
            quoted = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            continue;
        } else {
            quoted = byte == b'"';
        }
        out.push(byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn in_body(body: &str, path: &[&str]) -> Option<(Vec<Value>, Value)> {
        let path: Vec<String> = path.iter().map(|p| (*p).to_owned()).collect();
        Records::in_body(&Bytes::copy_from_slice(body.as_bytes()), &path).map(|(records, rest)| (records.into_iter().collect(), rest))
    }

    #[test]
    fn records_are_found_where_the_path_says() {
        let cases = [
            (
                r#"{"a": {"b": [{"id": 1}, {"id": 2}]}, "next": "x"}"#,
                &["a", "b"][..],
                json!([{"id": 1}, {"id": 2}]),
                json!({"a": {"b": null}, "next": "x"}),
            ),
            (r#"{"a": [], "a": [{"id": 3}]}"#, &["a"], json!([{"id": 3}]), json!({"a": null})),
            (r#"{"\u0061": [7, 0]}"#, &["a"], json!([7, 0]), json!({"a": null})),
            (r#"{"a": {"id": 1}}"#, &["a"], json!([{"id": 1}]), json!({"a": null})),
            (r#"{"a": {}}"#, &["a"], json!([]), json!({"a": null})),
            (r#"{"a": 1}"#, &["b"], json!([]), json!({"a": 1})),
            (r#"[{"id": 1}, {}, null]"#, &[], json!([{"id": 1}]), json!({})),
            (r#"{"id": 1}"#, &[], json!([{"id": 1}]), json!({})),
        ];
        for (body, path, records, rest) in cases {
            assert_eq!(in_body(body, path), Some((records.as_array().unwrap().clone(), rest)), "{body}");
        }
    }

    #[test]
    fn what_is_not_plain_is_left_to_others() {
        for (body, path) in [("[[1]]", &[][..]), ("[{\"a\": 1}]", &["a"]), ("{\"a\": [1}", &["a"]), ("{\"a\": \"\n\"}", &["a"]), ("", &[])]
        {
            assert_eq!(in_body(body, path), None, "{body}");
        }
        assert!(Records::in_body(&Bytes::from_static(b"{\"a\": [\"\xff\"]}"), &["a".to_owned()]).is_none());
    }

    #[test]
    fn lines_and_texts() {
        let (records, bad) = Records::in_lines(&Bytes::from_static(b"{\"a\": 1.10}\n\n{broken\n{\"b\": \"x y\"}"));
        let texts: Vec<_> = records.iter().map(|r| r.compact().into_owned()).collect();
        assert_eq!((texts, bad), (vec!["{\"a\":1.10}".to_owned(), "{\"b\":\"x y\"}".to_owned()], 1));
        let (pretty, _) = Records::in_body(&Bytes::from_static(b"{\n \"q\": \"\\\" {\" }"), &[]).unwrap();
        assert_eq!(pretty.get(0).unwrap().line(), &b"{\"q\":\"\\\" {\"}"[..]);
    }
}
