//! From bytes to batches.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{Field, FieldRef, Schema};
use memchr::{memchr, memchr_iter};
use trib_core::{Code, Error, Lines, Result};

use super::super::column::{self, Cell, Refused};
use super::super::sink::{Sink, rejected};
use super::super::window::Window;
use super::dialect::Dialect;
use super::infer::Guess;
use super::record::{self, Limits, Records, scan};

const BATCH: usize = 32 << 10;

/// Some whole records.
struct Piece<'a> {
    bytes: &'a [u8],
    /// The number of the first one.
    line: u64,
    line_ends: u64,
}

impl Piece<'_> {
    /// Where the records stand, less those that are left out. Looks at the bytes only where some record takes more than its line.
    fn lines(&self, file: &str, records: &Records, refused: &Refused) -> Lines {
        let lines = self.line_ends + u64::from(!self.bytes.ends_with(b"\n"));
        if lines == records.len() as u64 && refused.is_empty() {
            return Lines::from(file, self.line, records.len());
        }
        let (mut counted, mut at) = (0, self.line);
        let kept = (0..records.len()).filter(|row| !refused.0.contains_key(row));
        Lines::new(
            file,
            kept.map(|row| {
                let (start, _) = records.span(row);
                at += memchr_iter(b'\n', &self.bytes[counted..start]).count() as u64;
                counted = start;
                at
            }),
        )
    }
}

/// A file's bytes, handed out as whole records.
pub struct Chunks<'a> {
    window: Window<'a>,
    dialect: &'a Dialect,
}

impl<'a> Chunks<'a> {
    /// `input` begins on this line.
    pub fn new(input: Box<dyn Read + Send>, dialect: &'a Dialect, file: &'a str, line: u64) -> Self {
        Self { window: Window::new(input, file, line), dialect }
    }

    /// Offset and line of what comes next.
    pub fn position(&self) -> (u64, u64) {
        (self.window.offset, self.window.line)
    }

    /// The next records, with their bytes.
    fn next(&mut self, limits: Limits, records: &mut Records) -> Result<Option<Piece<'_>>> {
        if self.window.is_low() {
            self.window.fill()?;
        }
        loop {
            let used = scan(self.window.bytes(), self.window.at_end, self.dialect, limits, records);
            if used > 0 {
                let line = self.window.line;
                self.window.consume(used);
                return Ok(Some(Piece { line_ends: self.window.line - line, line, bytes: self.window.consumed(used) }));
            }
            if self.window.at_end {
                return Ok(None);
            }
            if self.window.bytes().len() > self.dialect.max_record {
                return Err(self
                    .window
                    .too_long(self.dialect.max_record)
                    .hint("is this a text file with line ends? If so, raise `csv: {max_record_bytes: …}`"));
            }
            self.window.fill()?;
        }
    }

    /// Leaves out a byte order mark and the lines before the header.
    fn begin(&mut self) -> Result<()> {
        self.window.begin()?;
        for _ in 0..self.dialect.skip_rows {
            loop {
                if let Some(n) = memchr(b'\n', self.window.bytes()) {
                    self.window.consume(n + 1);
                    break;
                }
                self.window.consume(self.window.bytes().len());
                if self.window.at_end {
                    return Ok(());
                }
                self.window.fill()?;
            }
        }
        Ok(())
    }
}

/// The columns of one file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layout {
    pub names: Vec<String>,
    /// What was changed about the names, for people.
    pub notes: Vec<String>,
}

impl Layout {
    /// Reads the header; where there is none, counts the fields of the first record. An empty file has no columns.
    pub fn read(chunks: &mut Chunks<'_>) -> Result<Self> {
        chunks.begin()?;
        let dialect = chunks.dialect;
        let mut records = Records::default();
        let (offset, first_line) = chunks.position();
        let file = chunks.window.file;
        let Some(Piece { bytes, line, .. }) = chunks.next(Limits { width: None, records: 1 }, &mut records)? else {
            return Ok(Self::default());
        };
        if let Some(broken) = records.broken.first() {
            return Err(Error::new(Code::DataInvalid, "the header cannot be read").detail(broken.reason.clone()).file(
                file,
                Some(line as usize),
                None,
            ));
        }
        if dialect.header {
            let names = records.first().iter().map(|f| {
                String::from_utf8(f.text(bytes, dialect).into_owned()).map_err(|_| {
                    Error::new(Code::DataInvalid, "the header is not valid UTF-8")
                        .file(file, Some(line as usize), None)
                        .hint("if the file has another encoding, set `csv: {encoding: latin1}`")
                })
            });
            return Ok(unique(names.collect::<Result<_>>()?));
        }
        let width = records.first().len();
        // Not a header: it is read again as a row.
        chunks.window.unread(offset, first_line);
        match &dialect.names {
            Some(names) if names.len() != width => {
                Err(Error::new(Code::ConfigInvalid, "the file has another number of columns than are named")
                    .detail(format!("{} names, {width} fields", names.len()))
                    .file(file, Some(first_line as usize), None)
                    .setting("csv.names"))
            }
            Some(names) => Ok(unique(names.clone())),
            None => Ok(unique(vec![String::new(); width])),
        }
    }
}

