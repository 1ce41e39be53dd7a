//! What becomes of rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalUnit, Schema, SchemaRef};
use tokio_util::sync::CancellationToken;
use trib_core::contract::{Contract, NewColumns, TypeChanges};
use trib_core::destination::{ExistingColumn, ExistingTable};
use trib_core::transform::{ColumnRule, Mask, Nesting, Transform};
use trib_core::{Code, TableName, WriteMode};

use crate::memory::{ListDestination, Push, batch, run, run_until, spec};

fn schema(fields: Vec<Field>) -> SchemaRef {
    Arc::new(Schema::new(fields))
}

fn people() -> SchemaRef {
    schema(vec![
        Field::new("Id", DataType::Int64, true),
        Field::new("Full Name", DataType::Utf8, true),
        Field::new("age", DataType::Utf8, true),
    ])
}

const PEOPLE: &str = r#"{"Id":1,"Full Name":"Ann Lee","age":"41"}
{"Id":2,"Full Name":null,"age":"old"}
{"Id":null,"Full Name":"Bo","age":"7"}"#;

fn rules(rules: &[(&str, ColumnRule)]) -> BTreeMap<String, ColumnRule> {
    rules.iter().map(|(name, rule)| ((*name).to_owned(), rule.clone())).collect()
}

#[tokio::test]
async fn names_are_normalised_and_rows_pass_through() {
    let ran =
        run(spec(people(), Transform::default()), vec![Push::Batch(batch(&people(), PEOPLE))], ListDestination::new(true)).await.unwrap();
    assert_eq!(ran.result.as_ref().unwrap().receipts[0].rows, 3);
    assert_eq!(ran.rows("t")[0], r#"{"id":1,"full_name":"Ann Lee","age":"41"}"#);
}

#[tokio::test]
async fn rules_and_filters() {
    let transform = Transform {
        filter: Some(r#""Id" is not null"#.into()),
        columns: rules(&[
            ("Full Name", ColumnRule { mask: Some(Mask::Keep { keep_last: 2 }), rename: Some("Name!".into()), ..ColumnRule::default() }),
            ("age", ColumnRule { cast: Some("int".into()), ..ColumnRule::default() }),
        ]),
        add: BTreeMap::from([("region".to_owned(), "'eu'".to_owned()), ("twice".to_owned(), "\"Id\" * 2".to_owned())]),
        ..Transform::default()
    };
    let ran = run(spec(people(), transform), vec![Push::Batch(batch(&people(), PEOPLE))], ListDestination::new(true)).await.unwrap();
    ran.result.as_ref().unwrap();
    assert_eq!(ran.rows("t"), [r#"{"id":1,"Name!":"***ee","age":41,"region":"eu","twice":2}"#]);
    // The row whose declared cast is impossible is kept, as the source gave it.
    assert_eq!(ran.rejected.len(), 1);
    assert!(ran.rejected[0].reason.contains("column age"), "{:?}", ran.rejected);
    assert_eq!(ran.rejected[0].row["age"], "old");
}

#[tokio::test]
async fn a_query_replaces_the_rows() {
    let transform = Transform { sql: Some(r#"select count(*) as n, max("Id") as top from input"#.into()), ..Transform::default() };
    let pushes = vec![Push::Batch(batch(&people(), PEOPLE)), Push::Batch(batch(&people(), PEOPLE))];
    let ran = run(spec(people(), transform), pushes, ListDestination::new(true)).await.unwrap();
    ran.result.as_ref().unwrap();
    assert_eq!(ran.rows("t"), [r#"{"n":6,"top":2}"#]);
}

#[tokio::test]
async fn mistakes_are_found_when_planning() {
    let cases = [
        (Transform { filter: Some("agee > 3".into()), ..Transform::default() }, Code::ConfigInvalid),
        (Transform { sql: Some("selec 1".into()), ..Transform::default() }, Code::ConfigInvalid),
        (Transform { columns: rules(&[("agee", ColumnRule::default())]), ..Transform::default() }, Code::NotFound),
        (
            Transform {
                columns: rules(&[("age", ColumnRule { cast: Some("intt".into()), ..ColumnRule::default() })]),
                ..Transform::default()
            },
            Code::ConfigInvalid,
        ),
    ];
    for (transform, code) in cases {
        let shown = format!("{transform:?}");
        let Err(error) = run(spec(people(), transform), vec![], ListDestination::new(true)).await else { panic!("{shown}") };
        assert_eq!(error.code(), code, "{shown}: {error}");
        assert_eq!(error.place().stream.as_deref(), Some("s"));
    }
}

#[tokio::test]
async fn columns_without_a_type_are_refused_by_name() {
    let schema =
        schema(vec![Field::new("took", DataType::Interval(IntervalUnit::MonthDayNano), true), Field::new("x", DataType::Float32, true)]);
    let Err(error) = run(spec(schema, Transform::default()), vec![], ListDestination::new(true)).await else { panic!() };
    assert_eq!(error.code(), Code::Unsupported);
    assert!(error.to_string().contains("took"), "{error}");
}

#[tokio::test]
async fn two_names_that_become_one_are_refused() {
    let schema = schema(vec![Field::new("a b", DataType::Int64, true), Field::new("A_B", DataType::Int64, true)]);
    let Err(error) = run(spec(schema, Transform::default()), vec![], ListDestination::new(true)).await else { panic!() };
    assert!(error.to_string().contains("a_b"), "{error}");
}

fn orders() -> SchemaRef {
    let item = DataType::Struct(vec![Field::new("sku", DataType::Utf8, true), Field::new("Qty", DataType::Int64, true)].into());
    schema(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("user", DataType::Struct(vec![Field::new("name", DataType::Utf8, true)].into()), true),
        Field::new("items", DataType::List(Arc::new(Field::new("item", item, true))), true),
    ])
}

const ORDERS: &str = r#"{"id":1,"user":{"name":"a"},"items":[{"sku":"x","Qty":1},{"sku":"y","Qty":2}]}
{"id":2,"user":null,"items":[]}"#;

#[tokio::test]
async fn nested_rows_become_tables_or_json() {
    let mut as_tables = spec(orders(), Transform { nested: Some(Nesting::Table), ..Transform::default() });
    as_tables.key = vec!["id".into()];
    as_tables.write = WriteMode::Upsert;
    let ran = run(as_tables, vec![Push::Batch(batch(&orders(), ORDERS))], ListDestination::new(false)).await.unwrap();
    ran.result.as_ref().unwrap();
    assert_eq!(ran.rows("t"), [r#"{"id":1,"user__name":"a","_trib_seq":0}"#, r#"{"id":2,"user__name":null,"_trib_seq":1}"#]);
    assert_eq!(
        ran.rows("t__items"),
        [
            r#"{"_parent_id":1,"_trib_index":0,"sku":"x","qty":1,"_trib_seq":0}"#,
            r#"{"_parent_id":1,"_trib_index":1,"sku":"y","qty":2,"_trib_seq":0}"#
        ]
    );
    // Without a wish, a destination that holds nothing nested gets JSON; without a key, rows get an identity.
    let ran =
        run(spec(orders(), Transform::default()), vec![Push::Batch(batch(&orders(), ORDERS))], ListDestination::new(false)).await.unwrap();
    assert_eq!(ran.rows("t")[0], r#"{"id":1,"user":{"name":"a"},"items":[{"sku":"x","Qty":1},{"sku":"y","Qty":2}]}"#.replace("{\"name\":\"a\"}", "\"{\\\"name\\\":\\\"a\\\"}\"").replace("[{\"sku\":\"x\",\"Qty\":1},{\"sku\":\"y\",\"Qty\":2}]", "\"[{\\\"sku\\\":\\\"x\\\",\\\"Qty\\\":1},{\\\"sku\\\":\\\"y\\\",\\\"Qty\\\":2}]\""));
    let ran = run(
        spec(orders(), Transform { nested: Some(Nesting::Table), ..Transform::default() }),
        vec![Push::Batch(batch(&orders(), ORDERS))],
        ListDestination::new(false),
    )
    .await
    .unwrap();
    assert_eq!(ran.rows("t__items")[0], r#"{"_trib_parent_id":"l1-0","_trib_index":0,"sku":"x","qty":1}"#);
}

fn existing(columns: &[(&str, DataType)]) -> ExistingTable {
    let columns = columns
        .iter()
        .map(|(name, t)| ExistingColumn { field: Arc::new(Field::new(*name, t.clone(), true)), native: t.to_string() })
        .collect();
    ExistingTable { columns, key: vec![] }
}

#[tokio::test]
async fn contracts_decide_about_values_that_do_not_fit() {
    let incoming = schema(vec![Field::new("id", DataType::Int64, true), Field::new("extra", DataType::Utf8, true)]);
    let rows = "{\"id\":1}\n{\"id\":5000000000}\n{\"id\":2,\"extra\":\"x\"}";
    let cases = [
        (TypeChanges::RejectRow, NewColumns::Evolve, vec![r#"{"id":1,"extra":null}"#, r#"{"id":2,"extra":"x"}"#], 1),
        (TypeChanges::DiscardValue, NewColumns::Ignore, vec![r#"{"id":1}"#, r#"{"id":null}"#, r#"{"id":2}"#], 0),
        (TypeChanges::RejectRow, NewColumns::RejectRow, vec![r#"{"id":1}"#], 2),
        (TypeChanges::Evolve, NewColumns::DiscardValue, vec![r#"{"id":1}"#, r#"{"id":5000000000}"#, r#"{"id":2}"#], 0),
    ];
    for (type_changes, new_columns, expected, rejected) in cases {
        let mut destination = ListDestination::new(true);
        destination.tables.insert(TableName::parse("t"), existing(&[("id", DataType::Int32)]));
        let mut spec = spec(incoming.clone(), Transform::default());
        spec.contract = Contract { type_changes, new_columns, ..Contract::default() };
        let ran = run(spec, vec![Push::Batch(batch(&incoming, rows))], destination).await.unwrap();
        ran.result.as_ref().unwrap();
        assert_eq!(ran.rows("t"), expected, "{type_changes:?} {new_columns:?}");
        assert_eq!(ran.rejected.len(), rejected, "{type_changes:?} {new_columns:?}");
    }
}

#[tokio::test]
async fn rows_without_their_key_are_rejected() {
    let mut keyed = spec(people(), Transform::default());
    keyed.key = vec!["Id".into()];
    keyed.write = WriteMode::Upsert;
    let ran = run(keyed, vec![Push::Batch(batch(&people(), PEOPLE))], ListDestination::new(true)).await.unwrap();
    ran.result.as_ref().unwrap();
    assert_eq!(ran.rows("t").len(), 2);
    assert!(ran.rejected[0].reason.contains("NULL"), "{:?}", ran.rejected);
}

fn numbers() -> SchemaRef {
    schema(vec![Field::new("n", DataType::Int64, true)])
}

fn query(sql: &str) -> Transform {
    Transform { sql: Some(sql.to_owned()), ..Transform::default() }
}

#[tokio::test]
async fn a_query_sees_the_rows_of_all_splits_of_its_task() {
    let split = |from: i64| (from..from + 3).map(|n| Push::Batch(batch(&numbers(), &format!("{{\"n\":{n}}}")))).collect();
    let spec = spec(numbers(), query("select count(*) as rows, sum(n) as total from input"));
    let ran = run_until(spec, vec![split(1), split(4), split(7)], ListDestination::new(true), CancellationToken::new()).await.unwrap();
    assert_eq!(ran.result.as_ref().unwrap().ends.len(), 3);
    assert_eq!(ran.rows("t"), [r#"{"rows":9,"total":45}"#]);
}

#[tokio::test]
async fn a_query_that_needs_no_more_rows_ends_well() {
    for (sql, expected) in [("select * from input limit 2", 2), ("select * from input where false", 0)] {
        let many = (0..200).map(|n| Push::Batch(batch(&numbers(), &format!("{{\"n\":{n}}}")))).collect();
        let ran = run(spec(numbers(), query(sql)), many, ListDestination::new(true)).await.unwrap();
        let result = ran.result.as_ref().unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        assert_eq!((result.receipts[0].rows, result.ends.len()), (expected, 1), "{sql}");
    }
}
