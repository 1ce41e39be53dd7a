//! Writing again the files of which a load touches rows: see step 3 in [`super`].

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, TimestampMicrosecondArray};
use arrow::buffer::BooleanBuffer;
use arrow::compute;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use trib_core::{Error, Result};

use super::Room;
use crate::data_file::{self, FileWriter, NewFile};

/// Files that are written at the same time. Each takes a row group at either end.
const PARALLEL: usize = 2;

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

/// Writes the selected rows of files into new ones, in the same order. Ends only when nothing is being written any more.
pub async fn rewrite(room: &Room, jobs: Vec<Job>) -> Result<Vec<NewFile>> {
    let started = jobs.into_iter().map(|job| {
        let room = room.clone();
        async move {
            let done = tokio::spawn(async move { job.run(&room).await }).await;
            done.unwrap_or_else(|e| Err(Error::internal("writing a file again was interrupted").source(e)))
        }
    });
    let done: Vec<Result<Vec<NewFile>>> = futures::stream::iter(started).buffered(PARALLEL).collect().await;
    let files: Result<Vec<Vec<NewFile>>> = done.into_iter().collect();
    Ok(files?.into_iter().flatten().collect())
}

impl Job {
    async fn run(self, room: &Room) -> Result<Vec<NewFile>> {
        let mut writer = FileWriter::new(room.store.clone(), room.folder.clone(), self.name, room.schema.clone(), room.file_bytes);
        writer = writer.bounded(&room.bounded);
        let mut batches = data_file::read(&room.store, &self.source, self.size, &room.schema, &self.constants).await?.boxed();
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
            writer.write(&batch).await?;
            at += rows;
        }
        writer.finish().await
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
