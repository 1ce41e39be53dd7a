//! How one file writes its fields.

use std::io::Read;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trib_core::{Code, Error, Result};

/// How CSV and TSV files are written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CsvConfig {
    /// Between fields; `,`, or a tab for TSV. One ASCII character, or `tab`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<String>,
    /// Around fields that need it; `"`. An empty text means that fields are never quoted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quote: Option<String>,
    /// Before a quote inside quotes, where it is not doubled: `\`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub escape: Option<String>,
    /// The first record names the columns; true, unless `names` does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<bool>,
    /// Names of the columns of files without a header; `column_1` and so on when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub names: Option<Vec<String>>,
    /// Unquoted texts that mean NULL; the empty one. A quoted empty field is an empty text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub null_values: Option<Vec<String>>,
    /// Lines that begin with this character are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Lines before the header that are left out; 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skip_rows: Option<usize>,
    /// UTF-8 unless set.
    pub encoding: Encoding,
    /// A record longer than this ends the read with an error; 16 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_record_bytes: Option<usize>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Encoding {
    #[default]
    #[serde(rename = "utf-8", alias = "utf8", alias = "UTF-8")]
    Utf8,
    #[serde(rename = "latin1", alias = "iso-8859-1", alias = "ISO-8859-1")]
    Latin1,
    #[serde(rename = "windows-1252", alias = "cp1252")]
    Windows1252,
}

/// [`CsvConfig`], checked and with its defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Dialect {
    pub delimiter: u8,
    pub quote: Option<u8>,
    pub escape: Option<u8>,
    pub header: bool,
    pub names: Option<Vec<String>>,
    pub nulls: Vec<Vec<u8>>,
    pub comment: Option<u8>,
    pub skip_rows: usize,
    pub encoding: Encoding,
    pub max_record: usize,
}

impl CsvConfig {
    pub fn dialect(&self, tabs: bool) -> Result<Dialect> {
        let nulls = self.null_values.as_ref().map_or_else(|| vec![Vec::new()], |n| n.iter().map(|n| n.clone().into_bytes()).collect());
        let quote = match self.quote.as_deref() {
            Some("") => None,
            other => character(other, "csv.quote")?.or(Some(b'"')),
        };
        let dialect = Dialect {
            delimiter: character(self.delimiter.as_deref(), "csv.delimiter")?.unwrap_or(if tabs { b'\t' } else { b',' }),
            quote,
            // An escape that is the quote itself is the doubling that holds anyway.
            escape: character(self.escape.as_deref(), "csv.escape")?.filter(|e| Some(*e) != quote),
            header: self.header.unwrap_or(self.names.is_none()),
            names: self.names.clone(),
            nulls,
            comment: character(self.comment.as_deref(), "csv.comment")?,
            skip_rows: self.skip_rows.unwrap_or(0),
            encoding: self.encoding,
            max_record: self.max_record_bytes.unwrap_or(16 << 20),
        };
        if dialect.quote == Some(dialect.delimiter) {
            return Err(Error::new(Code::ConfigInvalid, "delimiter and quote are the same character").setting("csv.delimiter"));
        }
        Ok(dialect)
    }
}

fn character(text: Option<&str>, setting: &str) -> Result<Option<u8>> {
    match text {
        None => Ok(None),
        Some("tab" | "\\t") => Ok(Some(b'\t')),
        Some(text) => match text.as_bytes() {
            [c] if c.is_ascii() && !matches!(c, b'\n' | b'\r') => Ok(Some(*c)),
            _ => Err(Error::new(Code::ConfigInvalid, "this must be one ASCII character").detail(format!("{text:?}")).setting(setting)),
        },
    }
}

impl Encoding {
    /// The bytes as UTF-8.
    pub fn decode(self, raw: Box<dyn Read + Send>) -> Box<dyn Read + Send> {
        match self {
            Encoding::Utf8 => raw,
            Encoding::Latin1 | Encoding::Windows1252 => {
                Box::new(OneByte { raw, windows: self == Encoding::Windows1252, buffer: Vec::new(), at: 0 })
            }
        }
    }
}

/// What Windows-1252 has where Latin-1 has control characters (0x80 to 0x9f); the five unused ones stay what they are.
const WINDOWS: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘', '’', '“', '”', '•', '–',
    '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

struct OneByte {
    raw: Box<dyn Read + Send>,
    windows: bool,
    buffer: Vec<u8>,
    at: usize,
}

impl Read for OneByte {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.at == self.buffer.len() {
            let mut bytes = [0; 16 << 10];
            let n = self.raw.read(&mut bytes)?;
            self.at = 0;
            self.buffer.clear();
            for &b in &bytes[..n] {
                let c = if self.windows && (0x80..0xa0).contains(&b) { WINDOWS[usize::from(b - 0x80)] } else { char::from(b) };
                self.buffer.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        let n = (self.buffer.len() - self.at).min(into.len());
        into[..n].copy_from_slice(&self.buffer[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_encodings() {
        for (encoding, expected) in [(Encoding::Latin1, "é\u{80}ÿ"), (Encoding::Windows1252, "é€ÿ"), (Encoding::Utf8, "\u{fffd}")] {
            let mut bytes = Vec::new();
            encoding.decode(Box::new(&[0xe9, 0x80, 0xff][..])).read_to_end(&mut bytes).unwrap();
            match std::str::from_utf8(&bytes) {
                Ok(text) => assert_eq!(text, expected),
                Err(_) => assert_eq!(encoding, Encoding::Utf8),
            }
        }
    }

    #[test]
    fn wrong_characters_are_refused() {
        for delimiter in ["", "ab", "é", "\n", "\""] {
            let config = CsvConfig { delimiter: Some(delimiter.into()), ..CsvConfig::default() };
            assert_eq!(config.dialect(false).unwrap_err().code(), Code::ConfigInvalid, "{delimiter:?}");
        }
    }
}
