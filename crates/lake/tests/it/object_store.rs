//! The same on an S3 server.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use trib_core::load::TableLoad;
use trib_core::{Code, Destination, Lease, Load, LoadId, WriteMode};
use trib_testkit::http_fault::{Fate, HttpProxy};

use crate::harness::{Bench, counts, table};
use crate::python::python;

/// An S3 server with one bucket, for as long as the value lives.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start() -> Self {
        let python = python();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(python.with_file_name("moto_server"));
        let process = command.args(["-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let server = Self { process, port };
        let deadline = Instant::now() + Duration::from_mins(2);
        while !server.put_bucket() {
            assert!(Instant::now() < deadline, "the S3 server does not answer");
            std::thread::yield_now();
        }
        server
    }

    fn put_bucket(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else {
            return false;
        };
        let head = "PUT /bucket HTTP/1.1\r\nHost: localhost\r\nAuthorization: AWS4-HMAC-SHA256 Credential=k/20250101/us-east-1/s3/aws4_request, \
                    SignedHeaders=host, Signature=0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let mut answer = String::new();
        stream.write_all(head.as_bytes()).and_then(|()| stream.read_to_string(&mut answer)).is_ok() && answer.contains(" 200 ")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn settings(port: u16) -> Value {
    json!({
        "path": "s3://bucket/some lake",
        "storage": {
            "aws_access_key_id": "k", "aws_secret_access_key": "s", "aws_region": "us-east-1", "aws_allow_http": "true",
            "aws_endpoint": format!("http://127.0.0.1:{port}"),
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn loads_into_s3() {
    let server = Server::start();
    let bench = Bench::with(settings(server.port)).await;
    bench.lake.check().await.unwrap();
    let table = table(WriteMode::Upsert);
    assert_eq!(bench.rows(&table, &[(1, "a"), (2, "b")]).await, (2, 0, 0));
    assert_eq!(bench.rows(&table, &[(2, "B"), (3, "c")]).await, (1, 1, 0));
    assert_eq!(bench.content().await, ["1=a", "2=B", "3=c"]);

    // Conditional writes decide between rivals here too.
    let receipt = bench.stage(&table, vec![bench.batch(&table, &[(4, "d")], None)]).await;
    let ours = bench.load(vec![TableLoad { table: table.clone(), changes: vec![], receipts: vec![receipt.clone()] }]);
    let theirs = Load { id: LoadId("rival".into()), ..ours.clone() };
    let (one, other) = tokio::join!(bench.lake.commit(&ours, &bench.lease), bench.lake.commit(&theirs, &bench.lease));
    let (won, lost) = if one.is_ok() { (one, other) } else { (other, one) };
    assert_eq!(counts(&won.unwrap()), (1, 0, 0));
    assert_eq!(lost.unwrap_err().code(), Code::LeaseLost);

    let next = Lease { generation: 2, ..bench.lease.clone() };
    assert_eq!(bench.lake.open(&next, &[]).await.unwrap()[0].number, 3);
    assert_eq!(bench.lake.open(&bench.lease, &[]).await.unwrap_err().code(), Code::LeaseLost);
    bench.lake.sweep(&next, &[]).await.unwrap();
    assert_eq!(bench.lake.maintain(&table.name, Duration::ZERO).await.unwrap().split(';').next(), Some("3 files became 1"));
    assert_eq!(bench.content().await, ["1=a", "2=B", "3=c", "4=d"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_was_lost_keeps_its_files() {
    let server = Server::start();
    let lost = Arc::new(AtomicU32::new(0));
    let counted = lost.clone();
    // Each entry of a table's log is written, and said not to be: the client tries again, and finds its own.
    let proxy = HttpProxy::start(([127, 0, 0, 1], server.port).into(), move |head| {
        let entry = head.starts_with("PUT ") && head.contains("/_delta_log/") && head.to_lowercase().contains("if-none-match");
        // The second attempt at the same entry gets the server's own answer.
        if entry && counted.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) { Fate::Lost } else { Fate::Passed }
    })
    .await
    .unwrap();
    let bench = Bench::with(settings(proxy.address().port())).await;
    let table = table(WriteMode::Upsert);
    assert_eq!(bench.rows(&table, &[(1, "a"), (2, "b")]).await, (2, 0, 0));
    assert_eq!(bench.rows(&table, &[(2, "B"), (3, "c")]).await, (1, 1, 0));
    assert_eq!(bench.content().await, ["1=a", "2=B", "3=c"]);
    assert_eq!(bench.lake.maintain(&table.name, Duration::ZERO).await.unwrap().split(';').next(), Some("2 files became 1"));
    assert_eq!(bench.content().await, ["1=a", "2=B", "3=c"]);
    assert_eq!(lost.load(Ordering::SeqCst), 6, "each of three entries was written twice");
}
