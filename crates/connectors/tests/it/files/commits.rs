//! Loads by hand: crashes between the steps of a commit, and a full disk. The suite of all connectors is in `conformance.rs`.

use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::stream;
use serde_json::json;
use trib_core::load::Deletes;
use trib_core::{Code, Destination, Error, Lease, Load, LoadId, Part, Result, State, Table, TableLoad, TableName, WriteMode};
use trib_testkit::rows;

use super::{Folder, read};

/// The next load of one table, staged.
pub async fn staged(
    destination: &dyn Destination,
    lease: &Lease,
    table: Table,
    parts: &[RecordBatch],
    number: u64,
    id: &str,
) -> Result<Load> {
    destination.open(lease, std::slice::from_ref(&table.name)).await?;
    let id = LoadId(id.to_owned());
    let mut receipts = Vec::new();
    for (split, batch) in parts.iter().enumerate() {
        let part = Part { load: id.clone(), sync: lease.sync.clone(), split: split as u32, attempt: 0 };
        let rows = Box::pin(stream::iter([Ok::<_, Error>(batch.clone())]));
        receipts.push(destination.stage(&part, &table, rows).await?);
    }
    let tables = vec![TableLoad { table, changes: Vec::new(), receipts }];
    Ok(Load {
        id,
        scope: "s".into(),
        number,
        tables,
        state: State::default(),
        filled: vec![],
        made_from: None,
        loaded_at: chrono::DateTime::UNIX_EPOCH,
    })
}

pub fn table(name: &str, batch: &RecordBatch, write: WriteMode) -> Table {
    Table {
        name: TableName::parse(name),
        schema: batch.schema(),
        key: Vec::new(),
        write,
        deletes: Deletes::Hard,
        scope: None,
        parent: None,
        partition_by: Vec::new(),
        changes: false,
    }
}

pub fn lease(generation: u64) -> Lease {
    Lease { sync: "by hand".into(), generation, holder: "test".into() }
}

pub async fn replace(destination: &dyn Destination, name: &str, parts: &[RecordBatch]) -> Result<()> {
    let load = staged(destination, &lease(1), table(name, &parts[0], WriteMode::Replace), parts, 1, "load1").await?;
    destination.commit(&load, &lease(1)).await.map(|_| ())
}

pub async fn replace_partitioned(destination: &dyn Destination, name: &str, parts: &[RecordBatch], by: &[&str]) -> Result<()> {
    let table = Table { partition_by: by.iter().map(|c| (*c).to_owned()).collect(), ..table(name, &parts[0], WriteMode::Replace) };
    let load = staged(destination, &lease(1), table, parts, 1, "load1").await?;
    destination.commit(&load, &lease(1)).await.map(|_| ())
}

fn numbers(from: i64, to: i64) -> RecordBatch {
    let ids: arrow::array::ArrayRef = Arc::new(arrow::array::Int64Array::from_iter_values(from..to));
    RecordBatch::try_from_iter([("id", ids)]).unwrap()
}

async fn found(folder: &Folder) -> Vec<String> {
    rows::canonical(&read(folder.source(&json!({"path": "out"})).as_ref()).await.unwrap().batches)
}

/// A crash at each step of a commit, by putting the folder back to how it was then; the commit done again heals it.
#[tokio::test]
async fn a_commit_done_again_after_a_crash_heals() {
    for write in [WriteMode::Append, WriteMode::Replace] {
        let control = ["_trib/tables/t.json".to_owned(), marker_file()];
        // What had been written when the crash came: neither, the manifest, both.
        for survived in 0..=2 {
            let folder = Folder::new();
            let destination = folder.destination(&json!({"path": "out"}));
            let first =
                staged(destination.as_ref(), &lease(1), table("t", &numbers(0, 10), write), &[numbers(0, 10)], 1, "load1").await.unwrap();
            destination.commit(&first, &lease(1)).await.unwrap();
            let (new, parts) = (table("t", &numbers(10, 30), write), [numbers(10, 20), numbers(20, 30)]);
            let second = staged(destination.as_ref(), &lease(2), new, &parts, 2, "load2").await.unwrap();
            let path = |name: &str| folder.path().join("out").join(name);
            let before: Vec<Vec<u8>> = control.iter().map(|name| std::fs::read(path(name)).unwrap()).collect();
            destination.commit(&second, &lease(2)).await.unwrap();
            for (name, bytes) in control.iter().zip(&before).skip(survived) {
                std::fs::write(path(name), bytes).unwrap();
            }
            let again = folder.destination(&json!({"path": "out"}));
            again.open(&lease(3), &[]).await.unwrap();
            let outcome = again.commit(&second, &lease(3)).await.unwrap();
            assert_eq!(outcome.already_committed, survived == 2, "{write:?} {survived}");
            let from = if write == WriteMode::Append { 0 } else { 10 };
            assert_eq!(found(&folder).await, rows::canonical(&[numbers(from, 30)]), "{write:?} {survived}");
            let parts = std::fs::read_dir(path("t")).unwrap().count();
            assert_eq!(parts, if write == WriteMode::Append { 3 } else { 2 }, "{write:?} {survived}");
        }
    }
}

/// The marker was never written, and neither was the load recorded: its rows are read again under another id.
#[tokio::test]
async fn a_load_that_never_got_its_marker_is_taken_back() {
    let folder = Folder::new();
    let destination = folder.destination(&json!({"path": "out"}));
    let lost = staged(destination.as_ref(), &lease(1), table("t", &numbers(0, 10), WriteMode::Append), &[numbers(0, 10)], 1, "load1")
        .await
        .unwrap();
    let marker = folder.path().join("out").join(marker_file());
    let before = std::fs::read(&marker).unwrap();
    destination.commit(&lost, &lease(1)).await.unwrap();
    std::fs::write(&marker, before).unwrap();
    let again = staged(destination.as_ref(), &lease(2), table("t", &numbers(0, 10), WriteMode::Append), &[numbers(0, 10)], 1, "load2")
        .await
        .unwrap();
    destination.commit(&again, &lease(2)).await.unwrap();
    assert_eq!(found(&folder).await, rows::canonical(&[numbers(0, 10)]));
}

/// The one record of a sync in the folder of markers.
fn marker_file() -> String {
    use sha2::Digest as _;
    let hash = hex::encode(&sha2::Sha256::digest(b"by hand")[..8]);
    format!("_trib/syncs/{hash}.json")
}

#[tokio::test]
async fn a_full_disk_is_said_and_leaves_nothing_visible() {
    let Some(disk) = trib_testkit::tiny_disk::TinyDisk::mount(2).unwrap() else { return };
    let settings = json!({"path": disk.path().join("out").to_string_lossy()});
    let folder = Folder::new();
    let destination = folder.destination(&settings);
    // Numbers that do not compress.
    let ids = (0..400_000i64).map(|i| i.wrapping_mul(0x1e37_79b9_7f4a_7c15));
    let ids: arrow::array::ArrayRef = Arc::new(arrow::array::Int64Array::from_iter_values(ids));
    let batch = RecordBatch::try_from_iter([("id", ids)]).unwrap();
    let parts = vec![batch.clone(), batch];
    let e = staged(destination.as_ref(), &lease(1), table("t", &parts[0], WriteMode::Replace), &parts, 1, "load1").await.unwrap_err();
    assert_eq!(e.code(), Code::ResourceExhausted, "{e:?}");
    assert!(!disk.path().join("out/t").exists());
    destination.abort(&LoadId("load1".into())).await.unwrap();
    replace(destination.as_ref(), "t", &[numbers(0, 10)]).await.unwrap();
}
