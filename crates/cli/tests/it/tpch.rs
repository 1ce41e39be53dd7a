//! TPC-H's 22 queries as models on the lake give what DuckDB gives on the same files. `benches/tpch.py` compares; here at a small scale.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

#[test]
fn results_equal_those_of_duckdb() {
    let python = trib_testkit::python_venv::bin("tpch", &["duckdb", "tpchgen-cli"]).unwrap().join("python");
    let home = TempDir::new().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benches/tpch.py");
    let mut command = Command::new(python);
    command.arg(script).args(["--scale", "0.01", "--trib", env!("CARGO_BIN_EXE_trib"), "--home"]).arg(home.path());
    let output = command.output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("all 22 results are equal"), "{said}");
    columns_are_traced_to_their_files(&home.path().join("project"), &home.path().join("data-0.01"));
}

/// Where the columns of the models come from is held against expectations in the engine's own tests; here the way to the files.
fn columns_are_traced_to_their_files(project: &Path, data: &Path) {
    let cases = [
        ("answers.q01.sum_charge", "lineitem.l_discount lineitem.l_extendedprice lineitem.l_tax"),
        ("answers.q08.mkt_share", "lineitem.l_discount lineitem.l_extendedprice nation.n_name"),
        ("answers.q15.total_revenue", "lineitem.l_discount lineitem.l_extendedprice"),
        ("answers.q22.cntrycode", "customer.c_phone"),
    ];
    for (column, expected) in cases {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trib"));
        let output = command.args(["lineage", column, "--json"]).current_dir(project).env("TPCH_DATA", data).output().unwrap();
        let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
        let edges = found[0]["upstream"].as_array().unwrap();
        for (prefix, node) in [("tpch.", &found[0]["table"].as_str().unwrap()["answers.".len()..]), ("generated: ", "tpch")] {
            let of_node = edges.iter().filter(|e| e["node"] == node).map(|e| &e["from"]);
            let names: BTreeSet<String> =
                of_node.map(|c| format!("{}.{}", c["table"].as_str().unwrap(), c["column"].as_str().unwrap())).collect();
            let wanted: BTreeSet<String> = expected.split(' ').map(|name| format!("{prefix}{name}")).collect();
            assert_eq!(names, wanted, "{column}");
        }
    }
}
