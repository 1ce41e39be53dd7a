//! One stream's files, looked at and read on blocking threads: the place where formats differ.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use object_store::path::Path;
use tokio::runtime::Handle;
use trib_core::relation::{Relation, relate};
use trib_core::{Code, Error, Result};

use super::column;
use super::compression::Compression;
use super::config::Infer;
use super::csv::dialect::Dialect;
use super::csv::infer::Guess;
use super::csv::read::{Chunks, Layout};
use super::excel::Sheet;
use super::format::Format;
use super::input::Input;
use super::json;
use super::parquet::{Footer, ParquetFile};
use super::sink::Sink;
use super::split::{FILE, Piece};
use super::streams::{DataFile, StreamFiles};
use super::window::Window;
use super::{csv, declared, ipc};

/// Files below this are not worth cutting.
const SMALLEST_PIECE: u64 = 16 << 20;

/// What a stream looks like.
#[derive(Clone, Debug)]
pub struct Described {
    pub schema: Schema,
    pub rows: Option<u64>,
    /// What a person should know about the columns.
    pub notes: Vec<String>,
}

/// Reads one stream. Cheap to clone; made inside the runtime, used on blocking threads.
#[derive(Clone)]
pub struct Scanner {
    location: trib_kit::storage::Location,
    settings: super::config::StreamSettings,
    declared: BTreeMap<String, Field>,
    include_declared: bool,
    typed: bool,
    infer: Infer,
    runtime: Handle,
}

impl Scanner {
    pub fn new(stream: &StreamFiles, infer: &Infer) -> Result<Self> {
        Ok(Self {
            location: stream.location.clone(),
            settings: stream.settings.clone(),
            declared: declared::fields(&stream.settings.columns).map_err(|e| e.stream(&stream.name))?,
            include_declared: stream.is_only_one,
            typed: stream.schema.is_some(),
            infer: infer.clone(),
            runtime: Handle::current(),
        })
    }

    fn dialect(&self, format: Format) -> Result<Dialect> {
        self.settings.csv.dialect(format == Format::Tsv)
    }

    fn path(path: &str) -> Result<Path> {
        Path::parse(path).map_err(|e| Error::internal("a listed path cannot be opened").source(e))
    }

    fn input(&self, path: &str) -> Result<Input> {
        Ok(Input::new(&self.location, Self::path(path)?, &self.runtime))
    }

    fn text(&self, dialect: &Dialect, path: &str, compression: Compression) -> Result<Box<dyn Read + Send>> {
        Ok(dialect.encoding.decode(self.input(path)?.content(compression)?))
    }

    /// Finds out the schema from a sample of the files.
    pub fn describe(&self, stream: &StreamFiles) -> Result<Described> {
        if let Some(schema) = &stream.schema {
            return Ok(Described { schema: schema.clone(), rows: stream.rows, notes: Vec::new() });
        }
        let sampled = sample(&stream.files, self.infer.files);
        let bytes = (self.infer.bytes / sampled.len().max(1)).max(64 << 10) as u64;
        let mut found = Found::default();
        for file in &sampled {
            self.look(file, bytes, &mut found).map_err(|e| e.stream(&stream.name))?;
        }
        let mut fields = found.fields(&self.declared)?;
        let partitioned = stream.files.iter().flat_map(|f| f.partition.keys());
        let extra = partitioned.map(|name| (name, DataType::Utf8)).collect::<BTreeMap<_, _>>();
        for (name, t) in extra {
            if !fields.iter().any(|f| f.name() == name) {
                fields.push(Arc::new(self.declared.get(name).cloned().unwrap_or_else(|| Field::new(name, t, true))));
            }
        }
        for (name, field) in &self.declared {
            match fields.iter().position(|f| f.name() == name) {
                Some(at) => fields[at] = Arc::new(field.clone()),
                None if self.include_declared => fields.push(Arc::new(field.clone())),
                None => {}
            }
        }
        let rows = (sampled.len() == stream.files.len()).then_some(found.rows).flatten();
        Ok(Described { schema: Schema::new(fields), rows, notes: found.notes })
    }

