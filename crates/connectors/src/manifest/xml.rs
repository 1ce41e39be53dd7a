//! XML as nested objects: attributes are `@name`, text beside them `#text`, an element that stands several times is a list, an empty
//! one null.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use serde_json::{Map, Value};

const DEEPEST: usize = 200;

/// `None` when it is no XML.
pub(super) fn parse(text: &str) -> Option<Value> {
    let mut reader = Reader::from_str(text);
    let mut open: Vec<(String, Element)> = Vec::new();
    let mut root = Map::new();
    loop {
        match reader.read_event().ok()? {
            Event::Start(start) => {
                if open.len() >= DEEPEST {
                    return None;
                }
                open.push(Element::begin(&start)?);
            }
            Event::Empty(start) => {
                let (name, element) = Element::begin(&start)?;
                add(open.last_mut().map_or(&mut root, |(_, e)| &mut e.map), name, element.finish());
            }
            Event::End(_) => {
                let (name, element) = open.pop()?;
                add(open.last_mut().map_or(&mut root, |(_, e)| &mut e.map), name, element.finish());
            }
            Event::Text(text) => {
                if let Some((_, element)) = open.last_mut() {
                    element.text.push_str(&text.xml10_content());
                }
            }
            Event::CData(text) => {
                if let Some((_, element)) = open.last_mut() {
                    element.text.push_str(&text.xml10_content());
                }
            }
            Event::GeneralRef(entity) => {
                let name = entity.xml10_content();
                let resolved = entity.resolve_char_ref().ok().flatten().map(String::from);
                let resolved = resolved.or_else(|| quick_xml::escape::resolve_predefined_entity(&name).map(str::to_owned))?;
                if let Some((_, element)) = open.last_mut() {
                    element.text.push_str(&resolved);
                }
            }
            Event::Eof => break,
            _ => {}
        }
    }
    (open.is_empty() && !root.is_empty()).then_some(Value::Object(root))
}

#[derive(Default)]
struct Element {
    map: Map<String, Value>,
    text: String,
}

impl Element {
    fn begin(start: &BytesStart<'_>) -> Option<(String, Self)> {
        let name = start.name().as_ref().to_owned();
        let mut element = Self::default();
        for attribute in start.attributes() {
            let attribute = attribute.ok()?;
            let value = quick_xml::escape::unescape(&attribute.value).ok()?.into_owned();
            element.map.insert(format!("@{}", attribute.key.as_ref()), Value::String(value));
        }
        Some((name, element))
    }

    fn finish(mut self) -> Value {
        let text = self.text.trim();
        if self.map.is_empty() {
            return if text.is_empty() { Value::Null } else { Value::String(text.to_owned()) };
        }
        if !text.is_empty() {
            self.map.insert("#text".to_owned(), Value::String(text.to_owned()));
        }
        Value::Object(self.map)
    }
}

fn add(map: &mut Map<String, Value>, name: String, value: Value) {
    match map.get_mut(&name) {
        None => {
            map.insert(name, value);
        }
        Some(Value::Array(items)) => items.push(value),
        Some(first) => {
            let first_value = first.take();
            *first = Value::Array(vec![first_value, value]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn elements_become_objects() {
        let text = "<?xml version=\"1.0\"?><r><i id=\"1\">a &amp; b</i><i id=\"2\"/><e></e><n><x>1</x></n><c><![CDATA[<raw>]]></c></r>";
        let expected = json!({"r": {"i": [{"@id": "1", "#text": "a & b"}, {"@id": "2"}], "e": null, "n": {"x": "1"}, "c": "<raw>"}});
        assert_eq!(parse(text).unwrap(), expected);
        for wrong in ["", "<a>", "<a></b>", "plain"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
