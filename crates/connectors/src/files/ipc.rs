//! Arrow IPC, as a stream or as a file.

use std::io::{Cursor, Read};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use trib_core::{Code, Error, Result};

use super::sink::Sink;

const MAGIC: &[u8; 8] = b"ARROW1\0\0";

/// A file is its magic, zeros up to some alignment, a stream, and a footer that only random access needs; so both are read as streams.
fn open(mut input: Box<dyn Read + Send>, file: &str) -> Result<StreamReader<Box<dyn Read + Send>>> {
    let mut head = Vec::new();
    input.by_ref().take(8).read_to_end(&mut head)?;
    if head == MAGIC {
        head = vec![0; 8];
        while head.iter().all(|b| *b == 0) && !head.is_empty() {
            head.clear();
            input.by_ref().take(8).read_to_end(&mut head)?;
        }
    }
    let stream: Box<dyn Read + Send> = Box::new(Cursor::new(head).chain(input));
    let buffered: Box<dyn Read + Send> = Box::new(std::io::BufReader::with_capacity(1 << 20, stream));
    StreamReader::try_new(buffered, None).map_err(|e| invalid(file, e))
}

fn invalid(file: &str, e: arrow::error::ArrowError) -> Error {
    Error::new(Code::DataInvalid, "the Arrow IPC file cannot be read").file(file, None, None).source(e)
}

pub fn schema(input: Box<dyn Read + Send>, file: &str) -> Result<SchemaRef> {
    Ok(open(input, file)?.schema())
}

pub fn read(input: Box<dyn Read + Send>, file: &str, sink: &mut Sink, conform: &dyn Fn(RecordBatch) -> Result<RecordBatch>) -> Result<()> {
    for batch in open(input, file)? {
        sink.rows(conform(batch.map_err(|e| invalid(file, e))?)?)?;
    }
    Ok(())
}
