//! What `trib plan` says of what an earlier run has left, without touching it.

use serde_json::Value;
use trib_testkit::postgres_server::PostgresServer;

use crate::trib::Folder;

fn folder(to: &str) -> Folder {
    Folder::with(&[
        ("tributary.yaml", "name: plan\n"),
        ("connections.yaml", &format!("drop: {{connector: files, path: data}}\nout: {to}\n")),
        ("syncs/go.yaml", "from: drop\nto: out\ninto: copied\nstreams: {t: {read: incremental, write: append}}\n"),
        ("data/t/1.csv", "id\n1\n2\n"),
    ])
}

/// The plan of the one stream, or the error that stands in its place.
fn planned(folder: &Folder) -> Value {
    let said = folder.trib(&["plan", "--json"]);
    let plan: Value = serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {}", said.all()));
    match &plan[0]["errors"][0] {
        Value::Null => plan[0]["streams"][0].clone(),
        error => error.clone(),
    }
}

fn dies(folder: &Folder, point: &str) {
    let status = folder.command(&["run"]).env("TRIB_FAULT", point).output().unwrap().status;
    assert!(!status.success(), "the fault was not hit");
}

#[test]
fn a_plan_knows_what_a_run_would_do_first() {
    let server = PostgresServer::shared().unwrap();
    let postgres = format!("{{connector: postgres, url: \"{}\"}}", server.url(&server.create_database().unwrap()));
    let others = ["{connector: lake, path: lake}", "{connector: sqlite, path: out.db}", "{connector: files, path: out}"];
    for to in others.into_iter().chain([postgres.as_str()]) {
        let folder = folder(to);
        let runs = || assert_eq!(folder.trib(&["run"]).status, Some(0), "{to}");
        assert_eq!(planned(&folder)["unfinished"], Value::Null, "{to}");
        for (i, (point, what)) in [("recorded", "is published first"), ("committed", "is visible already")].into_iter().enumerate() {
            folder.write(&format!("data/t/{}.csv", i + 2), "id\n3\n");
            dies(&folder, point);
            for _ in 0..2 {
                let plan = planned(&folder);
                assert!(plan["unfinished"]["what"].as_str().is_some_and(|w| w.contains(what)), "{to}, died at {point}: {plan}");
            }
            runs();
            assert_eq!(planned(&folder)["unfinished"], Value::Null, "{to}");
        }
        // What a run refuses, its plan refuses.
        for file in folder.files().into_iter().filter(|f| f.to_string_lossy().contains(".tributary/control.db")) {
            std::fs::remove_file(file).unwrap();
        }
        let lost = planned(&folder);
        assert_eq!(lost["code"], "state_missing", "{to}: {lost}");
        assert_eq!(folder.trib(&["run"]).status, Some(1), "{to}");
    }
}

/// What a change takes away from whom, which intervals are due, and what is no longer there.
#[test]
fn a_plan_knows_whom_a_change_concerns() {
    let folder = Folder::with(&[
        ("tributary.yaml", "name: plan\n"),
        ("connections.yaml", "drop: {connector: files, path: data}\ncrm: {connector: sqlite, path: crm.db}\n"),
        ("syncs/drop.yaml", "from: drop\ninto: raw.{table}\nstreams: {orders: {}}\n"),
        ("syncs/crm.yaml", "from: warehouse\nto: crm\ninto: main.{table}\nstreams: {analytics.totals: {select: [customer, total]}}\n"),
        ("data/orders/1.csv", "day,customer,amount\n2024-03-01,ann,10\n2024-03-03,bob,20\n"),
        (
            "models/totals.sql",
            "select customer, sum(amount) as total, count(*) as orders, min(day) as since from raw.orders group by customer",
        ),
        ("models/ranked.sql", "select customer from totals where total > 1 order by orders"),
        ("models/names.sql", "select upper(customer) as name from totals"),
        (
            "models/daily.sql",
            "/*---\nmaterialized: incremental\ncursor: day\nbatch_size: day\n---*/\nselect cast(day as date) as day, sum(amount) as amount from raw.orders group by 1",
        ),
        ("models/old.sql", "select 1 as one"),
    ]);
    folder.ok(&["run"]);
    let plan = |args: &[&str]| -> Vec<Value> {
        let mut all = vec!["plan", "--json"];
        all.extend(args);
        serde_json::from_str(&folder.trib(&all).out).unwrap()
    };
    let of = |plans: &[Value], node: &str| plans.iter().find(|p| p["sync"] == node).unwrap_or_else(|| panic!("nothing of {node}")).clone();
    assert!(plan(&[]).iter().all(|p| p["change"].is_null() && p["loses"].as_array().unwrap().is_empty()), "nothing has changed");
    folder.write("models/totals.sql", "select customer, count(*) as orders from raw.orders group by customer");
    folder.write("models/new.sql", "select customer from totals");
    std::fs::remove_file(folder.path().join("models/old.sql")).unwrap();
    let plans = plan(&[]);
    let totals = of(&plans, "totals");
    assert_eq!(totals["change"], serde_json::json!({"kind": "changed", "read_by": ["crm", "names", "new", "ranked"]}));
    let loses: Vec<String> =
        totals["loses"].as_array().unwrap().iter().map(|l| format!("{} {}", l["column"].as_str().unwrap(), l["read_by"])).collect();
    assert_eq!(loses, [r#"total ["ranked","crm"]"#, "since []"]);
    assert_eq!(of(&plans, "new")["change"]["kind"], "new");
    assert_eq!(of(&plans, "old")["change"]["kind"], "removed");
    let text = folder.trib(&["plan"]).out;
    assert!(text.contains("analytics.totals: column since goes away; no node reads it"), "{text}");

    // The last interval is computed again; one more day is one more.
    let due = |plans: &[Value]| of(plans, "daily")["notes"].to_string();
    assert!(due(&plans).contains("1 interval is due, from 2024-03-03 and before 2024-03-04"), "{}", due(&plans));
    folder.write("data/orders/2.csv", "day,customer,amount\n2024-03-06,ann,1\n");
    folder.ok(&["run", "drop"]);
    assert!(due(&plan(&["daily"])).contains("4 intervals are due, from 2024-03-03 and before 2024-03-07"));
}
