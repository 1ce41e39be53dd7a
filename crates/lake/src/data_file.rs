//! Parquet files of a table: writing them to size, and reading them back as the table's columns.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{Schema, SchemaRef};
use deltalake::logstore::parquet_reader::ParquetObjectReader;
use futures::{Stream, TryStreamExt};
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::arrow::async_writer::AsyncArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};
use trib_core::Result;
use trib_kit::storage;

use crate::encode;
use crate::failure;
use crate::file_stats::FileStats;

/// Encoded bytes that a writer collects before they go out as a row group: what bounds its memory, and a reader's.
const ROW_GROUP_BYTES: usize = 16 << 20;
const BATCH_ROWS: usize = 8192;
/// Bytes that go to the store at a time: the least that S3 takes as a part of a file.
const UPLOAD_BYTES: usize = 5 << 20;

/// A file that was written and is not yet part of the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewFile {
    /// Name in the table's folder.
    pub name: String,
    pub size: u64,
    pub rows: u64,
    /// As the log has it.
    pub stats: String,
}

/// Writes rows into files that grow to a size.
pub struct FileWriter {
    store: Arc<dyn ObjectStore>,
    folder: Path,
    prefix: String,
    schema: SchemaRef,
    target_bytes: u64,
    /// Columns whose bounds merges need.
    bounded: BTreeSet<String>,
    open: Option<(String, AsyncArrowWriter<BufWriter>)>,
    files: Vec<NewFile>,
}

impl FileWriter {
    /// Files are named `<prefix>-<n>.parquet`. Does nothing until rows come.
    pub fn new(store: Arc<dyn ObjectStore>, folder: Path, prefix: String, schema: SchemaRef, target_bytes: u64) -> Self {
        Self { store, folder, prefix, schema, target_bytes, bounded: BTreeSet::new(), open: None, files: Vec::new() }
    }

    pub fn bounded(mut self, columns: &[String]) -> Self {
        self.bounded.extend(columns.iter().cloned());
        self
    }

    /// Writes a batch of exactly the writer's schema.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let (name, writer) = match &mut self.open {
            Some(open) => open,
            closed => {
                let name = format!("{}-{}.parquet", self.prefix, self.files.len());
                let path = self.folder.clone().join(name.as_str());
                let properties = WriterProperties::builder()
                    .set_compression(Compression::SNAPPY)
                    .set_max_row_group_row_count(Some(1 << 20))
                    .set_created_by(concat!("tributary ", env!("CARGO_PKG_VERSION")).to_owned())
                    .build();
                let target = BufWriter::with_capacity(self.store.clone(), path, UPLOAD_BYTES).with_max_concurrency(2);
                let writer =
                    AsyncArrowWriter::try_new(target, bare(&self.schema), Some(properties)).map_err(|e| failure::parquet(e, &name))?;
                closed.insert((name, writer))
            }
        };
        let at = |e| failure::parquet(e, name);
        writer.write(&RecordBatch::try_new(bare(&self.schema), batch.columns().to_vec())?).await.map_err(at)?;
        if writer.in_progress_size() > ROW_GROUP_BYTES {
            writer.flush().await.map_err(at)?;
        }
        if writer.bytes_written() as u64 >= self.target_bytes {
            self.close().await?;
        }
        Ok(())
    }

    /// Closes the last file. An error before this leaves at most whole files behind, never a part of one.
    pub async fn finish(mut self) -> Result<Vec<NewFile>> {
        self.close().await?;
        Ok(self.files)
    }

    async fn close(&mut self) -> Result<()> {
        let Some((name, mut writer)) = self.open.take() else {
            return Ok(());
        };
        let footer = writer.finish().await.map_err(|e| failure::parquet(e, &name))?;
        let size = writer.bytes_written() as u64;
        let stats = FileStats::of(&footer, &self.schema, &self.bounded)?;
        let rows = stats.num_records.unwrap_or(0);
        self.files.push(NewFile { name, size, rows, stats: serde_json::to_string(&stats)? });
        Ok(())
    }
}

/// The schema without our annotations, which belong into the log and not into each file.
fn bare(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<_> = schema.fields().iter().map(|f| f.as_ref().clone().with_metadata(std::collections::HashMap::new())).collect();
    Arc::new(Schema::new(fields))
}

/// Reads the columns of `schema` from a file. Columns that the file does not have are NULL, or what `constants` says;
/// narrower types are widened. `size` spares a request.
pub async fn read(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    size: u64,
    schema: &SchemaRef,
    constants: &[(String, ArrayRef)],
) -> Result<impl Stream<Item = Result<RecordBatch>> + Send + use<>> {
    let shown = path.to_string();
    let reader = ParquetObjectReader::new(store.clone(), path.clone()).with_file_size(size).with_footer_size_hint(64 << 10);
    let builder = ParquetRecordBatchStreamBuilder::new_with_options(reader, ArrowReaderOptions::new())
        .await
        .map_err(|e| failure::parquet(e, &shown))?;
    let in_file = builder.schema().clone();
    let roots: Vec<usize> = schema.fields().iter().filter_map(|f| in_file.index_of(f.name()).ok()).collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    let stream = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build().map_err(|e| failure::parquet(e, &shown))?;
    let (schema, constants) = (schema.clone(), constants.to_vec());
    Ok(stream
        .map_err(move |e| failure::parquet(e, &shown))
        .and_then(move |batch| futures::future::ready(conform(&batch, &schema, &constants))))
}

/// Rows of a file, by its footer.
pub async fn rows(store: &Arc<dyn ObjectStore>, path: &Path, size: u64) -> Result<u64> {
    let reader = ParquetObjectReader::new(store.clone(), path.clone()).with_file_size(size);
    let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(|e| failure::parquet(e, path.as_ref()))?;
    Ok(builder.metadata().file_metadata().num_rows().unsigned_abs())
}

/// Brings a batch to `schema` by name.
pub fn conform(batch: &RecordBatch, schema: &SchemaRef, constants: &[(String, ArrayRef)]) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let source = batch.schema();
    let columns: Result<Vec<ArrayRef>> = schema
        .fields()
        .iter()
        .map(|field| match source.index_of(field.name()) {
            Ok(at) => encode::column(batch.column(at), source.field(at), field),
            Err(_) => match constants.iter().find(|(name, _)| name == field.name()) {
                Some((_, one)) => {
                    let zeros = arrow::array::UInt32Array::from(vec![0; rows]);
                    Ok(arrow::compute::take(one, &zeros, None)?)
                }
                None => Ok(new_null_array(field.data_type(), rows)),
            },
        })
        .collect();
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns?, &RecordBatchOptions::new().with_row_count(Some(rows)))?)
}

/// A file of a table, by the path that the log has.
pub fn join(folder: &Path, relative: &str) -> Path {
    relative.split('/').fold(folder.clone(), Path::join)
}

/// Removes files that no log names. What is not there is no error.
pub async fn remove(store: &Arc<dyn ObjectStore>, paths: Vec<Path>) -> Result<u64> {
    let mut removed = 0;
    for path in paths {
        match store.delete(&path).await {
            Ok(()) => removed += 1,
            Err(object_store::Error::NotFound { .. }) => {}
            Err(e) => return Err(storage::error(e, path.as_ref())),
        }
    }
    Ok(removed)
}
