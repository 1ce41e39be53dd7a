//! BATCH messages: files of records beside the messages.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use arrow::array::{RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use flate2::read::MultiGzDecoder;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use trib_core::{Code, Emitter, Error, Result};
use trib_kit::records::{Decoder, Value};
use trib_kit::tape::Tape;
use url::Url;

use super::message::BatchMessage;

/// Reads the files in their order. They stay where they are: their writer's owner removes them.
pub fn read(message: &BatchMessage, decoder: &mut Decoder, out: &mut Emitter) -> Result<()> {
    for file in &message.manifest {
        let path = local(file)?;
        let opened = File::open(&path).map_err(|e| Error::from(e).detail(path.display().to_string()))?;
        let result = match (message.encoding.format.as_str(), message.encoding.compression.as_deref()) {
            ("jsonl", Some("gzip" | "gz")) => lines(BufReader::new(MultiGzDecoder::new(opened)), decoder, out),
            ("jsonl", None | Some("none" | "")) => lines(BufReader::new(opened), decoder, out),
            ("parquet", _) => parquet(opened, decoder, out),
            (format, compression) => Err(Error::new(Code::Unsupported, "the encoding of a BATCH message is not known")
                .detail(format!("{format} {}", compression.unwrap_or_default()))
                .hint("jsonl, plain or with gzip, and parquet are")),
        };
        result.map_err(|e| e.stream(decoder.stream.as_ref()).file(path.display().to_string(), None, None))?;
    }
    Ok(())
}

fn local(file: &str) -> Result<PathBuf> {
    match Url::parse(file) {
        Ok(url) if url.scheme() == "file" => {
            url.to_file_path().map_err(|()| Error::new(Code::DataInvalid, "a file of a BATCH message is not on this machine").detail(file))
        }
        Ok(url) if url.scheme().len() > 1 => {
            Err(Error::new(Code::Unsupported, "the files of BATCH messages must be on this machine").detail(format!("{}://", url.scheme())))
        }
        _ => Ok(file.into()),
    }
}

fn lines(mut from: impl BufRead, decoder: &mut Decoder, out: &mut Emitter) -> Result<()> {
    let (mut line, mut tape, mut number) = (Vec::new(), Tape::default(), 0);
    loop {
        line.clear();
        tape.clear();
        number += 1;
        if from.read_until(b'\n', &mut line)? == 0 {
            return decoder.give(out);
        }
        let text = line.trim_ascii();
        if text.is_empty() {
            continue;
        }
        let record = tape.parse(text, 0, text.len());
        let record =
            record.map_err(|reason| Error::new(Code::DataInvalid, "this is no record").detail(reason).row(format!("line {number}")))?;
        if decoder.add(Value::new(&tape, text, record), number) {
            decoder.give(out)?;
        }
    }
}

fn parquet(file: File, decoder: &mut Decoder, out: &mut Emitter) -> Result<()> {
    let broken = |e: parquet::errors::ParquetError| Error::new(Code::DataInvalid, "a file of a BATCH message cannot be read").source(e);
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(broken)?.build().map_err(broken)?;
    for batch in reader {
        out.batch_blocking(&decoder.stream.clone(), shaped(&batch?, decoder.schema())?)?;
    }
    Ok(())
}

/// The declared columns, in their types; those that the file does not have are NULL.
fn shaped(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let column = |field: &arrow::datatypes::FieldRef| match batch.column_by_name(field.name()) {
        Some(column) => cast(column, field.data_type()),
        None => Ok(new_null_array(field.data_type(), batch.num_rows())),
    };
    let columns = schema.fields().iter().map(column).collect::<std::result::Result<_, _>>()?;
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}
