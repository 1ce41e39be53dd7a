//! Rows that go from one PostgreSQL into another as they stand on the wire.

use arrow::array::RecordBatch;
use arrow::datatypes::Field;
use futures::stream;
use trib_core::{Part, Table, WriteMode, wire};
use trib_testkit::emit::{self, Emitted};

use super::round_trip::TYPES;
use super::{Database, Sync, table};

/// Types that need a closer look, so that no row with them is passed on.
fn looked_at(t: &str) -> bool {
    const SPELLED: [&str; 14] = [
        "\"char\"",
        "interval",
        "time with time zone",
        "xml",
        "inet",
        "cidr",
        "macaddr",
        "bit(3)",
        "bit varying",
        "money",
        "point",
        "tsvector",
        "int4range",
        "tstzrange",
    ];
    t.ends_with("[]") || t == "int8multirange" || SPELLED.contains(&t)
}

async fn fields(db: &Database) -> Vec<Field> {
    let catalog = db.source.discover(&[]).await.unwrap();
    catalog.stream("public.source").unwrap().schema.fields().iter().map(|f| f.as_ref().clone()).collect()
}

/// Reads the source for this table, in the form that its destination takes.
async fn read(db: &Database, into: &Table) -> Emitted {
    let form = db.destination.wire(into).expect("the rows can stay as they are");
    let plan = db.source.plan(&[emit::full("public.source")], &trib_core::State::default()).await.unwrap();
    emit::collect_in(db.source.as_ref(), &plan[0], form).await.unwrap()
}

fn passed_on(batches: &[RecordBatch]) -> usize {
    batches.iter().filter(|batch| wire::rows(batch).is_some()).count()
}

async fn load(db: &Database, table: &Table, batches: &[RecordBatch]) -> u64 {
    let mut sync = Sync::begin(db.destination.clone(), "s").await;
    let (mut staged, mut rows) = (Vec::new(), 0);
    for batch in batches {
        staged.extend(match wire::rows(batch) {
            Some(_) => vec![batch.clone()],
            None => sync.stamped(table, std::slice::from_ref(batch), rows),
        });
        rows += batch.num_rows() as i64;
    }
    let part = Part { load: sync.next_id(), sync: "s".into(), split: 0, attempt: 0 };
    let receipt = db.destination.stage(&part, table, Box::pin(stream::iter(staged.into_iter().map(Ok)))).await.unwrap();
    let load = sync.load_of(vec![(table, vec![receipt])]);
    sync.commit(&load).await.unwrap().tables[0].inserted
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_stay_as_they_are_but_those_that_must_be_looked_at() {
    let db = Database::new();
    let types: Vec<_> = TYPES.iter().filter(|(t, _)| !looked_at(t)).collect();
    let columns: Vec<String> = types.iter().enumerate().map(|(i, (t, _))| format!("c{i} {t}")).collect();
    db.sql(&format!("create table source (id int primary key, {})", columns.join(", ")));
    let mut sql = vec!["insert into source (id) values (0)".to_owned()];
    for (i, (t, values)) in types.iter().enumerate() {
        for value in *values {
            sql.push(format!("insert into source (id, c{i}) values ({}, cast({value} as {t}))", sql.len()));
        }
    }
    // Enough of them for several batches, and in the last of these the rows that cannot be delivered.
    let place = |t: &str| types.iter().position(|(name, _)| *name == t).unwrap();
    let (text, number, day) = (place("text"), place("numeric(15,2)"), place("date"));
    sql.push(format!(
        "insert into source (id, c{text}, c{number}) select i, repeat(i::text, 60), i / 7.0 from generate_series(1000, 9999) i"
    ));
    sql.push(format!(
        "insert into source (id, c{number}, c{day}) values (10000, 'NaN', null), (10001, 1, '-infinity'), (10002, 2, '2024-01-01')"
    ));
    db.sql(&sql.join(";"));

    let target = table("copied.target", fields(&db).await, &["id"], WriteMode::Replace);
    let emitted = read(&db, &target).await;
    let as_arrays = db.read("public.source").await;
    assert!(passed_on(&emitted.batches) > 5, "{} of {}", passed_on(&emitted.batches), emitted.batches.len());
    assert!(passed_on(&emitted.batches) < emitted.batches.len());
    let reasons =
        |emitted: &Emitted| -> Vec<_> { emitted.rejected.iter().map(|r| (r.place.clone(), r.reason.clone(), r.row.clone())).collect() };
    assert_eq!(reasons(&emitted).len(), 2);
    assert_eq!(reasons(&emitted), reasons(&as_arrays));

    let all: u64 = db.sql("select count(*) from source").trim().parse().unwrap();
    assert_eq!(load(&db, &target, &emitted.batches).await, all - 2);
    let names: Vec<String> = (0..types.len()).map(|i| format!("c{i}::text")).collect();
    let rows = |table: &str, which: &str| format!("select id, {} from {table} {which}", names.join(", "));
    let (original, copied) = (rows("source", "where id not in (10000, 10001)"), rows("copied.target", ""));
    assert_eq!(db.sql(&format!("{original} except {copied}")), "");
    assert_eq!(db.sql(&format!("{copied} except {original}")), "");
    assert_eq!(db.sql("select count(*) from copied.target where _trib_load_id is not null").trim(), (all - 2).to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_differ_are_taken_apart() {
    let db = Database::new();
    db.sql("create table source (id int primary key, n numeric(10,2), mood text)");
    let fields = fields(&db).await;
    let form = |fields: &[Field], write| db.destination.wire(&table("t", fields.to_vec(), &["id"], write));
    for write in [WriteMode::Replace, WriteMode::Append] {
        assert!(form(&fields, write).is_some(), "{write:?}");
    }
    // Rows of one key are put in order, by a column of ours.
    assert_eq!(form(&fields, WriteMode::Upsert), None);
    // Not from PostgreSQL.
    let plain: Vec<Field> = fields.iter().map(|f| Field::new(f.name(), f.data_type().clone(), f.is_nullable())).collect();
    assert_eq!(form(&plain, WriteMode::Replace), None);

    // A type that the other database may not have comes as text.
    db.sql(
        "create type mood as enum ('ok'); alter table source alter mood type mood using mood::mood; insert into source values (1, 1, 'ok')",
    );
    let into = table("t", super::wire::fields(&db).await, &["id"], WriteMode::Replace);
    assert_eq!(db.destination.wire(&into), None);
    // Nor is what is read of interest to whoever asks for nothing but the rows.
    let mut read = emit::full("public.source");
    read.may_stop = true;
    read.key = vec!["id".into()];
    read.columns = Some(vec!["id".into(), "n".into()]);
    let plan = db.source.plan(&[read], &trib_core::State::default()).await.unwrap();
    let emitted = emit::collect_in(db.source.as_ref(), &plan[0], "postgres-copy").await.unwrap();
    assert_eq!(passed_on(&emitted.batches), 0, "where a read may stop is seen by its rows");
}
