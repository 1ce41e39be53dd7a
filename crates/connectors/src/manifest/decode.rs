//! From an answer's bytes to JSON values.

use std::io::{Cursor, Read};

use flate2::read::MultiGzDecoder;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Map, Value};
use trib_core::{Code, Error, Result};
use trib_kit::http::Response;

use super::dpath;
use super::node::Node;
use super::xml;

/// What a compressed body may unfold into.
const MOST_BYTES: u64 = 2 << 30;

/// Nothing, and what the reference's reader of tables (pandas) takes for it.
const NOT_AVAILABLE: [&str; 19] = [
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL", "NaN", "None",
    "n/a", "nan", "null",
];

#[derive(Clone, Debug, Default)]
pub(super) enum Decoder {
    #[default]
    Json,
    /// The items of one array of the body.
    JsonItems(Vec<String>),
    Jsonl,
    Csv(Csv),
    /// One `{"record": …}` for each line.
    Lines,
    Xml,
    Gzip(Box<Decoder>),
    Zip(Box<Decoder>),
}

#[derive(Clone, Debug)]
pub(super) struct Csv {
    delimiter: u8,
    latin1: bool,
    nulls: Vec<String>,
}

impl Decoder {
    pub(super) fn optional(node: &Node<'_>, name: &str) -> Result<Self> {
        node.get(name).map_or(Ok(Decoder::Json), |d| Self::build(&d))
    }

    fn build(node: &Node<'_>) -> Result<Self> {
        let inner = || node.need("decoder").and_then(|d| Self::build(&d)).map(Box::new);
        Ok(match node.kind() {
            "JsonDecoder" => Decoder::Json,
            "JsonItemsDecoder" => Decoder::JsonItems(node.text("items_path").unwrap_or_default().split('.').map(str::to_owned).collect()),
            "JsonlDecoder" => Decoder::Jsonl,
            "CsvDecoder" => Decoder::Csv(Csv::build(node)?),
            "IterableDecoder" => Decoder::Lines,
            "XmlDecoder" => Decoder::Xml,
            "GzipDecoder" => Decoder::Gzip(inner()?),
            "ZipfileDecoder" => Decoder::Zip(inner()?),
            _ => return Err(node.unsupported()),
        })
    }

    /// A table as APIs hand it out for download: CSV, packed or not, in which nothing is null; so are the many words for it, unless they are to be `kept`.
    pub(super) fn table_file(kept: bool) -> Self {
        let nulls = if kept { &NOT_AVAILABLE[..1] } else { &NOT_AVAILABLE };
        let nulls = nulls.iter().map(|n| (*n).to_owned()).collect();
        Decoder::Gzip(Box::new(Decoder::Csv(Csv { delimiter: b',', latin1: false, nulls })))
    }

    /// Whether the reference reads such bodies as a stream, and so shows paginators nothing of them.
    pub(super) fn is_stream(&self) -> bool {
        !matches!(self, Decoder::Json | Decoder::Xml | Decoder::Zip(_))
    }

    /// The values in the body. What is not JSON is one empty object, where JSON is expected.
    pub(super) fn decode(&self, response: &Response) -> Result<Vec<Value>> {
        match self {
            Decoder::Json => {
                let found = json(&response.body).unwrap_or_default();
                Ok(if found.is_empty() { vec![Value::Object(Map::new())] } else { found })
            }
            other => other.parse(&response.body),
        }
    }

    fn parse(&self, body: &[u8]) -> Result<Vec<Value>> {
        match self {
            Decoder::Json => json(body).ok_or_else(|| damaged("JSON")),
            Decoder::JsonItems(path) => {
                let root: Value = serde_json::from_slice(body).map_err(|_| damaged("JSON"))?;
                Ok(dpath::get(&root, path).and_then(Value::as_array).cloned().unwrap_or_default())
            }
            Decoder::Jsonl => Ok(lines(body)),
            Decoder::Csv(csv) => csv.parse(body),
            Decoder::Lines => {
                let text = String::from_utf8_lossy(body);
                Ok(text.lines().map(|line| Value::Object(Map::from_iter([("record".to_owned(), Value::from(line))]))).collect())
            }
            Decoder::Xml => Ok(vec![xml::parse(&String::from_utf8_lossy(body)).unwrap_or_else(|| Value::Object(Map::new()))]),
            Decoder::Gzip(inner) => {
                if !body.starts_with(&[0x1f, 0x8b]) {
                    return inner.parse(body);
                }
                inner.parse(&unfolded(MultiGzDecoder::new(body), "gzip")?)
            }
            Decoder::Zip(inner) => {
                let mut archive = zip::ZipArchive::new(Cursor::new(body)).map_err(|e| damaged("zip").source(e))?;
                let mut found = Vec::new();
                for index in 0..archive.len() {
                    let file = archive.by_index(index).map_err(|e| damaged("zip").source(e))?;
                    if file.is_file() {
                        found.extend(inner.parse(&unfolded(file, "zip")?)?);
                    }
                }
                Ok(found)
            }
        }
    }
}

fn unfolded(packed: impl Read, what: &'static str) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    packed.take(MOST_BYTES).read_to_end(&mut plain).map_err(|e| damaged(what).source(e))?;
    if plain.len() as u64 == MOST_BYTES {
        return Err(Error::new(Code::ResourceExhausted, "the answer unfolds into more than can be held").detail(what));
    }
    Ok(plain)
}

fn damaged(what: &'static str) -> Error {
    Error::new(Code::SystemError, "the answer is not of the form that the manifest says").detail(format!("it is not {what}"))
}

