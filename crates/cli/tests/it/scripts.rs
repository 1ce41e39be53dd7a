//! Script models: what they are given, what becomes of what they give, and how they fail.

use crate::trib::Folder;

const DOUBLE: &str = "# ---
# reads: [totals]
# format: json
# columns: {customer: {tests: [not_null]}, twice: {type: \"decimal(12, 2)\"}}
# ---
import json, sys
for line in open(sys.argv[1] + '/totals.jsonl'):
    row = json.loads(line)
    print('saw', row['customer'], file=sys.stderr)
    print(json.dumps({'customer': row['customer'], 'twice': str(2 * row['total']), 'columns': len(row)}))
";

fn project() -> Folder {
    let folder = Folder::with(&[
        ("tributary.yaml", "name: scripts\n"),
        ("seeds/orders.csv", "id,customer,amount\n1,ann,10\n2,bob,20\n3,ann,5\n"),
        ("models/totals.sql", "select customer, sum(amount) as total from orders group by customer"),
        ("models/double.py", DOUBLE),
        ("models/after.sql", "select customer, twice + 1 as more from double"),
    ]);
    assert!(!folder.files().is_empty());
    folder
}

fn query(folder: &Folder, sql: &str) -> String {
    let said = folder.trib(&["query", "--format", "csv", sql]);
    assert_eq!(said.status, Some(0), "{sql}\n{}", said.all());
    said.out
}

#[test]
fn a_script_stands_in_the_graph() {
    let folder = project();
    let said = folder.trib(&["run"]);
    assert_eq!(said.status, Some(0), "{}", said.all());
    assert!(said.all().contains("saw ann"), "{}", said.all());
    assert_eq!(query(&folder, "select customer, more from analytics.after order by customer"), "customer,more\nann,31.00\nbob,41.00\n");
    // Columns of ours are not given.
    assert_eq!(query(&folder, "select max(columns) as n from analytics.double"), "n\n2\n");
    assert!(folder.trib(&["ls", "+after"]).out.contains("double"));
    let plan = folder.trib(&["plan"]);
    assert!(plan.status == Some(0) && plan.all().contains("what it gives is known when it has run"), "{}", plan.all());

    // Another result, with another column; its tests hold as for every model.
    folder.write("models/double.py", &DOUBLE.replace("'columns': len(row)", "'sign': 'x'"));
    assert_eq!(folder.trib(&["run", "double"]).status, Some(0));
    assert_eq!(query(&folder, "select sign from analytics.double limit 1"), "sign\nx\n");
    folder.write("models/double.py", &DOUBLE.replace("row['customer'], 'twice'", "None, 'twice'"));
    let said = folder.trib(&["run", "double+"]);
    assert!(said.status == Some(4) && said.all().contains("after: left out"), "{}", said.all());
    assert_eq!(query(&folder, "select sign from analytics.double limit 1"), "sign\nx\n");
}

#[test]
fn a_script_has_unit_tests_and_requirements() {
    let folder = project();
    folder.write(
        "tests/double.yaml",
        "doubled:\n  node: double\n  given:\n    totals: [{customer: eve, total: 4}]\n  expect: [{customer: eve, twice: 8}]\n",
    );
    let arrow = "# ---
# reads: [totals]
# requirements: [pyarrow]
# ---
import sys
import pyarrow as pa, pyarrow.compute as pc
table = pa.ipc.open_stream(sys.argv[1] + '/totals.arrow').read_all()
table = table.append_column('half', pc.divide(pc.cast(table['total'], pa.float64()), 2.0))
with pa.ipc.new_stream(sys.stdout.buffer, table.schema) as out:
    out.write_table(table)
";
    folder.write("models/half.py", arrow);
    let said = folder.trib(&["run"]);
    assert_eq!(said.status, Some(0), "{}", said.all());
    assert_eq!(query(&folder, "select customer, half from analytics.half order by 1"), "customer,half\nann,7.5\nbob,10.0\n");
    let frozen: Vec<_> = folder.files().into_iter().filter(|f| f.ends_with("frozen.txt")).collect();
    assert_eq!(frozen.len(), 1);
    assert!(std::fs::read_to_string(&frozen[0]).unwrap().contains("pyarrow=="));
    let said = folder.trib(&["test", "--unit"]);
    assert!(said.status == Some(0) && said.all().contains("unit tests: 1 passed"), "{}", said.all());
}

#[test]
fn what_goes_wrong_is_said() {
    let folder = project();
    assert_eq!(folder.trib(&["run"]).status, Some(0));
    let script = |front: &str, code: &str| format!("# ---\n# reads: [totals]\n# format: json\n{front}# ---\n{code}\n");
    let cases = [
        (script("", "import sys\nsys.exit('no luck today')"), 1, "no luck today"),
        (script("", "print('done')"), 1, "nothing else may be printed there"),
        (script("", "pass"), 1, "the script has written nothing"),
        (script("# timeout: 1s\n", "import time\ntime.sleep(1000)"), 1, "raise `timeout:`"),
        (script("# materialized: view\n", "pass"), 2, "rows that have to be stored"),
        (script("# redas: []\n", "pass"), 2, "did you mean `reads`?"),
        ("# ---\n# reads: [totls]\n# ---\n".to_owned(), 2, "models/wrong.py:2:11"),
        ("# ---\n# reads: [totals]\n".to_owned(), 2, "end it with `# ---`"),
    ];
    for (text, status, said) in cases {
        folder.write("models/wrong.py", &text);
        let run = folder.trib(&["run", "wrong"]);
        assert!(
            run.status == Some(status) && run.all().contains(said),
            "{text}\nwanted {status} and {said}\n{:?} {}",
            run.status,
            run.all()
        );
        assert!(run.all().contains("models/wrong.py"), "{}", run.all());
    }
    let left: Vec<_> = folder.files().into_iter().filter(|f| f.to_string_lossy().contains("script-")).collect();
    assert!(left.is_empty(), "{left:?}");
    std::fs::remove_file(folder.path().join("models/wrong.py")).unwrap();
    let said = folder.trib(&["preview", "double"]);
    assert!(said.status == Some(2) && said.all().contains("not run for a look"), "{}", said.all());
}
