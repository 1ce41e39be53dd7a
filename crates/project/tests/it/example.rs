//! What `trib init` writes is right, formatted, and the same each time.

use std::path::Path;

use trib_project::format;
use trib_project::select::select;
use trib_project::template::{self, Template};
use trib_project::{Graph, Project, Variables};

use crate::folder::{folder, shown};

fn write(template: &Template, dir: &Path) {
    for file in &template.files {
        let path = dir.join(file.path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, &file.contents).unwrap();
    }
}

#[test]
fn templates_are_valid_and_formatted() {
    for template in [template::minimal("mine"), template::example()] {
        let dir = tempfile::tempdir().unwrap();
        write(&template, dir.path());
        let project = Project::load(dir.path(), None, Variables::given([])).unwrap();
        assert!(project.missing().is_empty());
        assert_eq!(format::changes(dir.path()).unwrap(), []);
    }
}

#[test]
fn the_example() {
    let dir = tempfile::tempdir().unwrap();
    write(&template::example(), dir.path());
    let project = Project::load(dir.path(), None, Variables::given([])).unwrap();
    let names: Vec<&str> = project.syncs().iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["census", "crm", "events", "marketing", "shop"]);
    assert_eq!(Graph::of(&project).order().len(), 11);
}

#[test]
fn rows_are_the_same_each_time() {
    let (a, b) = (template::example(), template::example());
    assert_eq!(a.databases[0].sql, b.databases[0].sql);
    let events = a.files.iter().find(|f| f.path.ends_with("2024-03-01.jsonl")).unwrap();
    assert_eq!(events.contents.lines().count(), 80);
    for line in events.contents.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
    let changes = template::example_changes();
    assert_eq!(changes.databases[0].path, a.databases[0].path);
    assert!(changes.files.iter().all(|f| !a.files.iter().any(|known| known.path == f.path)));
}

/// The black-box cases are projects as users write them.
#[test]
fn the_projects_of_the_black_box_cases_are_right() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cases");
    let mut seen = 0;
    for case in std::fs::read_dir(cases).unwrap() {
        let dir = case.unwrap().path().join("project");
        if dir.is_dir() {
            let project = Project::load(&dir, None, Variables::given([]));
            assert!(project.is_ok(), "{}: {}", dir.display(), shown(&project.err().unwrap()));
            seen += 1;
        }
    }
    assert!(seen > 0);
}

/// The project of the documentation, with everything that a project may hold.
#[test]
fn a_project_with_everything() {
    let folder = folder(&[
        (
            "tributary.yaml",
            "name: shop
state: ${TRIB_STATE:-.tributary/control.db}
defaults:
  sync: {naming: snake_case, retry: {attempts: 3, backoff: 30s}, stall_timeout: 15m}
  model: {connection: warehouse, schema: analytics, materialized: table}
environments:
  dev:  {schema_prefix: \"dev_${USER}_\", deliver: false}
  prod: {protected: true, connections: {warehouse: {connector: postgres, url: \"${DWH_URL}\"}}}
notify:
  - {on: [failed, recovered, late, held], to: \"${SLACK_WEBHOOK}\"}
",
        ),
        ("connections.yaml", "shop: {connector: postgres, url: \"${SHOP_URL}\"}\nwarehouse:\n  connector: lake\n"),
        (
            "syncs/shop.yaml",
            "description: The shop's database
from: shop
to: warehouse
into: shop_raw.{table}
defaults: {read: incremental, write: upsert, cursor: updated_at}
exclude: [\"public.audit_*\"]
contract: {new_streams: ignore, new_columns: evolve, dropped_columns: keep, type_changes: reject_row}
streams:
  \"public.*\": {}
  public.orders:
    key: [id]
    lookback: 1h
    where: \"status <> 'test'\"
    select: [id, email, amount, updated_at]
    deletes: {detect: compare, every: 1d, apply: soft}
    columns:
      id: {tests: [not_null, unique]}
      email: {hmac: \"${PII_KEY}\"}
    tests: [{freshness: 24h}]
  \"public.event_*\": {cursor: id, write: append, split_by: id}
",
        ),
        (
            "models/revenue.sql",
            "/*---
materialized: table           # view | table | incremental | history
description: Revenue by day and country
columns: {day: {tests: [not_null]}, country: {tests: [{accepted_values: [US, DE, FR]}]}}
---*/
select date_trunc('day', o.created_at) as day, c.country, sum(o.amount) as revenue
from shop_raw.orders o join shop_raw.customers c on c.id = o.customer_id
group by 1, 2
",
        ),
        ("jobs/hourly.yaml", "select: [shop+]\nschedule: {cron: \"0 * * * *\", timezone: Europe/Berlin}\noverlap: skip\ntimeout: 50m\n"),
        (
            "tests/revenue.yaml",
            "by_day:\n  node: revenue\n  given: {shop_raw.orders: [{id: 1, amount: 2}], shop_raw.customers: []}\n  expect: []\n",
        ),
    ]);
    let project = folder.load_in(None, &[("USER", "ann")]).unwrap_or_else(|errors| panic!("{}", shown(&errors)));
    let graph = Graph::of(&project);
    assert_eq!(graph.parents("revenue").collect::<Vec<_>>(), ["shop"]);
    let selected = select(&graph, &project.jobs[0].spec.select.0, &[], None).unwrap();
    assert!(selected.contains("shop") && selected.contains("revenue"));
    assert_eq!(project.models()[0].table.to_string(), "analytics.revenue");
    assert_eq!(project.missing().len(), 3);
}
