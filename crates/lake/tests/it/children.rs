//! Child tables follow their parents.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema};
use trib_core::load::{Deletes, Load, Parent, TableLoad};
use trib_core::name::system;
use trib_core::{Code, Destination, Lease, LoadId, Table, TableName, WriteMode};

use crate::harness::{Bench, Row, staged, table_with};

fn child(parent: &Table) -> Table {
    let mut fields = vec![Field::new("order_id", DataType::Int64, false), Field::new("name", DataType::Utf8, true)];
    fields.extend(Table::system_fields(parent.write, Deletes::Hard));
    Table {
        name: TableName::parse("main.orders__items"),
        schema: Arc::new(Schema::new(fields)),
        key: vec![],
        parent: Some(Parent { table: parent.name.clone(), columns: vec![("order_id".into(), "id".into())] }),
        scope: None,
        ..parent.clone()
    }
}

/// Stages a load of orders and items; an item's sequence is that of its order.
async fn stage(bench: &Bench, parent: &Table, orders: &[Row<'_>], items: &[(i64, &str, i64)]) -> Load {
    let child = child(parent);
    let receipt = bench.stage(parent, vec![bench.batch(parent, orders, None)]).await;
    let rows: Vec<Row<'_>> = items.iter().map(|i| (i.0, i.1)).collect();
    let batch = staged(&child.staging_schema(), &rows, None, bench.load(vec![]).number);
    let mut columns = batch.columns().to_vec();
    if let Ok(at) = batch.schema().index_of(system::SEQ) {
        columns[at] = Arc::new(arrow::array::Int64Array::from_iter_values(items.iter().map(|i| i.2)));
    }
    let batch = arrow::array::RecordBatch::try_new(batch.schema(), columns).unwrap();
    let items = bench.stage(&child, vec![batch]).await;
    let share = |table: &Table, receipt| TableLoad { table: table.clone(), changes: vec![], receipts: vec![receipt] };
    bench.load(vec![share(parent, receipt), share(&child, items)])
}

#[tokio::test(flavor = "multi_thread")]
async fn children_are_replaced_with_their_parents() {
    let cases: [(WriteMode, &[&str]); 4] = [
        (WriteMode::Upsert, &["1=x", "2=new", "3=z"]),
        (WriteMode::Mirror, &["2=new", "3=z"]),
        // An order that was there keeps its items, whatever came with it.
        (WriteMode::Insert, &["1=x", "2=p", "2=q", "3=z"]),
        (WriteMode::Replace, &["2=new", "2=old", "3=z"]),
    ];
    for (write, expected) in cases {
        let bench = Bench::new().await;
        let parent = table_with(write, Deletes::Hard);
        let first = stage(&bench, &parent, &[(1, "a"), (2, "b")], &[(1, "x", 0), (2, "p", 1), (2, "q", 1)]).await;
        bench.commit(&first).await.unwrap();
        // Order 2 comes twice; the items of its last version count.
        let orders: &[Row<'_>] = if write == WriteMode::Replace { &[(2, "B"), (3, "c")] } else { &[(2, "b"), (2, "B"), (3, "c")] };
        let second = stage(&bench, &parent, orders, &[(2, "old", 0), (2, "new", 1), (3, "z", 2)]).await;
        bench.commit(&second).await.unwrap();
        assert_eq!(bench.query("select order_id, name from orders__items order by 1, 2").await, expected, "{write:?}");
    }
}

/// The child's commit has happened, the parent's has not: the marker says so, and the same load goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_two_tables() {
    let bench = Bench::new().await;
    let parent = table_with(WriteMode::Append, Deletes::Hard);
    let first = stage(&bench, &parent, &[(1, "a")], &[(1, "x", 0)]).await;
    bench.commit(&first).await.unwrap();
    let second = stage(&bench, &parent, &[(2, "b")], &[(2, "y", 0)]).await;

    // The parent's folder cannot be written, so the commit dies after the child's.
    let log = bench.folder("main.orders").join("_delta_log");
    let blocked = log.join(format!("{:020}.json", 1));
    std::fs::create_dir_all(blocked.join("in the way")).unwrap();
    assert!(bench.lake.commit(&second, &bench.lease).await.is_err());
    std::fs::remove_dir_all(blocked).unwrap();
    assert_eq!(bench.query("select count(*) from orders__items").await, ["2"]);
    assert_eq!(bench.lake.open(&bench.lease, &[]).await.unwrap()[0].number, 1);

    let outcome = bench.commit(&second).await.unwrap();
    assert!(!outcome.already_committed);
    assert_eq!(bench.query("select count(*) from orders__items").await, ["2"]);
    assert_eq!(bench.content().await, ["1=a", "2=b"]);
}

/// The child's commit has happened, and the parent's never will: the child's rows go again, and another load takes the place of this one.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_visible_in_part_is_taken_back() {
    for compacted in [false, true] {
        let bench = Bench::new().await;
        let parent = table_with(WriteMode::Append, Deletes::Hard);
        let first = stage(&bench, &parent, &[(1, "a")], &[(1, "x", 0)]).await;
        bench.commit(&first).await.unwrap();
        let lost = stage(&bench, &parent, &[(2, "b")], &[(2, "y", 0)]).await;
        let files: Vec<String> =
            lost.tables[0].receipts[0].staged["files"].as_array().unwrap().iter().map(|f| f["name"].to_string()).collect();
        for file in files {
            std::fs::remove_file(bench.folder("main.orders").join(file.trim_matches('"'))).unwrap();
        }
        assert_eq!(bench.lake.commit(&lost, &bench.lease).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(bench.query("select count(*) from orders__items").await, ["2"]);
        if compacted {
            bench.lake.maintain(&TableName::parse("main.orders__items"), Duration::from_hours(1)).await.unwrap();
            assert!(!bench.lake.take_back(&lost, &bench.lease).await.unwrap(), "the rows are in other files now");
            assert_eq!(bench.query("select count(*) from orders__items").await, ["2"]);
            continue;
        }
        // A run that was outdated meanwhile takes nothing back.
        let next = Lease { generation: 2, ..bench.lease.clone() };
        bench.lake.open(&next, &[]).await.unwrap();
        assert_eq!(bench.lake.take_back(&lost, &bench.lease).await.unwrap_err().code(), Code::LeaseLost);
        for _ in 0..2 {
            assert!(bench.lake.take_back(&lost, &next).await.unwrap());
            assert_eq!(bench.query("select order_id, name from orders__items").await, ["1=x"]);
        }
        bench.lake.abort(&lost.id).await.unwrap();
        let again = stage(&bench, &parent, &[(2, "b")], &[(2, "y", 0)]).await;
        let again = Load { id: LoadId("load9999".into()), ..again };
        bench.lake.commit(&again, &next).await.unwrap();
        assert_eq!(bench.query("select order_id, name from orders__items order by 1").await, ["1=x", "2=y"]);
        assert_eq!(bench.content().await, ["1=a", "2=b"]);
    }
}
