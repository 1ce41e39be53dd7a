//! What a failure at either end leads to.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde_json::json;
use trib_core::transform::Transform;
use trib_core::{Code, RejectedRow, WriteMode};

use crate::memory::{ListDestination, Push, batch, run, spec};

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
    destination.fails = true;
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

#[tokio::test]
async fn a_schema_that_changes_in_mid_read_is_an_error() {
    let wider = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true), Field::new("m", DataType::Int64, true)]));
    let pushes = vec![Push::Batch(batch(&numbers(), "{\"n\":1}")), Push::Batch(batch(&wider, "{\"n\":1,\"m\":2}"))];
    let ran = run(spec(numbers(), Transform::default()), pushes, ListDestination::new(true)).await.unwrap();
    assert_eq!(ran.result.err().unwrap().code(), Code::ContractBroken);
}
