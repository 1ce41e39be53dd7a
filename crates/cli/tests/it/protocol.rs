//! The load protocol when a side fails at the worst moment: what is visible, what is read again, what is refused.
//!
//! The destination is SQLite behind a wrapper whose commits fail when they are told to; the source gives numbers, a few at a time.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use async_trait::async_trait;
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use trib_core::load::Deletes;
use trib_core::{
    BatchStream, Capabilities, Catalog, Code, ColumnType, Context, Destination, Emitter, Error, ExistingTable, Lease, Load, LoadId, Marker,
    Outcome, Part, Read, Receipt, RejectedRow, Result, Source, Split, SplitEnd, State, StreamRead, Table, TableName, WriteMode,
};
use trib_engine::{Engine, StreamSpec};
use trib_runtime::{Compare, Event, Limits, Observer, Refresh, Runtime, StreamTask, SyncTask, run_sync};
use trib_store::Store;

const STREAM: &str = "numbers";

/// Numbers, three to a load where the read may be cut.
#[derive(Default)]
struct Numbers {
    there: Mutex<BTreeSet<i64>>,
    /// Of those that are there, these cannot be decoded.
    broken: Mutex<BTreeSet<i64>>,
    reads: AtomicUsize,
}

#[async_trait]
impl Source for Numbers {
    async fn check(&self) -> Result<()> {
        Ok(())
    }

    async fn discover(&self, _: &[String]) -> Result<Catalog> {
        Ok(Catalog::default())
    }

    async fn plan(&self, reads: &[StreamRead], state: &State) -> Result<Vec<Split>> {
        if let Some(left) = state.stream(STREAM).and_then(|s| s.get("left")) {
            return Ok(vec![serde_json::from_value(left.clone())?]);
        }
        if self.there.lock().unwrap().is_empty() {
            return Ok(Vec::new());
        }
        Ok(vec![Split::new(STREAM, json!({"after": 0, "may_stop": reads[0].may_stop, "columns": reads[0].columns}))])
    }

    async fn read(&self, split: &Split, out: &mut Emitter) -> Result<SplitEnd> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let there: Vec<i64> = self.there.lock().unwrap().range(split.spec["after"].as_i64().unwrap() + 1..).copied().collect();
        let now = if split.spec["may_stop"] == true { there.len().min(3) } else { there.len() };
        let broken = self.broken.lock().unwrap().clone();
        let good: Vec<i64> = there[..now].iter().copied().filter(|n| !broken.contains(n)).collect();
        for bad in there[..now].iter().filter(|n| broken.contains(n)) {
            let row = RejectedRow { place: format!("n={bad}"), reason: "broken".into(), row: json!({"n": bad}) };
            out.reject(STREAM, row).await?;
        }
        if !good.is_empty() {
            let texts: ArrayRef = Arc::new(StringArray::from_iter_values(good.iter().map(|n| format!("text {n}"))));
            let numbers: ArrayRef = Arc::new(Int64Array::from(good));
            let all = RecordBatch::try_from_iter([("n", numbers), ("t", texts)])?;
            let wanted: Vec<String> = serde_json::from_value(split.spec["columns"].clone())?;
            let wanted: Vec<usize> = wanted.iter().map(|name| all.schema().index_of(name)).collect::<std::result::Result<_, _>>()?;
            out.batch(STREAM, all.project(&wanted)?).await?;
        }
        if now == there.len() {
            return Ok(SplitEnd::finished(split, Value::Null));
        }
        let mut rest = split.clone();
        rest.spec["after"] = json!(there[now - 1]);
        Ok(SplitEnd::stopped(split, rest, Value::Null))
    }

    fn advance(&self, _: &[StreamRead], state: &State, ends: &[SplitEnd]) -> Result<State> {
        let left = ends.iter().find_map(|e| e.rest.as_ref());
        Ok(state.with_stream(STREAM, left.map_or(json!({}), |left| json!({"left": left}))))
    }
}

/// What happens to a commit.
#[derive(Clone, Copy)]
enum Fault {
    /// It does not take place.
    Before(Code),
    /// It takes place, and its answer is this error.
    After(Code),
    None,
}

struct Failing {
    inner: Arc<dyn Destination>,
    /// Of the next commits.
    faults: Mutex<VecDeque<Fault>>,
}

#[async_trait]
impl Destination for Failing {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn column_type(&self, field: &Field) -> Result<ColumnType> {
        self.inner.column_type(field)
    }

    async fn check(&self) -> Result<()> {
        self.inner.check().await
    }

    async fn open(&self, lease: &Lease, tables: &[TableName]) -> Result<Vec<Marker>> {
        self.inner.open(lease, tables).await
    }

