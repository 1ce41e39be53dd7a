//! Parquet: read by row groups, written in row groups of bounded size.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression as Codec, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use tokio::runtime::Handle;
use trib_core::{Code, Error, Result};
use trib_kit::storage::{self, Location};

use super::compression::Compression;
use super::input::Input;
use super::sink::Sink;

const BATCH: usize = 16 << 10;
/// Encoded bytes that a row group may take up in memory until it is written.
const ROW_GROUP_BYTES: usize = 8 << 20;
const ROW_GROUP_ROWS: usize = 1 << 20;

/// A footer.
pub struct Footer {
    pub schema: SchemaRef,
    /// Rows and compressed bytes of each row group.
    pub row_groups: Vec<(u64, u64)>,
}

/// One Parquet file. All methods are for blocking threads.
pub struct ParquetFile<'a> {
    pub location: &'a Location,
    pub path: &'a Path,
    pub size: u64,
    pub input: &'a Input,
    pub runtime: &'a Handle,
    /// As people know it.
    pub name: &'a str,
}

impl ParquetFile<'_> {
    fn error(&self, e: ParquetError) -> Error {
        let e = match e {
            ParquetError::External(inner) => match inner.downcast::<object_store::Error>() {
                Ok(store) => return storage::error(*store, self.name),
                Err(other) => ParquetError::External(other),
            },
            other => other,
        };
        Error::new(Code::DataInvalid, "the Parquet file cannot be read").file(self.name, None, None).source(e)
    }

    fn object(&self) -> Remote {
        Remote { store: self.location.store.clone(), path: self.path.clone(), size: self.size }
    }

    pub fn footer(&self) -> Result<Footer> {
        let options = ArrowReaderOptions::new();
        let metadata = match self.input.local()? {
            Some(_) => ArrowReaderMetadata::load(&self.input.seekable()?, options),
            None => self.runtime.block_on(ArrowReaderMetadata::load_async(&mut self.object(), options)),
        };
        let metadata = metadata.map_err(|e| self.error(e))?;
        let row_groups = metadata.metadata().row_groups().iter().map(|g| (g.num_rows() as u64, g.compressed_size() as u64)).collect();
        Ok(Footer { schema: metadata.schema().clone(), row_groups })
    }

    /// Reads the columns that `wanted` names, as far as the file has them, from some of its row groups.
    pub fn read(
        &self,
        row_groups: Option<(usize, usize)>,
        wanted: &[String],
        sink: &mut Sink,
        conform: &dyn Fn(RecordBatch) -> Result<RecordBatch>,
    ) -> Result<()> {
        let groups = |all: usize| -> Vec<usize> {
            let (from, to) = row_groups.unwrap_or((0, all));
            (from..to.min(all)).collect()
        };
        let roots = |schema: &SchemaRef| {
            schema.fields().iter().enumerate().filter(|(_, f)| wanted.contains(f.name())).map(|(i, _)| i).collect::<Vec<_>>()
        };
        if self.input.local()?.is_some() {
            let builder = ParquetRecordBatchReaderBuilder::try_new(self.input.seekable()?).map_err(|e| self.error(e))?;
            let mask = ProjectionMask::roots(builder.parquet_schema(), roots(builder.schema()));
            let groups = groups(builder.metadata().num_row_groups());
            let reader = builder.with_projection(mask).with_row_groups(groups).with_batch_size(BATCH).build().map_err(|e| self.error(e))?;
            for batch in reader {
                sink.rows(conform(batch.map_err(|e| self.error(e.into()))?)?)?;
            }
            return Ok(());
        }
        let builder = self.runtime.block_on(ParquetRecordBatchStreamBuilder::new(self.object())).map_err(|e| self.error(e))?;
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots(builder.schema()));
        let groups = groups(builder.metadata().num_row_groups());
        let mut stream = builder.with_projection(mask).with_row_groups(groups).with_batch_size(BATCH).build().map_err(|e| self.error(e))?;
        while let Some(batch) = self.runtime.block_on(stream.next()) {
            sink.rows(conform(batch.map_err(|e| self.error(e))?)?)?;
        }
        Ok(())
    }
}

/// A file in an object store, read by ranges.
struct Remote {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
}

fn external(e: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(e))
}

