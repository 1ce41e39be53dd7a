//! Making and changing tables: what users have added to them stays.

use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use trib_core::contract::{Contract, SchemaChange, meet};
use trib_core::load::{Deletes, Parent};
use trib_core::name::system;
use trib_core::{Code, Destination, Table, TableLoad, TableName, WriteMode};

use super::{Place, TestRow, counts, lease, load, load_rows, part, stage, staged, table};

fn bare(fields: Vec<Field>, write: WriteMode) -> Table {
    Table { schema: Arc::new(Schema::new(fields)), ..table(write, Deletes::Hard) }
}

/// Stages and commits one batch of a table without system columns, with the changes that the contract finds.
async fn publish(
    destination: &Arc<dyn Destination>,
    table: &Table,
    number: u64,
    columns: Vec<ArrayRef>,
) -> trib_core::Result<Vec<SchemaChange>> {
    destination.open(&lease(1), &[]).await?;
    let existing = destination.inspect(&table.name).await?;
    let met = meet(existing.as_ref(), &table.schema, &Contract::default(), |f| Ok(destination.column_type(f)?.native))?;
    let mut columns = columns;
    if table.write.needs_sequence() {
        columns.push(Arc::new(Int64Array::from_iter_values(0..columns[0].len() as i64)));
    }
    let batch = RecordBatch::try_new(table.staging_schema(), columns).unwrap();
    let receipt = stage(destination, &part(&format!("l{number}"), 0), table, vec![batch]).await?;
    let tables = vec![TableLoad { table: table.clone(), changes: met.changes.clone(), receipts: vec![receipt] }];
    destination.commit(&load(number, tables), &lease(1)).await?;
    Ok(met.changes)
}

#[tokio::test]
async fn columns_are_added_and_widened_and_what_users_made_stays() {
    let place = Place::with(
        "CREATE TABLE t (id INT4 NOT NULL, amount DECIMAL(10,2) DEFAULT 0 CHECK (amount <> 13), at DATE NOT NULL, own TEXT COLLATE NOCASE, PRIMARY KEY (id));
         CREATE INDEX t_own ON t (own); CREATE VIEW big AS SELECT id FROM t WHERE amount > 5; CREATE TABLE log (id);
         CREATE TRIGGER t_log AFTER INSERT ON t BEGIN INSERT INTO log VALUES (new.id); END;
         INSERT INTO t VALUES (1, 7.25, '2024-01-31', 'mine');",
    );
    let destination = place.destination();
    let fields = vec![
        Field::new("id", DataType::Int64, false),
        Field::new("amount", DataType::Decimal128(20, 3), true),
        Field::new("at", DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None), true),
        Field::new("own", DataType::Utf8, true),
        Field::new("more", DataType::Utf8, true),
    ];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![1 << 40])),
        Arc::new(Decimal128Array::from(vec![12_345_678_901_234_567_891]).with_precision_and_scale(20, 3).unwrap()),
        Arc::new(arrow::array::TimestampMicrosecondArray::from(vec![None])),
        Arc::new(StringArray::from(vec!["theirs"])),
        Arc::new(StringArray::from(vec!["007"])),
    ];
    let changes = publish(&destination, &bare(fields, WriteMode::Upsert), 1, columns).await.unwrap();
    assert_eq!(changes.len(), 5, "{changes:?}");
    assert_eq!(
        place.rows("SELECT * FROM t ORDER BY id"),
        ["1|7.250|2024-01-31 00:00:00.000000|mine|∅", "1099511627776|12345678901234567.891|∅|theirs|007"]
    );
    assert_eq!(place.rows("SELECT id FROM big WHERE id = 1"), ["1"]);
    assert_eq!(place.rows("SELECT id FROM log ORDER BY id"), ["1", "1099511627776"]);
    let kept = "SELECT count(*) FROM sqlite_schema WHERE name IN ('t_own', 't_log', 'big')";
    assert_eq!(place.rows(kept), ["3"]);
    let sql = place.rows("SELECT sql FROM sqlite_schema WHERE name = 't'");
    assert!(sql[0].contains("CHECK") && sql[0].contains("COLLATE NOCASE") && sql[0].contains("INTEGER NOT NULL"), "{sql:?}");
    // The same again finds nothing to change.
    let existing = destination.inspect(&TableName::parse("t")).await.unwrap();
    let schema = Schema::new(vec![Field::new("id", DataType::Int32, false), Field::new("amount", DataType::Decimal128(20, 3), true)]);
    let met = meet(existing.as_ref(), &schema, &Contract::default(), |f| Ok(destination.column_type(f)?.native)).unwrap();
    assert_eq!(met.changes, []);
}

