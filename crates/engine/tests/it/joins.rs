//! Joins that sort, once joins that hash have found too little memory.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use arrow::row::{OwnedRow, RowConverter, SortField};
use async_trait::async_trait;
use datafusion::datasource::MemTable;
use futures::TryStreamExt;
use trib_core::{Code, Result, State, TableName};
use trib_engine::{Engine, Queries, QuerySource, Relation, Tables};
use trib_testkit::emit;

/// With one table, larger than the memory there is.
#[derive(Debug)]
struct Large;

const MEMORY: usize = 4 << 20;

#[async_trait]
impl Tables for Large {
    async fn find(&self, name: &TableName) -> Result<Option<Relation>> {
        let sql = "select value as id, nullif(lpad(cast(value as varchar), 400, '0'), '') as text from generate_series(1, 20000)";
        Ok((name.name == "large").then(|| Relation::View(sql.to_owned())))
    }
}

fn spill() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("joins")
}

/// What cannot be sorted fails as it did, and says what helps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_that_cannot_sort() {
    for sql in [
        "select l.text, r.text as other from large l full join large r on r.id > l.id",
        "select id from large where text not in (select text from large where id > 10)",
    ] {
        let queries = Queries::new(Engine::new(MEMORY, &spill(), 2).unwrap(), Arc::new(Large));
        let source = QuerySource::new(queries, "joined", sql, None);
        for attempt in 0..2 {
            let error = emit::read(&source, &emit::full("joined"), &State::default()).await.unwrap_err();
            assert_eq!(
                (error.code(), error.message()),
                (Code::ResourceExhausted, "the query needs more memory or spill space than it may have"),
                "{attempt}: {sql}"
            );
            assert!(error.hint_text().is_some_and(|hint| hint.contains("anything but equal values")), "{error:?}");
        }
    }
}

/// Rows of `l` and `r`: keys that repeat, some very often, and all columns with NULLs. More than a batch of a join that sorts.
#[derive(Debug)]
struct Small;

fn mixed(mut seed: u64) -> MemTable {
    let mut draw = |of: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % of
    };
    let (mut keys, mut texts, mut floats, mut values) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..1_500 {
        keys.push(match draw(20) {
            0 => None,
            1 => Some(7),
            _ => Some(draw(900) as i64),
        });
        texts.push((draw(6) > 0).then(|| ["", "a", "b", "ä", "aa"][draw(5) as usize]));
        floats.push(match draw(900) {
            0..91 => None,
            91 => Some(f64::NAN),
            92 => Some(f64::INFINITY),
            n => Some(n as f64 / 4.0),
        });
        values.push((draw(10) > 0).then(|| draw(50) as i64));
    }
    let columns: [(&str, ArrayRef); 4] = [
        ("k", Arc::new(Int64Array::from(keys))),
        ("s", Arc::new(StringArray::from(texts))),
        ("f", Arc::new(Float64Array::from(floats))),
        ("v", Arc::new(Int64Array::from(values))),
    ];
    let rows = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap();
    MemTable::try_new(rows.schema(), vec![vec![rows]]).unwrap()
}

#[async_trait]
impl Tables for Small {
    async fn find(&self, name: &TableName) -> Result<Option<Relation>> {
        Ok(Some(Relation::Table(Arc::new(mixed(u64::from(name.name == "l"))))))
    }
}

async fn batches(queries: &Queries, sql: &str) -> (SchemaRef, Vec<RecordBatch>) {
    let (schema, rows) = queries.rows(sql).await.unwrap();
    (schema, rows.try_collect().await.unwrap())
}

/// All rows, in an order of their own.
async fn sorted(queries: &Queries, sql: &str) -> Vec<OwnedRow> {
    let (schema, batches) = batches(queries, sql).await;
    let fields = schema.fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
    let converter = RowConverter::new(fields).unwrap();
    let mut rows = Vec::new();
    for batch in &batches {
        rows.extend(converter.convert_columns(batch.columns()).unwrap().iter().map(|row| row.owned()));
    }
    rows.sort();
    rows
}

async fn plan(queries: &Queries, sql: &str) -> String {
    let (_, batches) = batches(queries, &format!("explain format indent {sql}")).await;
    let text = |b: &RecordBatch| b.column(1).as_string::<i32>().iter().flatten().collect::<String>();
    batches.iter().map(text).collect()
}

/// Joins that sort give what joins that hash give.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sorting_changes_no_result() {
    for (sorts, sql) in [
        (true, "select * from l join r on l.k = r.k"),
        (true, "select * from l left join r on l.k = r.k and l.s = r.s"),
        (true, "select * from l right join r on r.f = l.f and l.v < r.v"),
        (true, "select * from l full join r on l.k = r.k and l.v <> r.v"),
        (true, "select * from l full join r on l.k = r.k and l.f = r.f and l.s = r.s"),
        (true, "select * from l left join r on l.k = r.k and (l.f is not distinct from r.f)"),
        (true, "select * from l join r on (l.k is not distinct from r.k) and (l.f is not distinct from r.f)"),
        (true, "select * from l left join r on l.k = r.k and l.v is null"),
        (true, "select * from l where k in (select k from r where v > 25)"),
        (true, "select * from l where exists (select 1 from r where r.k = l.k and r.v < l.v)"),
        (true, "select * from l where not exists (select 1 from r where r.k = l.k and r.v < l.v)"),
        (true, "select * from l where not exists (select 1 from r where r.k = l.k)"),
        (true, "select * from l where k in (select k from r where v > 25) or s = 'a'"),
        (true, "select l.*, (select max(v) from r where r.k = l.k) as most from l"),
        // What is not sorted is as it was.
        (false, "select l.k, r.v from l left join r on l.v > r.k and r.s = 'a'"),
        (false, "select * from l where k not in (select k from r)"),
        (false, "select * from l where k not in (select k from r where k is not null)"),
        // What comes after a join may count on its order.
        (true, "select l.k, r.k as other, count(*), sum(l.v) from l full join r on l.k = r.k group by l.k, r.k"),
        (true, "select l.k, count(*) from l right join r on l.k = r.k group by l.k"),
        (true, "select distinct l.k, l.s from l full join r on l.k = r.k and l.s = r.s"),
        (
            true,
            "select l.k, l.v, sum(r.v) over (partition by l.k) as total, rank() over (order by l.k) as place from l full join r on l.k = r.k",
        ),
        (
            true,
            "select * from l full join r on l.k = r.k full join (select k, min(s) as least from r group by k) m on m.k = coalesce(l.k, r.k)",
        ),
        (true, "select * from (select * from l union all select * from r) u left join r on u.k = r.k left join l on l.f = u.f"),
    ] {
        for threads in [1, 3] {
            let hashing = Queries::new(Engine::new(1 << 30, &spill(), threads).unwrap(), Arc::new(Small));
            let sorting = hashing.clone().by_sorting().in_small_batches();
            assert!(!plan(&hashing, sql).await.contains("SortMergeJoin"), "{sql}");
            assert_eq!(plan(&sorting, sql).await.contains("SortMergeJoin"), sorts, "{sql}");
            let (expected, found) = (sorted(&hashing, sql).await, sorted(&sorting, sql).await);
            assert!(!sorts || !expected.is_empty(), "{sql}");
            assert!(found == expected, "{} rows for {} with {threads} threads: {sql}", found.len(), expected.len());
        }
    }
}
