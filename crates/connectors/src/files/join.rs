//! Several staged parts as one file, for a destination that is one file.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::Arc;

use arrow::ipc::reader::FileReader;
use parquet::column::writer::ColumnCloseResult;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use trib_core::{Error, Result};

use super::encoder::{ARRAY_END, ARRAY_START, Style};
use super::format::Format;
use super::parquet::write_error;
use super::place::Output;

/// Writes the rows of `parts`, in order, and returns the size of the whole. For blocking threads.
pub fn join(parts: Vec<File>, style: &Style, out: Output) -> Result<u64> {
    match style.format {
        Format::Parquet => parquet(parts, out),
        Format::Arrow => arrow(parts, style, out),
        Format::Csv | Format::Tsv | Format::Jsonl | Format::Json => text(parts, style, out),
        Format::Excel => Err(Error::internal("an Excel file cannot be written")),
    }
}

/// Row groups are taken over as they are.
fn parquet(parts: Vec<File>, out: Output) -> Result<u64> {
    let readers: Vec<(SerializedFileReader<File>, File)> = parts
        .into_iter()
        .map(|file| {
            let again = file.try_clone()?;
            Ok((SerializedFileReader::new(file).map_err(write_error)?, again))
        })
        .collect::<Result<_>>()?;
    let Some((first, _)) = readers.first() else { return Err(Error::internal("there are no parts to join")) };
    let meta = first.metadata().file_metadata();
    let properties = WriterProperties::builder()
        .set_key_value_metadata(meta.key_value_metadata().cloned())
        .set_created_by(concat!("tributary ", env!("CARGO_PKG_VERSION")).to_owned())
        .build();
    let mut writer = SerializedFileWriter::new(out, meta.schema_descr().root_schema_ptr(), Arc::new(properties)).map_err(write_error)?;
    for (reader, file) in &readers {
        for group in reader.metadata().row_groups() {
            let mut to = writer.next_row_group().map_err(write_error)?;
            for column in group.columns() {
                let closed = ColumnCloseResult {
                    bytes_written: column.compressed_size() as u64,
                    rows_written: group.num_rows() as u64,
                    metadata: column.clone(),
                    bloom_filter: None,
                    column_index: None,
                    offset_index: None,
                };
                to.append_column(file, closed).map_err(write_error)?;
            }
            to.close().map_err(write_error)?;
        }
    }
    writer.into_inner().map_err(write_error)?.finish()
}

fn arrow(parts: Vec<File>, style: &Style, out: Output) -> Result<u64> {
    let mut out = Some(out);
    let mut encoder = None;
    for part in parts {
        let reader = FileReader::try_new_buffered(part, None)?;
        if let Some(out) = out.take() {
            encoder = Some(style.encoder(out, &reader.schema(), None)?);
        }
        for batch in reader {
            if let Some(encoder) = &mut encoder {
                encoder.write(&batch?)?;
            }
        }
    }
    encoder.ok_or_else(|| Error::internal("there are no parts to join"))?.finish()
}

/// What stands around the rows of each part is left out, and written once.
fn text(parts: Vec<File>, style: &Style, out: Output) -> Result<u64> {
    let compression = style.compression.unwrap_or_default();
    let mut out = compression.compress(out)?;
    let mut any = false;
    if style.format == Format::Json {
        out.write_all(ARRAY_START)?;
    }
    for (i, part) in parts.into_iter().enumerate() {
        let mut content = BufReader::with_capacity(1 << 20, compression.decompress(Box::new(part))?);
        match style.format {
            Format::Json => {
                content.read_exact(&mut [0; ARRAY_START.len()])?;
                any = array_items(&mut content, &mut out, any)?;
            }
            Format::Csv | Format::Tsv if i > 0 && style.dialect.header => {
                skip_header(&mut content, style)?;
                std::io::copy(&mut content, &mut out)?;
            }
            _ => {
                std::io::copy(&mut content, &mut out)?;
            }
        }
    }
    if style.format == Format::Json {
        out.write_all(ARRAY_END.as_bytes())?;
    }
    out.finish()?.finish()
}

/// A header of ours may hold line ends only inside quotes.
fn skip_header(content: &mut impl BufRead, style: &Style) -> Result<()> {
    let quote = style.dialect.quote.unwrap_or(b'"');
    let (mut line, mut inside) = (Vec::new(), false);
    loop {
        line.clear();
        let n = content.read_until(b'\n', &mut line)?;
        inside ^= memchr::memchr_iter(quote, &line).count() % 2 == 1;
        if n == 0 || !inside {
            return Ok(());
        }
    }
}

/// Copies the lines between the brackets, each an object with a comma behind all but the last.
fn array_items(content: &mut impl BufRead, out: &mut impl Write, mut any: bool) -> Result<bool> {
    let mut line = Vec::new();
    loop {
        line.clear();
        content.read_until(b'\n', &mut line)?;
        let item = line.strip_suffix(b"\n").unwrap_or(&line);
        let item = item.strip_suffix(b",").unwrap_or(item);
        match item {
            b"]" => return Ok(any),
            b"" if line.is_empty() => return Err(Error::internal("a staged file ends early")),
            b"" => {}
            item => {
                if any {
                    out.write_all(b",\n")?;
                }
                out.write_all(item)?;
                any = true;
            }
        }
    }
}
