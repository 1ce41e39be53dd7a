//! The log of one Delta table: its latest state, and one atomic step forward.
//!
//! Reading the log, its checkpoints and their upkeep are the Delta library's. The step forward is ours: the actions are made
//! for one version of the table and written only as the very next one, so that whatever they were decided on still holds.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use deltalake::DeltaTableError;
use deltalake::kernel::transaction::TransactionError;
use deltalake::kernel::{Action, Add, EagerSnapshot, Remove};
use deltalake::logstore::{CommitOrBytes, LogStore, LogStoreRef, StorageConfig, default_logstore};
use deltalake::protocol::checkpoints;
use deltalake::{DeltaTable, table::state::DeltaTableState};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::{Value, json};
use trib_core::{Code, Error, Result};

use crate::data_file::NewFile;
use crate::delta_schema;
use crate::failure;
use crate::file_stats::FileStats;
use crate::layout::Layout;

/// A table, or a log without one, at a place in the lake.
#[derive(Clone)]
pub struct TableLog {
    store: LogStoreRef,
    /// The table's folder in the lake's store.
    pub folder: Path,
    shown: String,
}

/// The table at one version.
pub struct Snapshot {
    pub version: u64,
    inner: EagerSnapshot,
    pub schema: SchemaRef,
    pub files: Vec<LiveFile>,
}

/// A file that is part of the table.
#[derive(Clone, Debug)]
pub struct LiveFile {
    /// As the log has it, decoded: relative to the table's folder.
    pub path: String,
    pub size: u64,
    pub stats: FileStatsRef,
    remove: Remove,
    has_deletions: bool,
}

/// An entry of the log, as the store knows it.
#[derive(Clone, PartialEq)]
pub struct Head {
    version: u64,
    size: u64,
    modified: DateTime<Utc>,
    tag: Option<String>,
}

pub type FileStatsRef = Arc<FileStats>;

/// The table property that names a table's key.
pub const KEY_PROPERTY: &str = "tributary.key";

/// Beginnings of column properties by which Delta asks a writer to fill or check a column.
const COMPUTED: [&str; 3] = ["delta.generationExpression", "delta.identity", "delta.invariants"];

/// What a step forward did.
pub enum Step {
    /// The table is at this version now.
    Done(u64),
    /// Somebody else wrote that version.
    Taken,
}

impl TableLog {
    pub fn new(layout: &Layout, folder: Path) -> Self {
        let url = layout.url(&folder);
        let prefixed: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(layout.store.clone(), folder.clone()));
        let store = default_logstore(prefixed, layout.store.clone(), &url, &StorageConfig::default());
        let shown = folder.to_string();
        Self { store, folder, shown }
    }

    fn failed(&self) -> impl Fn(DeltaTableError) -> Error + '_ {
        |e| failure::delta(e, &self.shown)
    }

    /// For the library's own operations; loaded at the newest version, or at the one that is asked for.
    pub async fn table(&self, version: Option<u64>) -> Result<DeltaTable> {
        let mut table = DeltaTable::new(self.store.clone());
        match version {
            Some(version) => table.load_version(version).await,
            None => table.load().await,
        }
        .map_err(self.failed())?;
        Ok(table)
    }

    pub async fn exists(&self) -> Result<bool> {
        self.store.is_delta_table_location().await.map_err(self.failed())
    }

    /// The newest version; `None` when there is no table.
    pub async fn snapshot(&self) -> Result<Option<Snapshot>> {
        self.snapshot_at(None).await
    }

    /// A version, or the newest.
    pub async fn snapshot_at(&self, version: Option<u64>) -> Result<Option<Snapshot>> {
        if !self.exists().await? {
            return Ok(None);
        }
        let inner = EagerSnapshot::try_new(self.store.as_ref(), version).await.map_err(self.failed())?;
        let log = inner.log_data();
        let files = log.iter().map(|view| LiveFile {
            path: view.path().into_owned(),
            size: view.size().unsigned_abs(),
            stats: Arc::new(view.stats().as_deref().and_then(FileStats::parse).unwrap_or_default()),
            has_deletions: view.deletion_vector_descriptor().is_some(),
            remove: view.remove_action(true),
        });
        let files: Vec<LiveFile> = files.collect();
        Ok(Some(Snapshot { version: inner.version(), schema: inner.arrow_schema(), files, inner }))
    }

    /// The entry of the log that made a version; `None` when only a checkpoint tells of it.
    pub async fn head(&self, version: u64) -> Result<Option<Head>> {
        let entry = Path::from(format!("_delta_log/{version:020}.json"));
        match self.store.object_store(None).head(&entry).await {
            Ok(meta) => Ok(Some(Head { version, size: meta.size, modified: meta.last_modified, tag: meta.e_tag })),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.failed()(e.into())),
        }
    }

    /// Whether this is the newest entry still, and the table the same: one that was made anew has versions of the same numbers.
    pub async fn still(&self, head: &Head) -> Result<bool> {
        Ok(self.head(head.version).await?.as_ref() == Some(head) && self.head(head.version + 1).await?.is_none())
    }

    /// The last number that an application has written into the table's log.
    pub async fn transaction(&self, snapshot: &Snapshot, app: &str) -> Result<Option<i64>> {
        snapshot.inner.transaction_version(self.store.as_ref(), app).await.map_err(self.failed())
    }

    /// Files that have left the table and may still be wanted by readers of older versions.
    pub async fn tombstones(&self, snapshot: &Snapshot) -> Result<Vec<(String, i64)>> {
        let state = DeltaTableState::new(snapshot.inner.clone());
        state
            .all_tombstones(self.store.as_ref())
            .map_ok(|t| (t.path().into_owned(), t.deletion_timestamp().unwrap_or(0)))
            .try_collect()
            .await
            .map_err(self.failed())
    }

    /// Writes `actions` as the version after `after`, or as the first.
    ///
    /// The answer to a write may be lost. The store's client then writes again by itself, and finds the version taken: by whom, its entry tells.
    pub async fn step(&self, after: Option<&Snapshot>, actions: &Actions) -> Result<Step> {
        let version = after.map_or(0, |s| s.version + 1);
        let ours = Bytes::from(actions.lines.join("\n"));
        match self.store.write_commit_entry(version, CommitOrBytes::LogBytes(ours.clone()), uuid::Uuid::new_v4()).await {
            Ok(()) => Ok(Step::Done(version)),
            Err(TransactionError::VersionAlreadyExists(_)) => match self.store.read_commit_entry(version).await.map_err(self.failed())? {
                Some(there) if there == ours => Ok(Step::Done(version)),
                Some(_) => Ok(Step::Taken),
                // Nobody may decide on less than the entry itself: files that it names would be removed.
                None => Err(Error::new(Code::TransactionAborted, "an entry of the table's log was there and is gone")
                    .detail(format!("{}, version {version}", self.shown))),
            },
            Err(e) => Err(failure::delta(e.into(), &self.shown)),
        }
    }

    /// Writes a checkpoint where one is due, and lets old log entries go. A failure here harms nobody: the log itself is whole.
    pub async fn checkpoint(&self, version: u64, every: u64) {
        if version == 0 || !version.is_multiple_of(every.max(1)) {
            return;
        }
        let done = async {
            let table = self.table(Some(version)).await?;
            checkpoints::create_checkpoint(&table, None).await.map_err(self.failed())?;
            checkpoints::cleanup_metadata(&table, None).await.map_err(self.failed())
        };
        if let Err(e) = done.await {
            tracing::warn!(table = %self.shown, error = %e, "the checkpoint could not be written");
        }
    }
}

