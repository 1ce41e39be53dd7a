//! What a source promises: everything once, whole or in pieces, now or later.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use futures::future::BoxFuture;
use trib_core::source::{Cursor, NullCursor};
use trib_core::{Code, Error, Read, ReadMode, Source, Split, State, StreamRead, TableName};

use super::round_trip::ODD_NAMES;
use super::{Check, Failure, Report, ensure};
use crate::emit;
use crate::rows;

/// The source under test, and the way to put rows into its system.
pub(crate) struct Place<'a> {
    pub(crate) make: &'a dyn Fn() -> Arc<dyn Source>,
    pub(crate) fill: &'a dyn Fn(TableName, RecordBatch) -> BoxFuture<'static, String>,
}

/// Enough for several batches and splits.
const ROWS: i64 = 25_000;

pub(super) async fn checks(at: &Place<'_>, report: &mut Report) {
    macro_rules! run {
        ($($check:ident),* $(,)?) => { $(report.check(concat!("source::", stringify!($check)), $check(at)).await;)* };
    }
    run![
        the_catalog_is_true,
        odd_names_are_read,
        splits_hold_every_row_once,
        columns_come_as_they_are_asked_for,
        an_unknown_stream_is_an_error,
        an_increment_holds_what_is_new_and_ties_once,
        rows_without_a_cursor_are_left_out,
        stopped_and_resumed_equals_straight_through,
    ];
}

/// The column that increments run on.
const CURSOR: &str = "updated_at";

/// Rows with an id, a time that `at` numbers, and a text.
fn numbered(ids: impl Iterator<Item = i64> + Clone, at: impl Fn(i64) -> Option<i64>) -> RecordBatch {
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(ids.clone().map(|i| format!("text of row {i}"))));
    let times = ids.clone().map(|i| at(i).map(|n| 1_700_000_000_000_000 + n * 1_500_000));
    let times: ArrayRef = Arc::new(times.collect::<TimestampMicrosecondArray>().with_timezone("UTC"));
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(ids));
    RecordBatch::try_from_iter([("id", ids), (CURSOR, times), ("text", texts)]).expect("columns of one length")
}

fn same(expected: &[RecordBatch], found: &[RecordBatch], what: &str) -> Check {
    match rows::difference(&rows::canonical(expected), &rows::canonical(found)) {
        None => Ok(()),
        Some(difference) => Err(Failure::new(format!("{what}: {difference}"))),
    }
}

async fn the_catalog_is_true(at: &Place<'_>) -> Check {
    let batch = numbered(0..100, Some);
    let stream = (at.fill)(TableName::new(None, "conf_catalog"), batch.clone()).await;
    let source = (at.make)();
    source.check().await?;
    for only in [vec![], vec![stream.clone()]] {
        let catalog = source.discover(&only).await?;
        let described = catalog.stream(&stream)?;
        ensure!(described.read_modes.contains(&ReadMode::Full), "{stream} cannot be read in full");
        let names: std::collections::BTreeSet<&str> = catalog.streams.iter().map(|s| s.name.as_str()).collect();
        ensure!(names.len() == catalog.streams.len(), "two streams have one name");
        let (read, _) = emit::read(source.as_ref(), &emit::full(&stream), &State::default()).await?;
        ensure!(read.rejected.is_empty(), "rows were rejected: {:?}", read.rejected);
        for emitted in &read.batches {
            let shape =
                |s: &arrow::datatypes::Schema| s.fields().iter().map(|f| (f.name().clone(), f.data_type().clone())).collect::<Vec<_>>();
            let (declared, given) = (shape(&described.schema), shape(emitted.schema_ref()));
            ensure!(declared == given, "the catalog says {declared:?}, the read gives {given:?}");
        }
        same(std::slice::from_ref(&batch), &read.batches, "a full read")?;
    }
    Ok(())
}

async fn odd_names_are_read(at: &Place<'_>) -> Check {
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    let columns = ODD_NAMES.iter().map(|n| (*n, texts.clone()));
    let batch = RecordBatch::try_from_iter(columns).map_err(Failure::new)?;
    let stream = (at.fill)(TableName::new(None, "conf Odd table ü"), batch.clone()).await;
    let source = (at.make)();
    source.discover(&[]).await?.stream(&stream)?;
    let (read, _) = emit::read(source.as_ref(), &emit::full(&stream), &State::default()).await?;
    // What the system cannot have was not put in.
    let found = read.batches.first().map(RecordBatch::schema);
    let kept: Vec<usize> =
        (0..ODD_NAMES.len()).filter(|i| found.as_ref().is_some_and(|s| s.field_with_name(ODD_NAMES[*i]).is_ok())).collect();
    ensure!(kept.len() > ODD_NAMES.len() / 2, "of {ODD_NAMES:?}, only {} are read", kept.len());
    same(&[batch.project(&kept).map_err(Failure::new)?], &read.batches, "a table with odd names")
}

async fn splits_hold_every_row_once(at: &Place<'_>) -> Check {
    let batch = numbered(0..ROWS, |i| Some(i / 3));
    let stream = (at.fill)(TableName::new(None, "conf_splits"), batch.clone()).await;
    let keyed = |parallelism, may_stop| StreamRead {
        parallelism,
        may_stop,
        key: vec!["id".to_owned()],
        split_by: may_stop.then(|| "id".to_owned()),
        ..emit::full(&stream)
    };
    for (parallelism, may_stop) in [(1, false), (4, false), (4, true)] {
        let source = (at.make)();
        let read = keyed(parallelism, may_stop);
        let splits = source.plan(std::slice::from_ref(&read), &State::default()).await?;
        // Another process reads what this one has planned, while the source that planned still lives and holds its snapshot.
        let reader = (at.make)();
        let mut batches = Vec::new();
        for split in &splits {
            let split: Split = serde_json::from_str(&serde_json::to_string(split).map_err(Error::from)?).map_err(Error::from)?;
            batches.extend(emit::collect(reader.as_ref(), &split).await?.batches);
        }
        same(std::slice::from_ref(&batch), &batches, &format!("{} splits (may stop: {may_stop})", splits.len()))?;
    }
    Ok(())
}

