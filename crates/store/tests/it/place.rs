//! Where a case's database is, and what its loads look like.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema};
use chrono::DateTime;
use serde_json::{Value, json};
use trib_core::contract::SchemaChange;
use trib_core::load::{Deletes, Durability};
use trib_core::{Lease, Load, LoadId, Marker, Part, Receipt, RejectedRow, State, Table, TableLoad, TableName, WriteMode};
use trib_store::Store;

pub struct Place {
    pub url: String,
    pub base: PathBuf,
    environment: String,
    _folder: tempfile::TempDir,
}

impl Place {
    pub fn sqlite() -> Self {
        Self::at("control.db")
    }

    /// A place of its own in the database: cases are told apart by their environments.
    pub fn at(url: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let environment = folder.path().file_name().unwrap().to_string_lossy().into_owned();
        Self { url: url.to_owned(), base: folder.path().to_owned(), environment, _folder: folder }
    }

    /// As another process would.
    pub async fn open(&self) -> Store {
        Store::open(&self.url, &self.base, &self.environment).await.unwrap()
    }

    /// As another machine would, where the database is shared.
    pub async fn open_elsewhere(&self) -> Store {
        let base = self.base.join("elsewhere");
        Store::open(&self.url, &base, &self.environment).await.unwrap()
    }
}

/// Runs each case once on SQLite as a test of its own, and gives all of them to the one test that has a PostgreSQL server.
macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        $(#[tokio::test]
        async fn $case() {
            super::$case(&crate::place::Place::sqlite()).await;
        })*

        pub async fn all(url: &str) {
            $(super::$case(&crate::place::Place::at(url)).await;)*
        }
    };
}
pub(crate) use cases;

pub const TTL: Duration = Duration::from_mins(1);

pub async fn lease(store: &Store) -> Lease {
    store.acquire("shop", "test", TTL).await.unwrap()
}

pub fn state(value: Value) -> State {
    State::default().with_stream("orders", value)
}

pub fn load(id: &str, number: u64) -> Load {
    let field = Arc::new(Field::new("id", DataType::Int64, false));
    let table = Table {
        name: TableName::parse("raw.orders"),
        schema: Arc::new(Schema::new(vec![field.clone()])),
        key: vec!["id".into()],
        write: WriteMode::Prune,
        deletes: Deletes::Soft,
        scope: None,
        parent: None,
        partition_by: vec![],
        changes: false,
    };
    let receipt = Receipt {
        part: Part { load: LoadId(id.into()), sync: "shop".into(), split: 0, attempt: 0 },
        table: table.name.clone(),
        rows: 3,
        bytes: 24,
        durability: Durability::Durable,
        staged: json!({"files": ["a"]}),
        rejected: vec![RejectedRow { place: "id=9".into(), reason: "refused there".into(), row: json!({"id": 9}) }],
    };
    let changes = vec![SchemaChange::AddColumn { field }];
    Load {
        id: LoadId(id.into()),
        scope: "orders".into(),
        number,
        tables: vec![TableLoad { table, changes, receipts: vec![receipt] }],
        state: state(json!({"value": number})),
        filled: Vec::new(),
        made_from: None,
        loaded_at: DateTime::UNIX_EPOCH,
    }
}

pub fn marker(id: &str, number: u64) -> Marker {
    Marker {
        scope: "orders".into(),
        number,
        load: LoadId(id.into()),
        generation: 1,
        state: state(json!({"value": number})),
        filled: Vec::new(),
        committed_at: DateTime::UNIX_EPOCH,
    }
}
