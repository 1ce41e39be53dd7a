//! A password appears nowhere: not in what any command says, not in the control database, not in any file that is written.

use std::fs;

use trib_testkit::postgres_server::PostgresServer;

use crate::trib::Folder;

const PASSWORD: &str = "pl4nted-s3cret";

#[test]
fn a_planted_password_stays_where_it_is() {
    let server = PostgresServer::shared().unwrap();
    let database = server.create_database().unwrap();
    let role = format!("r_{}", &database[2..12]);
    let setup = format!(
        "create role {role} login superuser password '{PASSWORD}';
         create table orders (id int primary key, updated_at timestamptz default now());
         insert into orders select generate_series(1, 5)"
    );
    server.sql(&database, &setup).unwrap();
    let url = server.url(&database).replace(&format!("trib:{}", server.password()), &format!("{role}:{PASSWORD}"));
    assert!(url.contains(PASSWORD));
    let wrong = url.replace(PASSWORD, &format!("{PASSWORD}x"));

    let mut folder = Folder::with(&[
        ("tributary.yaml", "name: shop\ndefaults: {sync: {retry: {attempts: 1}}}\n"),
        ("connections.yaml", "shop: {connector: postgres, url: \"${SHOP_URL}\"}\nwrong: {connector: postgres, url: \"${WRONG_URL}\"}\n"),
        ("syncs/orders.yaml", "from: shop\nstreams:\n  public.orders: {read: incremental, cursor: updated_at, write: upsert}\n"),
        ("syncs/back.yaml", "from: warehouse\nto: shop\ninto: back.{table}\nstreams: [shop.orders]\n"),
        ("syncs/wrong.yaml", "from: wrong\nstreams: [public.orders]\n"),
    ]);
    folder.set("SHOP_URL", &url);
    folder.set("WRONG_URL", &wrong);

    let unparsable = format!("postgres://{role}:{PASSWORD}@127.0.0.1:notaport/x");
    let commands: &[&[&str]] = &[
        &["validate"],
        &["check"],
        &["check", "wrong"],
        &["discover", "shop"],
        &["discover", "shop", "public.orders", "--sample"],
        &["ls"],
        &["plan"],
        &["run", "orders"],
        &["run", "wrong"],
        &["run", "--verbose"],
        &["run", "--full-refresh"],
        &["preview", "orders/public.orders"],
        &["query", "select * from _trib.logs"],
        &["query", "-c", "shop", "select * from orders"],
        &["query", "-c", "shop", "select nonsense"],
        &["query", "-c", "wrong", "select 1"],
        &["state", "get"],
        &["runs"],
        &["logs"],
        &["status"],
        &["connectors", "show", "postgres"],
        &["copy", &url, "./out", "--streams", "orders", "--format", "csv"],
        &["copy", &url, &url, "--streams", "orders", "--schema", "copied"],
        &["copy", &wrong, "./out", "--streams", "orders"],
        &["copy", "./out/orders.csv", &wrong],
        &["copy", &unparsable, "./out", "--streams", "orders"],
    ];
    for args in commands {
        for json in [false, true] {
            let mut args = args.to_vec();
            args.extend(json.then_some("--json"));
            let said = folder.trib(&args).all();
            assert!(!said.contains(PASSWORD), "trib {}: {said}", args.join(" "));
        }
    }
    let mut looked_at = 0;
    for file in folder.files() {
        let bytes = fs::read(&file).unwrap();
        looked_at += 1;
        let found = bytes.windows(PASSWORD.len()).any(|w| w == PASSWORD.as_bytes());
        assert!(!found, "{}", file.display());
    }
    assert!(looked_at > 10, "{looked_at} files");
}
