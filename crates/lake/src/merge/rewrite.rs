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

/// Rows of one file, as a rewrite takes them.
#[derive(Clone, Default)]
pub struct Selection {
    /// Rows that stay; all when `None`.
    pub keep: Option<BooleanBuffer>,
    /// Rows that get the mark.
    pub mark: Option<BooleanBuffer>,
}

/// The time that a mark carries, and its column.
#[derive(Clone)]
pub struct Mark {
    pub column: usize,
    pub micros: i64,
}

/// Writes the selected rows of a file into new ones. Columns that the file lacks get what `constants` says, or NULL.
pub async fn rewrite(
    room: &Room,
    (path, size): (Path, u64),
    select: &Selection,
    mark: Option<&Mark>,
    constants: &[(String, ArrayRef)],
    name: String,
) -> Result<Vec<NewFile>> {
    let mut writer =
        FileWriter::new(room.store.clone(), room.folder.clone(), name, room.schema.clone(), room.file_bytes).bounded(&room.bounded);
    let mut batches = data_file::read(&room.store, &path, size, &room.schema, constants).await?.boxed();
    let mut at = 0;
    while let Some(batch) = batches.try_next().await? {
        let rows = batch.num_rows();
        let part = |bits: &BooleanBuffer| BooleanArray::new(bits.slice(at, rows), None);
        let batch = match (&select.mark, mark) {
            (Some(bits), Some(mark)) => marked(&batch, &part(bits), mark)?,
            _ => batch,
        };
        let batch = match &select.keep {
            Some(bits) => compute::filter_record_batch(&batch, &part(bits))?,
            None => batch,
        };
        writer.write(&batch).await?;
        at += rows;
    }
    writer.finish().await
}

fn marked(batch: &RecordBatch, bits: &BooleanArray, mark: &Mark) -> Result<RecordBatch> {
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
