//! The suite that every registered connector passes. The rules behind it are numbered in `docs/connector-spec.md`.
//!
//! Each check stands for itself: all of them run, and what failed is told at the end.

mod bench;
mod children;
mod evolution;
mod modes;
mod protocol;
mod round_trip;
mod source;

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::FutureExt;
use futures::future::BoxFuture;
use trib_core::{Code, Destination, Error, Source, State, TableName};

use crate::emit;

/// Drives a destination by itself and compares what a reader sees with a model of it.
///
/// `make` gives a new instance for the same system each time, as another process would have. `read` gives all rows of a table, by whatever
/// way is not the destination's writing code: the connector's source, its SQL, another program. No batches when the table is not there.
/// The suite makes its own tables and leaves them.
pub async fn destination<M, R, F>(make: M, read: R)
where
    M: Fn() -> Arc<dyn Destination>,
    R: Fn(TableName) -> F,
    F: Future<Output = Vec<RecordBatch>> + Send + 'static,
{
    let read = |table: TableName| -> BoxFuture<'static, Vec<RecordBatch>> { read(table).boxed() };
    let at = bench::Place { make: &make, read: &read };
    let mut report = Report::default();
    protocol::checks(&at, &mut report).await;
    round_trip::checks(&at, &mut report).await;
    modes::checks(&at, &mut report).await;
    evolution::checks(&at, &mut report).await;
    children::checks(&at, &mut report).await;
    report.finish();
}

/// Drives a source by itself and compares what comes out with what was put in.
///
/// `make` gives a new instance for the same system each time. `fill` adds rows to a table of the system, making it when it is not there, by whatever
/// way is not the source's reading code, and gives the name of its stream.
pub async fn source<M, W, F>(make: M, fill: W)
where
    M: Fn() -> Arc<dyn Source>,
    W: Fn(TableName, RecordBatch) -> F,
    F: Future<Output = String> + Send + 'static,
{
    let fill = |table: TableName, rows: RecordBatch| -> BoxFuture<'static, String> { fill(table, rows).boxed() };
    let at = source::Place { make: &make, fill: &fill };
    let mut report = Report::default();
    source::checks(&at, &mut report).await;
    report.finish();
}

/// For [`destination`], where the connector has a source too: all rows of a table, read by a source that was made for it.
pub async fn read_by(source: Arc<dyn Source>, table: TableName) -> Vec<RecordBatch> {
    // Most streams are called like their table, and then the others need not be described.
    let mut found = None;
    for only in [&[table.to_string()][..], &[]] {
        let catalog = match source.discover(only).await {
            Err(e) if e.code() == Code::NotFound => continue,
            catalog => catalog.expect("discover"),
        };
        found = catalog.streams.into_iter().find(|s| s.table == table.name);
        if found.is_some() {
            break;
        }
    }
    let Some(stream) = found else { return Vec::new() };
    let (read, _) = emit::read(source.as_ref(), &emit::full(&stream.name), &State::default()).await.expect("a full read");
    assert!(read.rejected.is_empty(), "rows of {table} cannot be read back: {:?}", read.rejected);
    read.batches
}

/// For [`source`], where the connector has a destination too: appends the rows, without any column of ours, and finds the stream.
pub async fn filled_by(destination: Arc<dyn Destination>, source: Arc<dyn Source>, table: TableName, rows: RecordBatch) -> String {
    let name = TableName::new(destination.capabilities().default_schema, &table.name);
    let mut rows = rows;
    while let Err(e) = bench::append(destination.as_ref(), name.clone(), rows.clone()).await {
        // A column whose name the system cannot have is left out.
        let names: Vec<String> = rows.schema_ref().fields().iter().map(|f| f.name().clone()).collect();
        let refused = round_trip::refused(&e, &names).unwrap_or_else(|| panic!("the destination does not fill {table}: {e:?}"));
        let kept: Vec<usize> = (0..names.len()).filter(|i| names[*i] != refused).collect();
        rows = rows.project(&kept).expect("columns of the batch");
    }
    let catalog = source.discover(&[]).await.expect("discover");
    let names = || catalog.streams.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
    match catalog.streams.iter().find(|s| s.table == table.name) {
        Some(stream) => stream.name.clone(),
        None => panic!("there is no stream for {table} among {}", names()),
    }
}

/// Why a check failed.
pub(crate) struct Failure(String);

pub(crate) type Check = Result<(), Failure>;

impl Failure {
    pub(crate) fn new(text: impl fmt::Display) -> Self {
        Self(text.to_string())
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        let hint = e.hint_text().map(|h| format!(" (hint: {h})")).unwrap_or_default();
        Self(format!("an error that should not be: {e:?}{hint}"))
    }
}

/// Ends a check unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::conformance::Failure::new(format!($($message)+)));
        }
    };
}
pub(crate) use ensure;

#[derive(Default)]
pub(crate) struct Report {
    passed: usize,
    failed: Vec<String>,
}

impl Report {
    /// Whether the check passed.
    pub(crate) async fn check(&mut self, name: &str, check: impl Future<Output = Check>) -> bool {
        let failures = self.failed.len();
        // A panic of the connector is a failure of this check, and no reason to skip the others.
        match std::panic::AssertUnwindSafe(check).catch_unwind().await {
            Ok(Ok(())) => self.passed += 1,
            Ok(Err(Failure(text))) => self.failed.push(format!("✗ {name}\n  {text}")),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
                self.failed.push(format!("✗ {name}\n  a panic: {}", text.unwrap_or_default()));
            }
        }
        self.failed.len() == failures
    }

    fn finish(self) {
        let Self { passed, failed } = self;
        assert!(failed.is_empty(), "{} of {} conformance checks failed:\n{}", failed.len(), passed + failed.len(), failed.join("\n"));
    }
}
