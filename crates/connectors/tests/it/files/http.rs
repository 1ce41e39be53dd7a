//! Files behind a URL, served by Python's own server.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::json;
use trib_core::Code;

use super::{Folder, lines, read};

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_read_over_http() {
    let folder = Folder::new();
    folder.write("shop/orders.csv", "id,name\n1,a\n2,b\n");
    let mut child = Command::new("python3")
        .args(["-u", "-m", "http.server", "--bind", "127.0.0.1", "0"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
    let _server = Server(child);
    // "Serving HTTP on 127.0.0.1 port 40123 (http://127.0.0.1:40123/) ..."
    let base = said.split(['(', ')']).nth(1).unwrap().trim_end_matches('/');

    let emitted = read(folder.source(&json!({"path": format!("{base}/shop/orders.csv")})).as_ref()).await.unwrap();
    assert_eq!(lines(&emitted), ["1|a", "2|b"]);
    let e = folder.source(&json!({"path": format!("{base}/shop/none.csv")})).discover(&[]).await.unwrap_err();
    assert_eq!(e.code(), Code::NotFound, "{e:?}");
    let closed = folder.source(&json!({"path": "http://127.0.0.1:1/x.csv"})).discover(&[]).await.unwrap_err();
    assert_eq!(closed.code(), Code::ConnectionRefused, "{closed:?}");
}
