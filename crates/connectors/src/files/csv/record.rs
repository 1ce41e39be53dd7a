//! Finding records and fields in a buffer.
//!
//! A quote opens a quoted field only where a field begins, and closes it only before a delimiter, a line's end or the end of the file. A
//! quoted field that breaks this (a quote that never closes, text after the closing quote) costs its line, not the
//! rest of the file: the record is set aside and reading goes on at the next line.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

use super::dialect::Dialect;

/// A field as a range of the buffer.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    start: u32,
    end: u32,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Plain,
    Quoted,
    /// Quoted, with doubled or escaped characters in it.
    Escaped,
}

impl Field {
    pub fn is_quoted(self) -> bool {
        self.kind != Kind::Plain
    }

    pub fn raw(self, buffer: &[u8]) -> &[u8] {
        &buffer[self.start as usize..self.end as usize]
    }

    pub fn text<'a>(self, buffer: &'a [u8], dialect: &Dialect) -> Cow<'a, [u8]> {
        let raw = self.raw(buffer);
        if self.kind != Kind::Escaped {
            return Cow::Borrowed(raw);
        }
        let mut text = Vec::with_capacity(raw.len());
        let mut bytes = raw.iter();
        while let Some(&b) = bytes.next() {
            // Whatever follows an escape, or the first of two quotes, stands for itself.
            let escaping = Some(b) == dialect.escape || Some(b) == dialect.quote;
            text.push(if escaping { bytes.next().copied().unwrap_or(b) } else { b });
        }
        Cow::Owned(text)
    }
}

/// A record that is not one.
#[derive(Clone, Debug)]
pub struct Broken {
    pub start: usize,
    pub end: usize,
    pub reason: String,
}

/// Records of one buffer, all of one width.
#[derive(Debug, Default)]
pub struct Records {
    fields: Vec<Field>,
    /// Where each record begins and ends, without its line end.
    spans: Vec<(u32, u32)>,
    pub broken: Vec<Broken>,
}

impl Records {
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Fields of one column, from the first record to the last.
    pub fn column(&self, index: usize, width: usize) -> impl Iterator<Item = Field> {
        self.fields.iter().skip(index).step_by(width.max(1)).copied()
    }

    /// All fields of one record, for records of any width.
    pub fn first(&self) -> &[Field] {
        &self.fields
    }

    pub fn span(&self, record: usize) -> (usize, usize) {
        let (start, end) = self.spans[record];
        (start as usize, end as usize)
    }

    fn clear(&mut self) {
        self.fields.clear();
        self.spans.clear();
        self.broken.clear();
    }
}

/// How many records to look for.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Fields that a record must have; any number when `None`.
    pub width: Option<usize>,
    pub records: usize,
}

/// Finds whole records at the beginning of `buffer` and returns where they end. A record that may go on behind the buffer is left for the
/// next call; `at_end` says that nothing follows.
pub fn scan(buffer: &[u8], at_end: bool, dialect: &Dialect, limits: Limits, out: &mut Records) -> usize {
    out.clear();
    let mut position = 0;
    while position < buffer.len() && out.spans.len() + out.broken.len() < limits.records {
        match skipped(&buffer[position..], at_end, dialect, limits.width) {
            Skip::No => {}
            Skip::Line(length) => {
                position += length;
                continue;
            }
            Skip::Unknown => break,
        }
        let before = out.fields.len();
        match record(buffer, position, at_end, dialect, &mut out.fields) {
            Record::Whole { end, next } => {
                let found = out.fields.len() - before;
                match limits.width {
                    Some(width) if width != found => {
                        out.fields.truncate(before);
                        let fields = if found == 1 { "1 field".to_owned() } else { format!("{found} fields") };
                        out.broken.push(Broken { start: position, end, reason: format!("{fields}, where the header has {width}") });
                    }
                    _ => out.spans.push((position as u32, end as u32)),
                }
                position = next;
            }
            Record::Broken { end, next, reason } => {
                out.fields.truncate(before);
                out.broken.push(Broken { start: position, end, reason: reason.to_owned() });
                position = next;
            }
            Record::Unfinished => {
                out.fields.truncate(before);
                break;
            }
        }
    }
    position
}

enum Skip {
    No,
    Line(usize),
    Unknown,
}

/// Comments, and empty lines: those are rows only where a row may be one empty field.
fn skipped(rest: &[u8], at_end: bool, dialect: &Dialect, width: Option<usize>) -> Skip {
    match rest {
        [b'\n', ..] if width != Some(1) => Skip::Line(1),
        [b'\r', b'\n', ..] if width != Some(1) => Skip::Line(2),
        [b'\r'] if !at_end => Skip::Unknown,
        [first, ..] if Some(*first) == dialect.comment => match memchr(b'\n', rest) {
            Some(end) => Skip::Line(end + 1),
            None if at_end => Skip::Line(rest.len()),
            None => Skip::Unknown,
        },
        _ => Skip::No,
    }
}