impl AsyncFileReader for Remote {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        async move { self.store.get_range(&self.path, range).await.map_err(external) }.boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        async move { self.store.get_ranges(&self.path, &ranges).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move {
            let size = self.size;
            let metadata = ParquetMetaDataReader::new().with_arrow_reader_options(options).load_and_finish(self, size).await?;
            Ok(Arc::new(metadata))
        }
        .boxed()
    }
}

/// What writing failed with.
pub fn write_error(e: ParquetError) -> Error {
    match e {
        ParquetError::External(inner) => match inner.downcast::<std::io::Error>() {
            Ok(io) => super::input::unwrap_io(*io),
            Err(other) => Error::new(Code::DataInvalid, "the rows cannot be written as Parquet").source(other),
        },
        other => Error::new(Code::DataInvalid, "the rows cannot be written as Parquet").source(other),
    }
}

/// A writer whose memory is bounded, whatever the file's size.
pub struct Writer<W: std::io::Write + Send> {
    inner: ArrowWriter<W>,
}

impl<W: std::io::Write + Send> Writer<W> {
    /// `first` is the first batch: it shows which columns repeat their values.
    pub fn new(out: W, schema: &SchemaRef, compression: Option<Compression>, first: Option<&RecordBatch>) -> Result<Self> {
        let codec = match compression {
            None => Codec::SNAPPY,
            Some(Compression::None) => Codec::UNCOMPRESSED,
            Some(Compression::Zstd) => Codec::ZSTD(ZstdLevel::try_new(3).map_err(write_error)?),
            Some(Compression::Gzip) => Codec::GZIP(parquet::basic::GzipLevel::default()),
            Some(other) => {
                return Err(Error::new(Code::ConfigInvalid, "Parquet does not know this compression")
                    .detail(format!("{other:?}").to_lowercase())
                    .setting("compression")
                    .hint("leave it out for Snappy, or take `zstd`, `gzip` or `none`"));
            }
        };
        let mut properties = WriterProperties::builder()
            .set_compression(codec)
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true)
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_dictionary_page_size_limit(256 << 10)
            .set_created_by(concat!("tributary ", env!("CARGO_PKG_VERSION")).to_owned());
        if let Some(batch) = first {
            for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
                if !repeats(column) {
                    properties = properties.set_column_dictionary_enabled(ColumnPath::from(field.name().as_str()), false);
                }
            }
        }
        let inner = ArrowWriter::try_new(out, Arc::clone(schema), Some(properties.build())).map_err(write_error)?;
        Ok(Self { inner })
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.inner.write(batch).map_err(write_error)?;
        if self.inner.in_progress_size() > ROW_GROUP_BYTES {
            self.inner.flush().map_err(write_error)?;
        }
        Ok(())
    }

    /// Writes the footer, and gives the output back.
    pub fn finish(self) -> Result<W> {
        self.inner.into_inner().map_err(write_error)
    }

    /// Bytes that were written so far.
    pub fn written(&self) -> usize {
        self.inner.bytes_written()
    }
}

/// Whether a dictionary is worth its making: hashing each value costs more than writing it, unless few values recur.
fn repeats(column: &dyn Array) -> bool {
    const SAMPLE: usize = 4096;
    let n = column.len().min(SAMPLE);
    let state = RandomState::new();
    let distinct = match column.data_type() {
        DataType::Utf8 => (0..n).map(|i| state.hash_one(column.as_string::<i32>().value(i))).collect::<HashSet<_>>().len(),
        DataType::Date32 => {
            let days = column.as_primitive::<arrow::datatypes::Date32Type>();
            (0..n).map(|i| days.value(i)).collect::<HashSet<_>>().len()
        }
        DataType::Int32 => {
            let numbers = column.as_primitive::<arrow::datatypes::Int32Type>();
            (0..n).map(|i| numbers.value(i)).collect::<HashSet<_>>().len()
        }
        DataType::Int64 => {
            let numbers = column.as_primitive::<arrow::datatypes::Int64Type>();
            (0..n).map(|i| numbers.value(i)).collect::<HashSet<_>>().len()
        }
        DataType::Decimal128(..) => {
            let numbers = column.as_primitive::<arrow::datatypes::Decimal128Type>();
            (0..n).map(|i| numbers.value(i)).collect::<HashSet<_>>().len()
        }
        DataType::Boolean
        | DataType::Float32
        | DataType::Float64
        | DataType::Timestamp(..)
        | DataType::FixedSizeBinary(_)
        | DataType::Binary => return false,
        // Nested columns have other paths; the library's own rule holds for them.
        _ => return true,
    };
    distinct * 4 <= n
}