    fn look(&self, file: &DataFile, bytes: u64, found: &mut Found) -> Result<()> {
        let (path, name) = (&file.entry.path, file.entry.name.as_str());
        match file.format {
            Format::Csv | Format::Tsv => {
                let dialect = self.dialect(file.format)?;
                let mut chunks = Chunks::new(self.text(&dialect, path, file.compression)?, &dialect, name, 1);
                let layout = Layout::read(&mut chunks)?;
                for column in &layout.names {
                    if !found.guesses.contains_key(column) {
                        found.order.push(column.clone());
                        found.guesses.insert(column.clone(), Guess::default());
                    }
                }
                if let [only] = layout.names.as_slice()
                    && only.contains([';', '\t', '|'])
                {
                    found.notes.push(format!("{name}: one column {only:?}: should `csv: {{delimiter: …}}` be set?"));
                }
                found.notes.extend(layout.notes.iter().map(|note| format!("{name}: {note}")));
                csv::read::sample(&mut chunks, &layout, bytes, &mut found.guesses, &self.declared)
            }
            Format::Json | Format::Jsonl => {
                let window = Window::new(self.input(path)?.content(file.compression)?, name, 1);
                json::read::sample(window, file.format == Format::Jsonl, bytes, &mut found.shape)
            }
            Format::Parquet => {
                let footer = self.footer(file.entry.size, path, name)?;
                let rows = footer.row_groups.iter().map(|g| g.0).sum::<u64>();
                found.rows = Some(found.rows.unwrap_or(0) + rows);
                found.unite(footer.schema.fields())
            }
            Format::Arrow => {
                let schema = ipc::schema(self.input(path)?.content(file.compression)?, name)?;
                found.unite(schema.fields())
            }
            Format::Excel => {
                let sheet = Sheet::open(self.input(path)?.seekable()?, name, self.settings.sheet.as_deref())?;
                found.unite(&sheet.fields(&self.declared).into())
            }
        }
    }