impl Snapshot {
    /// Whether we may write to the table: it may have been made by another tool, with features that we would break.
    pub fn writable(&self) -> Result<()> {
        let (protocol, metadata) = (self.inner.protocol(), self.inner.metadata());
        let set = |key: &str| metadata.configuration().get(key).is_some_and(|v| v == "true");
        let obstacle = if !metadata.partition_columns().is_empty() {
            Some("it is partitioned")
        } else if metadata.configuration().get("delta.columnMapping.mode").is_some_and(|m| m != "none") {
            Some("it maps columns to other names in its files")
        } else if set("delta.enableChangeDataFeed") {
            Some("its change data feed is on")
        } else if set("delta.appendOnly") {
            Some("it is append-only")
        } else if metadata.configuration().keys().any(|k| k.starts_with("delta.constraints.")) {
            Some("it has check constraints")
        } else if self.schema.fields().iter().any(|f| f.metadata().keys().any(|k| COMPUTED.iter().any(|c| k.starts_with(c)))) {
            Some("it has columns that are generated or checked")
        } else {
            let known = [
                "appendOnly",
                "invariants",
                "checkConstraints",
                "changeDataFeed",
                "generatedColumns",
                "columnMapping",
                "identityColumns",
                "timestampNtz",
                "domainMetadata",
                "deletionVectors",
                "v2Checkpoint",
                "vacuumProtocolCheck",
            ];
            let features = protocol.writer_features().unwrap_or_default();
            let unknown = features.iter().any(|f| !known.contains(&f.to_string().as_str()));
            unknown.then_some("it has features that are not known here")
        };
        match obstacle {
            None => Ok(()),
            Some(why) => Err(Error::new(Code::Unsupported, "this Delta table cannot be written to")
                .detail(why)
                .hint("load into another table under `into:`, or make this one anew without that feature")),
        }
    }

    /// Whether all rows of the table are what its files hold, under their own names.
    pub fn is_plain(&self) -> bool {
        let metadata = self.inner.metadata();
        let mapped = metadata.configuration().get("delta.columnMapping.mode").is_some_and(|m| m != "none");
        !mapped && metadata.partition_columns().is_empty() && !self.files.iter().any(|f| f.has_deletions)
    }

