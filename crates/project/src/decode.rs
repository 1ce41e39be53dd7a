//! From a tree to a typed value, with every mistake of the user's reported at its place.
//!
//! Serde stops at the first mistake. [`decode`] takes the value that is wrong out of the tree and tries again, so that a
//! person sees all mistakes of a file at once.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde::de::{Deserializer, Error as DecodeError, Expected, Unexpected};
use serde::forward_to_deserialize_any;
use trib_core::error::closest;
use trib_core::{Code, Error};

use crate::place::{At, dotted};
use crate::yaml::{Content, Entry, Node};

/// More mistakes than this in one file are no help.
const MOST_MISTAKES: usize = 20;

/// Decodes `node`, which stands at `path` in its file, or adds what is wrong with it to `errors`.
pub fn decode<T: DeserializeOwned>(node: &Node, path: &[&str], errors: &mut Vec<Error>) -> Option<T> {
    let mut node = node.clone();
    let before = errors.len();
    let mut removed: Vec<Vec<String>> = Vec::new();
    loop {
        match T::deserialize(&node) {
            Ok(value) => return (errors.len() == before).then_some(value),
            Err(mistake) => {
                let place: Vec<String> = mistake.path.iter().rev().cloned().collect();
                // What is missing because it was taken out is no second mistake.
                if !(matches!(mistake.kind, Kind::Missing(_)) && removed.contains(&place)) {
                    errors.push(mistake.into_error(path));
                }
                if errors.len() - before >= MOST_MISTAKES || !take_out(&mut node, &place) {
                    return None;
                }
                removed.push(place);
            }
        }
    }
}

/// Removes the innermost map entry on the path; false when there is none.
fn take_out(node: &mut Node, path: &[String]) -> bool {
    let Some((first, rest)) = path.split_first() else { return false };
    let Content::Map(entries) = &mut node.content else { return false };
    let Some(at) = entries.iter().position(|e| &e.key == first) else { return false };
    if rest.is_empty() || !take_out(&mut entries[at].value, rest) {
        entries.remove(at);
    }
    true
}

/// What serde found, before it is put into our words.
#[derive(Debug)]
pub struct Mistake {
    /// Innermost first.
    path: Vec<String>,
    at: Option<At>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    UnknownKey { key: String, known: &'static [&'static str] },
    UnknownValue { value: String, known: &'static [&'static str] },
    WrongType { found: String, expected: String },
    Missing(&'static str),
    Other(String),
}

impl Mistake {
    fn of(kind: Kind) -> Self {
        let path = match &kind {
            Kind::UnknownKey { key, .. } => vec![key.clone()],
            Kind::Missing(key) => vec![(*key).to_owned()],
            _ => Vec::new(),
        };
        Self { path, at: None, kind }
    }

    fn at(mut self, at: &At) -> Self {
        self.at.get_or_insert_with(|| at.clone());
        self
    }

    fn under(mut self, key: impl Into<String>) -> Self {
        self.path.push(key.into());
        self
    }

    fn into_error(self, prefix: &[&str]) -> Error {
        let path: Vec<&str> = prefix.iter().copied().chain(self.path.iter().rev().map(String::as_str)).collect();
        let invalid = |message| Error::new(Code::ConfigInvalid, message);
        let suggestion = |wrong: &str, known: &'static [&'static str]| {
            let known = || known.iter().copied().filter(|name| !is_ours(name));
            match closest(wrong, known()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", known().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ")),
            }
        };
        let error = match self.kind {
            Kind::UnknownKey { key, known } => invalid("there is no such setting").hint(suggestion(&key, known)).detail(format!("`{key}`")),
            Kind::UnknownValue { value, known } => {
                invalid("the setting does not take this value").hint(suggestion(&value, known)).detail(format!("`{value}`"))
            }
            Kind::WrongType { found, expected } => {
                let error = invalid("the value is of the wrong kind").detail(format!("found {found}, expected {expected}"));
                if found.starts_with("a number") && expected.contains("text") { error.hint("put it into quotes") } else { error }
            }
            Kind::Missing(key) => invalid("a setting is missing").detail(format!("`{key}`")),
            Kind::Other(text) => invalid("the value is not right").detail(text),
        };
        let error = if path.is_empty() { error } else { error.setting(dotted(&path)) };
        match self.at {
            Some(at) => at.mark(error),
            None => error,
        }
    }
}

fn is_ours(name: &str) -> bool {
    name.starts_with('_')
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)
    }
}

impl std::error::Error for Mistake {}

impl DecodeError for Mistake {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self::of(Kind::Other(text.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Bool(b) => format!("`{b}`"),
            Unexpected::Unsigned(n) => format!("a number ({n})"),
            Unexpected::Signed(n) => format!("a number ({n})"),
            Unexpected::Float(n) => format!("a number ({n})"),
            Unexpected::Str(s) => format!("text ({s:?})"),
            Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
            Unexpected::Seq => "a list".to_owned(),
            Unexpected::Map => "a map".to_owned(),
            other => other.to_string(),
        };
        Self::of(Kind::WrongType { found, expected: plain(&expected.to_string()) })
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(value: &str, known: &'static [&'static str]) -> Self {
        Self::of(Kind::UnknownValue { value: value.to_owned(), known })
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        Self::of(Kind::UnknownKey { key: key.to_owned(), known })
    }

    fn missing_field(key: &'static str) -> Self {
        Self::of(Kind::Missing(key))
    }
}