enum Record {
    Whole { end: usize, next: usize },
    Broken { end: usize, next: usize, reason: &'static str },
    Unfinished,
}

fn record(buffer: &[u8], start: usize, at_end: bool, dialect: &Dialect, fields: &mut Vec<Field>) -> Record {
    let mut position = start;
    loop {
        // A field begins at `position`.
        let (field_end, kind, stop) = if dialect.quote.is_some() && buffer.get(position).copied() == dialect.quote {
            match closing(buffer, position, at_end, dialect) {
                Closing::At { quote, escaped } => {
                    position += 1;
                    (quote, if escaped { Kind::Escaped } else { Kind::Quoted }, quote + 1)
                }
                Closing::Never(reason) => {
                    return match memchr(b'\n', &buffer[position..]) {
                        Some(n) => {
                            let end = position + n;
                            let end_of_text = if buffer[..end].last() == Some(&b'\r') { end - 1 } else { end };
                            Record::Broken { end: end_of_text, next: end + 1, reason }
                        }
                        None if at_end => Record::Broken { end: buffer.len(), next: buffer.len(), reason },
                        None => Record::Unfinished,
                    };
                }
                Closing::Unknown => return Record::Unfinished,
            }
        } else {
            let stop = delimiter_or_newline(buffer, position, dialect.delimiter);
            // A carriage return belongs to the line's end.
            let crlf = buffer.get(stop) == Some(&b'\n') || (stop == buffer.len() && at_end);
            let end = if crlf && stop > position && buffer[stop - 1] == b'\r' { stop - 1 } else { stop };
            (end, Kind::Plain, stop)
        };
        fields.push(Field { start: position as u32, end: field_end as u32, kind });
        match buffer.get(stop) {
            Some(b) if *b == dialect.delimiter => position = stop + 1,
            Some(b'\r') => {
                // Only after a closing quote, which has seen what follows.
                let next = if buffer.get(stop + 1) == Some(&b'\n') { stop + 2 } else { stop + 1 };
                return Record::Whole { end: stop, next };
            }
            Some(_) => {
                let end = if kind == Kind::Plain { field_end } else { stop };
                return Record::Whole { end, next: stop + 1 };
            }
            None if at_end => return Record::Whole { end: if kind == Kind::Plain { field_end } else { stop }, next: buffer.len() },
            None => return Record::Unfinished,
        }
    }
}

/// Where a quoted field ends.
pub enum Closing {
    At {
        quote: usize,
        escaped: bool,
    },
    /// It does not, or not as it should.
    Never(&'static str),
    /// That is not in the buffer yet.
    Unknown,
}

/// Looks for the end of the quoted field whose opening quote stands at `open`.
pub fn closing(buffer: &[u8], open: usize, at_end: bool, dialect: &Dialect) -> Closing {
    let quote = dialect.quote.unwrap_or(b'"');
    let escape = dialect.escape.unwrap_or(quote);
    let mut from = open + 1;
    let mut escaped = false;
    loop {
        let Some(at) = memchr2(quote, escape, &buffer[from.min(buffer.len())..]).map(|n| from + n) else {
            return if at_end || buffer.len() - open > dialect.max_record {
                Closing::Never("a quote that is opened here never closes")
            } else {
                Closing::Unknown
            };
        };
        if at - open > dialect.max_record {
            return Closing::Never("a quote that is opened here never closes");
        }
        if buffer[at] == escape && escape != quote {
            escaped = true;
            from = at + 2;
            continue;
        }
        match buffer.get(at + 1) {
            None if at_end => return Closing::At { quote: at, escaped },
            None => return Closing::Unknown,
            Some(b) if *b == quote => {
                escaped = true;
                from = at + 2;
            }
            Some(b) if *b == dialect.delimiter || *b == b'\n' => return Closing::At { quote: at, escaped },
            Some(b'\r') => match buffer.get(at + 2) {
                Some(b'\n') => return Closing::At { quote: at, escaped },
                None if at_end => return Closing::At { quote: at, escaped },
                None => return Closing::Unknown,
                Some(_) => return Closing::Never("text after a closing quote"),
            },
            Some(_) => return Closing::Never("text after a closing quote, or a quote that never closes"),
        }
    }
}

const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;

/// 0x80 in each byte of `word` that equals the byte in `pattern`.
fn equal(word: u64, pattern: u64) -> u64 {
    let x = word ^ pattern;
    !(((x & LOW) + LOW) | x | LOW)
}

/// The next delimiter or newline, or the buffer's end. Fields are short, so eight bytes at a time beat a vector search.
fn delimiter_or_newline(buffer: &[u8], mut position: usize, delimiter: u8) -> usize {
    let (delimiters, newlines) = (u64::from_ne_bytes([delimiter; 8]), u64::from_ne_bytes([b'\n'; 8]));
    while let Some(bytes) = buffer.get(position..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*bytes);
        let hits = equal(word, delimiters) | equal(word, newlines);
        if hits != 0 {
            return position + (hits.trailing_zeros() / 8) as usize;
        }
        position += 8;
    }
    let rest = &buffer[position.min(buffer.len())..];
    memchr2(delimiter, b'\n', rest).map_or(buffer.len(), |n| position + n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::csv::dialect::CsvConfig;
    use proptest::prelude::*;

    fn parse(text: &str, config: &CsvConfig, width: Option<usize>) -> (Vec<Vec<String>>, Vec<String>) {
        let dialect = config.dialect(false).unwrap();
        let mut records = Records::default();
        let (mut rows, mut broken) = (Vec::new(), Vec::new());
        let mut at = 0;
        while at < text.len() {
            let rest = &text.as_bytes()[at..];
            let used = scan(rest, true, &dialect, Limits { width, records: 1 }, &mut records);
            assert!(used > 0);
            if records.len() == 1 {
                rows.push(records.first().iter().map(|f| String::from_utf8(f.text(rest, &dialect).into_owned()).unwrap()).collect());
            }
            broken.extend(records.broken.iter().map(|b| format!("{}: {}", String::from_utf8_lossy(&rest[b.start..b.end]), b.reason)));
            at += used;
        }
        (rows, broken)
    }

    #[test]
    fn records_of_the_wild() {
        type Case = (&'static str, &'static [&'static [&'static str]], &'static [&'static str]);
        let cases: [Case; 12] = [
            ("a,b\nc,d\n", &[&["a", "b"], &["c", "d"]], &[]),
            ("a,b\r\nc,d", &[&["a", "b"], &["c", "d"]], &[]),
            ("\"a,1\",\"b\"\"q\"\"\"\n", &[&["a,1", "b\"q\""]], &[]),
            ("\"line\nbreak\",x\r\n\"y\",\"\"\r\n", &[&["line\nbreak", "x"], &["y", ""]], &[]),
            ("5\" pipe,\"x\"\n", &[&["5\" pipe", "x"]], &[]),
            (",\n", &[&["", ""]], &[]),
            ("a,b\n\n\r\nc,d\n", &[&["a", "b"], &["c", "d"]], &[]),
            ("a\nb,c\nd,e,f\n", &[&["b", "c"]], &["a: 1 field, where the header has 2", "d,e,f: 3 fields, where the header has 2"]),
            // A quote that never closes costs one line.
            ("1,\"open\n2,b\n3,c\n", &[&["2", "b"], &["3", "c"]], &["1,\"open: a quote that is opened here never closes"]),
            (
                "1,\"open\n2,\"b\"\n3,c\n",
                &[&["2", "b"], &["3", "c"]],
                &["1,\"open: text after a closing quote, or a quote that never closes"],
            ),
            ("1,\"x\"y\n2,b\n", &[&["2", "b"]], &["1,\"x\"y: text after a closing quote, or a quote that never closes"]),
            ("1,x\r", &[&["1", "x"]], &[]),
        ];
        for (text, rows, broken) in cases {
            let (got, reasons) = parse(text, &CsvConfig::default(), Some(2));
            assert_eq!(got, rows, "{text:?}");
            assert_eq!(reasons, broken, "{text:?}");
        }
    }

