//! The conformance suite, once for each end of each connector.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use trib_core::{Connector, Context, Destination, Source};
use trib_testkit::conformance;

/// One system, reached by settings as a project would give them.
struct Place {
    connector: Connector,
    settings: Value,
    context: Context,
}

impl Place {
    fn new(connector: Connector, settings: Value, project_dir: &Path) -> Self {
        Self { connector, settings, context: Context { connection: "conformance".into(), project_dir: project_dir.into(), threads: 4 } }
    }

    fn source(&self) -> Arc<dyn Source> {
        self.connector.make_source(&self.settings, &self.context).unwrap()
    }

    fn destination(&self) -> Arc<dyn Destination> {
        self.connector.make_destination(&self.settings, &self.context).unwrap()
    }

    async fn destination_conforms(&self) {
        conformance::destination(|| self.destination(), |table| conformance::read_by(self.source(), table)).await;
    }

    async fn source_conforms(&self) {
        let fill = |table, rows| conformance::filled_by(self.destination(), self.source(), table, rows);
        conformance::source(|| self.source(), fill).await;
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use serde_json::json;

    use super::Place;

    fn place(folder: &tempfile::TempDir) -> Place {
        Place::new(trib_connectors::sqlite::connector(), json!({"path": "conformance.db"}), folder.path())
    }

    #[tokio::test]
    async fn destination() {
        place(&tempfile::tempdir().unwrap()).destination_conforms().await;
    }

    #[tokio::test]
    async fn source() {
        place(&tempfile::tempdir().unwrap()).source_conforms().await;
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use serde_json::json;
    use trib_testkit::postgres_server::PostgresServer;

    use super::Place;

    fn place(server: &PostgresServer) -> Place {
        let url = server.url(&server.create_database().unwrap());
        Place::new(trib_connectors::postgres::connector(), json!({"url": url}), std::path::Path::new("."))
    }

    #[tokio::test]
    async fn destination() {
        place(&PostgresServer::shared().unwrap()).destination_conforms().await;
    }

    #[tokio::test]
    async fn source() {
        place(&PostgresServer::shared().unwrap()).source_conforms().await;
    }
}

/// Formats that keep types take part; the others are tried by the tests of the connector itself.
#[cfg(feature = "files")]
mod files {
    use serde_json::json;

    use super::Place;

    fn place(folder: &tempfile::TempDir, format: &str) -> Place {
        let settings = json!({"path": "out", "format": format});
        std::fs::create_dir(folder.path().join("out")).unwrap();
        Place::new(trib_connectors::files::connector(), settings, folder.path())
    }

    #[tokio::test]
    async fn parquet_destination() {
        place(&tempfile::tempdir().unwrap(), "parquet").destination_conforms().await;
    }

    #[tokio::test]
    async fn arrow_destination() {
        place(&tempfile::tempdir().unwrap(), "arrow").destination_conforms().await;
    }

    #[tokio::test]
    async fn csv_destination() {
        place(&tempfile::tempdir().unwrap(), "csv").destination_conforms().await;
    }

    #[tokio::test]
    async fn jsonl_destination() {
        place(&tempfile::tempdir().unwrap(), "jsonl").destination_conforms().await;
    }

    #[tokio::test]
    async fn parquet_source() {
        place(&tempfile::tempdir().unwrap(), "parquet").source_conforms().await;
    }

    #[tokio::test]
    async fn csv_source() {
        place(&tempfile::tempdir().unwrap(), "csv").source_conforms().await;
    }
}
