//! Both ends in memory: what is tested is what lies between.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, SchemaRef};
use async_trait::async_trait;
use futures::TryStreamExt;
use serde_json::Value;
use trib_core::load::Durability;
use trib_core::name::Naming;
use trib_core::transform::Transform;
use trib_core::*;
use trib_engine::conform::Stamp;
use trib_engine::{Engine, Progress, Shelf, SplitResult, SplitTask, StreamSpec, run_split};

pub enum Push {
    Batch(RecordBatch),
    Reject(RejectedRow),
    Fail(Code),
}

pub struct ListSource(pub Mutex<Vec<Push>>);

#[async_trait]
impl Source for ListSource {
    async fn check(&self) -> Result<()> {
        Ok(())
    }

    async fn discover(&self, _: &[String]) -> Result<Catalog> {
        Ok(Catalog::default())
    }

    async fn plan(&self, _: &[StreamRead], _: &State) -> Result<Vec<Split>> {
        Ok(vec![])
    }

    async fn read(&self, split: &Split, out: &mut Emitter) -> Result<SplitEnd> {
        let pushes = std::mem::take(&mut *self.0.lock().unwrap());
        for push in pushes {
            match push {
                Push::Batch(batch) => out.batch("s", batch).await?,
                Push::Reject(row) => out.reject("s", row).await?,
                Push::Fail(code) => return Err(Error::new(code, "the source failed")),
            }
        }
        Ok(SplitEnd::finished(split, Value::Null))
    }

    fn advance(&self, _: &[StreamRead], state: &State, _: &[SplitEnd]) -> Result<State> {
        Ok(state.clone())
    }
}

pub struct ListDestination {
    capabilities: Capabilities,
    pub tables: HashMap<TableName, ExistingTable>,
    pub staged: Mutex<HashMap<TableName, Vec<RecordBatch>>>,
    pub fails: bool,
}

impl ListDestination {
    pub fn new(nested: bool) -> Self {
        let capabilities = Capabilities {
            write_modes: WriteMode::ALL,
            atomic_across_tables: true,
            nested,
            partitions: false,
            max_columns: Some(20),
            max_identifier: 40,
            case_sensitive: true,
            parallel_parts: 1,
            batch_bytes: 1 << 20,
            default_schema: None,
        };
        Self { capabilities, tables: HashMap::new(), staged: Mutex::new(HashMap::new()), fails: false }
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

    async fn stage(&self, part: &Part, table: &Table, mut rows: BatchStream) -> Result<Receipt> {
        let mut count = 0;
        while let Some(batch) = rows.try_next().await? {
            assert_eq!(batch.schema().fields(), table.staging_schema().fields());
            if self.fails {
                return Err(Error::new(Code::ResourceExhausted, "the disk is full"));
            }
            count += batch.num_rows() as u64;
            self.staged.lock().unwrap().entry(table.name.clone()).or_default().push(batch);
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

    async fn commit(&self, _: &Load, _: &Lease) -> Result<Outcome> {
        Ok(Outcome::default())
    }

    async fn abort(&self, _: &LoadId) -> Result<()> {
        Ok(())
    }

    async fn sweep(&self, _: &Lease, _: &[LoadId]) -> Result<()> {
        Ok(())
    }

    async fn forget(&self, _: &Lease, _: &[String], _: &[TableName]) -> Result<()> {
        Ok(())
    }
}

pub fn engine() -> Engine {
    Engine::new(256 << 20, Path::new("/tmp"), 2).unwrap()
}

pub fn spec(schema: SchemaRef, transform: Transform) -> StreamSpec {
    StreamSpec {
        transform,
        naming: Naming::SnakeCase,
        system_columns: false,
        ..StreamSpec::plain("s", schema, TableName::parse("t"), WriteMode::Append)
    }
}

/// A batch out of JSON lines.
pub fn batch(schema: &SchemaRef, json: &str) -> RecordBatch {
    arrow::json::ReaderBuilder::new(schema.clone()).build(json.as_bytes()).unwrap().next().unwrap().unwrap()
}

pub struct Ran {
    pub result: Result<SplitResult>,
    pub rejected: Vec<RejectedRow>,
    pub destination: Arc<ListDestination>,
}

impl Ran {
    /// The staged rows of a table as JSON lines.
    pub fn rows(&self, table: &str) -> Vec<String> {
        let staged = self.destination.staged.lock().unwrap();
        let mut out = Vec::new();
        for batch in staged.get(&TableName::parse(table)).into_iter().flatten() {
            out.extend((0..batch.num_rows()).map(|i| serde_json::Value::from(trib_engine::json::row(batch, i)).to_string()));
        }
        out
    }
}

pub async fn run(spec: StreamSpec, pushes: Vec<Push>, destination: ListDestination) -> Result<Ran> {
    let destination = Arc::new(destination);
    let plans = Arc::new(Shelf::new(engine(), destination.clone(), [spec]));
    plans.plan("s").await?;
    let (rejects, mut received) = tokio::sync::mpsc::channel(64);
    let task = SplitTask {
        source: Arc::new(ListSource(Mutex::new(pushes))),
        destination: destination.clone(),
        split: Split::new("s", Value::Null),
        ordinal: 0,
        attempt: 0,
        sync: "sync".into(),
        stamp: Stamp { load: LoadId("l1".into()), loaded_at: chrono::DateTime::UNIX_EPOCH },
        plans,
        progress: HashMap::from([("s".to_owned(), Arc::new(Progress::default()))]),
        stop: Arc::new(AtomicBool::new(false)),
        rejects,
        log: Arc::new(|_, _| {}),
    };
    let result = run_split(task).await;
    let mut rejected = vec![];
    while let Some((_, rows)) = received.recv().await {
        rejected.extend(rows);
    }
    Ok(Ran { result, rejected, destination })
}
