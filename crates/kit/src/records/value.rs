//! A value on a tape, with the text that it stands in.

use std::borrow::Cow;

use crate::tape::{Kind, Node, Tape};

#[derive(Clone, Copy)]
pub struct Value<'a> {
    tape: &'a Tape,
    text: &'a [u8],
    node: Node,
}

impl<'a> Value<'a> {
    pub fn new(tape: &'a Tape, text: &'a [u8], node: Node) -> Self {
        Self { tape, text, node }
    }

    pub fn kind(self) -> Kind {
        self.tape.kind(self.node)
    }

    /// Values of an array, or names and values of an object in turn.
    pub fn children(self) -> impl Iterator<Item = Value<'a>> {
        self.tape.children(self.node).map(move |node| Value { node, ..self })
    }

    /// The value of an object's entry; the last of several of one name.
    pub fn entries(self) -> impl Iterator<Item = (Cow<'a, [u8]>, Value<'a>)> {
        let mut children = self.children();
        std::iter::from_fn(move || {
            let (name, value) = (children.next()?, children.next()?);
            Some((name.tape.string(name.node, name.text).unwrap_or_default(), value))
        })
    }

    pub fn bytes(self) -> &'a [u8] {
        self.tape.raw(self.node, self.text)
    }

    /// The value as it stands; `None` when that is no UTF-8.
    pub fn raw(self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()).ok()
    }

    /// The content of a string; `None` when it is none.
    pub fn string(self) -> Option<Cow<'a, str>> {
        if self.kind() != Kind::String {
            return None;
        }
        match self.tape.string(self.node, self.text).ok()? {
            Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
        }
    }

    /// As much of the value as a message should have.
    pub fn shown(self) -> String {
        const MOST: usize = 60;
        let text = match self.kind() {
            Kind::Array => return "an array".to_owned(),
            Kind::Object => return "an object".to_owned(),
            _ => String::from_utf8_lossy(self.bytes()),
        };
        match text.char_indices().nth(MOST) {
            Some((at, _)) => format!("{}…", &text[..at]),
            None => text.into_owned(),
        }
    }
}
