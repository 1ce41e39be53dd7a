//! What each write mode leaves in the table, and what it counts.

use serde_json::json;
use trib_core::load::{Deletes, RowScope};
use trib_core::{Table, WriteMode};

use crate::harness::{Bench, table, table_with};

#[tokio::test(flavor = "multi_thread")]
async fn modes() {
    use WriteMode as W;
    type Case = (W, Deletes, (u64, u64, u64), &'static [&'static str]);
    // First 1=a 2=b 3=c, then 2=B 3=c 4=d 4=D.
    let cases: [Case; 8] = [
        (W::Replace, Deletes::Hard, (4, 0, 3), &["2=B", "3=c", "4=D", "4=d"]),
        (W::Append, Deletes::Hard, (4, 0, 0), &["1=a", "2=B", "2=b", "3=c", "3=c", "4=D", "4=d"]),
        (W::Insert, Deletes::Hard, (1, 0, 0), &["1=a", "2=b", "3=c", "4=d"]),
        (W::Upsert, Deletes::Hard, (1, 2, 0), &["1=a", "2=B", "3=c", "4=D"]),
        (W::Mirror, Deletes::Hard, (1, 2, 1), &["2=B", "3=c", "4=D"]),
        (W::Mirror, Deletes::Soft, (1, 2, 1), &["1=a", "2=B", "3=c", "4=D"]),
        (W::Mirror, Deletes::Ignore, (1, 2, 0), &["1=a", "2=B", "3=c", "4=D"]),
        (W::History, Deletes::Hard, (2, 1, 0), &["1=a", "2=B", "2=b", "3=c", "4=D"]),
    ];
    for (write, deletes, second, content) in cases {
        let bench = Bench::new().await;
        let table = table_with(write, deletes);
        assert_eq!(bench.rows(&table, &[(1, "a"), (2, "b"), (3, "c")]).await, (3, 0, 0), "{write:?}");
        assert_eq!(bench.rows(&table, &[(2, "B"), (3, "c"), (4, "d"), (4, "D")]).await, second, "{write:?} {deletes:?}");
        assert_eq!(bench.content().await, content, "{write:?} {deletes:?}");
        assert_eq!(bench.loose(), Vec::<String>::new(), "{write:?} leaves files behind");
    }
}

