//! A task between two ends in memory.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tokio_util::sync::CancellationToken;
use trib_core::name::Naming;
use trib_core::transform::Transform;
use trib_core::*;
use trib_engine::conform::Stamp;
use trib_engine::{Engine, Progress, Shelf, SplitResult, SplitTask, StreamSpec, run_splits};
pub use trib_testkit::in_memory::{ListDestination, ListSource, Push};

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
            out.extend((0..batch.num_rows()).map(|i| serde_json::Value::from(trib_kit::object::row(batch, i)).to_string()));
        }
        out
    }
}

pub async fn run(spec: StreamSpec, pushes: Vec<Push>, destination: ListDestination) -> Result<Ran> {
    run_until(spec, vec![pushes], destination, CancellationToken::new()).await
}

/// Several splits as one part, until told to give up.
pub async fn run_until(spec: StreamSpec, splits: Vec<Vec<Push>>, destination: ListDestination, halt: CancellationToken) -> Result<Ran> {
    let destination = Arc::new(destination);
    let plans = Arc::new(Shelf::new(engine(), destination.clone(), [spec]));
    plans.plan("s").await?;
    let (rejects, mut received) = tokio::sync::mpsc::channel(64);
    let source = ListSource::default().with("s", splits);
    let task = SplitTask {
        splits: source.splits("s"),
        source: Arc::new(source),
        destination: destination.clone(),
        ordinal: 0,
        attempt: 0,
        sync: "sync".into(),
        stamp: Stamp { load: LoadId("l1".into()), loaded_at: chrono::DateTime::UNIX_EPOCH },
        plans,
        progress: HashMap::from([("s".to_owned(), Arc::new(Progress::default()))]),
        stop: Arc::new(AtomicBool::new(false)),
        halt,
        rejects,
        log: Arc::new(|_, _| {}),
    };
    let result = run_splits(task).await;
    let mut rejected = vec![];
    while let Some((_, rows)) = received.recv().await {
        rejected.extend(rows);
    }
    Ok(Ran { result, rejected, destination })
}
