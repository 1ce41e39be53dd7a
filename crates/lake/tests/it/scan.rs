//! What bounds rule out is not read, and nothing else is left out.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use futures::TryStreamExt;
use serde_json::{Value, json};
use trib_core::load::Deletes;
use trib_core::name::system;
use trib_core::{Table, TableName, WriteMode};
use trib_engine::{Engine, Queries, Relation, Tables};

use crate::harness::{Bench, moment, table};

/// The lake's tables for queries of the engine, as a model reads them.
struct Here(Bench);

impl std::fmt::Debug for Here {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Here")
    }
}

#[async_trait::async_trait]
impl Tables for Here {
    async fn find(&self, name: &TableName) -> trib_core::Result<Option<Relation>> {
        let name = TableName::new(Some("main"), &name.name);
        self.0.lake.provider(&name, None).await.map(|provider| Some(Relation::Table(provider)))
    }
}

fn queries(bench: Bench) -> (Arc<Here>, Queries) {
    let here = Arc::new(Here(bench));
    let engine = Engine::new(64 << 20, &here.0.dir.path().join("spill"), 2).unwrap();
    (here.clone(), Queries::new(engine, here))
}

async fn one(queries: &Queries, sql: &str) -> trib_core::Result<String> {
    let (_, rows) = queries.rows(sql).await?;
    let rows: Vec<RecordBatch> = rows.try_collect().await?;
    Ok(arrow::util::pretty::pretty_format_batches(&rows)?.to_string())
}

