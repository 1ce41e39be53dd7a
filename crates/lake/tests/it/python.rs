//! The Python `deltalake` package, and DuckDB through its Arrow dataset, read what we write.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use trib_core::WriteMode;

use crate::harness::{Bench, table};
use crate::round_trip;

/// A Python with the packages.
pub fn python() -> PathBuf {
    trib_testkit::python_venv::bin("lake", &["deltalake", "duckdb", "pyarrow", "moto[server]"]).unwrap().join("python")
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn rows(python: &Path, table: &Path, reader: &str, order: &str) -> Vec<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/read_with_python.py");
    let lines = run(Command::new(python).arg(script).arg(table).args([reader, order]));
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn others_read_the_same_values() {
    let python = python();
    let bench = Bench::new().await;
    let columns = round_trip::columns(&round_trip::samples());
    let table_of = round_trip::table(&columns);
    bench.batches(&table_of, vec![round_trip::batch(&columns)]).await;
    let expected = round_trip::expected(&columns);
    for reader in ["deltalake", "duckdb"] {
        let got = rows(&python, &bench.folder("main.orders"), reader, "row");
        assert_eq!(got.len(), expected.len(), "{reader}");
        for (got, expected) in got.iter().zip(&expected) {
            for (name, value) in expected.as_object().unwrap() {
                assert_eq!(&got[name], value, "{reader}: column {name} in row {}", expected["row"]);
            }
        }
    }
}

/// A table that Python has made is merged into, and Python goes on writing to it.
#[tokio::test(flavor = "multi_thread")]
async fn tables_are_shared_with_other_writers() {
    let python = python();
    let bench = Bench::new().await;
    let write = |ids: &str| {
        let code = format!(
            "import pyarrow as pa; from deltalake import write_deltalake; t = pa.table({{'id': pa.array({ids}, pa.int64()), \
             'name': ['python'] * len({ids})}}); write_deltalake(r'{}', t, mode='append', schema_mode='merge')",
            bench.folder("main.orders").display()
        );
        run(Command::new(&python).args(["-c", &code]));
    };
    write("[1, 2]");
    let mut table = table(WriteMode::Upsert);
    table.schema = arrow::datatypes::Schema::new(vec![
        arrow::datatypes::Field::new("id", arrow::datatypes::DataType::Int64, true),
        arrow::datatypes::Field::new("name", arrow::datatypes::DataType::Utf8, true),
    ])
    .into();
    assert_eq!(bench.rows(&table, &[(2, "ours"), (3, "ours")]).await, (1, 1, 0));
    write("[4]");
    assert_eq!(bench.rows(&table, &[(4, "ours")]).await, (0, 1, 0));
    assert_eq!(bench.content().await, ["1=python", "2=ours", "3=ours", "4=ours"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn others_see_a_merged_table() {
    let python = python();
    let bench = Bench::with(serde_json::json!({"checkpoint_every": 2})).await;
    let table = table(WriteMode::Upsert);
    bench.rows(&table, &[(1, "a"), (2, "b"), (3, "c")]).await;
    bench.rows(&table, &[(2, "B"), (4, "d")]).await;
    bench.rows(&table, &[(4, "D")]).await;
    for reader in ["deltalake", "duckdb"] {
        let got = rows(&python, &bench.folder("main.orders"), reader, "id");
        let got: Vec<String> = got.iter().map(|r| format!("{}={}", r["id"].as_str().unwrap(), r["name"].as_str().unwrap())).collect();
        assert_eq!(got, ["1=a", "2=B", "3=c", "4=D"], "{reader}");
    }
}

/// Columns that the files do not have: the library's scan gives them.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_of_others_are_seen() {
    let python = python();
    let bench = Bench::new().await;
    let code = format!(
        "import pyarrow as pa; from deltalake import write_deltalake; \
         write_deltalake(r'{}', pa.table({{'id': pa.array([1, 2, 3], pa.int64()), 'name': ['a', 'b', 'b']}}), partition_by=['name'])",
        bench.folder("main.orders").display()
    );
    run(Command::new(&python).args(["-c", &code]));
    assert_eq!(bench.content().await, ["1=a", "2=b", "3=b"]);
    assert_eq!(bench.query("select id from orders where name = 'b' order by 1").await, ["2", "3"]);
}
