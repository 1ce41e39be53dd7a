//! Batches that wait on disk until a stage is free for them.

use std::fs::File;
use std::io::{BufReader, BufWriter, Seek};
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use trib_core::Result;

/// A stream's batches, in order, in a file without a name: it goes when this is dropped or the process dies.
pub struct Spill {
    writer: StreamWriter<BufWriter<File>>,
}

impl Spill {
    pub fn new(folder: &Path, schema: &Schema) -> Result<Self> {
        let file = BufWriter::new(tempfile::tempfile_in(folder)?);
        let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
        Ok(Self { writer: StreamWriter::try_new_with_options(file, schema, options)? })
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        Ok(self.writer.write(batch)?)
    }

    /// Reads back what was written. Blocks.
    pub fn read(mut self) -> Result<impl Iterator<Item = Result<RecordBatch>>> {
        self.writer.finish()?;
        let mut file = self.writer.into_inner()?.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.rewind()?;
        Ok(StreamReader::try_new(BufReader::new(file), None)?.map(|batch| Ok(batch?)))
    }
}
