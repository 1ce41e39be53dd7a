//! What people read when something is wrong. Each is a snapshot, so that a change of words is seen.

use trib_testkit::postgres_server::PostgresServer;

use crate::trib::Folder;

const SYNC: &str = "from: shop\nstreams:\n  public.orders: {}\n";

/// What a command says that ends with this status, without what differs from run to run.
fn says(folder: &Folder, args: &[&str], status: i32) -> String {
    let said = folder.trib(args);
    assert_eq!(said.status, Some(status), "{}", said.all());
    said.all()
}

macro_rules! snapshot {
    ($name:literal, $text:expr, $folder:expr) => {
        let here = regex_escaped($folder.path().to_str().unwrap());
        insta::with_settings!({
            filters => vec![
                (here.as_str(), "DIR"),
                (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
                (r"run [0-9a-z]{14}", "run RUN"),
                (r"[0-9.]+ (s|ms)\b", "TIME"),
                (r"t_[0-9a-f]{32}", "DATABASE"),
            ],
            omit_expression => true,
        }, { insta::assert_snapshot!($name, $text); });
    };
}

fn regex_escaped(text: &str) -> String {
    text.replace('.', "\\.")
}

fn project(connections: &str, sync: &str) -> Folder {
    Folder::with(&[
        ("tributary.yaml", "name: shop\ndefaults: {sync: {retry: {attempts: 1}}}\n"),
        ("connections.yaml", connections),
        ("syncs/orders.yaml", sync),
    ])
}

#[test]
fn missing_project() {
    let folder = Folder::new();
    snapshot!("missing_project", says(&folder, &["run"], 2), folder);
}

#[test]
fn mistyped_key() {
    let folder = project("shop: {connector: sqlite, path: shop.db}\n", "from: shop\nstreams:\n  orders: {curser: updated_at}\n");
    snapshot!("mistyped_key", says(&folder, &["validate"], 2), folder);
}

#[test]
fn mistyped_setting_of_a_connector() {
    let folder = project("shop: {connector: sqlite, paht: shop.db}\n", SYNC);
    snapshot!("mistyped_setting", says(&folder, &["validate"], 2), folder);
}

#[test]
fn unknown_connector() {
    let folder = project("shop: {connector: postgress, url: x}\n", SYNC);
    snapshot!("unknown_connector", says(&folder, &["run"], 2), folder);
}

#[test]
fn sql_that_cannot_be_parsed() {
    let sync = |settings: &str| format!("from: shop\nstreams:\n  orders:\n    {settings}\n");
    let folder = project("shop: {connector: files, path: data}\n", &sync("where: n > and 1"));
    folder.write("data/orders.csv", "id,n\n1,2\n");
    let cases = [
        ("where: n > and 1", "expected the end of the expression, found `1`", "at syncs/orders.yaml:4:20"),
        ("where: 'm > 1'", "names a column that its tables do not have: m", "at syncs/orders.yaml:4:13"),
        ("sql: select n form input", "expected the end of the statement, found `input`", "at syncs/orders.yaml:4:24"),
        ("sql: |\n      select\n        m from input", "names a column that its tables do not have: m", "at syncs/orders.yaml:6:9"),
        ("where: id is distinct from n and n > 1", "the right side of `is distinct from`", "at syncs/orders.yaml:4:12"),
    ];
    for (settings, what, place) in cases {
        folder.write("syncs/orders.yaml", &sync(settings));
        for command in ["plan", "run"] {
            let said = folder.trib(&[command]);
            let text = said.all();
            assert!(said.status != Some(0) && text.contains(what) && text.contains(place), "{settings}, {command}: {text}");
            assert!(!text.contains("ParserError") && !text.contains("sql parser"), "{text}");
        }
    }
    let text = says(&folder, &["query", "select 1 whre x"], 2);
    assert!(text.contains("at SQL:1:15") && text.contains("hint: did you mean `where` where `whre` stands?"), "{text}");
}

#[test]
fn missing_secret() {
    let folder = project("shop: {connector: postgres, url: \"${SHOP_URL_THAT_IS_NOT_SET}\"}\n", SYNC);
    snapshot!("missing_secret", says(&folder, &["run"], 2), folder);
}

#[test]
fn unknown_target() {
    let folder = project("shop: {connector: sqlite, path: shop.db}\n", SYNC);
    snapshot!("unknown_target", says(&folder, &["run", "order"], 2), folder);
}

#[test]
fn unknown_url() {
    let folder = Folder::new();
    snapshot!("unknown_url", says(&folder, &["copy", "postgress://me:hunter2@h/db", "./out", "--streams", "x"], 2), folder);
}

#[test]
fn unknown_table_in_a_query() {
    let folder = Folder::with(&[("tributary.yaml", "name: shop\n")]);
    snapshot!("unknown_table_in_a_query", says(&folder, &["query", "select * from shop.orders"], 2), folder);
}

#[test]
fn unknown_host() {
    let folder = project("shop: {connector: postgres, url: \"postgres://me:hunter2@no-such-host.invalid/shop\"}\n", SYNC);
    let text = says(&folder, &["run"], 1);
    assert!(!text.contains("hunter2"), "{text}");
    snapshot!("unknown_host", text, folder);
}

#[test]
fn wrong_password() {
    let server = PostgresServer::shared().unwrap();
    let url = server.url("postgres").replace(server.password(), "hunter2");
    let folder = project(&format!("shop: {{connector: postgres, url: \"{url}\"}}\n"), SYNC);
    let text = says(&folder, &["run"], 1);
    assert!(!text.contains("hunter2"), "{text}");
    snapshot!("wrong_password", text, folder);
}

#[test]
fn nobody_listens() {
    let folder = project("shop: {connector: postgres, url: \"postgres://me@127.0.0.1:1/shop\"}\n", SYNC);
    snapshot!("nobody_listens", says(&folder, &["check", "shop"], 1), folder);
}

#[test]
fn missing_table() {
    let server = PostgresServer::shared().unwrap();
    let database = server.create_database().unwrap();
    server.sql(&database, "create table order_lines (id int primary key); create table ordres (id int primary key)").unwrap();
    let folder = project(&format!("shop: {{connector: postgres, url: \"{}\"}}\n", server.url(&database)), SYNC);
    snapshot!("missing_table", says(&folder, &["run"], 2), folder);
}

#[test]
fn errors_as_json() {
    let folder = project("shop: {connector: sqlite, path: shop.db}\n", "from: shop\nstreams:\n  orders: {curser: updated_at}\n");
    let said = folder.trib(&["validate", "--json"]);
    assert_eq!((said.status, said.out.as_str()), (Some(2), ""));
    let error: serde_json::Value = serde_json::from_str(&said.err).unwrap();
    assert_eq!(error["error"]["code"], "config_invalid");
    assert_eq!(error["error"]["place"]["file"], "syncs/orders.yaml");
    assert_eq!(error["error"]["place"]["line"], 3);
    assert_eq!(error["error"]["blame"], "user");
}