    fn parquet<T>(&self, size: u64, path: &str, name: &str, work: impl FnOnce(&ParquetFile<'_>) -> Result<T>) -> Result<T> {
        let (input, path) = (self.input(path)?, Self::path(path)?);
        work(&ParquetFile { location: &self.location, path: &path, size, input: &input, runtime: &self.runtime, name })
    }

    fn footer(&self, size: u64, path: &str, name: &str) -> Result<Footer> {
        let footer = |parquet: &ParquetFile<'_>| parquet.footer();
        self.parquet(size, path, name, footer)
    }

    /// Cuts one file into pieces that can be read side by side, about as many as asked for.
    pub fn pieces(&self, piece: Piece, parallelism: usize) -> Result<Vec<Piece>> {
        let most = (piece.size / SMALLEST_PIECE).min(parallelism as u64);
        if most < 2 {
            return Ok(vec![piece]);
        }
        let input = self.input(&piece.path)?;
        match piece.format {
            Format::Parquet => {
                let groups = self.footer(piece.size, &piece.path, &piece.name)?.row_groups;
                let runs = balanced(&groups.iter().map(|g| g.1).collect::<Vec<_>>(), most as usize);
                Ok(runs.into_iter().map(|run| Piece { row_groups: Some(run), ..piece.clone() }).collect())
            }
            Format::Csv | Format::Tsv | Format::Jsonl if piece.compression == Compression::None && input.local()?.is_some() => {
                let dialect = if piece.format == Format::Jsonl {
                    // Lines are records, whatever is in them.
                    super::csv::dialect::CsvConfig { quote: Some(String::new()), ..Default::default() }.dialect(false)?
                } else {
                    self.dialect(piece.format)?
                };
                // A comment may hold quotes that mean nothing, and offsets are those of the decoded text.
                if dialect.comment.is_some() || dialect.encoding != super::csv::dialect::Encoding::Utf8 {
                    return Ok(vec![piece]);
                }
                let (start, line) = if piece.format == Format::Jsonl {
                    (0, 1)
                } else {
                    let mut chunks = Chunks::new(input.bytes(None)?, &dialect, &piece.name, 1);
                    Layout::read(&mut chunks)?;
                    chunks.position()
                };
                let rest = input.bytes(Some(start..piece.size))?;
                let cut = csv::split::pieces(rest, &dialect, start, line, piece.size, most)?;
                Ok(cut
                    .into_iter()
                    .map(|p| Piece { bytes: Some((p.bytes.start, p.bytes.end)), line: Some(p.line), ..piece.clone() })
                    .collect())
            }
            _ => Ok(vec![piece]),
        }
    }

    /// Reads a piece into `sink`, which needs `fields`; `known` are all columns of the stream.
    pub fn read(&self, piece: &Piece, fields: &[FieldRef], known: &Schema, sink: &mut Sink) -> Result<()> {
        let input = self.input(&piece.path)?;
        let name = piece.name.as_str();
        // What the file's place says is no column in it.
        let said = |field: &FieldRef| match piece.partition.get(field.name()) {
            Some(value) => Some(value.clone()),
            None => (field.name() == FILE).then(|| Some(name.to_owned())),
        };
        sink.constants = fields.iter().filter_map(|f| Some((f.clone(), said(f)?))).collect();
        let fields: Vec<FieldRef> = fields.iter().filter(|f| said(f).is_none()).cloned().collect();
        let known = Schema::new(known.fields().iter().filter(|f| said(f).is_none()).cloned().collect::<Vec<_>>());
        match piece.format {
            Format::Csv | Format::Tsv => {
                let dialect = self.dialect(piece.format)?;
                let mut chunks = Chunks::new(self.text(&dialect, &piece.path, piece.compression)?, &dialect, name, 1);
                let layout = Layout::read(&mut chunks)?;
                if let (Some((from, to)), Some(line)) = (piece.bytes, piece.line) {
                    chunks = Chunks::new(input.bytes(Some(from..to))?, &dialect, name, line);
                }
                csv::read::read(chunks, &layout, &fields, &known, sink)
            }
            Format::Json | Format::Jsonl => {
                let content = match piece.bytes {
                    Some((from, to)) => input.bytes(Some(from..to))?,
                    None => input.content(piece.compression)?,
                };
                let window = Window::new(content, name, piece.line.unwrap_or(1));
                let declared = |name: &str| self.typed || self.declared.contains_key(name);
                json::read::read(window, piece.format == Format::Jsonl, &fields, &known, &declared, sink)
            }
            Format::Parquet => {
                let wanted: Vec<String> = fields.iter().map(|f| f.name().clone()).collect();
                let conform = |batch| conform(&batch, &fields, name);
                self.parquet(piece.size, &piece.path, name, |parquet| parquet.read(piece.row_groups, &wanted, sink, &conform))
            }
            Format::Arrow => ipc::read(input.content(piece.compression)?, name, sink, &|batch| conform(&batch, &fields, name)),
            Format::Excel => Sheet::open(input.seekable()?, name, self.settings.sheet.as_deref())?.read(&fields, &known, name, sink),
        }
    }
}

/// Up to `most` files, evenly spread, the first and the last among them.
fn sample(files: &[DataFile], most: usize) -> Vec<&DataFile> {
    let most = most.max(1);
    if files.len() <= most {
        return files.iter().collect();
    }
    (0..most).map(|i| &files[i * (files.len() - 1) / (most - 1).max(1)]).collect()
}

/// Cuts row groups into about `most` runs of equal size.
fn balanced(sizes: &[u64], most: usize) -> Vec<(usize, usize)> {
    let total: u64 = sizes.iter().sum();
    let (mut runs, mut from, mut sum) = (Vec::new(), 0, 0);
    for (i, size) in sizes.iter().enumerate() {
        sum += size;
        if sum * most as u64 >= total * (runs.len() as u64 + 1) || i + 1 == sizes.len() {
            runs.push((from, i + 1));
            from = i + 1;
        }
    }
    runs
}

/// What the sampled files have shown, whatever their formats.
#[derive(Default)]
struct Found {
    /// Columns of CSV files, in the order of their headers.
    order: Vec<String>,
    guesses: BTreeMap<String, Guess>,
    shape: json::Shape,
    typed: Vec<FieldRef>,
    rows: Option<u64>,
    notes: Vec<String>,
}

impl Found {
    /// Adds a typed file's columns; two types of one column become the narrowest that holds both, or text.
    fn unite(&mut self, fields: &arrow::datatypes::Fields) -> Result<()> {
        for field in fields {
            let plain = match field.data_type() {
                DataType::Dictionary(_, value) => Arc::new(field.as_ref().clone().with_data_type(value.as_ref().clone())),
                _ => field.clone(),
            };
            let Some(at) = self.typed.iter().position(|f| f.name() == field.name()) else {
                self.typed.push(Arc::new(plain.as_ref().clone().with_nullable(true)));
                continue;
            };
            let both = match relate(&self.typed[at], &plain) {
                Relation::Same | Relation::Fits => continue,
                Relation::Widens(wide) => wide,
                Relation::Clashes => DataType::Utf8,
            };
            if both == DataType::Utf8 && (self.typed[at].data_type().is_nested() || plain.data_type().is_nested()) {
                return Err(Error::new(Code::DataInvalid, "two files of one stream have columns that do not go together")
                    .detail(format!("{}: {} and {}", field.name(), self.typed[at].data_type(), plain.data_type()))
                    .hint("make them two streams"));
            }
            self.notes.push(format!(
                "column {} is {} in some files and {} in others: read as {both}",
                field.name(),
                self.typed[at].data_type(),
                plain.data_type()
            ));
            self.typed[at] = Arc::new(Field::new(field.name(), both, true));
        }
        Ok(())
    }

