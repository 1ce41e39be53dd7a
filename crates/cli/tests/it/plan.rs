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