/// Serde names Rust's types; a person who writes YAML knows other words.
fn plain(expected: &str) -> String {
    match expected {
        "a string" => "text".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "u8" | "u16" | "u32" | "u64" | "usize" | "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        other if other.starts_with("struct ") || other.starts_with("map") => "a map".to_owned(),
        other if other.starts_with("enum ") => "text".to_owned(),
        other => other.to_owned(),
    }
}

/// Marks an error with the node's place, and keeps what came from a variable out of it.
fn at_node<T>(node: &Node, result: Result<T, Mistake>) -> Result<T, Mistake> {
    result.map_err(|mistake| {
        let mut mistake = mistake.at(&node.at);
        if node.filled {
            match &mut mistake.kind {
                Kind::WrongType { found, .. } => "text (from a variable)".clone_into(found),
                Kind::UnknownValue { known, .. } => {
                    mistake.kind = Kind::Other(format!("the variable's value is none of {}", known.join(", ")));
                }
                Kind::Other(text) => "the variable's value is not right".clone_into(text),
                Kind::UnknownKey { .. } | Kind::Missing(_) => {}
            }
        }
        mistake
    })
}

/// Text that a variable gave may stand for a number or a truth value where one is wanted.
macro_rules! from_text_too {
    ($($method:ident $visit:ident $t:ty),* $(,)?) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
            match &self.content {
                Content::Text(text) if self.filled => match text.trim().parse::<$t>() {
                    Ok(value) => at_node(self, visitor.$visit(value)),
                    Err(_) => self.deserialize_any(visitor),
                },
                _ => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for &Node {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        let result = match &self.content {
            Content::Null => visitor.visit_unit(),
            Content::Bool(b) => visitor.visit_bool(*b),
            Content::Number(n) => match (n.as_u64(), n.as_i64()) {
                (Some(n), _) => visitor.visit_u64(n),
                (None, Some(n)) => visitor.visit_i64(n),
                (None, None) => visitor.visit_f64(n.as_f64().unwrap_or(f64::NAN)),
            },
            Content::Text(text) => visitor.visit_str(text),
            Content::List(items) => visitor.visit_seq(Items { items: items.iter(), index: 0 }),
            Content::Map(entries) => visitor.visit_map(Entries { entries: entries.iter(), value: None }),
        };
        at_node(self, result)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.content {
            Content::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(self, _: &'static str, known: &'static [&'static str], visitor: V) -> Result<V::Value, Mistake> {
        let result = match &self.content {
            // A value that is ours alone has such a name where it is stored.
            Content::Text(text) if is_ours(text) => Err(Mistake::of(Kind::UnknownValue { value: text.clone(), known })),
            Content::Text(text) => visitor.visit_enum(IntoDeserializer::<Mistake>::into_deserializer(text.as_str())),
            Content::Map(entries) if entries.len() == 1 => visitor.visit_enum(Variant(&entries[0])),
            _ => Err(Mistake::of(Kind::WrongType { found: self.kind().to_owned(), expected: "text".to_owned() })),
        };
        at_node(self, result)
    }

    /// A section whose settings are all commented out is empty.
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.content {
            Content::Null => at_node(self, visitor.visit_map(Entries { entries: [].iter(), value: None })),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(self, _: &'static str, _: &'static [&'static str], visitor: V) -> Result<V::Value, Mistake> {
        self.deserialize_map(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.content {
            Content::Null => at_node(self, visitor.visit_seq(Items { items: [].iter(), index: 0 })),
            _ => self.deserialize_any(visitor),
        }
    }

    from_text_too! {
        deserialize_bool visit_bool bool,
        deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64,
        deserialize_i8 visit_i8 i8,
        deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64,
        deserialize_f32 visit_f32 f32,
        deserialize_f64 visit_f64 f64,
    }

    forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

struct Items<'a> {
    items: std::slice::Iter<'a, Node>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Mistake;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Mistake> {
        let Some(node) = self.items.next() else { return Ok(None) };
        let index = self.index;
        self.index += 1;
        seed.deserialize(node).map(Some).map_err(|m| m.at(&node.at).under(index.to_string()))
    }
}

struct Entries<'a> {
    entries: std::slice::Iter<'a, Entry>,
    value: Option<&'a Entry>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Mistake;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Mistake> {
        let Some(entry) = self.entries.next() else { return Ok(None) };
        self.value = Some(entry);
        let key: StrDeserializer<'_, Mistake> = entry.key.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|m| m.at(&entry.at))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Mistake> {
        let entry = self.value.take().ok_or_else(|| Mistake::custom("a value was asked for before its key"))?;
        seed.deserialize(&entry.value).map_err(|m| m.at(&entry.value.at).under(entry.key.clone()))
    }
}

/// `{variant: value}`.
struct Variant<'a>(&'a Entry);

impl<'de, 'a> EnumAccess<'de> for Variant<'a> {
    type Error = Mistake;
    type Variant = &'a Node;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, &'a Node), Mistake> {
        let key: StrDeserializer<'_, Mistake> = self.0.key.as_str().into_deserializer();
        Ok((seed.deserialize(key).map_err(|m| m.at(&self.0.at))?, &self.0.value))
    }
}

impl<'de> VariantAccess<'de> for &Node {
    type Error = Mistake;

    fn unit_variant(self) -> Result<(), Mistake> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Mistake> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Mistake> {
        self.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Mistake> {
        self.deserialize_any(visitor)
    }
}