/// The same with so little memory that keys are looked at in many buckets, and files so small that there are many.
#[tokio::test(flavor = "multi_thread")]
async fn more_keys_than_memory() {
    for (write, expected) in [(WriteMode::Upsert, 60_000), (WriteMode::Mirror, 40_000), (WriteMode::Insert, 60_000)] {
        let bench = Bench::with(json!({"merge_memory_mb": 1, "file_size_mb": 1})).await;
        let table = table(write);
        let names: Vec<String> = (0..60_000).map(|i| format!("name {i}")).collect();
        let first: Vec<(i64, &str)> = (0..40_000).map(|i| (i, names[i as usize].as_str())).collect();
        let second: Vec<(i64, &str)> = (20_000..60_000).map(|i| (i, "new")).collect();
        assert_eq!(bench.rows(&table, &first).await, (40_000, 0, 0));
        bench.rows(&table, &second).await;
        let total = bench.query("select count(*), count(distinct id) from orders").await;
        assert_eq!(total, [format!("{expected}={expected}")], "{write:?}");
        let new = bench.query("select count(*) from orders where name = 'new'").await;
        assert_eq!(new, [if write == WriteMode::Insert { "20000" } else { "40000" }]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn soft_deletes_keep_their_first_time() {
    let bench = Bench::new().await;
    let table = table_with(WriteMode::Mirror, Deletes::Soft);
    bench.rows(&table, &[(1, "a"), (2, "b")]).await;
    assert_eq!(bench.rows(&table, &[(2, "b")]).await, (0, 1, 1));
    assert_eq!(bench.rows(&table, &[(2, "b")]).await, (0, 1, 0));
    let sql = "select id, to_unixtime(_trib_deleted_at) - 1700000000 from orders order by id";
    assert_eq!(bench.query(sql).await, ["1=2", "2=-"]);
    // What comes back is there again.
    bench.rows(&table, &[(1, "a"), (2, "b")]).await;
    assert_eq!(bench.query(sql).await, ["1=-", "2=-"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn history_says_when() {
    let bench = Bench::new().await;
    let table = table(WriteMode::History);
    bench.rows(&table, &[(1, "a"), (2, "b")]).await;
    assert_eq!(bench.rows(&table, &[(1, "a"), (2, "B")]).await, (1, 1, 0));
    bench.rows(&table, &[(2, "b")]).await;
    let sql = "select id, name, to_unixtime(_trib_valid_from) - 1700000000, to_unixtime(_trib_valid_to) - 1700000000 \
               from orders order by 1, 3";
    assert_eq!(bench.query(sql).await, ["1=a=1=-", "2=b=1=2", "2=B=2=3", "2=b=3=-"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_from_a_log() {
    type Case = (WriteMode, Deletes, &'static [(&'static str, i64, &'static str)], (u64, u64, u64), &'static [&'static str]);
    let start = [("i", 1, "a"), ("i", 2, "b"), ("i", 3, "c")];
    let cases: [Case; 8] = [
        (WriteMode::Upsert, Deletes::Hard, &[("u", 1, "A"), ("d", 2, ""), ("i", 4, "d"), ("d", 9, "")], (1, 1, 1), &["1=A", "3=c", "4=d"]),
        (WriteMode::Upsert, Deletes::Soft, &[("d", 2, "")], (0, 0, 1), &["1=a", "2=b", "3=c"]),
        (WriteMode::Upsert, Deletes::Ignore, &[("u", 2, "B"), ("d", 2, "")], (0, 1, 0), &["1=a", "2=B", "3=c"]),
        // A row that went and came again is there.
        (WriteMode::Upsert, Deletes::Hard, &[("d", 2, ""), ("i", 2, "again")], (0, 1, 0), &["1=a", "2=again", "3=c"]),
        (WriteMode::Upsert, Deletes::Hard, &[("i", 5, "x"), ("t", 0, ""), ("i", 1, "z")], (0, 1, 2), &["1=z"]),
        // A log's mirror deletes what the log says, not what it leaves out.
        (WriteMode::Mirror, Deletes::Hard, &[("d", 1, "")], (0, 0, 1), &["2=b", "3=c"]),
        (WriteMode::Append, Deletes::Hard, &[("u", 1, "A"), ("d", 2, "")], (1, 0, 0), &["1=A", "1=a", "2=b", "3=c"]),
        (WriteMode::History, Deletes::Hard, &[("d", 1, ""), ("u", 2, "B")], (1, 1, 1), &["1=a", "2=B", "2=b", "3=c"]),
    ];
    for (write, deletes, changes, expected, content) in cases {
        let bench = Bench::new().await;
        let table = Table { changes: true, ..table_with(write, deletes) };
        assert_eq!(bench.changes(&table, &start).await, (3, 0, 0));
        assert_eq!(bench.changes(&table, changes).await, expected, "{write:?} {deletes:?} {changes:?}");
        assert_eq!(bench.content().await, content, "{write:?} {deletes:?} {changes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_deletes_what_was_not_read() {
    for (deletes, expected, content) in
        [(Deletes::Hard, (0, 0, 1), vec!["1=a", "3=c"]), (Deletes::Soft, (0, 0, 1), vec!["1=a", "2=b", "3=c"])]
    {
        let bench = Bench::new().await;
        bench.rows(&table(WriteMode::Upsert), &[(1, "a"), (2, "b"), (3, "c")]).await;
        let keys = arrow::datatypes::Schema::new(vec![arrow::datatypes::Field::new("id", arrow::datatypes::DataType::Int64, false)]);
        let prune = Table { schema: keys.into(), ..table_with(WriteMode::Prune, deletes) };
        assert_eq!(bench.rows(&prune, &[(1, ""), (3, "")]).await, expected);
        assert_eq!(bench.content().await, content);
        if deletes == Deletes::Soft {
            assert_eq!(bench.query("select id from orders where _trib_deleted_at is not null").await, ["2"]);
        }
    }
}

/// Two sources share a table, each with rows of its own region.
#[tokio::test(flavor = "multi_thread")]
async fn scopes_do_not_touch_each_other() {
    for write in [WriteMode::Replace, WriteMode::Mirror] {
        let bench = Bench::new().await;
        let of = |region: &str| {
            let mut table = table(write);
            let mut fields: Vec<_> = table.schema.fields().iter().cloned().collect();
            fields.insert(2, std::sync::Arc::new(arrow::datatypes::Field::new("region", arrow::datatypes::DataType::Utf8, false)));
            table.schema = arrow::datatypes::Schema::new(fields).into();
            table.scope = Some(RowScope::with("region", region));
            if write.needs_key() {
                table.key.push("region".into());
            }
            table
        };
        // Odd loads are of `us`, even ones of `de`.
        bench.rows(&of("us"), &[(1, "a"), (2, "b")]).await;
        bench.rows(&of("de"), &[(1, "c"), (2, "d")]).await;
        assert_eq!(bench.rows(&of("us"), &[(2, "B")]).await.2, if write == WriteMode::Replace { 2 } else { 1 });
        let all = bench.query("select id, name, region from orders order by 1, 2").await;
        assert_eq!(all, ["1=c=de", "2=B=us", "2=d=de"], "{write:?}");
    }
}