async fn columns_come_as_they_are_asked_for(at: &Place<'_>) -> Check {
    let batch = numbered(0..50, Some);
    let stream = (at.fill)(TableName::new(None, "conf_columns"), batch.clone()).await;
    let read = StreamRead { columns: Some(vec!["text".to_owned(), "id".to_owned()]), ..emit::full(&stream) };
    let (found, _) = emit::read((at.make)().as_ref(), &read, &State::default()).await?;
    for emitted in &found.batches {
        let names: Vec<&str> = emitted.schema_ref().fields().iter().map(|f| f.name().as_str()).collect();
        ensure!(names == ["text", "id"], "asked for text and id, got {names:?}");
    }
    same(&[batch.project(&[2, 0]).map_err(Failure::new)?], &found.batches, "two columns of three")
}

async fn an_unknown_stream_is_an_error(at: &Place<'_>) -> Check {
    let source = (at.make)();
    match emit::read(source.as_ref(), &emit::full("conf_not_there"), &State::default()).await {
        Ok(_) => Err(Failure::new("a stream that is not there was read")),
        Err(e) => {
            ensure!(e.code() == Code::NotFound, "a stream that is not there should be not_found: {e:?}");
            Ok(())
        }
    }
}

fn incremental(stream: &str) -> StreamRead {
    let cursor = Cursor { column: CURSOR.to_owned(), lookback: None, null_cursor: NullCursor::Exclude, start: None, end: None };
    StreamRead { key: vec!["id".to_owned()], read: Read::Incremental(cursor), ..emit::full(stream) }
}

/// Whether the stream has increments at all.
async fn has_increments(source: &dyn Source, stream: &str) -> Result<bool, Error> {
    let catalog = source.discover(&[]).await?;
    Ok(catalog.stream(stream)?.read_modes.contains(&ReadMode::Incremental))
}

/// Through the control database and back.
fn stored(state: &State) -> Result<State, Error> {
    Ok(serde_json::from_str(&serde_json::to_string(state)?)?)
}

async fn an_increment_holds_what_is_new_and_ties_once(at: &Place<'_>) -> Check {
    let table = TableName::new(None, "conf_increment");
    let stream = (at.fill)(table.clone(), numbered(0..1000, |i| Some(i / 10))).await;
    if !has_increments((at.make)().as_ref(), &stream).await? {
        return Ok(());
    }
    let mut state = State::default();
    // Rows at the greatest value, rows beyond it, nothing.
    let steps = [
        numbered(0..1000, |i| Some(i / 10)),
        numbered(1000..1005, |_| Some(99)),
        numbered(1005..1100, |i| Some(i / 10)),
        numbered(0..0, Some),
    ];
    for (step, new) in steps.iter().enumerate() {
        if step > 0 && new.num_rows() > 0 {
            (at.fill)(table.clone(), new.clone()).await;
        }
        for parallelism in [1, 3] {
            let read = StreamRead { parallelism, ..incremental(&stream) };
            let (found, after) = emit::read((at.make)().as_ref(), &read, &state).await?;
            same(std::slice::from_ref(new), &found.batches, &format!("read {} by {parallelism}", step + 1))?;
            if parallelism == 3 {
                state = stored(&after)?;
            }
        }
    }
    Ok(())
}

async fn rows_without_a_cursor_are_left_out(at: &Place<'_>) -> Check {
    let batch = numbered(0..100, |i| (i % 4 != 0).then_some(i));
    let stream = (at.fill)(TableName::new(None, "conf_null_cursor"), batch).await;
    // Other increments (new files, say) have no rows without a cursor.
    if !(at.make)().discover(&[]).await?.stream(&stream)?.cursors.iter().any(|c| c == CURSOR) {
        return Ok(());
    }
    let (found, _) = emit::read((at.make)().as_ref(), &incremental(&stream), &State::default()).await?;
    same(&[numbered((0..100).filter(|i| i % 4 != 0), Some)], &found.batches, "null_cursor: exclude")
}

async fn stopped_and_resumed_equals_straight_through(at: &Place<'_>) -> Check {
    let batch = numbered(0..ROWS, |i| Some(i / 7));
    let table = TableName::new(None, "conf_stop");
    let stream = (at.fill)(table.clone(), batch.clone()).await;
    let mut reads = vec![emit::full(&stream)];
    if has_increments((at.make)().as_ref(), &stream).await? {
        reads.push(incremental(&stream));
    }
    for read in reads {
        let read = StreamRead { may_stop: true, parallelism: 2, key: vec!["id".to_owned()], ..read };
        let mut state = State::default();
        let mut batches = Vec::new();
        // Each load has its own process, and is stopped as early as the source can.
        for load in 0.. {
            ensure!(load < ROWS, "the read never ends");
            let (found, after) = emit::read_until((at.make)().as_ref(), &read, &state, true).await?;
            batches.extend(found.batches);
            state = stored(&after)?;
            if found.ends.iter().all(|end| end.rest.is_none()) {
                break;
            }
        }
        same(std::slice::from_ref(&batch), &batches, "stopped and resumed")?;
    }
    Ok(())
}
