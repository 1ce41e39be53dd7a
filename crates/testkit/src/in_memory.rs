//! Both ends in memory: what is tested is what lies between. Only as good as such a test needs; what a destination must do is tested by
//! [`crate::conformance`].

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, SchemaRef};
use async_trait::async_trait;
use futures::TryStreamExt;
use serde_json::{Value, json};
use trib_core::load::Durability;
use trib_core::{
    BatchStream, Capabilities, Catalog, Code, ColumnType, Destination, Emitter, Error, ExistingTable, Lease, Load, LoadId, Marker, Outcome,
    Part, Receipt, RejectedRow, Result, Source, Split, SplitEnd, State, StreamRead, Table, TableName, WriteMode,
};

/// What a source does next in a split.
pub enum Push {
    Batch(RecordBatch),
    Reject(RejectedRow),
    /// Announces a schema.
    Schema(SchemaRef),
    Wait(Pin<Box<dyn Future<Output = ()> + Send>>),
    Fail(Code),
}

/// Splits are read once, as they were given.
#[derive(Default)]
pub struct ListSource {
    /// By stream, in the order in which streams were added.
    streams: Mutex<Vec<(String, Vec<Vec<Push>>)>>,
}

impl ListSource {
    #[must_use]
    pub fn with(self, stream: &str, splits: Vec<Vec<Push>>) -> Self {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).push((stream.to_owned(), splits));
        self
    }

    /// All splits of a stream.
    pub fn splits(&self, stream: &str) -> Vec<Split> {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let splits = streams.iter().find(|(name, _)| name == stream).map_or(0, |(_, splits)| splits.len());
        (0..splits).map(|i| Split::new(stream, json!(i))).collect()
    }

    fn take(&self, split: &Split) -> Vec<Push> {
        let at = split.spec.as_u64().unwrap_or_default() as usize;
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let found = streams.iter_mut().find(|(name, _)| *name == split.streams[0]).and_then(|(_, splits)| splits.get_mut(at));
        found.map(std::mem::take).unwrap_or_default()
    }
}

#[async_trait]
impl Source for ListSource {
    async fn check(&self) -> Result<()> {
        Ok(())
    }

    async fn discover(&self, _: &[String]) -> Result<Catalog> {
        Ok(Catalog::default())
    }

    async fn plan(&self, reads: &[StreamRead], _: &State) -> Result<Vec<Split>> {
        Ok(reads.iter().flat_map(|read| self.splits(&read.stream)).collect())
    }

    async fn read(&self, split: &Split, out: &mut Emitter) -> Result<SplitEnd> {
        let stream = &split.streams[0];
        for push in self.take(split) {
            match push {
                Push::Batch(batch) => out.batch(stream, batch).await?,
                Push::Reject(row) => out.reject(stream, row).await?,
                Push::Schema(schema) => out.schema(stream, schema).await?,
                Push::Wait(what) => what.await,
                Push::Fail(code) => return Err(Error::new(code, "the source failed")),
            }
        }
        Ok(SplitEnd::finished(split, Value::Null))
    }

    fn advance(&self, _: &[StreamRead], state: &State, _: &[SplitEnd]) -> Result<State> {
        Ok(state.clone())
    }
}

/// What a stage does with each batch, where it may block.
type OnBatch = Arc<dyn Fn(&Part) -> Result<()> + Send + Sync>;

pub struct ListDestination {
    pub capabilities: Capabilities,
    pub tables: HashMap<TableName, ExistingTable>,
    pub staged: Mutex<HashMap<TableName, Vec<RecordBatch>>>,
    pub committed: Mutex<Vec<Load>>,
    pub on_batch: Option<OnBatch>,
    /// Told of when a load is thrown away.
    pub on_abort: Option<Box<dyn Fn() + Send + Sync>>,
    writing: Arc<AtomicUsize>,
    pub aborted_while_writing: AtomicBool,
}

impl ListDestination {
    pub fn new(nested: bool) -> Self {
        let capabilities = Capabilities {
            write_modes: WriteMode::ALL,
            atomic_tables: true,
            atomic_across_tables: true,
            nested,
            partitions: false,
            max_columns: Some(20),
            max_identifier: 40,
            case_sensitive: true,
            parallel_parts: 4,
            batch_bytes: 1 << 20,
            default_schema: None,
        };
        Self {
            capabilities,
            tables: HashMap::new(),
            staged: Mutex::default(),
            committed: Mutex::default(),
            on_batch: None,
            on_abort: None,
            writing: Arc::default(),
            aborted_while_writing: AtomicBool::new(false),
        }
    }
}

#[async_trait]
impl Destination for ListDestination {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn column_type(&self, field: &Field) -> Result<ColumnType> {
        match field.data_type() {
            DataType::Interval(_) => Err(Error::new(Code::Unsupported, "no intervals here")),
            t if t.is_nested() && !self.capabilities.nested => Err(Error::new(Code::Unsupported, "nothing nested here")),
            DataType::Float32 => Ok(ColumnType::lossy("Float32", "rounded")),
            t => Ok(ColumnType::exact(t.to_string())),
        }
    }

    async fn check(&self) -> Result<()> {
        Ok(())
    }

    async fn open(&self, _: &Lease, _: &[TableName]) -> Result<Vec<Marker>> {
        Ok(vec![])
    }

    async fn inspect(&self, table: &TableName) -> Result<Option<ExistingTable>> {
        Ok(self.tables.get(table).cloned())
    }

    /// Each batch is taken on a blocking thread, as where a file is written.
    async fn stage(&self, part: &Part, table: &Table, mut rows: BatchStream) -> Result<Receipt> {
        let mut count = 0;
        while let Some(batch) = rows.try_next().await? {
            assert_eq!(batch.schema().fields(), table.staging_schema().fields());
            if let Some(on_batch) = self.on_batch.clone() {
                let (part, writing) = (part.clone(), self.writing.clone());
                let written = tokio::task::spawn_blocking(move || {
                    writing.fetch_add(1, Ordering::SeqCst);
                    let written = on_batch(&part);
                    writing.fetch_sub(1, Ordering::SeqCst);
                    written
                });
                written.await.map_err(|e| Error::internal("a stage has panicked").source(e))??;
            }
            count += batch.num_rows() as u64;
            self.staged.lock().unwrap_or_else(PoisonError::into_inner).entry(table.name.clone()).or_default().push(batch);
        }
        Ok(Receipt {
            part: part.clone(),
            table: table.name.clone(),
            rows: count,
            bytes: 0,
            durability: Durability::Durable,
            staged: Value::Null,
            rejected: vec![],
        })
    }

    async fn commit(&self, load: &Load, _: &Lease) -> Result<Outcome> {
        self.committed.lock().unwrap_or_else(PoisonError::into_inner).push(load.clone());
        Ok(Outcome::default())
    }

    async fn abort(&self, _: &LoadId) -> Result<()> {
        self.aborted_while_writing.fetch_or(self.writing.load(Ordering::SeqCst) > 0, Ordering::SeqCst);
        if let Some(on_abort) = &self.on_abort {
            on_abort();
        }
        Ok(())
    }

    async fn sweep(&self, _: &Lease, _: &[LoadId]) -> Result<()> {
        Ok(())
    }

    async fn forget(&self, _: &Lease, _: &[String], _: &[TableName]) -> Result<()> {
        Ok(())
    }
}