    async fn inspect(&self, table: &TableName) -> Result<Option<ExistingTable>> {
        self.inner.inspect(table).await
    }

    async fn stage(&self, part: &Part, table: &Table, rows: BatchStream) -> Result<Receipt> {
        self.inner.stage(part, table, rows).await
    }

    async fn commit(&self, load: &Load, lease: &Lease) -> Result<Outcome> {
        let fault = self.faults.lock().unwrap().pop_front().unwrap_or(Fault::None);
        if let Fault::Before(code) = fault {
            return Err(Error::new(code, "the commit was made to fail"));
        }
        let outcome = self.inner.commit(load, lease).await?;
        match fault {
            Fault::After(code) => Err(Error::new(code, "the answer was made to be lost")),
            _ => Ok(outcome),
        }
    }

    async fn abort(&self, load: &LoadId) -> Result<()> {
        self.inner.abort(load).await
    }

    async fn sweep(&self, lease: &Lease, keep: &[LoadId]) -> Result<()> {
        self.inner.sweep(lease, keep).await
    }

    async fn forget(&self, lease: &Lease, scopes: &[String], tables: &[TableName]) -> Result<()> {
        self.inner.forget(lease, scopes, tables).await
    }
}

/// Remembers what was told.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Observer for Told {
    fn event(&self, _: &str, _: Option<&str>, event: &Event) {
        self.0.lock().unwrap().push(event.describe().0);
    }
}

struct Bench {
    dir: TempDir,
    store: Arc<Store>,
    source: Arc<Numbers>,
    destination: Arc<Failing>,
    told: Arc<Told>,
}

impl Bench {
    async fn new(numbers: std::ops::RangeInclusive<i64>) -> Self {
        let dir = TempDir::new().unwrap();
        let store = Arc::new(Store::open("control.db", dir.path(), "dev").await.unwrap());
        let context = Context { connection: "out".into(), project_dir: dir.path().into(), threads: 1 };
        let inner = trib_connectors::sqlite::connector().make_destination(&json!({"path": "out.db"}), &context).unwrap();
        let source = Arc::new(Numbers { there: Mutex::new(numbers.collect()), ..Numbers::default() });
        let destination = Arc::new(Failing { inner, faults: Mutex::default() });
        Self { dir, store, source, destination, told: Arc::default() }
    }

    fn faults(&self, faults: impl IntoIterator<Item = Fault>) {
        *self.destination.faults.lock().unwrap() = faults.into_iter().collect();
    }

    fn stream(&self, write: WriteMode) -> StreamTask {
        let schema = Schema::new(vec![Field::new("n", DataType::Int64, false), Field::new("t", DataType::Utf8, true)]);
        let mut spec = StreamSpec::plain(STREAM, Arc::new(schema), TableName::parse("numbers"), write);
        spec.key = vec!["n".into()];
        StreamTask::whole(spec)
    }

    /// A run; the error is that of its one stream.
    async fn run(&self, stream: StreamTask) -> std::result::Result<(), Arc<Error>> {
        self.told.0.lock().unwrap().clear();
        self.source.reads.store(0, Ordering::Relaxed);
        let runtime = Runtime {
            engine: Engine::new(64 << 20, &self.dir.path().join("spill"), 1).unwrap(),
            store: self.store.clone(),
            observer: self.told.clone(),
            cancel: CancellationToken::new(),
            run: trib_runtime::new_id(),
            holder: "test".into(),
        };
        let limits = Limits { attempts: 2, backoff: Duration::from_millis(1), ..Limits::default() };
        let task = SyncTask {
            sync: "s".into(),
            identity: "p:dev:s:numbers".into(),
            source: self.source.clone(),
            destination: self.destination.clone(),
            streams: vec![stream],
            renew: None,
            limits,
        };
        let report = run_sync(&runtime, task).await.unwrap();
        report.streams.into_iter().find_map(|s| s.error).map_or(Ok(()), Err)
    }

    fn reads(&self) -> usize {
        self.source.reads.load(Ordering::Relaxed)
    }

    fn rows(&self) -> Vec<i64> {
        let database = Connection::open(self.dir.path().join("out.db")).unwrap();
        let mut rows = database.prepare("select n from numbers order by n").unwrap();
        rows.query_map([], |row| row.get(0)).unwrap().collect::<rusqlite::Result<_>>().unwrap()
    }

    /// A first load of three numbers is visible, and the read is cut there.
    async fn cut(numbers: std::ops::RangeInclusive<i64>, write: WriteMode) -> Self {
        let bench = Self::new(numbers).await;
        bench.faults([Fault::None, Fault::Before(Code::SystemError)]);
        bench.run(bench.stream(write)).await.unwrap_err();
        assert_eq!(bench.rows(), [1, 2, 3]);
        bench
    }

