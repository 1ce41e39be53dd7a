//! JSON text as a flat list of its values, each with its place in the text, so that a number keeps all its digits
//! and any value can be taken over as the text that it was.

use std::borrow::Cow;

use memchr::memchr2;

/// Deeper nesting is refused, since reading it is recursive.
const DEEPEST: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Null,
    True,
    False,
    Number,
    String,
    /// Followed by names and values in turn.
    Object,
    /// Followed by its items.
    Array,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    kind: Kind,
    start: u32,
    end: u32,
    /// The entry after this value and all that is in it.
    next: u32,
}

/// Index of a value on its tape.
pub type Node = u32;

/// The values of one or more JSON texts in a buffer.
#[derive(Debug, Default)]
pub struct Tape {
    entries: Vec<Entry>,
}

impl Tape {
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// Adds the one value that `buffer[start..end]` holds. When it holds none, nothing is added, and the reason is returned.
    pub fn parse(&mut self, buffer: &[u8], start: usize, end: usize) -> Result<Node, String> {
        let before = self.entries.len();
        let text = &buffer[..end];
        let mut parser = Parser { text, at: start, entries: &mut self.entries };
        let parsed = parser.value(0).and_then(|()| {
            parser.space();
            if parser.at == end { Ok(()) } else { Err("text after the end of the value") }
        });
        match parsed {
            Ok(()) => Ok(before as Node),
            Err(reason) => {
                let column = parser.at.min(end) - start + 1;
                self.entries.truncate(before);
                Err(format!("not valid JSON: {reason} (character {column})"))
            }
        }
    }

    pub fn kind(&self, node: Node) -> Kind {
        self.entries[node as usize].kind
    }

    /// The value as it stands in the text.
    pub fn raw<'a>(&self, node: Node, buffer: &'a [u8]) -> &'a [u8] {
        let entry = self.entries[node as usize];
        &buffer[entry.start as usize..entry.end as usize]
    }

    /// The content of a string.
    pub fn string<'a>(&self, node: Node, buffer: &'a [u8]) -> Result<Cow<'a, [u8]>, &'static str> {
        let raw = self.raw(node, buffer);
        let inner = &raw[1..raw.len() - 1];
        if !inner.contains(&b'\\') {
            return Ok(Cow::Borrowed(inner));
        }
        unescape(inner).map(Cow::Owned)
    }

    /// Values in an array, or names and values of an object in turn.
    pub fn children(&self, node: Node) -> impl Iterator<Item = Node> {
        let end = self.entries[node as usize].next;
        let mut at = node + 1;
        std::iter::from_fn(move || {
            (at < end).then(|| {
                let child = at;
                at = self.entries[at as usize].next;
                child
            })
        })
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    entries: &'a mut Vec<Entry>,
}

type Parsed = Result<(), &'static str>;

impl Parser<'_> {
    fn space(&mut self) {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Parsed {
        if depth > DEEPEST {
            return Err("nested too deeply");
        }
        self.space();
        let (start, index) = (self.at, self.entries.len());
        let mut add = |kind| self.entries.push(Entry { kind, start: start as u32, end: 0, next: 0 });
        match self.text.get(self.at).ok_or("the value ends early")? {
            b'{' => {
                add(Kind::Object);
                self.list(b'}', |parser| {
                    parser.space();
                    if parser.text.get(parser.at) != Some(&b'"') {
                        return Err("a name in quotes is missing");
                    }
                    parser.value(depth + 1)?;
                    parser.space();
                    if parser.text.get(parser.at) != Some(&b':') {
                        return Err("a colon is missing");
                    }
                    parser.at += 1;
                    parser.value(depth + 1)
                })?;
            }
            b'[' => {
                add(Kind::Array);
                self.list(b']', |parser| parser.value(depth + 1))?;
            }
            b'"' => {
                add(Kind::String);
                self.string()?;
            }
            b'-' | b'0'..=b'9' => {
                add(Kind::Number);
                self.number()?;
            }
            _ => {
                let word = |w: &[u8]| self.text[start..].starts_with(w);
                let (kind, length) = if word(b"null") {
                    (Kind::Null, 4)
                } else if word(b"true") {
                    (Kind::True, 4)
                } else if word(b"false") {
                    (Kind::False, 5)
                } else {
                    return Err("a value is missing");
                };
                self.entries.push(Entry { kind, start: start as u32, end: 0, next: 0 });
                self.at += length;
            }
        }
        let next = self.entries.len() as u32;
        let entry = &mut self.entries[index];
        (entry.end, entry.next) = (self.at as u32, next);
        Ok(())
    }

    fn list(&mut self, close: u8, mut item: impl FnMut(&mut Self) -> Parsed) -> Parsed {
        self.at += 1;
        self.space();
        if self.text.get(self.at) == Some(&close) {
            self.at += 1;
            return Ok(());
        }
        loop {
            item(self)?;
            self.space();
            match self.text.get(self.at) {
                Some(b',') => self.at += 1,
                Some(b) if *b == close => {
                    self.at += 1;
                    return Ok(());
                }
                Some(_) => return Err("a comma or a closing bracket is missing"),
                None => return Err("the value ends early"),
            }
        }
    }

    fn string(&mut self) -> Parsed {
        self.at += 1;
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let n = memchr2(b'"', b'\\', rest).ok_or("a string never ends")?;
            self.at += n + 1;
            if rest[n] == b'"' {
                return Ok(());
            }
            self.at += 1;
        }
    }

    fn number(&mut self) -> Parsed {
        let digits = |parser: &mut Self| {
            let from = parser.at;
            while parser.text.get(parser.at).is_some_and(u8::is_ascii_digit) {
                parser.at += 1;
            }
            if parser.at == from { Err("a digit is missing") } else { Ok(parser.at - from) }
        };
        if self.text[self.at] == b'-' {
            self.at += 1;
        }
        let zero = self.text.get(self.at) == Some(&b'0');
        if digits(self)? > 1 && zero {
            return Err("a number begins with zero");
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            digits(self)?;
        }
        if matches!(self.text.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.text.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            digits(self)?;
        }
        Ok(())
    }
}

