//! Models that read tables of several connections.

use trib_testkit::postgres_server::PostgresServer;

use crate::trib::Folder;

/// Orders in the lake, accounts in SQLite, contracts in PostgreSQL.
fn project(extra: &str) -> Folder {
    let folder = Folder::with(&[
        ("tributary.yaml", "name: across\n"),
        ("connections.yaml", &format!("files: {{connector: files, path: data}}\ncrm: {{connector: sqlite, path: crm.db}}\n{extra}")),
        ("data/orders.csv", "id,account,amount\n1,1,10\n2,1,5\n3,2,7\n4,9,1\n"),
        ("syncs/shop.yaml", "from: files\ninto: shop.orders\nstreams:\n  orders: {read: full, write: replace}\n"),
    ]);
    crm(&folder)
        .execute_batch(
            "create table accounts (id integer primary key, name text, seats integer, opened timestamp);
             insert into accounts values (1, 'Ann', 3, '2024-01-05 10:00:00'), (2, 'Bob', 1, '2024-02-01T00:00:00'), (9, 'Old', 'oops', '2019-01-01 00:00:00');",
        )
        .unwrap();
    folder
}

fn crm(folder: &Folder) -> rusqlite::Connection {
    rusqlite::Connection::open(folder.path().join("crm.db")).unwrap()
}

/// The account of 2019 has seats that cannot be read: a query fails that looks at them, and only that.
#[test]
fn only_what_a_query_needs_is_read_from_the_other_system() {
    let folder = project("");
    let model = |columns: &str, condition: &str| {
        let sql = format!(
            "select {columns}, sum(o.amount) as total from crm.accounts a join shop.orders o on o.account = a.id {condition} group by 1"
        );
        folder.write("models/totals.sql", &sql);
    };
    let rows = || folder.query("warehouse", "select who, total from analytics.totals order by 1");
    model("a.name as who", "");
    folder.ok(&["run"]);
    assert_eq!(rows(), "Ann,15;Bob,7;Old,1", "a column that is not named is not read");
    let failing = |condition: &str| {
        model("a.name || ' ' || a.seats as who", condition);
        let said = folder.trib(&["run", "totals"]);
        assert_eq!(said.status, Some(1), "{}", said.all());
        for part in ["a row cannot be read", "connection crm", "stream accounts", "sync the stream into a table"] {
            assert!(said.all().contains(part), "{part} is missing in {}", said.all());
        }
    };
    failing("");
    failing("where a.name <> 'Old'");
    let conditions =
        ["where a.id < 5", "where a.id in (1, 2)", "where a.name = 'Ann' or a.name = 'Bob'", "where a.opened >= '2024-01-05 09:00:00'"];
    for condition in conditions {
        model("a.name || ' ' || a.seats as who", condition);
        folder.ok(&["run", "totals"]);
        assert_eq!(rows(), "Ann 3,15;Bob 1,7", "{condition}");
    }
    model("a.name || ' ' || a.seats as who", "where a.opened >= '2024-01-05 12:00:00'");
    folder.ok(&["run", "totals"]);
    assert_eq!(rows(), "Bob 1,7", "the query's own condition counts");
    assert_eq!(folder.ok(&["query", "--format", "csv", "select count(*) as n from crm.accounts"]).out, "n\n3\n");
}

#[test]
fn a_model_in_postgres_reads_the_lake_and_sqlite() {
    let server = PostgresServer::shared().unwrap();
    let database = server.create_database().unwrap();
    // More tables than connections: each read must end for the next one to begin.
    let folder = project(&format!("db: {{connector: postgres, threads: 1, url: \"{}\"}}\n", server.url(&database)));
    let setup = "create schema legal; create table legal.contracts (account int primary key, state text, signed date);
        insert into legal.contracts select g, case when g % 2 = 1 then 'signed' else 'open' end, date '2024-01-01' + g from generate_series(1, 30000) g;
        create table legal.terms as select account, account * 2 as days from legal.contracts";
    server.sql(&database, setup).unwrap();
    folder.write("models/spending.sql", "select account, sum(amount) as total from shop.orders group by account");
    folder.write(
        "models/signed.sql",
        "/*---\nconnection: db\nschema: marts\ntests: [{row_count: {min: 1}}]\n---*/
         select a.name, s.total, c.signed, t.days
         from spending s join crm.accounts a on a.id = s.account
         join legal.contracts c on c.account = s.account join db.legal.terms t on t.account = c.account
         where c.state = 'signed' and c.signed < date '2024-01-05'",
    );
    folder.write("models/names.sql", "/*---\nconnection: db\nschema: marts\n---*/\nselect upper(name) as name from marts.signed");
    let listed = folder.ok(&["ls", "+names"]).out;
    assert!(["names", "signed", "spending", "shop"].iter().all(|node| listed.contains(node)), "{listed}");
    folder.ok(&["run"]);
    let rows = |sql: &str| server.sql(&database, sql).unwrap().trim().to_owned();
    assert_eq!(rows("select name || ' ' || total || ' ' || signed || ' ' || days from marts.signed"), "Ann 15 2024-01-02 2");
    assert_eq!(rows("select name from marts.names"), "ANN");
    // And the other way: the lake reads the database, by the names that its models have.
    folder.write("models/back.sql", "select n.name, t.days from names n, db.legal.terms t where t.account = 7");
    folder.ok(&["run", "back"]);
    assert_eq!(folder.query("warehouse", "select name, days from analytics.back"), "ANN,14");
    let traced = folder.ok(&["lineage", "analytics.back.days"]).out;
    assert!(traced.contains("db: legal.terms.days"), "{traced}");

    folder.write("tests/back.yaml", "seven:\n  node: back\n  given:\n    names: [{name: BO}]\n    db.legal.terms: [{account: 7, days: 1}, {account: 8, days: 2}]\n  expect: [{name: BO, days: 1}]\n");
    assert!(folder.ok(&["test", "--unit"]).out.contains("unit tests: 1 passed"));
}

#[test]
fn mistakes_about_other_connections_are_found_first() {
    let folder = project("hub: {connector: github, repositories: [a/b]}\ndb: {connector: sqlite, path: other.db}\n");
    crm(&folder).execute_batch("create table other (id integer primary key)").unwrap();
    let cases = [
        ("select 1 as a\nfrom crm.acounts", "models/wrong.sql:2:6", "did you mean accounts?"),
        ("select nam\nfrom crm.accounts", "models/wrong.sql:1:8", "did you mean name?"),
        ("select 1 as a from cmr.main.accounts", "models/wrong.sql:1:20", "did you mean `crm`?"),
        ("/*---\nmaterialized: view\nconnection: db\n---*/\nselect name from crm.accounts", "models/wrong.sql", "make it a `table`"),
    ];
    for (sql, place, hint) in cases {
        folder.write("models/wrong.sql", sql);
        let said = folder.trib(&["run", "wrong"]);
        assert_eq!(said.status, Some(2), "{sql}\n{}", said.all());
        assert!(said.err.contains(place) && said.err.contains(hint), "{sql}\nwanted {place} and {hint}\n{}", said.all());
    }
}