    fn was_told(&self, what: &str) -> bool {
        self.told.0.lock().unwrap().iter().any(|line| line.contains(what))
    }
}

fn count(to: i64) -> Vec<i64> {
    (1..=to).collect()
}

#[tokio::test]
async fn a_load_that_can_never_be_published_is_read_again() {
    let bench = Bench::new(1..=2).await;
    bench.faults([Fault::Before(Code::DataInvalid)]);
    assert_eq!(bench.run(bench.stream(WriteMode::Append)).await.unwrap_err().code(), Code::DataInvalid);
    // What it would have published is not what is read now.
    *bench.source.there.lock().unwrap() = BTreeSet::from([1, 3]);
    bench.run(bench.stream(WriteMode::Append)).await.unwrap();
    assert_eq!((bench.rows(), bench.reads()), (vec![1, 3], 1));
}

#[tokio::test]
async fn what_an_earlier_run_has_staged_and_cannot_be_published_is_read_again_at_once() {
    let bench = Bench::new(1..=2).await;
    // Not even the second attempt gets an answer.
    bench.faults([Fault::Before(Code::ConnectionLost), Fault::Before(Code::ConnectionLost)]);
    assert_eq!(bench.run(bench.stream(WriteMode::Append)).await.unwrap_err().code(), Code::ConnectionLost);
    bench.faults([Fault::Before(Code::DataInvalid)]);
    bench.run(bench.stream(WriteMode::Append)).await.unwrap();
    assert_eq!((bench.rows(), bench.reads()), (vec![1, 2], 1));
    assert!(bench.was_told("could not be published"));
}

#[tokio::test]
async fn a_commit_whose_answer_is_an_error_is_found_at_the_destination() {
    for code in [Code::ConnectionLost, Code::SystemError] {
        let bench = Bench::new(1..=2).await;
        bench.faults([Fault::After(code)]);
        bench.run(bench.stream(WriteMode::Append)).await.unwrap();
        assert_eq!((bench.rows(), bench.reads()), (vec![1, 2], 1), "{code:?}");
    }
}

#[tokio::test]
async fn attempts_are_counted_from_the_last_load_that_became_visible() {
    let bench = Bench::new(1..=12).await;
    // Two attempts are allowed, and each of the four loads needs both.
    bench.faults([Fault::Before(Code::ConnectionLost), Fault::None].repeat(4));
    bench.run(bench.stream(WriteMode::Append)).await.unwrap();
    assert_eq!(bench.rows(), count(12));
    bench.source.there.lock().unwrap().insert(13);
    bench.faults([Fault::Before(Code::ConnectionLost); 2]);
    assert_eq!(bench.run(bench.stream(WriteMode::Upsert)).await.unwrap_err().code(), Code::ConnectionLost);
}

fn refresh(mut stream: StreamTask) -> StreamTask {
    stream.refresh = Refresh::Full;
    stream
}

#[tokio::test]
async fn a_refresh_drops_what_an_earlier_run_has_staged() {
    let bench = Bench::new(1..=2).await;
    bench.faults([Fault::Before(Code::ConnectionLost), Fault::Before(Code::ConnectionLost)]);
    bench.run(bench.stream(WriteMode::Append)).await.unwrap_err();
    *bench.source.there.lock().unwrap() = BTreeSet::from([7, 8]);
    bench.run(refresh(bench.stream(WriteMode::Append))).await.unwrap();
    assert_eq!((bench.rows(), bench.reads()), (vec![7, 8], 1));
}

#[tokio::test]
async fn a_refresh_whose_answer_is_lost_reads_once() {
    let bench = Bench::new(1..=2).await;
    bench.run(bench.stream(WriteMode::Append)).await.unwrap();
    for fault in [Fault::After(Code::ConnectionLost), Fault::Before(Code::ConnectionLost)] {
        bench.faults([fault]);
        bench.run(refresh(bench.stream(WriteMode::Append))).await.unwrap();
        assert_eq!((bench.rows(), bench.reads()), (vec![1, 2], 1));
    }
}

#[tokio::test]
async fn what_a_cut_read_has_left_is_not_all_there_is() {
    for write in [WriteMode::Replace, WriteMode::Mirror] {
        let bench = Bench::cut(1..=8, WriteMode::Upsert).await;
        bench.run(bench.stream(write)).await.unwrap();
        assert_eq!(bench.rows(), count(8), "{write:?}");
    }
}

