//! Writing again the files of which a load touches rows: see step 3 in [`super`].

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, TimestampMicrosecondArray};
use arrow::buffer::BooleanBuffer;
use arrow::compute;
use arrow::datatypes::SchemaRef;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::path::Path;
use tokio::sync::mpsc;
use trib_core::{Error, Result};

use super::Room;
use crate::data_file::{self, FileWriter, NewFile};

/// Batches that the reading half may be ahead of the writing one.
const AHEAD: usize = 4;

/// One file to be written again.
pub struct Job {
    pub source: Path,
    pub size: u64,
    /// Rows that stay; all when `None`.
    pub keep: Option<BooleanBuffer>,
    /// Rows that get the mark.
    pub mark: Option<(Mark, BooleanBuffer)>,
    /// Values of columns that the file lacks; the others are NULL.
    pub constants: Vec<(String, ArrayRef)>,
    /// The new files' names begin like this.
    pub name: String,
}

/// The time that a mark carries, and its column.
#[derive(Clone, Copy)]
pub struct Mark {
    pub column: usize,
    pub micros: i64,
}

/// Writes the selected rows of files into new ones, file by file, so that memory does not depend on how many there are. One half of the
/// work is to decode and the other to encode, and they are done side by side.
pub async fn rewrite(room: &Room, jobs: Vec<Job>) -> Result<Vec<NewFile>> {
    let mut files = Vec::new();
    for job in jobs {
        let mut writer = FileWriter::new(room.store.clone(), room.folder.clone(), job.name.clone(), room.schema.clone(), room.file_bytes);
        writer = writer.bounded(&room.bounded);
        let (send, mut batches) = mpsc::channel(AHEAD);
        let (store, schema) = (room.store.clone(), room.schema.clone());
        let reading = tokio::spawn(async move { job.read(&store, &schema, &send).await });
        while let Some(batch) = batches.recv().await {
            writer.write(&batch).await?;
        }
        reading.await.map_err(|e| Error::internal("reading a file was interrupted").source(e))??;
        files.extend(writer.finish().await?);
    }
    Ok(files)
}

impl Job {
    async fn read(self, store: &Arc<dyn ObjectStore>, schema: &SchemaRef, out: &mpsc::Sender<RecordBatch>) -> Result<()> {
        let mut batches = data_file::read(store, &self.source, self.size, schema, &self.constants).await?.boxed();
        let mut at = 0;
        while let Some(mut batch) = batches.try_next().await? {
            let rows = batch.num_rows();
            let part = |bits: &BooleanBuffer| BooleanArray::new(bits.slice(at, rows), None);
            if let Some((mark, bits)) = &self.mark {
                batch = marked(&batch, &part(bits), *mark)?;
            }
            if let Some(bits) = &self.keep {
                batch = compute::filter_record_batch(&batch, &part(bits))?;
            }
            at += rows;
            if out.send(batch).await.is_err() {
                // The writing half has failed, and says so.
                return Ok(());
            }
        }
        Ok(())
    }
}

fn marked(batch: &RecordBatch, bits: &BooleanArray, mark: Mark) -> Result<RecordBatch> {
    let mut columns = batch.columns().to_vec();
    let column = columns.get_mut(mark.column).ok_or_else(|| Error::internal("the column of the mark is not there"))?;
    let time = timestamp(mark.micros);
    *column = compute::kernels::zip::zip(bits, &arrow::array::Scalar::new(time), column)?;
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}

/// One value of the type that our own times have.
pub fn timestamp(micros: i64) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(vec![micros]).with_timezone("UTC"))
}
