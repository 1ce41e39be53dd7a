//! What a failure at either end leads to.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use trib_core::transform::Transform;
use trib_core::{Code, Error, RejectedRow, WriteMode};

use crate::memory::{ListDestination, Push, batch, run, run_until, spec};

fn numbers() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]))
}

#[tokio::test]
async fn a_source_that_fails_leaves_no_receipt() {
    for first in [vec![], vec![Push::Batch(batch(&numbers(), "{\"n\":1}"))]] {
        for write in [WriteMode::Append, WriteMode::Replace] {
            let mut spec = spec(numbers(), Transform::default());
            spec.write = write;
            let pushes =
                first.iter().map(|_| Push::Batch(batch(&numbers(), "{\"n\":1}"))).chain([Push::Fail(Code::ConnectionLost)]).collect();
            let ran = run(spec, pushes, ListDestination::new(true)).await.unwrap();
            assert_eq!(ran.result.err().unwrap().code(), Code::ConnectionLost);
        }
    }
}

#[tokio::test]
async fn a_layout_that_the_destination_does_not_have_is_refused() {
    let mut spec = spec(numbers(), Transform::default());
    spec.partition_by = vec!["n".to_owned()];
    let error = run(spec, vec![], ListDestination::new(true)).await.err().unwrap();
    assert_eq!((error.code(), error.place().setting.as_deref()), (Code::Unsupported, Some("partition_by")));
}

#[tokio::test]
async fn a_stage_that_fails_says_why() {
    let mut destination = ListDestination::new(true);
    destination.on_batch = Some(Arc::new(|_| Err(Error::new(Code::ResourceExhausted, "the disk is full"))));
    let pushes = (0..20).map(|_| Push::Batch(batch(&numbers(), "{\"n\":1}"))).collect();
    let ran = run(spec(numbers(), Transform::default()), pushes, destination).await.unwrap();
    assert_eq!(ran.result.err().unwrap().code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn an_empty_read_stages_an_empty_part_only_where_it_means_something() {
    for (write, receipts) in [(WriteMode::Append, 0), (WriteMode::Replace, 1)] {
        let mut spec = spec(numbers(), Transform::default());
        spec.write = write;
        let ran = run(spec, vec![], ListDestination::new(true)).await.unwrap();
        assert_eq!(ran.result.unwrap().receipts.len(), receipts, "{write:?}");
    }
}

#[tokio::test]
async fn rows_that_the_source_rejects_are_kept() {
    let row = RejectedRow { place: "f.csv:3".into(), reason: "ragged".into(), row: json!("a,b,c") };
    let pushes = vec![Push::Reject(row.clone()), Push::Batch(batch(&numbers(), "{\"n\":1}"))];
    let ran = run(spec(numbers(), Transform::default()), pushes, ListDestination::new(true)).await.unwrap();
    assert_eq!(ran.rejected, [row]);
    assert_eq!(ran.rows("t"), [r#"{"n":1}"#]);
}

fn both() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true), Field::new("m", DataType::Int64, true)]))
}

#[tokio::test]
async fn a_column_that_is_missing_is_null_only_where_that_was_announced() {
    let whole = || Push::Batch(batch(&both(), "{\"n\":1,\"m\":2}"));
    let less = || Push::Batch(batch(&numbers(), "{\"n\":3}"));
    let ran = run(spec(both(), Transform::default()), vec![whole(), less()], ListDestination::new(true)).await.unwrap();
    let error = ran.result.err().unwrap();
    assert_eq!((error.code(), error.detail_text()), (Code::ContractBroken, Some("column m is gone")));
    assert!(error.hint_text().is_some());
    let pushes = vec![whole(), Push::Schema(numbers()), less()];
    let ran = run(spec(both(), Transform::default()), pushes, ListDestination::new(true)).await.unwrap();
    assert!(ran.result.is_ok());
    assert_eq!(ran.rows("t"), [r#"{"n":1,"m":2}"#, r#"{"n":3,"m":null}"#]);
}

#[tokio::test]
async fn work_that_is_given_up_is_waited_for() {
    let (begun, halt) = (CancellationToken::new(), CancellationToken::new());
    let written = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut destination = ListDestination::new(true);
    let (first, gate, done) = (begun.clone(), halt.clone(), written.clone());
    // A thread that writes cannot be cut off: it goes on for a while after it was told to stop.
    destination.on_batch = Some(Arc::new(move |_| {
        first.cancel();
        while !gate.is_cancelled() {
            std::thread::yield_now();
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        done.lock().unwrap().push("written");
        Ok(())
    }));
    let pushes = (0..20).map(|_| Push::Batch(batch(&numbers(), "{\"n\":1}"))).collect();
    let running = run_until(spec(numbers(), Transform::default()), vec![pushes], destination, halt.clone());
    let giving_up = async {
        begun.cancelled().await;
        halt.cancel();
    };
    let (ran, ()) = tokio::join!(running, giving_up);
    assert_eq!(ran.unwrap().result.err().unwrap().code(), Code::Cancelled);
    // Of the batches that were on their way some are still written, and none after that.
    let before = written.lock().unwrap().len();
    assert!(before > 0);
    assert_eq!(Arc::strong_count(&written), 1, "nobody is left who could write");
}

#[tokio::test]
async fn a_schema_that_changes_in_mid_read_is_an_error() {
    let pushes = vec![Push::Batch(batch(&numbers(), "{\"n\":1}")), Push::Batch(batch(&both(), "{\"n\":1,\"m\":2}"))];
    let ran = run(spec(numbers(), Transform::default()), pushes, ListDestination::new(true)).await.unwrap();
    assert_eq!(ran.result.err().unwrap().code(), Code::ContractBroken);
}
