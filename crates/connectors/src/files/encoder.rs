//! One file that is being written: the place where formats differ on their way out.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{FileWriter, IpcWriteOptions};
use trib_core::logical::{FieldExt, Logical};
use trib_core::{Code, ColumnType, Error, Result};

use super::column::native_name;
use super::compression::{Compression, Compressor};
use super::csv::dialect::{CsvConfig, Dialect};
use super::format::Format;
use super::place::Output;
use super::{csv, json, parquet};

/// How files are written.
#[derive(Clone, Debug)]
pub struct Style {
    pub format: Format,
    pub compression: Option<Compression>,
    pub dialect: Dialect,
}

impl Style {
    pub fn new(format: Format, compression: Option<Compression>, csv: &CsvConfig) -> Result<Self> {
        let refused = |what: &'static str, hint: &'static str| Err(Error::new(Code::ConfigInvalid, what).hint(hint));
        match (format, compression) {
            (Format::Excel, _) => return refused("Excel files are read, not written", "set `format: csv` or `parquet`"),
            (_, Some(Compression::Zip)) => return refused("zip archives are read, not written", "set `compression: gzip`"),
            (Format::Parquet, Some(Compression::Bzip2 | Compression::Xz)) => {
                return refused("Parquet does not know this compression", "leave it out for Snappy, or take `zstd`, `gzip` or `none`");
            }
            (Format::Arrow, Some(Compression::Gzip | Compression::Bzip2 | Compression::Xz)) => {
                return refused("Arrow IPC does not know this compression", "take `zstd` or `none`");
            }
            _ => {}
        }
        let dialect = csv.dialect(format == Format::Tsv)?;
        if matches!(format, Format::Csv | Format::Tsv) && dialect.quote.is_none() {
            return refused("files without quotes cannot hold every text", "leave `csv.quote` out where files are written");
        }
        Ok(Self { format, compression, dialect })
    }

    /// With the dot.
    pub fn extension(&self) -> String {
        let outer = self.compression.filter(|_| self.format.is_text()).unwrap_or_default().extension();
        format!(".{}{outer}", self.format.extension())
    }

    pub fn is_nested(&self) -> bool {
        !matches!(self.format, Format::Csv | Format::Tsv)
    }

    /// See [`trib_core::Destination::column_type`].
    pub fn column_type(&self, field: &Field) -> Result<ColumnType> {
        let t = field.data_type();
        let refused = |hint: &'static str| {
            Err(Error::new(Code::Unsupported, "files of this format have no such type")
                .detail(format!("{}: {t} in {}", field.name(), self.format.extension()))
                .hint(hint))
        };
        let name = native_name(field);
        if matches!(t, DataType::Null | DataType::Interval(_) | DataType::Duration(_) | DataType::Union(..) | DataType::RunEndEncoded(..)) {
            return refused("cast it to text under `columns:`");
        }
        if t.is_nested() && !self.is_nested() {
            return refused("set `nested: json` for the column, or write Parquet or JSON");
        }
        if self.format.is_text() && t.is_nested() && !matches!(t, DataType::Struct(_) | DataType::List(_)) {
            return refused("set `nested: json` for the column, or write Parquet");
        }
        let is_bytes = (t.is_binary() || matches!(t, DataType::FixedSizeBinary(_))) && field.logical() != Some(Logical::Uuid);
        if self.format.is_text() && is_bytes {
            return Ok(ColumnType::lossy(name, "bytes are written as base64 text"));
        }
        if matches!(self.format, Format::Json | Format::Jsonl) && field.logical() == Some(Logical::Json) {
            return Ok(ColumnType::lossy(name, "the JSON value null becomes NULL"));
        }
        Ok(ColumnType::exact(name))
    }

    /// Begins a file. `first` is its first batch, where there is one.
    pub fn encoder(&self, out: Output, schema: &SchemaRef, first: Option<&RecordBatch>) -> Result<Encoder> {
        let outer = self.compression.unwrap_or_default();
        Ok(match self.format {
            Format::Csv | Format::Tsv => {
                let mut out = outer.compress(out)?;
                out.write_all(&csv::write::header(schema, &self.dialect))?;
                Encoder::Csv { out, dialect: self.dialect.clone(), buffer: Vec::new() }
            }
            Format::Jsonl => Encoder::Json {
                out: outer.compress(out)?,
                writer: json::write::Writer::new("\n"),
                end: "\n",
                text: String::new(),
                any: false,
            },
            Format::Json => {
                let mut out = outer.compress(out)?;
                out.write_all(ARRAY_START)?;
                Encoder::Json { out, writer: json::write::Writer::new(",\n"), end: ARRAY_END, text: String::new(), any: true }
            }
            Format::Parquet => Encoder::Parquet(Box::new(parquet::Writer::new(out, schema, self.compression, first)?)),
            Format::Arrow => {
                let compression = (outer == Compression::Zstd).then_some(CompressionType::ZSTD);
                let options = IpcWriteOptions::default().try_with_compression(compression)?;
                Encoder::Arrow(Box::new(FileWriter::try_new_with_options(out, schema, options)?))
            }
            Format::Excel => return Err(Error::internal("an Excel file cannot be written")),
        })
    }
}

/// What a JSON array begins and ends with.
pub const ARRAY_START: &[u8] = b"[\n";
pub const ARRAY_END: &str = "\n]\n";

pub enum Encoder {
    Csv { out: Compressor<Output>, dialect: Dialect, buffer: Vec<u8> },
    Json { out: Compressor<Output>, writer: json::write::Writer, end: &'static str, text: String, any: bool },
    Parquet(Box<parquet::Writer<Output>>),
    Arrow(Box<FileWriter<Output>>),
}

impl Encoder {
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            Encoder::Csv { out, dialect, buffer } => csv::write::rows(batch, dialect, buffer, out),
            Encoder::Json { out, writer, text, any, .. } => {
                text.clear();
                writer.rows(batch, text)?;
                *any |= batch.num_rows() > 0;
                Ok(out.write_all(text.as_bytes())?)
            }
            Encoder::Parquet(writer) => writer.write(batch),
            Encoder::Arrow(writer) => Ok(writer.write(batch)?),
        }
    }

    /// Bytes in the file so far, about.
    pub fn written(&self) -> u64 {
        match self {
            Encoder::Parquet(writer) => writer.written() as u64,
            // Text files and streams are read in pieces, so their size does not matter.
            _ => 0,
        }
    }

    /// Makes the file whole and durable, and returns its size.
    pub fn finish(self) -> Result<u64> {
        match self {
            Encoder::Csv { out, .. } => out.finish()?.finish(),
            Encoder::Json { mut out, end, any, .. } => {
                if any {
                    out.write_all(end.as_bytes())?;
                }
                out.finish()?.finish()
            }
            Encoder::Parquet(writer) => writer.finish()?.finish(),
            Encoder::Arrow(writer) => writer.into_inner()?.finish(),
        }
    }
}
