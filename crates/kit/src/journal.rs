//! What is remembered on this machine for a destination that remembers nothing itself: leases, markers, the tables' shapes, and what is staged.
//!
//! ```text
//! lock                    held while anything here changes
//! syncs/<hash>.json       generation and markers of one sync
//! tables/<hash>.json      the schema that a table's last load had
//! stage/<hash>/<load>/    staged parts
//! settled/<hash>/<load>/  what is kept of a load after its commit
//! requests/<hash>/<load>.jsonl  what a load has asked and been answered
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use arrow::datatypes::Schema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use trib_core::protocol::{CommitGate, commit_gate, lease_lost};
use trib_core::{Code, Error, Lease, Load, LoadId, Marker, Result, TableName};

pub struct Journal {
    folder: PathBuf,
}

/// One sync.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Record {
    pub sync: String,
    /// The greatest that the destination was opened with.
    pub generation: u64,
    /// By scope.
    pub markers: BTreeMap<String, Marker>,
}

impl Journal {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Held until it is dropped.
    pub async fn lock(&self) -> Result<File> {
        let path = self.folder.join("lock");
        blocking(move || {
            let file = create(&path)?;
            file.lock()?;
            Ok(file)
        })
        .await
    }

    pub async fn open(&self, lease: &Lease) -> Result<Vec<Marker>> {
        let _locked = self.lock().await?;
        let mut record = self.record(&lease.sync).await?;
        if record.generation > lease.generation {
            return Err(taken_over().detail(format!("this lease is of generation {}, {} was seen", lease.generation, record.generation)));
        }
        record.generation = lease.generation;
        self.put(&lease.sync, &record).await?;
        Ok(record.markers.into_values().collect())
    }

    pub async fn record(&self, sync: &str) -> Result<Record> {
        let found = self.get(self.sync_file(sync)).await?;
        Ok(found.unwrap_or_else(|| Record { sync: sync.to_owned(), ..Record::default() }))
    }

    pub async fn put(&self, sync: &str, record: &Record) -> Result<()> {
        self.write(self.sync_file(sync), record).await
    }

    /// An error when a later lease has opened the sync.
    pub async fn held(&self, lease: &Lease) -> Result<()> {
        let record = self.record(&lease.sync).await?;
        if record.generation > lease.generation { Err(taken_over()) } else { Ok(()) }
    }

    /// The sync's record, if this load may be committed now; `None` when it was committed already.
    pub async fn gate(&self, load: &Load, lease: &Lease) -> Result<Option<Record>> {
        let record = self.record(&lease.sync).await?;
        let marker = record.markers.get(&load.scope);
        match commit_gate(load, lease.generation, record.generation, marker) {
            CommitGate::Go => Ok(Some(record)),
            CommitGate::AlreadyCommitted => Ok(None),
            CommitGate::Outdated => Err(lease_lost(load, marker)),
        }
    }

    /// Writes the marker of a load that was taken, and the shapes of its tables.
    pub async fn committed(&self, mut record: Record, load: &Load, lease: &Lease) -> Result<()> {
        for share in load.tables.iter().filter(|t| !t.receipts.is_empty()) {
            self.write(self.table_file(&share.table.name), share.table.schema.as_ref()).await?;
        }
        record.markers.insert(load.scope.clone(), Marker::of(load, lease));
        self.put(&lease.sync, &record).await
    }

    pub async fn table(&self, table: &TableName) -> Result<Option<Schema>> {
        self.get(self.table_file(table)).await
    }

    /// Removes the markers of these scopes.
    pub async fn forget(&self, lease: &Lease, scopes: &[String]) -> Result<()> {
        let _locked = self.lock().await?;
        self.held(lease).await?;
        let mut record = self.record(&lease.sync).await?;
        record.markers.retain(|scope, _| !scopes.contains(scope));
        self.put(&lease.sync, &record).await
    }

    /// Removes what is staged for a load, whosever it is.
    pub async fn abort(&self, load: &LoadId) -> Result<()> {
        self.remove_staged(None, |name| name == load.0).await
    }

    /// Removes what is staged for a sync's loads, except for these.
    pub async fn sweep(&self, sync: &str, keep: &[LoadId]) -> Result<()> {
        self.remove_staged(Some(sync), |name| keep.iter().all(|load| name != load.0)).await
    }

    async fn remove_staged(&self, sync: Option<&str>, gone: impl Fn(&str) -> bool) -> Result<()> {
        for folder in self.staged(sync).await? {
            if folder.file_name().is_some_and(|name| gone(&name.to_string_lossy())) {
                remove(&folder).await?;
            }
        }
        Ok(())
    }

    /// The folder of a load's parts.
    pub fn stage(&self, sync: &str, load: &LoadId) -> PathBuf {
        self.folder.join("stage").join(hash(sync)).join(&load.0)
    }

    /// The folder for what is kept of a load after its commit; see [`Self::settled`].
    pub fn keep(&self, sync: &str, load: &LoadId) -> PathBuf {
        self.folder.join("settled").join(hash(sync)).join(&load.0)
    }

    /// The file for what a load has asked and been answered, where somebody wants that to be kept.
    pub fn requests(&self, sync: &str, load: &LoadId) -> PathBuf {
        self.folder.join("requests").join(hash(sync)).join(format!("{}.jsonl", load.0))
    }

    /// The folders of a sync's loads that something was kept of, oldest first.
    pub async fn settled(&self, sync: &str) -> Result<Vec<PathBuf>> {
        let folder = self.folder.join("settled").join(hash(sync));
        let mut found = blocking(move || entries(&folder)).await?;
        found.sort();
        Ok(found)
    }

    /// The folders of all loads that have parts, of one sync or of all.
    async fn staged(&self, sync: Option<&str>) -> Result<Vec<PathBuf>> {
        let (stage, only) = (self.folder.join("stage"), sync.map(hash));
        blocking(move || {
            let syncs = entries(&stage)?.into_iter().filter(|s| only.as_ref().is_none_or(|only| s.ends_with(only)));
            syncs.map(|s| entries(&s)).collect::<Result<Vec<_>>>().map(|all| all.concat())
        })
        .await
    }

    fn sync_file(&self, sync: &str) -> PathBuf {
        self.folder.join("syncs").join(format!("{}.json", hash(sync)))
    }

    fn table_file(&self, table: &TableName) -> PathBuf {
        self.folder.join("tables").join(format!("{}.json", hash(&table.to_string())))
    }

    async fn get<T: DeserializeOwned + Send + 'static>(&self, path: PathBuf) -> Result<Option<T>> {
        blocking(move || match fs::read(&path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.into()),
        })
        .await
    }

    /// In one step, and on the disk when it returns.
    async fn write(&self, path: PathBuf, content: &impl Serialize) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(content)?;
        blocking(move || {
            let fresh = path.with_extension("new");
            let mut file = create(&fresh)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            Ok(fs::rename(fresh, path)?)
        })
        .await
    }
}

fn taken_over() -> Error {
    Error::new(Code::LeaseLost, "another run has taken this sync over")
}

/// A folder and what is in it. That it is not there is no error.
pub async fn remove(folder: &Path) -> Result<()> {
    match tokio::fs::remove_dir_all(folder).await {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}

fn create(path: &Path) -> Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    Ok(File::create(path)?)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(found) => found.map(|entry| Ok(entry?.path())).collect(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e.into()),
    }
}

fn hash(name: &str) -> String {
    hex::encode(&Sha256::digest(name.as_bytes())[..8])
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::internal("writing the journal has panicked"))?
}