#[tokio::test]
async fn replace_keeps_what_still_fits() {
    let place = Place::new();
    let destination = place.destination();
    let one = bare(vec![Field::new("id", DataType::Int32, false), Field::new("name", DataType::Utf8, true)], WriteMode::Replace);
    publish(&destination, &one, 1, vec![Arc::new(Int32Array::from(vec![1])), Arc::new(StringArray::from(vec!["a"]))]).await.unwrap();
    place
        .connect()
        .execute_batch("CREATE INDEX by_name ON t (name); CREATE INDEX by_id ON t (id); CREATE VIEW v AS SELECT id FROM t;")
        .unwrap();
    // Another shape: the index on a column that is gone goes with it.
    let other = bare(vec![Field::new("id", DataType::Utf8, false)], WriteMode::Replace);
    destination.open(&lease(1), &[]).await.unwrap();
    let batch = RecordBatch::try_new(other.staging_schema(), vec![Arc::new(StringArray::from(vec!["x", "y"]))]).unwrap();
    let receipt = stage(&destination, &part("l2", 0), &other, vec![batch]).await.unwrap();
    let tables = vec![TableLoad { table: other.clone(), changes: vec![], receipts: vec![receipt] }];
    let outcome = destination.commit(&load(2, tables), &lease(1)).await.unwrap();
    assert_eq!(counts(&outcome), (2, 0, 1));
    assert_eq!(place.rows("SELECT id FROM v ORDER BY id"), ["x", "y"]);
    assert_eq!(place.rows("SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"), ["by_id"]);
}

#[tokio::test]
async fn columns_that_would_change_values_are_refused() {
    let place = Place::with("CREATE TABLE t (id INTEGER PRIMARY KEY, name STRING)");
    let fields = vec![Field::new("id", DataType::Int64, false), Field::new("name", DataType::Utf8, true)];
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![1])), Arc::new(StringArray::from(vec!["007"]))];
    let error = publish(&place.destination(), &bare(fields, WriteMode::Append), 1, columns).await.unwrap_err();
    assert_eq!((error.code(), error.detail_text()), (Code::Unsupported, Some("t.name is declared STRING")));
    assert!(place.rows("SELECT * FROM t").is_empty());
}

#[tokio::test]
async fn nullable_keys_do_not_number_rows() {
    let place = Place::new();
    let destination = place.destination();
    let nullable = |write| bare(vec![Field::new("id", DataType::Int64, true)], write);
    publish(&destination, &nullable(WriteMode::Replace), 1, vec![Arc::new(Int64Array::from(vec![Some(1), None]))]).await.unwrap();
    assert_eq!(place.rows("SELECT id FROM t ORDER BY id"), ["∅", "1"]);
    // A key that was never NULL may become so.
    let place = Place::new();
    let destination = place.destination();
    let strict = bare(vec![Field::new("id", DataType::Int64, false)], WriteMode::Upsert);
    publish(&destination, &strict, 1, vec![Arc::new(Int64Array::from(vec![1]))]).await.unwrap();
    assert_eq!(destination.inspect(&strict.name).await.unwrap().unwrap().key, ["id"]);
    let loose = Table { key: vec![], ..nullable(WriteMode::Append) };
    let changes = publish(&destination, &loose, 2, vec![Arc::new(Int64Array::from(vec![None, Some(5)]))]).await.unwrap();
    assert_eq!(changes, [SchemaChange::DropNotNull { column: "id".into() }]);
    assert_eq!(place.rows("SELECT id FROM t ORDER BY id"), ["∅", "1", "5"]);
}

/// Rows of a child table: parent, place in the list, item, number of the parent's row.
type Items = [(i64, i64, &'static str, i64)];
async fn publish_both(place: &Place, parent: &Table, child: &Table, number: u64, rows: &[TestRow], items: &Items) -> (u64, u64, u64) {
    let destination = place.destination();
    destination.open(&lease(1), &[]).await.unwrap();
    let id = format!("l{number}");
    let of_parent = stage(&destination, &part(&id, 0), parent, vec![staged(parent, &id, 0, 0, rows)]).await.unwrap();
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(items.iter().map(|i| i.0))),
        Arc::new(Int64Array::from_iter_values(items.iter().map(|i| i.1))),
        Arc::new(StringArray::from_iter_values(items.iter().map(|i| i.2))),
    ];
    if child.write.needs_sequence() {
        columns.push(Arc::new(Int64Array::from_iter_values(items.iter().map(|i| i.3))));
    }
    let batch = RecordBatch::try_new(child.staging_schema(), columns).unwrap();
    let of_child = stage(&destination, &part(&id, 0), child, vec![batch]).await.unwrap();
    let changes = || vec![SchemaChange::CreateTable];
    let tables = vec![
        TableLoad { table: parent.clone(), changes: changes(), receipts: vec![of_parent] },
        TableLoad { table: child.clone(), changes: changes(), receipts: vec![of_child] },
    ];
    let outcome = destination.commit(&load(number, tables), &lease(1)).await.unwrap();
    (outcome.tables[1].inserted, outcome.tables[1].updated, outcome.tables[1].deleted)
}