/// Columns without a name, or with one that another has, get one of their own.
pub fn unique(names: Vec<String>) -> Layout {
    let mut layout = Layout::default();
    let mut taken: HashMap<String, usize> = names.iter().map(|n| (n.clone(), 0)).collect();
    for (i, name) in names.into_iter().enumerate() {
        let base = if name.is_empty() { format!("column_{}", i + 1) } else { name.clone() };
        let mut unique = base.clone();
        let mut n = 1;
        while taken.get(&unique).copied().unwrap_or(0) > 0 || (n > 1 && taken.contains_key(&unique)) {
            n += 1;
            unique = format!("{base}_{n}");
        }
        if unique != name {
            let what = if name.is_empty() { "has no name".to_owned() } else { format!("is another {name:?}") };
            layout.notes.push(format!("column {} {what}: it is called {unique:?}", i + 1));
        }
        *taken.entry(unique.clone()).or_default() += 1;
        layout.names.push(unique);
    }
    layout
}

/// Looks at up to `bytes` of a file: its columns, and what their texts look like. Columns in `declared` are not guessed.
pub fn sample(
    chunks: &mut Chunks<'_>,
    layout: &Layout,
    bytes: u64,
    guesses: &mut BTreeMap<String, Guess>,
    declared: &BTreeMap<String, Field>,
) -> Result<()> {
    let mut records = Records::default();
    let width = layout.names.len();
    let until = chunks.window.offset + bytes;
    let dialect = chunks.dialect;
    while width > 0 && chunks.window.offset < until {
        let Some(Piece { bytes: window, .. }) = chunks.next(Limits { width: Some(width), records: 1000 }, &mut records)? else { break };
        for (i, name) in layout.names.iter().enumerate().filter(|(_, n)| !declared.contains_key(*n)) {
            let Some(guess) = guesses.get_mut(name) else { continue };
            for field in records.column(i, width) {
                if let Some(text) = cell(field, window, dialect, false) {
                    guess.see(&text);
                }
            }
        }
    }
    Ok(())
}

/// NULL is an unquoted null value. A quoted empty field is an empty text, and NULL where the column is not `text`, since nothing else can be meant.
fn cell<'a>(field: record::Field, window: &'a [u8], dialect: &Dialect, text: bool) -> Cell<'a> {
    let raw = field.raw(window);
    let null = if field.is_quoted() { raw.is_empty() && !text } else { is_null(raw, &dialect.nulls) };
    (!null).then(|| field.text(window, dialect))
}

fn is_null(raw: &[u8], nulls: &[Vec<u8>]) -> bool {
    match nulls {
        [null] if null.is_empty() => raw.is_empty(),
        _ => nulls.iter().any(|n| n == raw),
    }
}

/// Reads all records of `chunks`, which stand behind the header, into `sink`. `fields` are the columns that are wanted; `known` are all of the stream.
pub fn read(mut chunks: Chunks<'_>, layout: &Layout, fields: &[FieldRef], known: &Schema, sink: &mut Sink) -> Result<()> {
    let (file, dialect) = (chunks.window.file, chunks.dialect);
    if let Some(new) = layout.names.iter().find(|n| known.field_with_name(n).is_err()) {
        return Err(Error::new(Code::ContractBroken, "a file has a column that the sampled files do not have")
            .detail(new.clone())
            .file(file, Some(1), None)
            .hint("declare it under `columns:`, or sample more files with `infer: {files: …}`"));
    }
    let width = layout.names.len();
    let places: Vec<Option<usize>> = fields.iter().map(|f| layout.names.iter().position(|n| n == f.name())).collect();
    let schema = Arc::new(Schema::new(fields.to_vec()));
    let mut records = Records::default();
    while width > 0
        && let Some(piece) = chunks.next(Limits { width: Some(width), records: BATCH }, &mut records)?
    {
        let window = piece.bytes;
        let len = records.len();
        let mut refused = Refused::default();
        let mut columns = Vec::with_capacity(fields.len());
        for (field, place) in fields.iter().zip(&places) {
            columns.push(match place {
                None => new_null_array(field.data_type(), len),
                Some(place) => {
                    let text = column::is_text(field.data_type());
                    let cells = records.column(*place, width).map(|f| cell(f, window, dialect, text));
                    column::decode(field, len, cells, &mut refused)?
                }
            });
        }
        let batch = RecordBatch::try_new_with_options(schema.clone(), columns, &RecordBatchOptions::new().with_row_count(Some(len)))?;
        if !refused.is_empty() || !records.broken.is_empty() {
            let broken = records.broken.iter().map(|b| (b.start, b.end, b.reason.clone()));
            let unfit = refused.0.iter().map(|(row, reason)| {
                let (start, end) = records.span(*row);
                (start, end, reason.clone())
            });
            let mut all: Vec<_> = broken.chain(unfit).collect();
            all.sort_unstable_by_key(|(start, ..)| *start);
            let (mut counted, mut at) = (0, piece.line);
            for (start, end, reason) in all {
                at += memchr_iter(b'\n', &window[counted..start]).count() as u64;
                counted = start;
                sink.reject(rejected(file, at, reason, &window[start..end]))?;
            }
        }
        sink.lines(without(batch, &refused)?, Some(piece.lines(file, &records, &refused)))?;
    }
    Ok(())
}

/// The batch without the rows that were refused.
pub fn without(batch: RecordBatch, refused: &Refused) -> Result<RecordBatch> {
    if refused.is_empty() {
        return Ok(batch);
    }
    let keep: arrow::array::BooleanArray = (0..batch.num_rows()).map(|row| Some(!refused.0.contains_key(&row))).collect();
    Ok(arrow::compute::filter_record_batch(&batch, &keep)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_unique() {
        let layout = unique(["id", "", "id", "id_2", "id"].map(str::to_owned).to_vec());
        assert_eq!(layout.names, ["id", "column_2", "id_3", "id_2", "id_4"]);
        assert_eq!(layout.notes.len(), 3);
    }
}
