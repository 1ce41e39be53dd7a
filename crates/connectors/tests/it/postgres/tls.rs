//! Encrypted connections to a server whose certificate an authority of the test's own has signed.

use serde_json::{Value, json};
use trib_connectors::postgres::connector;
use trib_core::{Code, Result};
use trib_testkit::certificate::Authority;
use trib_testkit::postgres_server::PostgresServer;

use super::context;

async fn connects(settings: &Value) -> Result<()> {
    connector().make_source(settings, &context())?.discover(&[]).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_is_checked_as_far_as_the_mode_says() {
    let (authority, stranger) = (Authority::new().unwrap(), Authority::new().unwrap());
    let server = PostgresServer::start_with_tls(&authority.certificate("localhost").unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, pem).unwrap();
        file.display().to_string()
    };
    let (known, other) = (file("known.pem", &authority.pem), file("other.pem", &stranger.pem));
    let by_number = server.url("postgres");
    let by_name = by_number.replace("127.0.0.1", "localhost");
    let cases = [
        (&by_number, "disable", None, Err(Code::AuthFailed)),
        (&by_number, "prefer", None, Ok(())),
        (&by_number, "require", None, Ok(())),
        (&by_number, "verify-ca", Some(&known), Ok(())),
        (&by_number, "verify-ca", Some(&other), Err(Code::TlsFailed)),
        // The system's own authorities do not know this one.
        (&by_number, "verify-ca", None, Err(Code::TlsFailed)),
        (&by_name, "verify-full", Some(&known), Ok(())),
        (&by_number, "verify-full", Some(&known), Err(Code::TlsFailed)),
        (&by_name, "verify-full", Some(&other), Err(Code::TlsFailed)),
    ];
    for (url, mode, root, expected) in cases {
        let mut settings = json!({ "url": url, "sslmode": mode });
        if let Some(root) = root {
            settings["sslrootcert"] = json!(root);
        }
        let result = connects(&settings).await;
        if let Err(error) = &result {
            assert!(error.hint_text().is_some(), "{mode}: {error:?}");
        }
        assert_eq!(result.map_err(|e| e.code()), expected, "{mode} {root:?} {url}");
    }
}