/// What is wrong with a body that begins as JSON. Taken for one without records, as what is no JSON at all is, it would lose some.
pub(super) fn fault(body: &[u8]) -> Option<serde_json::Error> {
    let begins = matches!(body.trim_ascii_start().first(), Some(b'{' | b'['));
    if begins { read::<IgnoredAny>(body).err() } else { None }
}

/// Bytes that are no UTF-8 are replaced, and a mark of the byte order is no part of the text.
fn read<T: DeserializeOwned>(body: &[u8]) -> serde_json::Result<T> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    match std::str::from_utf8(body) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_str(&String::from_utf8_lossy(body)),
    }
}

/// The items of an array, or the one value. `null` is nothing at all.
fn json(body: &[u8]) -> Option<Vec<Value>> {
    match read(body).ok()? {
        Value::Null => None,
        Value::Array(items) => Some(items),
        value => Some(vec![value]),
    }
}

fn lines(body: &[u8]) -> Vec<Value> {
    let mut found = Vec::new();
    for line in body.split(|b| *b == b'\n').filter(|l| !l.trim_ascii().is_empty()) {
        match serde_json::from_slice(line) {
            Ok(value) => found.push(value),
            Err(_) => tracing::warn!(bytes = line.len(), "a line of the answer is not JSON and is left out"),
        }
    }
    found
}

impl Csv {
    fn build(node: &Node<'_>) -> Result<Self> {
        let delimiter = match node.text("delimiter") {
            None => b',',
            Some("\\t" | "\t") => b'\t',
            Some(text) if text.len() == 1 => text.as_bytes()[0],
            Some(_) => return Err(node.wrong("a delimiter is one ASCII character")),
        };
        let encoding = node.text("encoding").unwrap_or("utf-8").to_lowercase().replace('_', "-");
        let latin1 = match encoding.as_str() {
            "utf-8" | "utf8" | "utf-8-sig" | "ascii" => false,
            "latin-1" | "latin1" | "iso-8859-1" | "iso8859-1" => true,
            _ => return Err(node.wrong("CSV of this encoding cannot be read").detail(encoding)),
        };
        let nulls = node.items("set_values_to_none").iter().filter_map(|v| v.value.as_str().map(str::to_owned)).collect();
        Ok(Self { delimiter, latin1, nulls })
    }

    /// Every value is text; cells that a row lacks are null.
    fn parse(&self, body: &[u8]) -> Result<Vec<Value>> {
        let text = |bytes: &[u8]| -> String {
            if self.latin1 { bytes.iter().map(|b| char::from(*b)).collect() } else { String::from_utf8_lossy(bytes).into_owned() }
        };
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        let mut reader = csv::ReaderBuilder::new().delimiter(self.delimiter).flexible(true).has_headers(false).from_reader(body);
        let mut rows = reader.byte_records();
        let wrong = |e: csv::Error| damaged("CSV").source(e);
        let Some(header) = rows.next().transpose().map_err(wrong)? else { return Ok(Vec::new()) };
        let names: Vec<String> = header.iter().map(text).collect();
        let mut found = Vec::new();
        for row in rows {
            let row = row.map_err(wrong)?;
            let cell = |i: usize| match row.get(i).map(text) {
                Some(value) if !self.nulls.contains(&value) => Value::String(value),
                _ => Value::Null,
            };
            found.push(Value::Object(names.iter().enumerate().map(|(i, name)| (name.clone(), cell(i))).collect()));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::io::Write;

    fn answer(body: &[u8]) -> Response {
        Response { status: 200, headers: Vec::new(), url: "https://a.example/".parse().unwrap(), body: body.to_vec().into() }
    }

    #[test]
    fn bodies() {
        let csv = Decoder::Csv(Csv { delimiter: b';', latin1: false, nulls: vec![String::new(), "N/A".into()] });
        let cases: [(Decoder, &[u8], Value); 8] = [
            (Decoder::Json, b"[1, {\"a\": 2}]", json!([1, {"a": 2}])),
            (Decoder::Json, b"<html>", json!([{}])),
            (Decoder::Json, b"[]", json!([{}])),
            (Decoder::Json, b"\xef\xbb\xbf{\"a\": \"\xff\"}", json!([{"a": "\u{fffd}"}])),
            (Decoder::Jsonl, b"{\"i\": 1}\n\nnot json\n{\"i\": 2}", json!([{"i": 1}, {"i": 2}])),
            (
                csv,
                b"a;b;\"c d\"\n1;;N/A\n\"x;y\";\"2\"\"\"\n",
                json!([{"a": "1", "b": null, "c d": null}, {"a": "x;y", "b": "2\"", "c d": null}]),
            ),
            (Decoder::Lines, b"one\ntwo\n", json!([{"record": "one"}, {"record": "two"}])),
            (Decoder::JsonItems(vec!["a".into(), "b".into()]), b"{\"a\": {\"b\": [1, 2]}}", json!([1, 2])),
        ];
        for (decoder, body, expected) in cases {
            assert_eq!(Value::Array(decoder.decode(&answer(body)).unwrap()), expected, "{decoder:?}");
        }
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"{\"rows\": 1}").unwrap();
        let packed = gzip.finish().unwrap();
        let decoder = Decoder::Gzip(Box::new(Decoder::Json));
        for body in [packed.as_slice(), b"{\"rows\": 1}"] {
            assert_eq!(decoder.decode(&answer(body)).unwrap(), [json!({"rows": 1})]);
        }
        assert_eq!(decoder.decode(&answer(&packed[..packed.len() - 9])).unwrap_err().code(), Code::SystemError);
    }
}
