//! Folders that hold values.

use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Int64Array, RecordBatch, StringArray};
use serde_json::json;
use trib_testkit::rows;

use super::{Folder, read, types};

#[tokio::test]
async fn partitions_are_folders_and_come_back_typed() {
    let folder = Folder::new();
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100));
    let days: ArrayRef = Arc::new((0..100).map(|i| (i % 5 != 0).then_some(19_000 + i % 3)).collect::<Date32Array>());
    let places: ArrayRef = Arc::new(StringArray::from_iter_values((0..100).map(|i| if i % 2 == 0 { "a/b" } else { "Köln" })));
    let batch = RecordBatch::try_from_iter([("id", ids), ("day", days), ("place", places)]).unwrap();
    let destination = folder.destination(&json!({"path": "out"}));
    super::commits::replace_partitioned(destination.as_ref(), "t", std::slice::from_ref(&batch), &["day", "place"]).await.unwrap();
    assert!(folder.path().join("out/t/day=2022-01-08/place=a%2Fb").is_dir());
    assert!(folder.path().join("out/t/day=__HIVE_DEFAULT_PARTITION__/place=Köln").is_dir());

    let expected = rows::canonical(&[batch]);
    let source = folder.source(&json!({"path": "out"}));
    assert_eq!(types(source.as_ref()).await, ["id: Int64", "day: Date32", "place: Utf8"]);
    assert_eq!(rows::difference(&expected, &rows::canonical(&read(source.as_ref()).await.unwrap().batches)), None);
    // Without the manifest the folders' names are text unless a type is declared.
    let plain = folder.source(&json!({"path": "out/t/**/*.parquet", "columns": {"day": "date"}}));
    assert_eq!(rows::difference(&expected, &rows::canonical(&read(plain.as_ref()).await.unwrap().batches)), None);
}
