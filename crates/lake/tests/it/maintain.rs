//! Upkeep changes files, never rows.

use std::time::Duration;

use trib_core::{Destination, WriteMode};

use crate::harness::{Bench, table};

#[tokio::test(flavor = "multi_thread")]
async fn many_small_files_become_one() {
    let bench = Bench::new().await;
    let table = table(WriteMode::Append);
    for n in 0..12 {
        bench.rows(&table, &[(n, "x"), (n, "y")]).await;
    }
    let before = bench.content().await;
    let staged = bench.stage(&table, vec![bench.batch(&table, &[(99, "z")], None)]).await;
    let said = bench.lake.maintain(&table.name, Duration::ZERO).await.unwrap();
    assert_eq!(said, "12 files became 1; 12 old files removed");
    assert_eq!(bench.content().await, before);
    // What is staged stays, and can be committed.
    let load = bench.load(vec![trib_core::load::TableLoad { table: table.clone(), changes: vec![], receipts: vec![staged] }]);
    bench.commit(&load).await.unwrap();
    assert_eq!(bench.content().await.len(), 25);
    let files = std::fs::read_dir(bench.folder("main.orders")).unwrap();
    assert_eq!(files.filter(|f| f.as_ref().unwrap().path().extension().is_some_and(|e| e == "parquet")).count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_within_its_retention_stays() {
    let bench = Bench::new().await;
    let table = table(WriteMode::Replace);
    bench.rows(&table, &[(1, "a")]).await;
    bench.rows(&table, &[(2, "b")]).await;
    assert_eq!(bench.lake.maintain(&table.name, Duration::from_hours(1)).await.unwrap(), "0 old files removed");
    let before = bench.lake.provider(&table.name, Some(0)).await.unwrap();
    let frame = datafusion::prelude::SessionContext::new().read_table(before).unwrap();
    assert_eq!(frame.count().await.unwrap(), 1);
    assert_eq!(bench.lake.maintain(&table.name, Duration::ZERO).await.unwrap(), "1 old files removed");
}
