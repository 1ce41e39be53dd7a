//! Columns, from the source through the lake and models back into a database.

use serde_json::Value;
use trib_testkit::postgres_server::PostgresServer;

use crate::trib::Folder;

const SHOP: &str = "create table orders (id integer primary key, customer integer, amount integer, note text, placed text);
    create table customers (id integer primary key, name text, mail text, land text);
    insert into orders values (1, 1, 10, 'x', '2024-01-01');
    insert into customers values (1, 'Ann', 'ann@x', 'DE');";

fn shop() -> Folder {
    let folder = Folder::with(&[
        ("tributary.yaml", "name: shop\n"),
        (
            "connections.yaml",
            "shop: {connector: sqlite, path: shop.db}\ndrop: {connector: files, path: data}\ncrm: {connector: sqlite, path: crm.db}\n",
        ),
        (
            "syncs/shop.yaml",
            "from: shop\ninto: shop.{table}\ndefaults: {read: full, write: replace}\nstreams:
  orders: {add: {net: amount - 1, region: \"'{connection}'\"}, columns: {placed: {rename: placed_on, cast: date}, note: {drop: true}}}
  customers: {sql: 'select id, upper(name) || land as name, mail from input', columns: {mail: {hash: true}}}\n",
        ),
        ("syncs/events.yaml", "from: drop\ninto: web.{table}\nstreams: {events: {nested: table, key: [id]}}\n"),
        (
            "syncs/crm.yaml",
            "from: warehouse\nto: crm\ninto: main.{table}\nstreams:\n  analytics.best: {select: [who, spent, place], columns: {who: {rename: full_name}}}\n",
        ),
        ("data/events/1.jsonl", "{\"id\": 1, \"user\": {\"name\": \"a\"}, \"items\": [{\"sku\": \"s\", \"price\": 2}]}\n"),
        ("seeds/lands.csv", "Code,Land Name\nDE,Germany\n"),
        ("models/stages/named.sql", "/*---\nmaterialized: view\n---*/\nselect id, name, mail from shop.customers"),
        (
            "models/stages/both.sql",
            "/*---\nmaterialized: ephemeral\n---*/\nselect id, amount from shop.orders union all select id, price from web.events__items i join web.events e on e.id = i._parent_id",
        ),
        (
            "models/best.sql",
            "with paid as (select customer, sum(net) as spent, max(placed_on) as last from shop.orders group by customer),
               ranked as (select p.*, rank() over (partition by last order by spent) as place from paid p)
             select n.name as who, r.spent, r.place, l.land_name from ranked r join named n on n.id = r.customer cross join lands l",
        ),
        ("models/all_amounts.sql", "select * from both"),
        ("models/said.py", "# ---\n# reads: [best]\n# format: json\n# ---\nprint('{\"word\": \"x\"}')\n"),
        ("models/heard.sql", "select word || '!' as word from said"),
    ]);
    rusqlite::Connection::open(folder.path().join("shop.db")).unwrap().execute_batch(SHOP).unwrap();
    folder
}

/// `←` and `→` edges of a column, one a line, as `from how`.
fn traced(folder: &Folder, column: &str, direction: &str) -> String {
    let said = folder.ok(&["lineage", column, "--json"]);
    let found: Value = serde_json::from_str(&said.out).unwrap();
    let end = if direction == "upstream" { "from" } else { "to" };
    let edge = |e: &Value| format!("{}.{} {}", text(&e[end]["table"]), text(&e[end]["column"]), text(&e["how"]));
    let mut edges: Vec<String> = found[0][direction].as_array().unwrap().iter().map(edge).collect();
    edges.sort();
    edges.join("\n")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn from_the_source_to_the_reverse_sync() {
    let folder = shop();
    let expected = [
        (
            "main.best.full_name",
            "upstream",
            "analytics.best.who identity\nanalytics.named.name identity\nshop.customers.name identity\n\
                 shop: customers.land transformed\nshop: customers.name transformed",
        ),
        ("main.best.spent", "upstream", "analytics.best.spent identity\nshop.orders.net aggregated\nshop: orders.amount transformed"),
        (
            "analytics.best.place",
            "upstream",
            "shop.orders.net aggregated\nshop.orders.placed_on aggregated\nshop: orders.amount transformed\nshop: orders.placed transformed",
        ),
        ("analytics.best.land_name", "upstream", "analytics.lands.land_name identity\nseeds/lands.csv.Land Name identity"),
        (
            "analytics.all_amounts.amount",
            "upstream",
            "analytics.both.amount identity\ndrop: events.items transformed\nshop.orders.amount identity\nshop: orders.amount identity\n\
                 web.events__items.price identity",
        ),
        ("web.events.user__name", "upstream", "drop: events.user transformed"),
        ("web.events__items._parent_id", "upstream", "drop: events.id identity"),
        ("shop.orders.region", "upstream", ""),
        ("shop: customers.mail", "downstream", "analytics.named.mail identity\nshop.customers.mail transformed"),
        (
            "shop: orders.placed",
            "downstream",
            "analytics.best.place aggregated\nmain.best.place identity\nshop.orders.placed_on transformed",
        ),
    ];
    // Before the first run, what is read back has no tables yet; afterwards it is the same.
    assert_eq!(traced(&folder, "analytics.best.spent", "upstream"), "shop.orders.net aggregated\nshop: orders.amount transformed");
    folder.ok(&["run"]);
    for (column, direction, edges) in expected {
        assert_eq!(traced(&folder, column, direction), edges, "{column} {direction}");
    }
    // What a script gives is traced from there on.
    assert_eq!(traced(&folder, "analytics.heard.word", "upstream"), "analytics.said.word transformed");
    let dropped = folder.trib(&["lineage", "shop.orders.note"]);
    assert_eq!(dropped.status, Some(2), "{}", dropped.all());
}

/// Its models are computed by the database, and the tables of the lake with the same names stay apart.
#[test]
fn inside_a_database() {
    let server = PostgresServer::shared().unwrap();
    let database = server.create_database().unwrap();
    server.sql(&database, "create schema app; create table app.orders (id int primary key, customer text, amount numeric(12, 2))").unwrap();
    let mut folder = Folder::with(&[
        ("tributary.yaml", "name: inside\n"),
        ("connections.yaml", "pg: {connector: postgres, url: \"${PG_URL}\"}\n"),
        ("syncs/copy.yaml", "from: pg\ninto: app.{table}\nstreams: [app.orders]\n"),
        ("models/totals.sql", "/*---\nconnection: pg\n---*/\nselect customer, sum(amount) as total from app.orders group by customer"),
        (
            "models/ranked.sql",
            "/*---\nconnection: pg\nmaterialized: view\n---*/\nselect t.*, row_number() over (order by total) as place from totals t",
        ),
        ("models/lake_totals.sql", "select sum(amount) as total from app.orders"),
    ]);
    folder.set("PG_URL", &server.url(&database));
    assert_eq!(traced(&folder, "analytics.ranked.total", "upstream"), "analytics.totals.total identity\npg: app.orders.amount aggregated");
    assert_eq!(traced(&folder, "analytics.lake_totals.total", "upstream"), "app.orders.amount aggregated\npg: app.orders.amount identity");
}
