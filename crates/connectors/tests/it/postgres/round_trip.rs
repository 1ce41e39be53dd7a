//! Every type there and back.

use arrow::datatypes::{DataType, Schema};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;
use std::sync::Arc;
use trib_connectors::postgres::connector;
use trib_core::{Source, State, WriteMode};
use trib_testkit::emit;

use super::{Database, Sync, context, table};

/// A type, and values of it as SQL.
pub const TYPES: &[(&str, &[&str])] = &[
    ("boolean", &["true", "false"]),
    ("smallint", &["-32768", "32767"]),
    ("integer", &["-2147483648", "2147483647"]),
    ("bigint", &["-9223372036854775808", "9223372036854775807"]),
    ("oid", &["4294967295"]),
    ("real", &["'NaN'", "'-Infinity'", "1.17549435e-38", "'-0'"]),
    ("double precision", &["'NaN'", "'Infinity'", "0.1", "2.2250738585072014e-308"]),
    ("numeric(15,2)", &["-9999999999999.99", "0.01", "0"]),
    ("numeric(38,10)", &["9999999999999999999999999999.9999999999", "-0.0000000001"]),
    ("numeric(76,38)", &["99999999999999999999999999999999999999.99999999999999999999999999999999999999"]),
    ("numeric", &["'NaN'", "'Infinity'", "1.10", "1e100", "-0.000000000000000000001", "123456789012345678901234567890.123"]),
    ("numeric(5,-2)", &["12300"]),
    ("numeric(2,4)", &["0.0012"]),
    ("text", &["''", "'Grüße 🌊'", "E'tab\\tnl\\nquote\\'\"back\\\\'", "'NULL'", "repeat('x', 100000)"]),
    ("character varying(5)", &["'abc'", "'größe'", "''"]),
    ("character(5)", &["'ab'", "''"]),
    ("name", &["'Name'"]),
    ("\"char\"", &["'x'"]),
    ("bytea", &["'\\x'", "'\\x00ff10'"]),
    ("date", &["'0001-01-01'", "'4713-01-01 BC'", "'5874897-12-31'", "'2024-02-29'"]),
    ("time without time zone", &["'00:00'", "'24:00'", "'23:59:59.999999'"]),
    ("time(3) without time zone", &["'12:34:56.789'"]),
    ("time with time zone", &["'12:34:56.789+05:30'"]),
    ("timestamp without time zone", &["'4713-01-01 00:00:00 BC'", "'294246-12-31 23:59:59.999999'", "'1969-12-31 23:59:59.999999'"]),
    ("timestamp(0) with time zone", &["'2024-06-01 12:00:00+02'"]),
    ("timestamp with time zone", &["'2024-06-01 12:00:00.000001+02'", "'0001-01-01 00:00:00+00'"]),
    ("interval", &["'1 year -2 days 03:04:05.000006'", "'-178000 years'", "'0'"]),
    ("uuid", &["'00000000-0000-0000-0000-000000000000'", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"]),
    ("json", &["'{\"b\": 1,  \"a\": [1, 2]}'", "'\"\\u0000\"'", "'12345678901234567890.10'"]),
    ("jsonb", &["'{\"b\": 1, \"a\": null}'", "'123456789012345678901234567890.1234'", "'\"\\u00e9\"'"]),
    ("xml", &["'<a b=\"c\">d</a>'"]),
    ("inet", &["'10.0.0.1'", "'10.0.0.0/8'", "'::1'"]),
    ("cidr", &["'10.0.0.0/8'"]),
    ("macaddr", &["'08:00:2b:01:02:03'"]),
    ("bit(3)", &["'101'"]),
    ("bit varying", &["'10101'", "''"]),
    ("money", &["'-12.34'"]),
    ("point", &["'(1,2)'"]),
    ("tsvector", &["'a:1 cat:2'"]),
    ("int4range", &["'[1,5)'", "'empty'"]),
    ("tstzrange", &["'[2024-01-01 00:00:00+00,)'"]),
    ("int8multirange", &["'{[1,3),[5,7)}'"]),
    ("integer[]", &["'{}'", "'{1,NULL,-3}'"]),
    ("text[]", &["'{\"a,b\",\"NULL\",NULL,\"\"}'"]),
    ("numeric(10,2)[]", &["'{1.50,NULL}'"]),
    ("numeric[]", &["'{1.5,NaN}'"]),
    ("uuid[]", &["'{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}'"]),
    ("timestamp with time zone[]", &["'{2024-01-01 00:00:00+00}'"]),
    ("boolean[]", &["'{t,f,NULL}'"]),
    ("jsonb[]", &["array['{\"a\": 1}'::jsonb]"]),
    ("inet[]", &["'{10.0.0.1,NULL}'"]),
    ("character varying(4)[]", &["'{abcd,x}'"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_type_there_and_back() {
    let db = Database::new();
    let columns: Vec<String> = TYPES.iter().enumerate().map(|(i, (t, _))| format!("c{i} {t}")).collect();
    db.sql(&format!("create table source (id int primary key, {})", columns.join(", ")));
    // Row 0 is all NULL; then one row for each value, the other columns NULL; so a failure names its type.
    let mut inserts = vec!["insert into source (id) values (0)".to_owned()];
    for (i, (t, values)) in TYPES.iter().enumerate() {
        for value in *values {
            inserts.push(format!("insert into source (id, c{i}) values ({}, cast({value} as {t}))", inserts.len()));
        }
    }
    let rows = inserts.len() as u64;
    db.sql(&inserts.join(";"));
    let (outcome, emitted) = db.copy("public.source", "copied.target", WriteMode::Replace, &["id"]).await;
    assert!(emitted.rejected.is_empty(), "{:?}", emitted.rejected);
    assert_eq!(outcome.tables[0].inserted, rows);
    // The second load finds a table there, and comes to the same.
    for _ in 0..2 {
        let values = |table: &str| -> Vec<String> {
            let column = |i: usize| format!("select {i}, id, c{i}::text from {table} where c{i} is not null");
            let all: Vec<String> = (0..TYPES.len()).map(column).collect();
            db.sql(&format!("{} order by 1, 2", all.join(" union all "))).lines().map(str::to_owned).collect()
        };
        for (copied, original) in values("copied.target").iter().zip(values("source")) {
            let (i, _) = original.split_once('|').unwrap_or(("0", ""));
            assert_eq!(*copied, original, "{}", i.parse().map_or("?", |i: usize| TYPES[i].0));
        }
        assert_eq!(values("copied.target").len(), values("source").len());
        let stored = db.sql(
            "select format_type(atttypid, atttypmod) from pg_attribute \
             where attrelid = 'copied.target'::regclass and attname like 'c%' and attnum > 0 and not attisdropped order by attnum",
        );
        assert_eq!(stored.lines().collect::<Vec<_>>(), TYPES.iter().map(|(t, _)| *t).collect::<Vec<_>>());
        db.copy("public.source", "copied.target", WriteMode::Replace, &["id"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn upserts_keep_types_as_well() {
    let db = Database::new();
    db.sql("create type mood as enum ('sad', 'ok'); create domain email as text check (value like '%@%'); create domain price as numeric(10,2)");
    db.sql("create type pair as (a int, b text)");
    db.sql("create table source (id inet primary key, m mood, e email, p price, c pair, ms mood[], n int[][])");
    db.sql("insert into source values ('10.0.0.1', 'ok', 'a@b', 1.5, row(1, 'x'), '{sad,ok}', '{{1,2},{3,4}}'), ('10.0.0.2', null, null, null, null, null, null)");
    // A table whose columns have types of the database's own: text is cast to them.
    db.sql("create schema copied; create table copied.target (like source including all)");
    for _ in 0..2 {
        let existing = db.destination.inspect(&trib_core::TableName::parse("copied.target")).await.unwrap().unwrap();
        let catalog = db.source.discover(&[]).await.unwrap();
        let incoming = &catalog.stream("public.source").unwrap().schema;
        let native = |field: &arrow::datatypes::Field| Ok(db.destination.column_type(field)?.native);
        let meeting = trib_core::contract::meet(Some(&existing), incoming, &trib_core::contract::Contract::default(), native).unwrap();
        let fields = meeting.schema.fields().iter().take(7).map(|f| f.as_ref().clone());
        let table = table("copied.target", fields, &["id"], WriteMode::Upsert);
        let batches = db.read("public.source").await.batches;
        let mut sync = Sync::begin(db.destination.clone(), "s").await;
        sync.load(&table, vec![batches]).await.unwrap();
        let both = "select id, m, e, p, c, ms, n from source except select id, m, e, p, c, ms, n from copied.target";
        assert_eq!(db.sql(both), "");
    }
    // Replaced, the columns keep these types too; and what else there was.
    db.copy("public.source", "copied.target", WriteMode::Replace, &["id"]).await;
    let types = |table: &str| {
        db.sql(&format!(
            "select string_agg(format_type(atttypid, atttypmod), ',' order by attnum) from pg_attribute where attrelid = '{table}'::regclass and attnum > 0"
        ))
    };
    assert!(types("copied.target").starts_with("inet,mood,email,price,pair,mood[],integer[],"), "{}", types("copied.target"));
    // Into a table of its own, types of the database's own become what carries their values.
    let (_, _) = db.copy("public.source", "plain.target", WriteMode::Replace, &["id"]).await;
    assert!(types("plain.target").starts_with("inet,text,text,numeric(10,2),text,text[],integer[],"), "{}", types("plain.target"));
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_arrow_has_not_go_by_rule() {
    let db = Database::new();
    db.sql("create table t (id int primary key, n numeric(10,2), d date, ts timestamptz, a int[])");
    db.sql(
        "insert into t values (1, 1, '2024-01-01', '2024-01-01', '{1}'), (2, 'NaN', null, null, null), (3, null, 'infinity', null, null), \
         (4, null, null, '-infinity', null), (5, null, null, null, '{{1},{2}}'), (6, null, null, null, '[0:1]={1,2}')",
    );
    let emitted = db.read("public.t").await;
    let places: Vec<_> = emitted.rejected.iter().map(|r| r.place.as_str()).collect();
    assert_eq!(places, ["id=2", "id=3", "id=4", "id=5", "id=6"]);
    assert_eq!(emitted.batches.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), 1);

    let settings = json!({"url": db.server.url(&db.name), "numeric_special": "null", "infinity": "null", "arrays": "text"});
    let source = connector().make_source(&settings, &context()).unwrap();
    let (emitted, _) = emit::read(source.as_ref(), &emit::full("public.t"), &State::default()).await.unwrap();
    assert!(emitted.rejected.is_empty(), "{:?}", emitted.rejected);
    assert_eq!(trib_testkit::rows::canonical(&emitted.batches).len(), 6);

    let settings = json!({"url": db.server.url(&db.name), "numeric_special": "text"});
    let source: Arc<dyn Source> = connector().make_source(&settings, &context()).unwrap();
    let catalog = source.discover(&[]).await.unwrap();
    assert_eq!(*catalog.stream("public.t").unwrap().field("n").unwrap().data_type(), DataType::Utf8);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_postgres_cannot_store_is_rejected() {
    use arrow::array::{ArrayRef, Date32Array, Int64Array, RecordBatch, StringArray};
    use trib_core::logical::{FieldExt, Logical};
    let db = Database::new();
    let fields = vec![
        arrow::datatypes::Field::new("id", DataType::Int64, true),
        arrow::datatypes::Field::new("text", DataType::Utf8, true),
        arrow::datatypes::Field::new("json", DataType::Utf8, true).with_logical(Logical::Json),
        arrow::datatypes::Field::new("day", DataType::Date32, true),
    ];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![Some(1), Some(2), Some(3), Some(4), Some(5), None])),
        Arc::new(StringArray::from(vec!["ok", "a\0b", "", "", "", "no key"])),
        Arc::new(StringArray::from(vec![Some("{\"a\": \"\\\\u0000\"}"), None, Some("{\"a\": \"\\u0000\"}"), Some("{'a'}"), None, None])),
        Arc::new(Date32Array::from(vec![Some(0), None, None, None, Some(i32::MAX), None])),
    ];
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields.clone())), columns).unwrap();
    let table = table("t", fields, &["id"], WriteMode::Upsert);
    let mut sync = Sync::begin(db.destination.clone(), "s").await;
    let load = sync.stage(&table, vec![vec![batch]]).await.unwrap();
    let rejected = &load.tables[0].receipts[0].rejected;
    let reasons: Vec<_> = rejected.iter().map(|r| (r.place.as_str(), r.reason.split(':').next().unwrap())).collect();
    assert_eq!(reasons, [("id=2", "text"), ("id=3", "json"), ("id=4", "json"), ("id=5", "day"), ("", "id")]);
    assert_eq!(sync.commit(&load).await.unwrap().tables[0].inserted, 1);
    assert_eq!(db.sql("select id, text, json, day from t"), "1|ok|{\"a\": \"\\\\u0000\"}|1970-01-01");
}

#[test]
fn any_values_there_and_back() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let db = runtime.block_on(async { Database::new() });
    db.sql("create table source (id int primary key, t text, n numeric(30,8), u numeric, f float8, ts timestamptz, d date, i interval, b bytea, a bigint[], j jsonb)");
    let text = || "[^\u{0}]{0,20}".prop_map(|s| s.replace('\'', "''"));
    let row = (
        text(),
        (any::<i64>(), 0u8..=8).prop_map(|(n, s)| format!("{n}e-{s}")),
        (any::<i128>(), 0u8..40).prop_map(|(n, s)| format!("{n}e-{s}")),
        any::<f64>().prop_map(|f| if f.is_finite() { format!("{f:e}") } else { "NaN".into() }),
        -62_135_596_800_000_000i64..253_402_300_799_999_999,
        -700_000i32..2_000_000,
        (any::<i16>(), any::<i16>(), any::<i32>()).prop_map(|(m, d, us)| format!("{m} months {d} days {us} microseconds")),
        prop::collection::vec(any::<u8>(), 0..20),
        prop::collection::vec(prop::option::of(any::<i64>()), 0..5),
        text(),
    );
    let mut runner = TestRunner::new(Config { cases: 12, ..Config::default() });
    let result = runner.run(&prop::collection::vec(row, 1..40), |rows| {
        let values: Vec<String> = rows
            .iter()
            .enumerate()
            .map(|(id, (t, n, u, f, ts, d, i, b, a, j))| {
                let hex = b.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
                let array: Vec<String> = a.iter().map(|v| v.map_or("NULL".into(), |v| v.to_string())).collect();
                format!(
                    "({id}, '{t}', {n}, {u}, '{f}', 'epoch'::timestamptz + {ts} * interval '1 microsecond', 'epoch'::date + {d}, '{i}', '\\x{hex}', \
                     '{{{}}}', to_jsonb('{j}'::text))",
                    array.join(",")
                )
            })
            .collect();
        db.sql(&format!("truncate source; insert into source values {}", values.join(", ")));
        let (_, emitted) = runtime.block_on(db.copy("public.source", "copied.target", WriteMode::Replace, &["id"]));
        prop_assert!(emitted.rejected.is_empty());
        let hash = |table: &str| {
            db.sql(&format!("select md5(string_agg(x::text, '/' order by id)) from (select id, t, n, u, f, ts, d, i, b, a, j from {table}) x"))
        };
        prop_assert_eq!(hash("source"), hash("copied.target"));
        Ok(())
    });
    result.unwrap();
}
