//! TPC-H's 22 queries as models on the lake give what DuckDB gives on the same files. `benches/tpch.py` compares; here at a small scale.

use std::path::Path;
use std::process::Command;

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
}
