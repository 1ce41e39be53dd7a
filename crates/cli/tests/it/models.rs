//! Models: made inside a database, killed on the way, wrong in every way that can be seen beforehand.

use std::path::Path;

use trib_testkit::postgres_server::PostgresServer;

use crate::trib::Folder;

/// The points of the load protocol, in their order.
const POINTS: [&str; 8] = ["leased", "opened", "planned", "staged", "recorded", "committed", "moved", "acknowledged"];

fn sqlite(folder: &Path, sql: &str) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(folder.join("shop.db")).unwrap();
    connection.execute_batch(sql).unwrap();
    connection
}

/// A lake with orders, and models of them that differ in what a second try could break.
fn orders() -> Folder {
    let folder = Folder::with(&[
        ("tributary.yaml", "name: models\n"),
        ("connections.yaml", "shop: {connector: sqlite, path: shop.db}\n"),
        ("syncs/shop.yaml", "from: shop\ninto: shop.{table}\nstreams:\n  orders: {read: full, write: replace}\n"),
        ("models/totals.sql", "select customer, sum(amount) as total, count(*) as orders from shop.orders group by customer"),
        (
            "models/appended.sql",
            "/*---\nmaterialized: incremental\ncursor: id\ntests: [{unique: [id]}]\n---*/\nselect id, amount from shop.orders",
        ),
        ("models/versions.sql", "/*---\nmaterialized: history\nkey: customer\n---*/\nselect customer, total from totals"),
    ]);
    sqlite(
        folder.path(),
        "create table orders (id integer primary key, customer text, amount integer);
         insert into orders values (1, 'ann', 10), (2, 'bob', 20), (3, 'ann', 5);",
    );
    folder
}

fn query(folder: &Folder, sql: &str) -> String {
    let said = folder.trib(&["query", "--format", "csv", sql]);
    assert_eq!(said.status, Some(0), "{}", said.all());
    said.out
}

#[test]
fn a_model_that_is_killed_shows_nothing_and_is_repaired() {
    let folder = orders();
    let run = folder.trib(&["run"]);
    assert_eq!(run.status, Some(0), "{}", run.all());
    let totals = "select customer, total, orders from analytics.totals order by customer";
    let appended = "select id from analytics.appended order by id";
    let versions = "select customer, total from analytics.versions where _trib_valid_to is null order by customer";
    for (i, point) in POINTS.iter().enumerate() {
        let id = 10 + i;
        sqlite(folder.path(), &format!("insert into orders values ({id}, 'ann', 1)"));
        assert_eq!(folder.trib(&["run", "shop"]).status, Some(0));
        let before = query(&folder, totals);
        for model in ["totals", "appended", "versions"] {
            let died = folder.command(&["run", model]).env("TRIB_FAULT", point).output().unwrap();
            assert!(!died.status.success(), "{model} passed {point}");
        }
        // Whole and old, or whole and new.
        let seen = query(&folder, totals);
        let after = format!("customer,total,orders\nann,{},{}\nbob,20,1\n", 16 + i, 3 + i);
        assert!(seen == before || seen == after, "{point}: {seen}");
        let again = folder.trib(&["run", "kind:model"]);
        assert_eq!(again.status, Some(0), "{point}: {}", again.all());
        assert_eq!(query(&folder, totals), after, "{point}");
        let ids: Vec<String> = [1, 2, 3].into_iter().chain(10..=id).map(|id| format!("{id}\n")).collect();
        assert_eq!(query(&folder, appended), format!("id\n{}", ids.concat()), "{point}");
        assert_eq!(query(&folder, versions), format!("customer,total\nann,{}\nbob,20\n", 16 + i), "{point}");
    }
}

