//! Data tests that compare a table with what it was in earlier runs.

use crate::trib::Folder;

/// The same in the lake, before rows are published, and inside a database that is asked afterwards.
#[test]
fn counts_and_spreads_are_held_against_earlier_runs() {
    for connection in ["warehouse", "db"] {
        let folder = Folder::with(&[
            ("tributary.yaml", "name: back\n"),
            ("connections.yaml", "db: {connector: sqlite, path: db.db}\n"),
            (
                "models/copied.sql",
                &format!(
                    "/*---\nconnection: {connection}\ntests: [{{row_count: {{usual: 20%}}}}]\ncolumns:\n  country: {{tests: [{{drift: {{max: 0.15}}, where: id > 0}}]}}\n  amount: {{tests: [{{drift: {{max: 25%, runs: 5}}}}]}}\n---*/\nselect id, country, amount from {}",
                    if connection == "db" { "orders" } else { "db.orders" }
                ),
            ),
        ]);
        let database = rusqlite::Connection::open(folder.path().join("db.db")).unwrap();
        let fill = |rows: u32, german: u32, amount: &str| {
            let sql = format!(
                "drop table if exists orders; create table orders (id integer primary key, country text, amount integer);
                 with recursive n(i) as (select 1 union all select i + 1 from n where i < {rows})
                 insert into orders select i, case when i % 10 < {german} then 'DE' else 'US' end, {amount} from n"
            );
            database.execute_batch(&sql).unwrap();
        };
        let statuses = |test: &str| folder.query("warehouse", &format!("select status from _trib.tests where test = '{test}' order by id"));
        for rows in [200, 210, 190] {
            fill(rows, 5, "i % 200");
            folder.ok(&["run"]);
        }
        fill(205, 6, "(i * 7) % 200");
        folder.ok(&["run"]);
        assert_eq!(statuses("drift(country)"), "passed;passed;passed;passed", "{connection}: a tenth may move");

        let failing = |test: &str, shown: &[&str]| {
            let said = folder.trib(&["run"]);
            assert_eq!(said.status, Some(4), "{connection}, {test}: {}", said.all());
            for part in shown {
                assert!(said.all().contains(part), "{connection}, {test}: {part} is missing in {}", said.all());
            }
        };
        fill(120, 5, "i % 200");
        failing("row_count(usual)", &["row_count(usual)", "usual", "120"]);
        fill(200, 9, "i % 200");
        failing("drift(country)", &["drift(country)", "DE", "90."]);
        fill(200, 5, "i % 20");
        failing("drift(amount)", &["drift(amount)", "value"]);
        // What was wrong is nothing to compare with.
        fill(205, 5, "i % 200");
        folder.ok(&["run"]);
        let asked = folder.ok(&["test", "--data"]);
        assert!(asked.out.contains("tests: 3 passed"), "{connection}: {}", asked.out);
        assert_eq!(
            folder.query("warehouse", "select measured from _trib.tests where test = 'row_count(usual)' order by id limit 1"),
            "200"
        );
    }
}
