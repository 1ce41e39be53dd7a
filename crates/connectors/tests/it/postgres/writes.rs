//! Write modes, each run as loads that follow each other.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use trib_core::load::{Deletes, Parent, RowScope};
use trib_core::{Code, Table, TableName, WriteMode};

use super::{Database, Sync, table, table_with};

fn fields() -> Vec<Field> {
    vec![Field::new("id", DataType::Int64, true), Field::new("v", DataType::Utf8, true)]
}

fn rows(rows: &[(i64, &str)]) -> Vec<RecordBatch> {
    let ids = Int64Array::from_iter_values(rows.iter().map(|r| r.0));
    let values = StringArray::from_iter_values(rows.iter().map(|r| r.1));
    vec![RecordBatch::try_new(Arc::new(Schema::new(fields())), vec![Arc::new(ids) as ArrayRef, Arc::new(values)]).unwrap()]
}

/// What a table holds, the least first.
fn content(db: &Database, table: &str) -> String {
    db.sql(&format!("select coalesce(string_agg(id || v, ' ' order by id, v), '') from {table}"))
}

/// An order with its items.
type Order = (i64, &'static str, &'static [&'static str]);

/// Inserted, updated, deleted.
type Counts = (u64, u64, u64);
type Step = (&'static [(i64, &'static str)], &'static str, Counts);

#[tokio::test(flavor = "multi_thread")]
async fn each_mode_over_three_loads() {
    let db = Database::new();
    let cases: &[(WriteMode, [Step; 3])] = &[
        (WriteMode::Replace, [(&[(1, "a"), (2, "b")], "1a 2b", (2, 0, 0)), (&[(3, "c")], "3c", (1, 0, 0)), (&[(2, "d")], "2d", (1, 0, 0))]),
        (
            WriteMode::Append,
            [(&[(1, "a"), (1, "b")], "1a 1b", (2, 0, 0)), (&[(1, "a")], "1a 1a 1b", (1, 0, 0)), (&[], "1a 1a 1b", (0, 0, 0))],
        ),
        (
            WriteMode::Insert,
            [
                (&[(1, "a"), (2, "b"), (1, "late")], "1a 2b", (2, 0, 0)),
                (&[(2, "x"), (3, "c"), (3, "late")], "1a 2b 3c", (1, 0, 0)),
                (&[(3, "x")], "1a 2b 3c", (0, 0, 0)),
            ],
        ),
        (
            WriteMode::Upsert,
            [
                (&[(1, "a"), (2, "b"), (1, "z")], "1z 2b", (2, 0, 0)),
                (&[(2, "x"), (3, "c"), (2, "y")], "1z 2y 3c", (1, 1, 0)),
                (&[(3, "d")], "1z 2y 3d", (0, 1, 0)),
            ],
        ),
        (
            WriteMode::Mirror,
            [(&[(1, "a"), (2, "b")], "1a 2b", (2, 0, 0)), (&[(2, "x"), (3, "c")], "2x 3c", (1, 1, 1)), (&[(3, "c")], "3c", (0, 1, 1))],
        ),
        (
            WriteMode::History,
            [
                (&[(1, "a"), (2, "b"), (2, "c")], "1a 2c", (2, 0, 0)),
                (&[(1, "a"), (2, "d")], "1a 2c 2d", (1, 1, 0)),
                (&[(2, "d"), (3, "e")], "1a 2c 2d 3e", (1, 0, 0)),
            ],
        ),
    ];
    // Each once with a table of ours, once into a table that was there without a key.
    for (mode, steps) in cases {
        for (name, into_existing) in [(format!("own_{}", mode.as_str()), false), (format!("their_{}", mode.as_str()), true)] {
            if into_existing {
                db.sql(&format!("create table {name} (id bigint, v text, extra text default 'x')"));
            }
            let mut sync = Sync::begin(db.destination.clone(), &name).await;
            let table = table(&name, fields(), if *mode == WriteMode::Append { &[] } else { &["id"] }, *mode);
            for (i, (batch, expected, counts)) in steps.iter().enumerate() {
                // Two parts, so that order between parts counts.
                let cut = batch.len() / 2;
                let load = sync.stage(&table, vec![rows(&batch[..cut]), rows(&batch[cut..])]).await.unwrap();
                let outcome = sync.commit(&load).await.unwrap();
                let found = &outcome.tables[0];
                assert_eq!(content(&db, &name), *expected, "{name}, load {i}");
                assert_eq!((found.inserted, found.updated, found.deleted), *counts, "{name}, load {i}");
                // Told again, it changes nothing.
                assert!(db.destination.commit(&load, &sync.lease).await.unwrap().already_committed);
                assert_eq!(content(&db, &name), *expected, "{name}, load {i} again");
            }
            assert_eq!(db.sql("select count(*) from pg_class where relname like '\\_trib\\_s\\_%'"), "0");
            assert_eq!(db.sql("select (select count(*) from _trib.staged) + (select count(*) from _trib.parts)"), "0");
        }
    }
    assert_eq!(
        db.sql("select id || v || ':' || (_trib_valid_to is null) from own_history order by id, _trib_valid_from"),
        "1a:true\n2c:false\n2d:true\n3e:true"
    );
    assert_eq!(db.sql("select count(distinct _trib_load_id), count(distinct _trib_loaded_at) from own_upsert"), "3|3");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_made_and_named_as_usual() {
    let db = Database::new();
    for (mode, expected) in [(WriteMode::Replace, "id"), (WriteMode::Upsert, "id"), (WriteMode::History, "id,_trib_valid_from")] {
        let name = format!("k_{}", mode.as_str());
        let mut sync = Sync::begin(db.destination.clone(), &name).await;
        for _ in 0..2 {
            sync.load(&table(&name, fields(), &["id"], mode), vec![rows(&[(1, "a")])]).await.unwrap();
            let key = db.sql(&format!(
                "select c.conname || ':' || string_agg(a.attname, ',' order by array_position(c.conkey, a.attnum)) from pg_constraint c \
                 join pg_attribute a on a.attrelid = c.conrelid and a.attnum = any(c.conkey) where c.conrelid = '{name}'::regclass and contype = 'p' group by c.conname"
            ));
            assert_eq!(key, format!("{name}_pkey:{expected}"));
        }
    }
    // A key that does not identify rows is said, and nothing becomes visible.
    let mut sync = Sync::begin(db.destination.clone(), "dup").await;
    let error = sync.load(&table("dup", fields(), &["id"], WriteMode::Replace), vec![rows(&[(1, "a"), (1, "b")])]).await.unwrap_err();
    assert_eq!(error.code(), Code::DataInvalid);
    assert!(error.to_string().contains("Key (id)") && !error.to_string().contains("(1)"), "{error}");
    assert_eq!(db.sql("select to_regclass('dup') is null"), "t");
}

#[tokio::test(flavor = "multi_thread")]
async fn replace_keeps_what_depends_on_the_table() {
    let db = Database::new();
    let mut sync = Sync::begin(db.destination.clone(), "s").await;
    let wanted = table("t", fields(), &["id"], WriteMode::Replace);
    sync.load(&wanted, vec![rows(&[(1, "a")])]).await.unwrap();
    db.sql("create role reader; grant select on t to reader; comment on table t is 'it''s $new'; comment on column t.v is 'value'");
    let before = db.sql("select 't'::regclass::oid");
    sync.load(&wanted, vec![rows(&[(2, "b")])]).await.unwrap();
    // Swapped, and dressed as the old one was.
    assert_ne!(db.sql("select 't'::regclass::oid"), before);
    assert_eq!(db.sql("select has_table_privilege('reader', 't', 'select')"), "t");
    assert_eq!(db.sql("select obj_description('t'::regclass) || col_description('t'::regclass, 2)"), "it's $newvalue");

    db.sql("create view seen as select * from t; create table child (t bigint references t (id) on delete cascade)");
    let before = db.sql("select 't'::regclass::oid");
    let outcome = sync.load(&wanted, vec![rows(&[(3, "c")])]).await.unwrap();
    assert_eq!(outcome.tables[0].inserted, 1);
    assert_eq!(db.sql("select 't'::regclass::oid"), before);
    assert_eq!(content(&db, "seen"), "3c");
    db.sql("drop table child; create index on t (v)");
    sync.load(&wanted, vec![rows(&[(4, "d")])]).await.unwrap();
    assert_eq!(content(&db, "seen"), "4d");
    assert_eq!(db.sql("select count(*) from pg_indexes where tablename = 't'"), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn scopes_do_not_touch_each_other() {
    let db = Database::new();
    let with_region = |region: &str, pairs: &[(i64, &str)]| {
        let batch = &rows(pairs)[0];
        let mut columns = batch.columns().to_vec();
        columns.push(Arc::new(StringArray::from(vec![region; pairs.len()])));
        let mut all = fields();
        all.push(Field::new("region", DataType::Utf8, true));
        vec![RecordBatch::try_new(Arc::new(Schema::new(all)), columns).unwrap()]
    };
    let scoped = |region: &str, write| -> Table {
        let mut all = fields();
        all.push(Field::new("region", DataType::Utf8, true));
        Table { scope: Some(RowScope::with("region", region)), ..table("t", all, &["id"], write) }
    };
    let mut us = Sync::begin(db.destination.clone(), "us").await;
    let mut de = Sync::begin(db.destination.clone(), "de").await;
    us.load(&scoped("us", WriteMode::Mirror), vec![with_region("us", &[(1, "a"), (2, "b")])]).await.unwrap();
    de.load(&scoped("de", WriteMode::Mirror), vec![with_region("de", &[(1, "x")])]).await.unwrap();
    us.load(&scoped("us", WriteMode::Mirror), vec![with_region("us", &[(2, "c")])]).await.unwrap();
    assert_eq!(content(&db, "t"), "1x 2c");
    de.load(&scoped("de", WriteMode::Replace), vec![with_region("de", &[(7, "y")])]).await.unwrap();
    assert_eq!(content(&db, "t"), "2c 7y");
}

#[tokio::test(flavor = "multi_thread")]
async fn soft_deletes_and_prune() {
    let db = Database::new();
    let mut sync = Sync::begin(db.destination.clone(), "s").await;
    let soft = table_with("t", fields(), &["id"], WriteMode::Mirror, Deletes::Soft);
    let gone = || db.sql("select coalesce(string_agg(id::text, ' ' order by id), '') from t where _trib_deleted_at is not null");
    sync.load(&soft, vec![rows(&[(1, "a"), (2, "b"), (3, "c")])]).await.unwrap();
    let outcome = sync.load(&soft, vec![rows(&[(1, "a"), (3, "c")])]).await.unwrap();
    assert_eq!((outcome.tables[0].deleted, gone()), (1, "2".to_owned()));
    // A row that is back is no longer deleted.
    sync.load(&soft, vec![rows(&[(1, "a"), (2, "b"), (3, "c")])]).await.unwrap();
    assert_eq!(gone(), "");
    let keys_only = |deletes| Table {
        schema: Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)])),
        deletes,
        ..table("t", [], &["id"], WriteMode::Prune)
    };
    let keys = |ids: &[i64]| {
        let ids: ArrayRef = Arc::new(Int64Array::from(ids.to_vec()));
        vec![RecordBatch::try_new(Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)])), vec![ids]).unwrap()]
    };
    sync.load(&keys_only(Deletes::Soft), vec![keys(&[1, 2])]).await.unwrap();
    assert_eq!(gone(), "3");
    let outcome = sync.load(&keys_only(Deletes::Hard), vec![keys(&[1])]).await.unwrap();
    assert_eq!((content(&db, "t").as_str(), outcome.tables[0].deleted), ("1a", 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_a_log() {
    let db = Database::new();
    let log = |changes: &[(i64, &str, &str)]| {
        let plain: Vec<(i64, &str)> = changes.iter().map(|c| (c.0, c.1)).collect();
        let mut columns = rows(&plain)[0].columns().to_vec();
        columns.push(Arc::new(StringArray::from_iter_values(changes.iter().map(|c| c.2))));
        let mut all = fields();
        all.push(Field::new("_trib_op", DataType::Utf8, false));
        vec![RecordBatch::try_new(Arc::new(Schema::new(all)), columns).unwrap()]
    };
    for (mode, expected) in [(WriteMode::Upsert, "2c 4d"), (WriteMode::History, "1a 2b 2c 4d")] {
        let name = format!("t_{}", mode.as_str());
        let mut sync = Sync::begin(db.destination.clone(), &name).await;
        let wanted = Table { changes: true, ..table(&name, fields(), &["id"], mode) };
        sync.load(&wanted, vec![log(&[(1, "a", "i"), (2, "b", "i"), (3, "x", "i"), (3, "x", "d")])]).await.unwrap();
        assert_eq!(content(&db, &name), "1a 2b");
        // Deleted and inserted again in one load; then one that only a delete names.
        sync.load(&wanted, vec![log(&[(2, "b", "d"), (2, "c", "i"), (1, "", "d"), (4, "d", "i")])]).await.unwrap();
        assert_eq!(content(&db, &name), expected);
        sync.load(&wanted, vec![log(&[(5, "lost", "i"), (0, "", "t"), (6, "f", "i")])]).await.unwrap();
        let current = if mode == WriteMode::History { "where _trib_valid_to is null" } else { "" };
        assert_eq!(db.sql(&format!("select string_agg(id || v, ' ') from {name} {current}")), "6f");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn children_follow_their_parents() {
    let db = Database::new();
    let child = |write| Table {
        parent: Some(Parent { table: TableName::parse("orders"), columns: vec![("order_id".into(), "id".into())] }),
        ..table("orders__items", [Field::new("order_id", DataType::Int64, true), Field::new("item", DataType::Utf8, true)], &[], write)
    };
    let items = |db: &Database| db.sql("select coalesce(string_agg(order_id || item, ' ' order by order_id, item), '') from orders__items");
    // The child rows carry the sequence of their parent row.
    let steps: [(WriteMode, &[Order], &str); 3] = [
        (WriteMode::Upsert, &[(1, "a", &["p", "q"]), (2, "b", &["r"]), (1, "c", &["s"])], "1s 2r"),
        (WriteMode::Upsert, &[(1, "d", &[]), (3, "e", &["t"])], "2r 3t"),
        (WriteMode::Insert, &[(2, "no", &["no"]), (4, "f", &["u"])], "2r 3t 4u"),
    ];
    let mut sync = Sync::begin(db.destination.clone(), "s").await;
    for (write, orders, expected) in steps {
        let (parent, child) = (table("orders", fields(), &["id"], write), child(write));
        let plain: Vec<(i64, &str)> = orders.iter().map(|o| (o.0, o.1)).collect();
        let parent_receipt = sync.stage_part(&parent, 0, 0, &rows(&plain), 0).await.unwrap();
        let mut batches = Vec::new();
        for (seq, (id, _, items)) in orders.iter().enumerate() {
            let schema = Arc::new(Schema::new(child.schema.fields().iter().take(2).cloned().collect::<Vec<_>>()));
            for item in *items {
                let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![*id])), Arc::new(StringArray::from(vec![*item]))];
                let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
                batches.extend(sync.stamped(&child, &[batch], seq as i64));
            }
        }
        let part = trib_core::Part { load: sync.next_id(), sync: "s".into(), split: 0, attempt: 0 };
        let stream = Box::pin(futures::stream::iter(batches.into_iter().map(Ok)));
        let child_receipt = db.destination.stage(&part, &child, stream).await.unwrap();
        let load = sync.load_of(vec![(&parent, vec![parent_receipt]), (&child, vec![child_receipt])]);
        sync.commit(&load).await.unwrap();
        assert_eq!(items(&db), expected);
    }
}
