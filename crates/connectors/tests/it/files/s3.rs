//! An object store, by a real server (`moto`, from PyPI) that talks S3. Where Python cannot install it, the tests say so and pass.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use serde_json::{Value, json};
use tempfile::TempDir;
use trib_core::{Code, State, TableName};
use trib_testkit::http_fault::{Fate, HttpProxy};
use trib_testkit::{conformance, emit};

use super::Folder;

struct Server {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn environment() -> Option<PathBuf> {
    trib_testkit::python_venv::bin("s3", &["moto[server,s3]"]).ok().map(|bin| bin.join("moto_server"))
}

fn serve() -> Option<Server> {
    let Some(program) = environment() else {
        #[allow(clippy::print_stderr)]
        {
            eprintln!("moto cannot be installed: nothing is tested against an object store");
        }
        return None;
    };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(program)
        .args(["-H", "127.0.0.1", "-p", &port.to_string()])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It says when it listens.
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut lines = lines.map_while(Result::ok);
    assert!(lines.any(|line| line.contains("Running on")), "the server has not started");
    std::thread::spawn(move || lines.for_each(drop));
    let server = Server { child, port, _folder: folder };
    let made = Command::new("python3")
        .arg("-c")
        .arg(format!("import urllib.request as u; u.urlopen(u.Request('http://127.0.0.1:{port}/bucket', method='PUT'))"))
        .status()
        .unwrap();
    assert!(made.success());
    Some(server)
}

fn settings(server: &Server, path: &str, format: &str) -> Value {
    settings_at(server.port, path, format)
}

fn settings_at(port: u16, path: &str, format: &str) -> Value {
    json!({
        "path": path,
        "format": format,
        "storage": {
            "aws_access_key_id": "test",
            "aws_secret_access_key": "hunter2",
            "aws_region": "us-east-1",
            "endpoint": format!("http://127.0.0.1:{port}"),
            "allow_http": "true",
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_store_conforms() {
    let Some(server) = serve() else { return };
    let folder = Folder::new();
    let server = Arc::new(server);
    let all = settings(&server, "s3://bucket/out", "parquet");
    let reader = settings(&server, "s3://bucket/out", "parquet");
    let read = |table: TableName| {
        let source = folder.source(&reader);
        async move {
            match source.discover(&[]).await {
                Ok(_) => conformance::read_by(source, table).await,
                Err(e) if e.code() == Code::NotFound => Vec::new(),
                Err(e) => panic!("{e:?}"),
            }
        }
    };
    conformance::destination(|| folder.destination(&all), read).await;

    let text = settings(&server, "s3://bucket/text", "jsonl");
    conformance::source(
        || folder.source(&text),
        |table, rows| conformance::filled_by(folder.destination(&text), folder.source(&text), table, rows),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_a_store_say_what_to_do_and_no_secret() {
    let Some(server) = serve() else { return };
    let folder = Folder::new();
    for (path, code) in [("s3://bucket/none.csv", Code::NotFound), ("s3://nobucket/x.csv", Code::NotFound)] {
        let e = folder.source(&settings(&server, path, "csv")).discover(&[]).await.unwrap_err();
        assert_eq!(e.code(), code, "{path}: {e:?}");
        assert!(!format!("{e:?}").contains("hunter2"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_the_store_will_not_copy_is_carried() {
    let Some(server) = serve() else { return };
    let folder = Folder::new();
    let refused = Arc::new(AtomicU32::new(0));
    let counted = refused.clone();
    // What S3 answers when the file is larger than 5 GB.
    const TOO_LARGE: &str = "<Error><Code>InvalidRequest</Code><Message>The specified copy source is larger than the maximum allowable size \
                             for a copy source: 5368709120</Message></Error>";
    let proxy = HttpProxy::start(([127, 0, 0, 1], server.port).into(), move |head| {
        if !head.to_lowercase().contains("x-amz-copy-source") {
            return Fate::Passed;
        }
        counted.fetch_add(1, Ordering::SeqCst);
        Fate::Refused(400, TOO_LARGE)
    })
    .await
    .unwrap();
    let through = settings_at(proxy.address().port(), "s3://bucket/large", "parquet");
    let rows = RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from_iter_values(0..1000)) as ArrayRef)]).unwrap();
    let stream = conformance::filled_by(folder.destination(&through), folder.source(&through), TableName::new(None, "orders"), rows).await;
    let (emitted, _) = emit::read(folder.source(&through).as_ref(), &emit::full(&stream), &State::default()).await.unwrap();
    assert_eq!(emitted.batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 1000);
    assert!(refused.load(Ordering::SeqCst) > 0);
}
