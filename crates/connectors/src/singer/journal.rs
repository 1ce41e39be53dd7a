//! What is remembered on this machine for a target: leases, markers, the tables' shapes, and what is staged.
//!
//! ```text
//! lock                 held while anything here changes, and while a target is fed
//! syncs/<hash>.json    generation and markers of one sync
//! tables/<hash>.json   the schema that a table's last load had
//! stage/<hash>/<load>/ staged parts
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use arrow::datatypes::Schema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
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
            return Err(Error::new(Code::LeaseLost, "another run has taken this sync over")
                .detail(format!("this lease is of generation {}, {} was seen", lease.generation, record.generation)));
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

    /// Writes the marker of a load that the target has taken, and the shapes of its tables.
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

    /// The folder of a load's parts.
    pub fn stage(&self, sync: &str, load: &LoadId) -> PathBuf {
        self.folder.join("stage").join(hash(sync)).join(&load.0)
    }

    /// The folders of all loads that have parts, of one sync or of all.
    pub async fn staged(&self, sync: Option<&str>) -> Result<Vec<PathBuf>> {
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