fn unescape(text: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&b) = text.get(at) {
        if b != b'\\' {
            out.push(b);
            at += 1;
            continue;
        }
        at += 2;
        out.push(match text.get(at - 1) {
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'r') => b'\r',
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(c @ (b'"' | b'\\' | b'/')) => *c,
            Some(b'u') => {
                let mut code = hex(text, at)?;
                at += 4;
                if (0xd800..0xdc00).contains(&code) && text.get(at..at + 2) == Some(b"\\u") {
                    let low = hex(text, at + 2)?;
                    if (0xdc00..0xe000).contains(&low) {
                        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                        at += 6;
                    }
                }
                let c = char::from_u32(code).ok_or("half of a surrogate pair")?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            _ => return Err("an unknown escape"),
        });
    }
    Ok(out)
}

fn hex(text: &[u8], at: usize) -> Result<u32, &'static str> {
    let digits = text.get(at..at + 4).ok_or("an escape ends early")?;
    digits.iter().try_fold(0, |code, d| Ok(code * 16 + char::from(*d).to_digit(16).ok_or("a hex digit is missing")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn back(tape: &Tape, node: Node, text: &[u8]) -> serde_json::Value {
        match tape.kind(node) {
            Kind::Object => {
                let children: Vec<_> = tape.children(node).collect();
                let name = |n| String::from_utf8(tape.string(n, text).unwrap().into_owned()).unwrap();
                children.chunks(2).map(|pair| (name(pair[0]), back(tape, pair[1], text))).collect()
            }
            Kind::Array => tape.children(node).map(|n| back(tape, n, text)).collect(),
            Kind::String => String::from_utf8(tape.string(node, text).unwrap().into_owned()).unwrap().into(),
            _ => serde_json::from_slice(tape.raw(node, text)).unwrap(),
        }
    }

    #[test]
    fn what_is_no_json() {
        for text in ["", "{", "[1,]", "{\"a\" 1}", "{a:1}", "01", "1.", "\"x", "nul", "[1 2]", "{} x", "-", "\"\\"] {
            let mut tape = Tape::default();
            assert!(tape.parse(text.as_bytes(), 0, text.len()).is_err(), "{text}");
            assert!(tape.entries.is_empty());
        }
        let deep = "[".repeat(100_000);
        assert!(Tape::default().parse(deep.as_bytes(), 0, deep.len()).unwrap_err().contains("deeply"));
        let mut tape = Tape::default();
        let node = tape.parse(br#""\ud800""#, 0, 8).unwrap();
        assert!(tape.string(node, br#""\ud800""#).is_err());
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            // Serde's own parser rounds some doubles, so only short ones can be compared.
            any::<i32>().prop_map(|n| (f64::from(n) / 8.0).into()),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::btree_map(any::<String>(), inner, 0..6).prop_map(|m| m.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn everything_that_serde_writes_is_read(value in json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let mut tape = Tape::default();
            let node = tape.parse(text.as_bytes(), 0, text.len()).unwrap();
            prop_assert_eq!(back(&tape, node, text.as_bytes()), value);
        }

        #[test]
        fn garbage_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut tape = Tape::default();
            if let Ok(node) = tape.parse(&bytes, 0, bytes.len()) && tape.kind(node) == Kind::String {
                let _ = tape.string(node, &bytes);
            }
        }
    }
}
