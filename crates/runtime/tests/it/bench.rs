//! A sync that has all it needs.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use trib_core::{TableName, WriteMode};
use trib_engine::{Engine, StreamSpec};
use trib_runtime::{Limits, NoObserver, Runtime, StreamTask, SyncReport, SyncTask, run_sync};
use trib_store::Store;
use trib_testkit::in_memory::{ListDestination, ListSource, Push};

pub fn numbers() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]))
}

pub fn number(n: i64) -> Push {
    Push::Batch(RecordBatch::try_new(numbers(), vec![Arc::new(Int64Array::from(vec![n]))]).unwrap())
}

pub struct Bench {
    pub runtime: Runtime,
    _folder: TempDir,
}

impl Bench {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = Runtime {
            engine: Engine::new(64 << 20, folder.path(), 1).unwrap(),
            store: Arc::new(Store::open("control.db", folder.path(), "dev").await.unwrap()),
            observer: Arc::new(NoObserver),
            cancel: CancellationToken::new(),
            run: "run".into(),
            holder: "test".into(),
        };
        Self { runtime, _folder: folder }
    }

    /// Appends each stream of the source to a table of its name, one attempt each.
    pub async fn run(&self, source: ListSource, streams: &[&str], destination: Arc<ListDestination>) -> SyncReport {
        let streams =
            streams.iter().map(|name| StreamTask::whole(StreamSpec::plain(name, numbers(), TableName::parse(name), WriteMode::Append)));
        let task = SyncTask {
            sync: "sync".into(),
            identity: "sync".into(),
            source: Arc::new(source),
            destination,
            streams: streams.collect(),
            renew: None,
            limits: Limits { streams: 2, splits: 2, attempts: 1, ..Limits::default() },
        };
        run_sync(&self.runtime, task).await.unwrap()
    }
}
