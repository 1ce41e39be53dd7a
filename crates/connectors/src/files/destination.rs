//! Writing.

use std::time::Duration;

use arrow::datatypes::Field;
use async_trait::async_trait;
use futures::StreamExt;
use tokio::sync::mpsc;
use trib_core::destination::ExistingColumn;
use trib_core::load::Durability;
use trib_core::{
    BatchStream, Capabilities, Code, ColumnType, Context, Destination, Error, ExistingTable, Lease, Load, LoadId, Marker, Outcome, Part,
    Receipt, Result, Table, TableName, WriteMode,
};
use trib_kit::storage;

use super::commit;
use super::config::FilesConfig;
use super::encoder::Style;
use super::format::{Format, named};
use super::listing::Pattern;
use super::manifest::{self, CONTROL, component, sync_key};
use super::place::{Place, blocking};
use super::stage::PartWriter;

pub struct FilesDestination {
    place: Place,
    style: Style,
    capabilities: Capabilities,
    /// The name of the one file that is written, when `path` is a file and no folder.
    single: Option<String>,
}

impl FilesDestination {
    pub fn new(config: FilesConfig, context: &Context) -> Result<Self> {
        if Pattern::of(&config.path).glob.is_some() {
            return Err(Error::new(Code::ConfigInvalid, "files cannot be written to a pattern")
                .detail(storage::shown(&config.path))
                .setting("path")
                .hint("give a folder, or one file"));
        }
        let by_name = named(&config.path);
        let is_file = by_name.format.is_some();
        let format = config.format.or(by_name.format).unwrap_or(Format::Parquet);
        let compression =
            config.compression.or((by_name.compression != super::compression::Compression::None).then_some(by_name.compression));
        let style = Style::new(format, compression, &config.csv)?;
        let path = config.path.trim_end_matches('/');
        let (folder, single) = match path.rsplit_once('/') {
            _ if !is_file => (config.path.as_str(), None),
            Some((folder, name)) => (if folder.is_empty() { "/" } else { folder }, Some(name.to_owned())),
            None => (".", Some(path.to_owned())),
        };
        let location = storage::open(folder, &config.storage, &context.project_dir)?;
        if folder.starts_with("http") {
            return Err(Error::new(Code::Unsupported, "files cannot be written over HTTP").setting("path"));
        }
        let capabilities = Capabilities {
            write_modes: if single.is_some() { &[WriteMode::Replace] } else { &[WriteMode::Replace, WriteMode::Append] },
            atomic_tables: true,
            atomic_across_tables: false,
            nested: style.is_nested(),
            partitions: true,
            max_columns: None,
            // A table is a folder, and a file system's names have 255 bytes; percent encoding may take three for one.
            max_identifier: 80,
            case_sensitive: true,
            parallel_parts: context.threads.max(1),
            batch_bytes: 4 << 20,
            default_schema: None,
        };
        Ok(Self { place: Place::new(location), style, capabilities, single })
    }
}

#[async_trait]
impl Destination for FilesDestination {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn column_type(&self, field: &Field) -> Result<ColumnType> {
        self.style.column_type(field)
    }

    async fn check(&self) -> Result<()> {
        let name = format!("{CONTROL}/check-{}", uuid::Uuid::new_v4());
        self.place.put(&name, Vec::new(), &super::place::Version::Absent).await?;
        self.place.remove(&name).await
    }

    async fn open(&self, lease: &Lease, _tables: &[TableName]) -> Result<Vec<Marker>> {
        let _locked = self.place.lock().await?;
        let (mut record, version) = manifest::sync(&self.place, &lease.sync).await?;
        if record.generation > lease.generation {
            return Err(Error::new(Code::LeaseLost, "another run has taken this sync over")
                .detail(format!("{} holds generation {}, this run has {}", record.holder, record.generation, lease.generation)));
        }
        record.generation = lease.generation;
        record.holder.clone_from(&lease.holder);
        manifest::put_sync(&self.place, &record, &version).await?;
        Ok(record.markers.into_values().collect())
    }