#[test]
fn mistakes_are_placed_before_anything_runs() {
    let folder = orders();
    assert_eq!(folder.trib(&["run"]).status, Some(0));
    let cases = [
        ("select custmer from totals", "models/wrong.sql:1:8", "did you mean customer?"),
        ("select t.custmer\nfrom totals t", "models/wrong.sql:1:8", "did you mean customer?"),
        ("/*---\nmaterialized: view\n---*/\nselect 1 as a,\n  totl from totals", "models/wrong.sql:5:3", "did you mean total?"),
        ("select customer from total", "models/wrong.sql:1:22", "did you mean totals?"),
        ("select customer frm totals", "models/wrong.sql:1:21", ""),
        ("select total from totals\nwhere customer is distinct from 'x' and total > 1", "models/wrong.sql:2:7", "into parentheses"),
        ("select summ(total) as t from totals", "models/wrong.sql:1", "sum"),
        ("select customer + true as x from totals", "models/wrong.sql:1", ""),
        ("select sum(total) from totals", "models/wrong.sql:1", "give it one: `sum(amount) as total`"),
        ("select a.customer, b.customer from totals a, totals b", "models/wrong.sql:1", "give one of them another"),
        ("select * from wrong", "models/wrong.sql:1:1", "take one of these edges away"),
        ("/*---\nmaterialized: history\n---*/\nselect 1 as a", "models/wrong.sql", "name the columns of the result"),
        ("/*---\ncolumns: {a: {tests: [notnull]}}\n---*/\nselect 1 as a", "models/wrong.sql", "did you mean `not_null`?"),
        ("/*---\nmaterialised: view\n---*/\nselect 1 as a", "models/wrong.sql:2:1", "did you mean `materialized`?"),
    ];
    for (sql, place, hint) in cases {
        folder.write("models/wrong.sql", sql);
        let said = folder.trib(&["run", "kind:model"]);
        assert_eq!(said.status, Some(2), "{sql}\n{}", said.all());
        assert!(said.err.contains(place) && said.err.contains(hint), "{sql}\nwanted {place} and {hint}\n{}", said.all());
        assert!(!said.all().contains("succeeded"), "{sql}\n{}", said.all());
    }
}

#[test]
fn a_plan_says_what_has_changed() {
    let folder = orders();
    assert_eq!(folder.trib(&["run"]).status, Some(0));
    folder.write("models/totals.sql", "select customer, sum(amount) as sum from shop.orders group by customer");
    let said = folder.trib(&["plan", "kind:model"]);
    assert!(said.out.contains("changed since the last run; read by versions"), "{}", said.all());
    assert!(said.out.contains("column total is gone"), "{}", said.all());
    assert!(said.out.contains("a column that its tables do not have: total"), "the child's own mistake is shown\n{}", said.all());
    let modified = folder.trib(&["ls", "state:modified+"]);
    assert!(modified.out.contains("totals") && modified.out.contains("versions") && !modified.out.contains("appended"), "{}", modified.out);
}

/// Rows of models in a database never leave it, and its own tests keep what is wrong from being published.
#[test]
fn models_inside_postgres() {
    let server = PostgresServer::shared().unwrap();
    let database = server.create_database().unwrap();
    let setup = "create schema raw; create table raw.orders (id int primary key, customer text, at timestamptz, amount numeric(10, 2));
        insert into raw.orders select g, 'c' || g % 3, timestamptz '2024-03-01' + g * interval '1 hour', g from generate_series(1, 60) g";
    server.sql(&database, setup).unwrap();
    let folder = inside("postgres", &format!("url: \"{}\"", server.url(&database)), "raw.orders", "date_trunc('day', at)::date");
    let run = folder.trib(&["run"]);
    assert_eq!(run.status, Some(0), "{}", run.all());
    let rows = |sql: &str| server.sql(&database, sql).unwrap().trim().to_owned();
    assert_eq!(
        rows("select string_agg(customer || ' ' || total, ', ' order by customer) from marts.totals"),
        "c0 630.00, c1 590.00, c2 610.00"
    );
    assert_eq!(rows("select pg_get_viewdef('marts.big'::regclass) like '%marts.totals%'"), "t");
    assert_eq!(rows("select data_type from information_schema.columns where table_name = 'totals' and column_name = 'total'"), "numeric");
    assert_eq!(rows("select count(*) || ' ' || sum(orders) from marts.daily"), "3 60");

    server.sql(&database, "insert into raw.orders values (61, 'c1', '2024-03-03 20:00+00', 1), (62, 'c1', '2024-03-09', 1)").unwrap();
    assert_eq!(folder.trib(&["run"]).status, Some(0));
    assert_eq!(rows("select count(*) || ' ' || sum(orders) from marts.daily"), "4 62");
    assert_eq!(rows("select count(*) from marts.daily d join marts.daily e using (_trib_load_id) where d.day = '2024-03-01'"), "2");

    // The blocking test sees the staged rows, and the table stays.
    server.sql(&database, "insert into raw.orders values (63, null, '2024-03-09', 1)").unwrap();
    let said = folder.trib(&["run"]);
    assert!(said.status == Some(4) && said.all().contains("not_null(customer)") && said.all().contains("not published"), "{}", said.all());
    assert_eq!(rows("select count(*) from marts.totals"), "3");
    assert!(said.all().contains("big: left out"), "{}", said.all());

    for point in POINTS {
        server.sql(&database, "delete from raw.orders where customer is null; insert into raw.orders select max(id) + 1, 'c0', '2024-03-10', 1 from raw.orders").unwrap();
        let died = folder.command(&["run", "totals"]).env("TRIB_FAULT", point).output().unwrap();
        assert!(!died.status.success(), "totals passed {point}");
        assert_eq!(rows("select count(*) from marts.totals"), "3", "{point}");
        assert_eq!(folder.trib(&["run", "totals"]).status, Some(0));
        let (made, wanted) = ("select sum(total) from marts.totals", "select sum(amount) from raw.orders");
        assert_eq!(rows(made), rows(wanted), "{point}");
    }
}