#[tokio::test]
async fn a_range_is_no_rest_of_a_cut_read() {
    let bench = Bench::cut(1..=8, WriteMode::Upsert).await;
    let mut stream = bench.stream(WriteMode::Upsert);
    stream.read = Read::Range { column: "n".into(), since: None, until: None };
    bench.source.there.lock().unwrap().remove(&8);
    bench.run(stream).await.unwrap();
    assert_eq!(bench.rows(), count(7));
    // The rest is still to be read.
    bench.source.there.lock().unwrap().insert(9);
    bench.run(bench.stream(WriteMode::Upsert)).await.unwrap();
    assert_eq!(bench.rows(), [1, 2, 3, 4, 5, 6, 7, 9]);
}

#[tokio::test]
async fn the_rest_of_a_cut_read_answers_one_question() {
    let renamed = |bench: &Bench, write| {
        let mut stream = bench.stream(write);
        stream.spec.schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        stream
    };
    // The same question: read on.
    let bench = Bench::cut(1..=8, WriteMode::Append).await;
    bench.run(bench.stream(WriteMode::Append)).await.unwrap();
    assert_eq!((bench.rows(), bench.reads()), (count(8), 2));
    // Another one, where rows may come twice: from the beginning.
    let bench = Bench::cut(1..=8, WriteMode::Upsert).await;
    bench.run(renamed(&bench, WriteMode::Upsert)).await.unwrap();
    assert_eq!((bench.rows(), bench.reads()), (count(8), 3));
    assert!(bench.was_told("read again from its start"));
    // Where they may not: not without a word.
    let bench = Bench::cut(1..=8, WriteMode::Append).await;
    let error = bench.run(renamed(&bench, WriteMode::Append)).await.unwrap_err();
    assert_eq!((error.code(), bench.rows()), (Code::ConfigInvalid, count(3)));
    bench.run(refresh(renamed(&bench, WriteMode::Append))).await.unwrap();
    assert_eq!(bench.rows(), count(8));
}

#[tokio::test]
async fn a_source_without_splits_empties_the_table_only_when_it_may() {
    for write in [WriteMode::Replace, WriteMode::Mirror] {
        let bench = Bench::new(1..=4).await;
        bench.run(bench.stream(write)).await.unwrap();
        bench.source.there.lock().unwrap().clear();
        assert_eq!(bench.run(bench.stream(write)).await.unwrap_err().code(), Code::Held);
        assert_eq!(bench.rows(), count(4));
        let mut stream = bench.stream(write);
        stream.allow_empty = true;
        bench.run(stream).await.unwrap();
        assert!(bench.rows().is_empty(), "{write:?}");
    }
}

#[tokio::test]
async fn a_mirror_deletes_nothing_while_rows_are_rejected() {
    let bench = Bench::new(1..=4).await;
    bench.run(bench.stream(WriteMode::Mirror)).await.unwrap();
    bench.source.broken.lock().unwrap().insert(2);
    *bench.source.there.lock().unwrap() = BTreeSet::from([1, 2, 4, 5]);
    bench.run(bench.stream(WriteMode::Mirror)).await.unwrap();
    assert_eq!(bench.rows(), count(5));
    assert!(bench.was_told("1 row was rejected, so nothing is deleted"));
    bench.source.broken.lock().unwrap().clear();
    bench.run(bench.stream(WriteMode::Mirror)).await.unwrap();
    assert_eq!(bench.rows(), [1, 2, 4, 5]);
}

#[tokio::test]
async fn comparing_deletes_nothing_while_rows_are_rejected() {
    let bench = Bench::new(1..=4).await;
    let compared = || {
        let mut stream = bench.stream(WriteMode::Upsert);
        stream.compare = Some(Compare { every: Some(Duration::from_secs(3600)), apply: Deletes::Hard });
        stream
    };
    bench.run(bench.stream(WriteMode::Upsert)).await.unwrap();
    bench.source.broken.lock().unwrap().insert(2);
    *bench.source.there.lock().unwrap() = BTreeSet::from([1, 2, 4]);
    bench.run(compared()).await.unwrap();
    assert_eq!(bench.rows(), count(4));
    // It is still due, although an hour has not passed.
    bench.source.broken.lock().unwrap().clear();
    bench.run(compared()).await.unwrap();
    assert_eq!(bench.rows(), [1, 2, 4]);
}

#[tokio::test]
async fn rows_are_listed_even_when_all_of_a_load_are_rejected() {
    let bench = Bench::new(1..=2).await;
    bench.run(bench.stream(WriteMode::Upsert)).await.unwrap();
    *bench.source.there.lock().unwrap() = BTreeSet::from([3]);
    bench.source.broken.lock().unwrap().insert(3);
    bench.run(bench.stream(WriteMode::Upsert)).await.unwrap();
    let rejected = bench.store.rejected(None, None, 10).await.unwrap();
    assert_eq!(rejected.iter().map(|r| r.row.place.as_str()).collect::<Vec<_>>(), ["n=3"]);
    assert_eq!(bench.rows(), count(2));
}