    #[test]
    fn other_dialects() {
        let escape = CsvConfig { escape: Some("\\".into()), ..CsvConfig::default() };
        assert_eq!(parse("\"a\\\"b\",c\n", &escape, None).0, [["a\"b", "c"]]);
        let none = CsvConfig { quote: Some(String::new()), ..CsvConfig::default() };
        assert_eq!(parse("\"a,b\n", &none, None).0, [["\"a", "b"]]);
        let comment = CsvConfig { comment: Some("#".into()), ..CsvConfig::default() };
        assert_eq!(parse("# x\na\n#y", &comment, None).0, [["a"]]);
        // One column: an empty line is a row.
        assert_eq!(parse("a\n\nb\n", &CsvConfig::default(), Some(1)).0, [["a"], [""], ["b"]]);
    }

    proptest! {
        /// Whatever is written with quotes comes back, also when it arrives in pieces.
        #[test]
        fn quoted_rows_come_back(rows in prop::collection::vec(prop::collection::vec("[a\",\n\r ]{0,12}", 3), 1..6), cut in 1usize..40) {
            let quoted = |f: &String| format!("\"{}\"", f.replace('"', "\"\""));
            let text: String = rows.iter().map(|r| r.iter().map(quoted).collect::<Vec<_>>().join(",") + "\n").collect();
            let dialect = CsvConfig::default().dialect(false).unwrap();
            let mut records = Records::default();
            let (mut got, mut from, mut to) = (Vec::new(), 0, 0);
            while from < text.len() {
                to = (to + cut).min(text.len());
                let window = &text.as_bytes()[from..to];
                let used = scan(window, to == text.len(), &dialect, Limits { width: Some(3), records: 100 }, &mut records);
                prop_assert!(records.broken.is_empty(), "{:?}", records.broken);
                for chunk in records.first().chunks(3) {
                    got.push(chunk.iter().map(|f| String::from_utf8(f.text(window, &dialect).into_owned()).unwrap()).collect::<Vec<_>>());
                }
                from += used;
            }
            prop_assert_eq!(got, rows);
        }
    }
}