    fn fields(&mut self, declared: &BTreeMap<String, Field>) -> Result<Vec<FieldRef>> {
        let guessed = self.order.iter().map(|name| match declared.get(name) {
            Some(field) => Arc::new(field.clone()),
            None => self.guesses[name].field(name),
        });
        let mut others: Vec<FieldRef> = guessed.collect();
        others.extend(self.shape.fields());
        self.unite(&others.into())?;
        Ok(std::mem::take(&mut self.typed))
    }
}

/// A batch of a typed file with exactly these columns. What the file lacks is NULL; what it has in another type is converted where that keeps each value.
fn conform(batch: &RecordBatch, fields: &[FieldRef], file: &str) -> Result<RecordBatch> {
    let column = |field: &FieldRef| -> Result<ArrayRef> {
        let Some(column) = batch.column_by_name(field.name()) else {
            return Ok(new_null_array(field.data_type(), batch.num_rows()));
        };
        if column.data_type() == field.data_type() {
            return Ok(column.clone());
        }
        converted(column, field).ok_or_else(|| {
            Error::new(Code::DataInvalid, "a file's column does not fit the stream's type")
                .detail(format!("{}: {} in the file, {} in the stream", field.name(), column.data_type(), column::sql_name(field)))
                .file(file, None, None)
        })
    };
    let columns = fields.iter().map(column).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields.to_vec())), columns, &options)?)
}

/// The same values in another type, or `None` where that would change one of them.
fn converted(column: &ArrayRef, field: &Field) -> Option<ArrayRef> {
    let there = cast(column, field.data_type()).ok()?;
    let from = Field::new(field.name(), column.data_type().clone(), true);
    if matches!(relate(field, &from), Relation::Same | Relation::Fits) {
        return Some(there);
    }
    // A cast makes NULL of what does not fit, and rounds; the way back tells.
    let back = cast(&there, column.data_type()).ok()?;
    (back.as_ref() == column.as_ref()).then_some(there)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_groups_are_balanced() {
        assert_eq!(balanced(&[10, 10, 10, 10], 2), [(0, 2), (2, 4)]);
        assert_eq!(balanced(&[30, 5, 5], 2), [(0, 1), (1, 3)]);
        assert_eq!(balanced(&[1], 4), [(0, 1)]);
        assert_eq!(balanced(&[], 4), []);
    }
}