#[test]
fn models_inside_sqlite() {
    let folder = inside("sqlite", "path: shop.db", "orders", "date(at)");
    let hours: String = (1..=60).map(|g| format!("({g}, 'c{}', datetime('2024-03-01', '+{g} hours'), {g}),", g % 3)).collect();
    let made = format!(
        "create table orders (id integer primary key, customer text, at timestamp, amount decimal(10, 2)); insert into orders values {};",
        hours.trim_end_matches(',')
    );
    let connection = sqlite(folder.path(), &made);
    let run = folder.trib(&["run"]);
    assert_eq!(run.status, Some(0), "{}", run.all());
    let row = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(
        row("select group_concat(customer || ' ' || total, ', ') from (select * from marts__totals order by 1)"),
        "c0 630, c1 590, c2 610"
    );
    assert_eq!(row("select type from sqlite_schema where name = 'marts__big'"), "view");
    assert_eq!(row("select count(*) || ' ' || sum(orders) from marts__daily"), "3 60");
    connection
        .execute_batch("insert into orders values (61, 'c1', '2024-03-03 20:00:00', 1), (62, 'c1', '2024-03-09 00:00:00', 1)")
        .unwrap();
    assert_eq!(folder.trib(&["run"]).status, Some(0));
    assert_eq!(row("select count(*) || ' ' || sum(orders) from marts__daily"), "4 62");
    // Asked after publishing: SQLite's staged rows lie in a file of their own.
    connection.execute_batch("insert into orders values (63, null, '2024-03-09 00:00:00', 1)").unwrap();
    let said = folder.trib(&["run"]);
    assert!(said.all().contains("not_null(customer)") && said.all().contains("big: left out"), "{}", said.all());
    let left: Vec<_> = folder.files().into_iter().filter(|f| f.to_string_lossy().contains("-trib-")).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Mistakes in models that a database computes, found before anything runs: the place, and the suggestion.
fn mistakes_inside(folder: &Folder, orders: &str, clash: Option<&str>) {
    let sql = |select: &str, from: &str| format!("select {select}\nfrom {from}");
    let mut cases = vec![
        (sql("custmer", orders), "models/wrong.sql:1:8", "did you mean customer?"),
        (sql("o.custmer", &format!("{orders} o")), "models/wrong.sql:1:8", "did you mean customer?"),
        (sql("totl as t", "totals"), "models/wrong.sql:1:8", "did you mean total?"),
        (sql("total", "totls"), "models/wrong.sql:2:6", "did you mean totals?"),
        (sql("summ(amount) as t", orders), "models/wrong.sql:1:8", ""),
        (sql("customer", "wrong"), "models/wrong.sql:1:1", "take one of these edges away"),
        (sql("a.customer, b.customer", "totals a, totals b"), "models/wrong.sql:1", "give one of them another"),
        (sql("customer frm", &format!("{orders} group")), "models/wrong.sql", ""),
    ];
    cases.extend(clash.map(|select| (sql(select, orders), "models/wrong.sql:1", "")));
    for (text, place, hint) in cases {
        folder.write("models/wrong.sql", &text);
        let said = folder.trib(&["run", "kind:model"]);
        assert_eq!(said.status, Some(2), "{text}\n{}", said.all());
        assert!(said.err.contains(place) && said.err.contains(hint), "{text}\nwanted {place} and {hint}\n{}", said.all());
        assert!(!said.all().contains("succeeded"), "{text}\n{}", said.all());
    }
}

#[test]
fn mistakes_inside_sqlite_are_placed_before_anything_runs() {
    let folder = inside("sqlite", "path: shop.db", "orders", "date(at)");
    sqlite(folder.path(), "create table orders (id integer primary key, customer text, at timestamp, amount decimal(10, 2))");
    mistakes_inside(&folder, "orders", None);
}

#[test]
fn mistakes_inside_postgres_are_placed_before_anything_runs() {
    let server = PostgresServer::shared().unwrap();
    let database = server.create_database().unwrap();
    server
        .sql(&database, "create schema raw; create table raw.orders (id int primary key, customer text, at timestamptz, amount numeric)")
        .unwrap();
    let folder = inside("postgres", &format!("url: \"{}\"", server.url(&database)), "raw.orders", "date_trunc('day', at)::date");
    mistakes_inside(&folder, "raw.orders", Some("customer + true as x"));
}

/// Models of one connection that is source and destination.
fn inside(connector: &str, settings: &str, orders: &str, day: &str) -> Folder {
    Folder::with(&[
        ("tributary.yaml", "name: inside\ndefaults: {model: {connection: db, schema: marts}}\n"),
        ("connections.yaml", &format!("db: {{connector: {connector}, {settings}}}\n")),
        ("models/orders_of_people.sql", &format!("/*---\nmaterialized: ephemeral\n---*/\nselect * from {orders}")),
        (
            "models/totals.sql",
            "/*---\ncolumns: {customer: {tests: [not_null, unique]}, total: {tests: [{range: {min: 0}}]}}\n---*/
             select customer, sum(amount) as total from orders_of_people group by customer",
        ),
        ("models/big.sql", "/*---\nmaterialized: view\n---*/\nselect totals.customer from totals where total > 600"),
        (
            "models/daily.sql",
            &format!(
                "/*---\nmaterialized: incremental\nkey: day\ncursor: day\n---*/\nselect {day} as day, count(*) as orders from {orders} group by 1"
            ),
        ),
    ])
}

/// Every table that is loaded has columns of ours; whoever takes all columns of one means its own.
#[test]
fn a_star_does_not_bring_our_columns() {
    let folder = orders();
    folder.write("models/staged.sql", "select * from shop.orders");
    folder.write("models/both.sql", "select o.*, v.* from shop.orders as o join versions as v on v.customer = o.customer || 'x' or true where v._trib_valid_to is null and o.id = 1 and v.customer = 'bob'");
    folder.write("models/times.sql", "select id, _trib_loaded_at as loaded_at from shop.orders");
    folder.write("models/made.sql", "/*---\nconnection: shop\n---*/\nselect id, amount * 2 as double from orders");
    folder.write("models/again.sql", "/*---\nconnection: shop\n---*/\nselect m.* from made as m");
    let run = folder.trib(&["run"]);
    assert!(run.all().contains("two columns of the model have one name"), "{}", run.all());
    folder.write("models/both.sql", "select o.*, v.total from shop.orders as o cross join versions as v where v._trib_valid_to is null and o.id = 1 and v.customer = 'bob'");
    let run = folder.trib(&["run"]);
    assert_eq!(run.status, Some(0), "{}", run.all());
    assert_eq!(
        query(&folder, "select id, customer, amount from analytics.staged order by id"),
        "id,customer,amount\n1,ann,10\n2,bob,20\n3,ann,5\n"
    );
    assert_eq!(query(&folder, "select id, total from analytics.both"), "id,total\n1,20\n");
    assert_eq!(query(&folder, "select count(loaded_at) as n from analytics.times"), "n\n3\n");
    let inside = folder.trib(&["query", "-c", "shop", "--format", "csv", "select sum(double) as n from analytics__again"]);
    assert_eq!(inside.out, "n\n70\n", "{}", inside.all());
    // Asked for by name, it would stand beside the table's own.
    folder.write("models/times.sql", "select id, _trib_loaded_at from shop.orders");
    let refused = folder.trib(&["run", "times"]);
    assert!(refused.all().contains("kept for Tributary's own") && refused.status == Some(2), "{}", refused.all());
}