fn mixed() -> Table {
    let fields = vec![
        Field::new("n", DataType::Int64, true),
        Field::new("amount", DataType::Decimal128(38, 2), true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        Field::new("day", DataType::Date32, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("ratio", DataType::Float64, true),
        Field::new("paid", DataType::Boolean, true),
    ];
    let fields: Vec<Field> = fields.into_iter().chain(Table::system_fields(WriteMode::Append, Deletes::Hard)).collect();
    Table { schema: Arc::new(Schema::new(fields)), ..table(WriteMode::Append) }
}

/// Each load is a file.
async fn load(bench: &Bench, rows: &[Value]) {
    let table = mixed();
    let mut reader = arrow::json::ReaderBuilder::new(table.staging_schema()).build_decoder().unwrap();
    for (at, row) in rows.iter().enumerate() {
        let mut row = row.clone();
        row[system::LOAD_ID] = json!("load");
        row[system::LOADED_AT] = json!(moment(1));
        row[system::SEQ] = json!(at);
        reader.decode(row.to_string().as_bytes()).unwrap();
    }
    let batch = reader.flush().unwrap().unwrap();
    bench.batches(&table, vec![batch]).await;
}

fn row(n: i64, amount: &str, at: &str, name: &str, ratio: f64, paid: bool) -> Value {
    json!({"n": n, "amount": amount, "at": at, "day": &at[..10], "name": name, "ratio": ratio, "paid": paid})
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_leave_out_no_row() {
    let bench = Bench::new().await;
    load(&bench, &[row(1, "0.01", "2024-01-01T00:00:00Z", "", 0.5, true), row(9, "-0.01", "1969-12-31T23:59:59.999999Z", "a", -0.5, true)])
        .await;
    load(&bench, &[row(i64::MAX, "999999999999999999999999999999999999.99", "9999-12-31T23:59:59.999999Z", "zz", 1e300, false)]).await;
    load(&bench, &[json!({}), json!({})]).await;
    let long = "ü".repeat(200);
    load(
        &bench,
        &[row(i64::MIN, "-999999999999999999999999999999999999.99", "0001-01-01T00:00:00.000001Z", &long, -0.0, false), json!({})],
    )
    .await;
    load(&bench, &[row(9, "0.00", "2024-01-01T00:00:00.000001Z", "\u{10ffff}", 0.0, true)]).await;
    let (_here, queries) = queries(bench);
    let values = [
        ("n", vec!["1", "9", "10", "-9223372036854775808", "9223372036854775807"]),
        (
            "amount",
            vec![
                "cast('0.01' as decimal(38, 2))",
                "cast('-0.01' as decimal(38, 2))",
                "0",
                "cast('999999999999999999999999999999999999.99' as decimal(38, 2))",
            ],
        ),
        ("at", vec!["timestamp '2024-01-01T00:00:00Z'", "timestamp '2024-01-01T00:00:00.000001Z'", "timestamp '1970-01-01T00:00:00Z'"]),
        ("day", vec!["date '2024-01-01'", "date '1969-12-31'", "date '2030-05-05'"]),
        ("name", vec!["''", "'a'", "'zz'", "'ü'", "'\u{10ffff}'"]),
        ("ratio", vec!["0.0", "0.5", "-0.5", "1e300"]),
        ("paid", vec!["true", "false"]),
    ];
    for (column, values) in &values {
        let compared = values.iter().flat_map(|v| ["=", "<>", "<", "<=", ">", ">="].map(|op| format!("{column} {op} {v}")));
        let nulls = [format!("{column} is null"), format!("{column} is not null"), format!("{column} in ({})", values.join(", "))];
        for condition in compared.chain(nulls) {
            let pushed = one(&queries, &format!("select count(*) as rows from orders where {condition}")).await.unwrap();
            let each = one(&queries, &format!("select sum(case when {condition} then 1 else 0 end) as rows from orders")).await.unwrap();
            assert_eq!(pushed, each, "{condition}");
        }
        // What the other side of a join has becomes a filter while the query runs.
        let joined = format!("select count(*) as rows from orders as a join orders as b on a.{column} = b.{column} where b.n = 9");
        let nested = format!(
            "select sum(case when {column} = other then 1 else 0 end) as rows from orders cross join (select {column} as other from orders where n = 9)"
        );
        assert_eq!(one(&queries, &joined).await.unwrap(), one(&queries, &nested).await.unwrap(), "{column}");
        let ends =
            one(&queries, &format!("select min({column}) as a, max({column}) as b, count({column}) as c, count(*) as d from orders"))
                .await
                .unwrap();
        let sorted = format!("select {column} as v from orders where {column} is not null order by 1");
        let read = format!(
            "select (select v from ({sorted} limit 1)) as a, (select v from ({sorted} desc limit 1)) as b, \
             (select sum(case when {column} is null then 0 else 1 end) from orders) as c, (select sum(1) from orders) as d"
        );
        assert_eq!(ends, one(&queries, &read).await.unwrap(), "{column}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_a_file_has_no_rows() {
    let bench = Bench::new().await;
    bench.batches(&mixed(), vec![]).await;
    let (_here, queries) = queries(bench);
    assert!(one(&queries, "select count(n) as c, max(name) as m from orders where n > 1").await.unwrap().contains("| 0 |   |"));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_out_of_bounds_are_not_opened() {
    let bench = Bench::new().await;
    load(&bench, &[row(0, "0", "2024-01-01T00:00:00Z", "A", 1.0, true), row(1, "1", "2024-01-02T00:00:00Z", "a", 1.0, true)]).await;
    load(&bench, &[row(2, "2", "2025-01-01T00:00:00Z", "b", 2.0, true), row(3, "3", "2025-01-02T00:00:00Z", "c", 2.0, true)]).await;
    let (here, queries) = queries(bench);
    let mut first = std::fs::read_dir(here.0.folder("main.orders")).unwrap().map(|e| e.unwrap().path());
    let first = first.find(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("load0001"))).unwrap();
    std::fs::remove_file(first).unwrap();
    for condition in ["n >= 2", "ratio > 1.5 and n > 1", "day > date '2024-06-01'", "name = 'b'", "at > timestamp '2024-06-01T00:00:00Z'"] {
        let found = one(&queries, &format!("select name from orders where {condition}")).await;
        let found = found.unwrap_or_else(|e| panic!("{condition}: {e}"));
        assert!(found.contains("| b "), "{condition}: {found}");
    }
    let missing = one(&queries, "select name from orders").await.unwrap_err();
    assert!(missing.to_string().contains("load0001"), "{missing}");
}

/// What a query has seen is looked at again when the log has grown, and when the table was made anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_seen_as_it_is() {
    let bench = Bench::new().await;
    load(&bench, &[row(1, "1", "2024-01-01T00:00:00Z", "a", 1.0, true)]).await;
    let (here, queries) = queries(bench);
    let names = || one(&queries, "select string_agg(name, ',' order by name) as names from orders");
    assert!(names().await.unwrap().contains("| a "));
    load(&here.0, &[row(2, "2", "2025-01-01T00:00:00Z", "b", 2.0, true)]).await;
    assert!(names().await.unwrap().contains("| a,b "));
    let other = Bench::new().await;
    load(&other, &[row(3, "3", "2025-01-01T00:00:00Z", "c", 3.0, true)]).await;
    load(&other, &[row(4, "4", "2025-01-01T00:00:00Z", "d", 4.0, true)]).await;
    std::fs::remove_dir_all(here.0.folder("main.orders")).unwrap();
    std::fs::rename(other.folder("main.orders"), here.0.folder("main.orders")).unwrap();
    assert!(names().await.unwrap().contains("| c,d "));
}
