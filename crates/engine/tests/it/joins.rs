//! A join whose sides are both larger than the memory there is: tried again, it sorts, spills, and comes to its end.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use async_trait::async_trait;
use datafusion::datasource::MemTable;
use trib_core::{Code, Emitter, Message, Read, Result, Source, SplitEnd, State, StreamRead, TableName};
use trib_engine::{Engine, Queries, QuerySource, Relation, Tables};

const MEMORY: usize = 8 << 20;
const ROWS: i64 = 200_000;

/// Two tables of one key, each some forty megabytes.
#[derive(Debug)]
struct Large(Arc<MemTable>);

impl Large {
    fn new() -> Self {
        let batch = |from: i64| {
            let ids: Vec<i64> = (from..from + 5_000).collect();
            let texts: ArrayRef = Arc::new(StringArray::from_iter_values(ids.iter().map(|id| format!("{id:0>200}"))));
            RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(ids)) as ArrayRef), ("text", texts)]).unwrap()
        };
        let batches: Vec<RecordBatch> = (0..ROWS / 5_000).map(|i| batch(i * 5_000)).collect();
        Self(Arc::new(MemTable::try_new(batches[0].schema(), vec![batches]).unwrap()))
    }
}

#[async_trait]
impl Tables for Large {
    async fn find(&self, _: &TableName) -> Result<Option<Relation>> {
        Ok(Some(Relation::Table(self.0.clone())))
    }

    fn known(&self) -> Vec<TableName> {
        Vec::new()
    }
}

async fn read(source: &QuerySource) -> (Result<SplitEnd>, usize) {
    let read = StreamRead {
        stream: "joined".into(),
        columns: None,
        filter: None,
        key: Vec::new(),
        read: Read::Full,
        split_by: None,
        parallelism: 1,
        may_stop: false,
        exactly_once: false,
    };
    let splits = source.plan(&[read], &State::default()).await.unwrap();
    let (mut out, mut messages) = Emitter::channel(2, Arc::new(AtomicBool::new(false)));
    let count = tokio::spawn(async move {
        let mut rows = 0;
        while let Some(message) = messages.recv().await {
            if let Message::Batch { batch, .. } = message {
                rows += batch.num_rows();
            }
        }
        rows
    });
    let ended = source.read(&splits[0], &mut out).await;
    drop(out);
    (ended, count.await.unwrap())
}

#[tokio::test]
async fn a_large_join_is_sorted_when_it_does_not_fit() {
    let spill = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("joins");
    let queries = Queries::new(Engine::new(MEMORY, &spill, 1).unwrap(), Arc::new(Large::new()));
    let source = QuerySource::new(queries, "joined", "select l.id, l.text, r.text as other from l join r on r.id = l.id", None);
    let (first, _) = read(&source).await;
    assert_eq!(first.unwrap_err().code(), Code::ResourceExhausted);
    let (second, rows) = read(&source).await;
    second.unwrap();
    assert_eq!(rows as i64, ROWS);
}