    /// Rows that were deleted without rewriting their file are not seen by a merge.
    pub fn mergeable(&self) -> Result<()> {
        match self.files.iter().find(|f| f.has_deletions) {
            None => Ok(()),
            Some(file) => Err(Error::new(Code::Unsupported, "the table has deletion vectors, which a merge cannot take part in")
                .detail(&file.path)
                .hint(
                    "in Spark, `REORG TABLE … APPLY (PURGE)` writes them out, and `delta.enableDeletionVectors = false` keeps them away",
                )),
        }
    }

    /// Rows in the table, where every file says.
    pub fn rows(&self) -> Option<u64> {
        self.files.iter().map(|f| f.stats.num_records).sum()
    }

    /// Columns that identify a row, when the table was made by a load that said so. Delta itself has no keys.
    pub fn key(&self) -> Vec<String> {
        let property = self.inner.metadata().configuration().get(KEY_PROPERTY);
        property.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
    }

    fn features(&self) -> BTreeSet<String> {
        let protocol = self.inner.protocol();
        match protocol.writer_features() {
            Some(features) => features.iter().map(ToString::to_string).collect(),
            // What the numbered versions stand for.
            None => [
                (2, "appendOnly"),
                (2, "invariants"),
                (3, "checkConstraints"),
                (4, "changeDataFeed"),
                (4, "generatedColumns"),
                (5, "columnMapping"),
                (6, "identityColumns"),
            ]
            .into_iter()
            .filter(|(version, _)| protocol.min_writer_version() >= *version)
            .map(|(_, name)| name.to_owned())
            .collect(),
        }
    }
}

/// The lines of one log entry.
pub struct Actions {
    lines: Vec<String>,
    now: i64,
}

impl Actions {
    /// `info` is for people who read the table's history.
    pub fn new(operation: &str, parameters: &Value, info: &Value) -> Self {
        let now = Utc::now().timestamp_millis();
        let commit = json!({"commitInfo": {
            "timestamp": now,
            "operation": operation,
            "operationParameters": parameters,
            "engineInfo": concat!("tributary/", env!("CARGO_PKG_VERSION")),
            // No two entries are equal, so that a writer knows its own.
            "txnId": uuid::Uuid::new_v4().to_string(),
            "tributary": info,
        }});
        Self { lines: vec![commit.to_string()], now }
    }

    fn push(&mut self, action: &Action) -> Result<()> {
        self.lines.push(serde_json::to_string(action)?);
        Ok(())
    }

    /// The protocol that the table needs, where it is not what it has: the oldest one, unless a column asks for more.
    pub fn protocol(&mut self, before: Option<&Snapshot>, schema: &SchemaRef) {
        const ZONELESS: &str = "timestampNtz";
        if !delta_schema::has_timestamp_ntz(schema) {
            if before.is_none() {
                self.lines.push(json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}).to_string());
            }
            return;
        }
        let mut writer = before.map(Snapshot::features).unwrap_or_default();
        if !writer.insert(ZONELESS.to_owned()) {
            return;
        }
        let reader = before.and_then(|s| s.inner.protocol().reader_features());
        let mut reader: BTreeSet<String> = reader.unwrap_or_default().iter().map(ToString::to_string).collect();
        reader.insert(ZONELESS.to_owned());
        let protocol = json!({"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": reader, "writerFeatures": writer});
        self.lines.push(json!({"protocol": protocol}).to_string());
    }

    /// The table's schema and properties. A table keeps its identity and properties when it gets another schema.
    pub fn metadata(&mut self, before: Option<&Snapshot>, schema: &SchemaRef, properties: &Value) {
        let metadata = match before.map(|s| s.inner.metadata()) {
            Some(old) => json!({
                "id": old.id(),
                "name": old.name(),
                "description": old.description(),
                "format": {"provider": "parquet", "options": {}},
                "schemaString": delta_schema::to_json(schema),
                "partitionColumns": [],
                "configuration": old.configuration(),
                "createdTime": old.created_time(),
            }),
            None => json!({
                "id": uuid::Uuid::new_v4().to_string(),
                "format": {"provider": "parquet", "options": {}},
                "schemaString": delta_schema::to_json(schema),
                "partitionColumns": [],
                "configuration": properties,
                "createdTime": self.now,
            }),
        };
        self.lines.push(json!({"metaData": metadata}).to_string());
    }

    pub fn add(&mut self, file: &NewFile, data_change: bool) -> Result<()> {
        self.push(&Action::Add(Add {
            path: file.name.clone(),
            size: file.size as i64,
            modification_time: self.now,
            data_change,
            stats: Some(file.stats.clone()),
            ..Default::default()
        }))
    }

    pub fn remove(&mut self, file: &LiveFile, data_change: bool) -> Result<()> {
        let mut remove = file.remove.clone();
        remove.deletion_timestamp = Some(self.now);
        remove.data_change = data_change;
        self.push(&Action::Remove(remove))
    }

    /// Delta's own way to make a write happen once: the last number that an application has written.
    pub fn transaction(&mut self, app: &str, number: i64) {
        self.lines.push(json!({"txn": {"appId": app, "version": number, "lastUpdated": self.now}}).to_string());
    }
}
