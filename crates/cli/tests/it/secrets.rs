//! A password appears nowhere: not in what any command says, not in the control database, not in any file that is written.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Stdio;

use trib_testkit::postgres_server::PostgresServer;

use crate::trib::Folder;

const PASSWORD: &str = "pl4nted-s3cret";

/// Whoever lists the machine's processes does not see it either, neither in ours nor in those that it starts.
#[test]
fn processes_do_not_show_it() {
    let server = PostgresServer::shared().unwrap();
    let database = server.create_database().unwrap();
    server.sql(&database, "create view slow as select g as id, pg_sleep(0.2)::text as waited from generate_series(1, 1000) g").unwrap();
    let mut folder = Folder::with(&[
        ("tributary.yaml", "name: slow\n"),
        ("connections.yaml", "shop: {connector: postgres, url: \"${SHOP_URL}\"}\n"),
        ("syncs/slow.yaml", "from: shop\nstreams: [public.slow]\n"),
    ]);
    folder.set("SHOP_URL", &server.url(&database));
    let mut child = folder.command(&["run", "--quiet"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let running = "select count(*) from pg_stat_activity where query like '%slow%' and pid <> pg_backend_pid()";
    while server.sql(&database, running).unwrap() == "0" {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // What `ps` shows.
    let pid = child.id().to_string();
    let shown = |process: &str| fs::read(format!("/proc/{process}/cmdline")).map(|line| String::from_utf8_lossy(&line).into_owned());
    let parent =
        |process: &str| fs::read_to_string(format!("/proc/{process}/stat")).ok()?.rsplit_once(") ")?.1.split(' ').nth(1).map(str::to_owned);
    let all = fs::read_dir("/proc").unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let ours: Vec<String> = all.filter(|p| *p == pid || parent(p).as_ref() == Some(&pid)).filter_map(|p| shown(&p).ok()).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(ours.iter().any(|line| line.contains("run")), "{ours:?}");
    assert!(ours.iter().all(|line| !line.contains(server.password())), "{ours:?}");
}

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
        &["lineage", "shop.orders"],
        &["docs"],
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

/// A server that answers each request with this status, for as long as the test runs. Gives its port.
fn refusing(status: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(mut client) = client else { continue };
            let mut lines = BufReader::new(client.try_clone().unwrap()).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            // A client that is gone needs no answer.
            let _ = client.write_all(format!("HTTP/1.1 {status} -\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").as_bytes());
        }
    });
    port
}

#[test]
fn no_part_of_a_url_gives_a_secret_away() {
    let postgres = PostgresServer::shared().unwrap();
    let (port, missing, denied) = (postgres.port(), refusing(404), refusing(401));
    let mut folder = Folder::with(&[("in.csv", "id\n1\n")]);
    folder.set("AWS_ENDPOINT", &format!("http://127.0.0.1:{missing}"));
    folder.set("AWS_ALLOW_HTTP", "true");
    folder.set("AWS_ACCESS_KEY_ID", "key");
    folder.set("AWS_SECRET_ACCESS_KEY", PASSWORD);
    // The port 1 refuses.
    let urls = [
        format!("postgres://trib:{PASSWORD}@127.0.0.1:{port}/nowhere"),
        format!("postgres://trib@127.0.0.1:{port}/nowhere?password={PASSWORD}"),
        format!("postgres://trib:{PASSWORD}@127.0.0.1:1/nowhere"),
        format!("postgres://trib:p@127.0.0.1:{port}/nowhere?sslmode={PASSWORD}"),
        format!("http://{PASSWORD}:{PASSWORD}@127.0.0.1:{missing}/x.csv?token={PASSWORD}"),
        format!("http://{PASSWORD}@127.0.0.1:{denied}/x.csv"),
        format!("http://{PASSWORD}@127.0.0.1:1/x.csv?sig={PASSWORD}"),
        format!("s3://{PASSWORD}@bucket/x.csv"),
        format!("s3://key:{PASSWORD}@bucket/x.csv"),
        format!("s3://bucket/x.csv?secret={PASSWORD}"),
        format!("gs://{PASSWORD}@bucket/x.csv"),
        format!("abfss://container:{PASSWORD}@account.dfs.core.windows.net/x.csv"),
        format!("nosuch://me:{PASSWORD}@host/x?key={PASSWORD}"),
    ];
    for url in &urls {
        for (from, to) in [(url.as_str(), "./out"), ("in.csv", url.as_str())] {
            if to.contains(":1/") {
                // A destination that refuses is asked again, with pauses.
                continue;
            }
            for json in [false, true] {
                let mut args = vec!["copy", from, to, "--verbose"];
                args.extend(json.then_some("--json"));
                let said = folder.trib(&args);
                let name = url.replace(PASSWORD, "…");
                assert_ne!(said.status, Some(0), "{name}");
                assert!(!said.all().contains(PASSWORD), "{name}: {}", said.all());
            }
        }
    }
    for file in folder.files() {
        let bytes = fs::read(&file).unwrap();
        assert!(!bytes.windows(PASSWORD.len()).any(|w| w == PASSWORD.as_bytes()), "{}", file.display());
    }
}