    async fn markers(&self, sync: &str, _tables: &[TableName]) -> Result<Option<Vec<Marker>>> {
        let (record, _) = manifest::sync(&self.place, sync).await?;
        Ok(Some(record.markers.into_values().collect()))
    }

    async fn inspect(&self, table: &TableName) -> Result<Option<ExistingTable>> {
        let Some((manifest, _)) = manifest::table(&self.place, table).await? else { return Ok(None) };
        let column = |field: &arrow::datatypes::FieldRef| ExistingColumn {
            native: self.style.column_type(field).map_or_else(|_| field.data_type().to_string(), |t| t.native),
            field: field.clone(),
        };
        Ok(Some(ExistingTable { columns: manifest.schema.fields().iter().map(column).collect(), key: manifest.key }))
    }

    async fn stage(&self, part: &Part, table: &Table, mut rows: BatchStream) -> Result<Receipt> {
        if self.single.is_some() && !table.partition_by.is_empty() {
            return Err(Error::new(Code::ConfigInvalid, "one file cannot be partitioned")
                .setting("partition_by")
                .hint("give a folder as `path`"));
        }
        let writer = PartWriter::new(self.place.clone(), self.style.clone(), part, table, self.single.as_deref())?;
        let (sender, receiver) = mpsc::channel(2);
        let writing = tokio::spawn(blocking(move || writer.run(receiver)));
        let (mut counted, mut failed) = (0, None);
        while let Some(batch) = rows.next().await {
            match batch {
                Ok(batch) => {
                    counted += batch.num_rows() as u64;
                    // The writer has stopped only because it has failed, and says why below.
                    if sender.send(batch).await.is_err() {
                        break;
                    }
                }
                Err(e) => {
                    failed = Some(e);
                    break;
                }
            }
        }
        drop(sender);
        let files = writing.await.map_err(|e| Error::internal("a worker thread failed").source(e))?;
        if let Some(e) = failed {
            return Err(e);
        }
        let files = files?;
        Ok(Receipt {
            part: part.clone(),
            table: table.name.clone(),
            rows: counted,
            bytes: files.iter().map(|f| f.bytes).sum(),
            durability: Durability::Durable,
            staged: serde_json::to_value(&files)?,
            rejected: Vec::new(),
        })
    }

    async fn commit(&self, load: &Load, lease: &Lease) -> Result<Outcome> {
        if self.single.is_some() && load.tables.len() > 1 {
            let names: Vec<String> = load.tables.iter().map(|t| t.table.name.to_string()).collect();
            return Err(Error::new(Code::Unsupported, "one file holds one table")
                .detail(names.join(", "))
                .setting("path")
                .hint("give a folder as `path`"));
        }
        commit::commit(&self.place, &self.style, load, lease, self.single.is_some()).await
    }

    async fn abort(&self, load: &LoadId) -> Result<()> {
        commit::abort(&self.place, load).await
    }

    async fn sweep(&self, lease: &Lease, keep: &[LoadId]) -> Result<()> {
        let keep: Vec<String> = keep.iter().map(|load| component(&load.0)).collect();
        let folder = format!("{CONTROL}/stage/{}", sync_key(&lease.sync));
        for load in self.place.folders(&folder).await? {
            if !keep.contains(&load) {
                // Names of loads are safe in paths, so the folder's name is the load's.
                commit::abort(&self.place, &LoadId(load)).await?;
            }
        }
        Ok(())
    }

    async fn forget(&self, lease: &Lease, scopes: &[String], _tables: &[TableName]) -> Result<()> {
        commit::forget(&self.place, lease, scopes).await
    }

    async fn maintain(&self, _table: &TableName, _retention: Duration) -> Result<String> {
        Ok("files are as they were written; load with `write: replace` to make few of many".to_owned())
    }
}