#[tokio::test]
async fn children_are_replaced_with_their_parent() {
    let child = |write| {
        let fields = vec![
            Field::new("_parent_id", DataType::Int64, false),
            Field::new("_index", DataType::Int64, false),
            Field::new("item", DataType::Utf8, true),
        ];
        let mut fields = fields;
        fields.extend(
            Table::system_fields(write, Deletes::Hard)
                .into_iter()
                .filter(|f| ![system::LOAD_ID, system::LOADED_AT].contains(&f.name().as_str())),
        );
        Table {
            name: TableName::parse("t__items"),
            key: vec!["_parent_id".into(), "_index".into()],
            parent: Some(Parent { table: TableName::parse("t"), columns: vec![("_parent_id".into(), "id".into())] }),
            ..bare(fields, write)
        }
    };
    let first: &[TestRow] = &[(1, Some("a"), "i"), (2, Some("b"), "i"), (3, Some("c"), "i")];
    let first_items: &Items = &[(1, 0, "a0", 0), (1, 1, "a1", 0), (2, 0, "b0", 1), (3, 0, "c0", 2)];
    // Row 1 comes twice, the first time with more items; row 2 has none any more; row 4 is new; row 3 is not read.
    let second: &[TestRow] = &[(1, Some("x"), "i"), (1, Some("y"), "i"), (2, Some("b"), "i"), (4, Some("d"), "i")];
    let second_items: &Items = &[(1, 0, "x0", 0), (1, 1, "x1", 0), (1, 2, "x2", 0), (1, 0, "y0", 1), (4, 0, "d0", 3)];
    let cases = [
        (WriteMode::Upsert, vec!["1|y0", "3|c0", "4|d0"], (2, 0, 3)),
        (WriteMode::Mirror, vec!["1|y0", "4|d0"], (2, 0, 4)),
        (WriteMode::Insert, vec!["1|a0", "1|a1", "2|b0", "3|c0", "4|d0"], (1, 0, 0)),
        (WriteMode::Replace, vec!["1|y0", "4|d0"], (2, 0, 4)),
        (WriteMode::History, vec!["1|y0", "3|c0", "4|d0"], (2, 1, 2)),
    ];
    for (write, expected, expected_counts) in cases {
        let place = Place::new();
        let (parent, child) = (table(write, Deletes::Hard), child(write));
        publish_both(&place, &parent, &child, 1, first, first_items).await;
        let (rows, items): (Vec<TestRow>, Vec<_>) = if write == WriteMode::Replace {
            // Replace has no numbers by which one of two could win.
            (second[1..].to_vec(), second_items[3..].to_vec())
        } else {
            (second.to_vec(), second_items.to_vec())
        };
        let got = publish_both(&place, &parent, &child, 2, &rows, &items).await;
        let current = if write == WriteMode::History { " WHERE _trib_valid_to IS NULL" } else { "" };
        assert_eq!(place.rows(&format!("SELECT _parent_id, item FROM t__items{current} ORDER BY 1, 2")), expected, "{write:?}");
        assert_eq!(got, expected_counts, "{write:?}");
    }
}

#[tokio::test]
async fn names_and_schemas() {
    let place = Place::new();
    let destination = place.destination();
    for (name, physical) in [("raw.Order \"items\"", "raw__Order \"items\""), ("main.plain", "plain"), ("select", "select")] {
        let number = destination.open(&lease(1), &[]).await.unwrap().first().map_or(1, |m| m.number + 1);
        let table = Table { name: TableName::parse(name), ..table(WriteMode::Upsert, Deletes::Hard) };
        load_rows(&destination, &table, number, &[&[(1, Some("a"), "i")]]).await.unwrap();
        assert_eq!(place.rows(&format!("SELECT id FROM {}", destination.sql().unwrap().table(&table.name))), ["1"]);
        assert_eq!(place.rows(&format!("SELECT count(*) FROM sqlite_schema WHERE name = '{physical}'")), ["1"]);
    }
    assert!(destination.maintain(&TableName::parse("plain"), std::time::Duration::ZERO).await.unwrap().contains("analyzed"));
    place.connect().execute_batch("CREATE VIEW seen AS SELECT 1 AS x").unwrap();
    assert_eq!(destination.inspect(&TableName::parse("seen")).await.unwrap_err().code(), Code::Unsupported);
}
