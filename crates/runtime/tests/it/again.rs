//! A query whose joins find too little memory: it is tried again, and only one attempt is published.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use trib_core::{Code, Result, TableName, WriteMode};
use trib_engine::{Queries, QuerySource, Relation, StreamSpec, Tables};
use trib_runtime::{Event, Limits, Observer, StreamTask, SyncTask, run_sync};
use trib_testkit::in_memory::ListDestination;

use crate::bench::{Bench, numbers};

/// Its tables have some seventy megabytes each.
#[derive(Debug)]
struct Wide;

#[async_trait]
impl Tables for Wide {
    async fn find(&self, name: &TableName) -> Result<Option<Relation>> {
        let sql = "select value as id, lpad(cast(value as varchar), 200, '0') as text from generate_series(1, 300000)";
        Ok(name.name.ends_with("_side").then(|| Relation::View(sql.to_owned())))
    }
}

/// Attempts that have failed, and lines of the run's log.
#[derive(Default)]
struct Heard {
    failed: Mutex<Vec<Code>>,
    said: Mutex<Vec<String>>,
}

impl Observer for Heard {
    fn event(&self, _: &str, _: Option<&str>, event: &Event) {
        match event {
            Event::Retrying { error, .. } => self.failed.lock().unwrap().push(error.code()),
            Event::Said { text, .. } => self.said.lock().unwrap().push(text.clone()),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_came_before_memory_ran_out_are_published_once() {
    let heard = Arc::new(Heard::default());
    let mut bench = Bench::new().await;
    bench.runtime.observer = heard.clone();
    let sql = "select id as n from (values (-1), (-2)) as few (id) union all
               select coalesce(l.id, r.id) from left_side l full join right_side r on r.id = l.id + 150000 where coalesce(l.text, r.text) <> ''";
    let source = QuerySource::new(Queries::new(bench.runtime.engine.clone(), Arc::new(Wide)), "joined", sql, None);
    let destination = Arc::new(ListDestination::new(true));
    let task = SyncTask {
        sync: "joined".into(),
        identity: "joined".into(),
        source: Arc::new(source),
        destination: destination.clone(),
        streams: vec![StreamTask::whole(StreamSpec::plain("joined", numbers(), TableName::parse("joined"), WriteMode::Append))],
        renew: None,
        limits: Limits { attempts: 2, backoff: Duration::ZERO, ..Limits::default() },
    };
    let report = run_sync(&bench.runtime, task).await.unwrap();
    assert_eq!(report.streams[0].error.as_ref().map(ToString::to_string), None);
    let committed = destination.committed.lock().unwrap();
    let rows: Vec<u64> = committed.iter().map(|load| load.rows()).collect();
    assert_eq!(rows, [450_002]);
    assert_eq!(*heard.failed.lock().unwrap(), [Code::ResourceExhausted]);
    let said = heard.said.lock().unwrap();
    assert!(said.len() == 1 && said[0].contains("its joins sort both sides"), "{said:?}");
}
