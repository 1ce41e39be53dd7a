//! Staging: rows go as Parquet files to where they will stay. No reader sees a file that no log names.
//!
//! A note under `_trib/stage` is written before the first file, so that `abort` and `sweep` find what a load has left, in whatever table.

use arrow::datatypes::{Field, SchemaRef};
use futures::StreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use serde::{Deserialize, Serialize};
use trib_core::load::Durability;
use trib_core::name::system;
use trib_core::{BatchStream, Code, Error, LoadId, Part, Receipt, Result, Table, TableName};
use trib_kit::sift::{self, sift};
use trib_kit::storage;

use crate::data_file::{self, FileWriter, NewFile, join};
use crate::delta_schema;
use crate::encode;
use crate::layout::Layout;
use crate::marker;
use crate::table_log::TableLog;

/// What a receipt says of where the rows are.
#[derive(Debug, Serialize, Deserialize)]
pub struct Staged {
    pub files: Vec<NewFile>,
}

impl Staged {
    pub fn of(receipt: &Receipt) -> Result<Self> {
        let staged: Self = serde_json::from_value(receipt.staged.clone())?;
        let rows: u64 = staged.files.iter().map(|f| f.rows).sum();
        if rows != receipt.rows {
            return Err(Error::internal("a receipt's rows are not those of its files").detail(format!("{rows}, not {}", receipt.rows)));
        }
        Ok(staged)
    }
}

#[derive(Serialize, Deserialize)]
struct Note {
    table: TableName,
}

pub async fn stage(layout: &Layout, file_bytes: u64, part: &Part, table: &Table, mut rows: BatchStream) -> Result<Receipt> {
    let folder = layout.table(&table.name)?;
    let schema = stored_schema(table)?;
    note(layout, part, table).await?;
    let mut writer = FileWriter::new(layout.store.clone(), folder, prefix(part), schema.clone(), file_bytes).bounded(&bounded(table));
    let mut rejected = Vec::new();
    while let Some(batch) = rows.next().await {
        let sifted = sift(&batch?, &table.key, |rows| encode::batch(rows, &schema))?;
        sift::keep(&mut rejected, sifted.rejected)?;
        for rows in &sifted.taken {
            writer.write(rows).await?;
        }
    }
    Ok(Receipt { rejected, ..receipt(part, table, writer.finish().await?)? })
}

/// Copies the files of another table to where they will stay. The store does it by itself: a local one gives each file a second name, an
/// object store copies it without sending it to us. Files never change, so both tables may have them.
pub async fn copy(layout: &Layout, part: &Part, table: &Table, from: &TableLog) -> Result<Receipt> {
    let folder = layout.table(&table.name)?;
    let found = from.snapshot().await?;
    let found = found.ok_or_else(|| Error::new(Code::NotFound, "there is no such table in the lake").detail(from.folder.to_string()))?;
    found.writable()?;
    found.mergeable()?;
    let wanted = stored_schema(table)?;
    let alike = |field: &Field| found.schema.field_with_name(field.name()).is_ok_and(|f| f.data_type() == field.data_type());
    if wanted.fields().len() != found.schema.fields().len() || !wanted.fields().iter().all(|f| alike(f)) {
        return Err(Error::new(Code::Unsupported, "the files of a table do not fit another one").detail(from.folder.to_string()));
    }
    note(layout, part, table).await?;
    let mut files = Vec::new();
    for (number, file) in found.files.iter().enumerate() {
        let (old, name) = (join(&from.folder, &file.path), format!("{}-{number}.parquet", prefix(part)));
        layout.store.copy(&old, &folder.clone().join(name.as_str())).await.map_err(|e| storage::error(e, old.as_ref()))?;
        let rows = match file.stats.num_records {
            Some(rows) => rows,
            None => data_file::rows(&layout.store, &old, file.size).await?,
        };
        files.push(NewFile { name, size: file.size, rows, stats: serde_json::to_string(file.stats.as_ref())? });
    }
    receipt(part, table, files)
}

async fn note(layout: &Layout, part: &Part, table: &Table) -> Result<()> {
    let note = layout.stage(&part.sync, &part.load).join(format!("{}.json", table.name));
    marker::put(layout, &note, &Note { table: table.name.clone() }, PutMode::Overwrite).await
}

/// What the names of a part's files begin with.
fn prefix(part: &Part) -> String {
    format!("{}-{}-{}", part.load, part.split, part.attempt)
}

fn receipt(part: &Part, table: &Table, files: Vec<NewFile>) -> Result<Receipt> {
    Ok(Receipt {
        part: part.clone(),
        table: table.name.clone(),
        rows: files.iter().map(|f| f.rows).sum(),
        bytes: files.iter().map(|f| f.size).sum(),
        durability: Durability::Durable,
        staged: serde_json::to_value(Staged { files })?,
        rejected: Vec::new(),
    })
}

/// The schema of staged files.
pub fn stored_schema(table: &Table) -> Result<SchemaRef> {
    delta_schema::stored(&table.staging_schema())
}

/// Columns that merges prune files by.
pub fn bounded(table: &Table) -> Vec<String> {
    let tie = table.parent.iter().flat_map(|p| p.columns.iter().map(|(here, _)| here.clone()));
    let scope = table.scope.iter().map(|s| s.column.clone());
    table.key.iter().cloned().chain(tie).chain(scope).chain([system::SEQ.to_owned()]).collect()
}

/// Refuses a commit whose files are gone: swept by another run, or removed by hand.
pub async fn verify(layout: &Layout, folder: &Path, files: &[NewFile]) -> Result<()> {
    for file in files {
        let path = folder.clone().join(file.name.as_str());
        match layout.store.head(&path).await {
            Ok(meta) if meta.size == file.size => {}
            Ok(_) | Err(object_store::Error::NotFound { .. }) => {
                return Err(Error::new(Code::NotFound, "a staged file is not there as it was written")
                    .detail(path.to_string())
                    .hint("run the sync again: it reads the step anew"));
            }
            Err(e) => return Err(storage::error(e, path.as_ref())),
        }
    }
    Ok(())
}

/// Removes a load's files that no log names, in every table it staged for, and then the notes of it, which stand in `notes`.
///
/// Right after a commit as after a crash: a file that the table's log has, or had within its retention, stays.
pub async fn clear(layout: &Layout, notes: &Path, load: &LoadId) -> Result<()> {
    let found = marker::list(layout, notes).await?;
    for note in &found {
        if let Some(Note { table }) = marker::get(layout, note).await? {
            clear_table(layout, &table, load).await?;
        }
    }
    data_file::remove(&layout.store, found).await?;
    if layout.local().is_some() {
        // An empty folder means nothing, and object stores have none.
        let folder = std::path::PathBuf::from(format!("/{notes}"));
        let _ = std::fs::remove_dir(&folder);
        let _ = folder.parent().map(std::fs::remove_dir);
    }
    Ok(())
}

async fn clear_table(layout: &Layout, table: &TableName, load: &LoadId) -> Result<()> {
    let log = TableLog::new(layout, layout.table(table)?);
    let mut named = std::collections::HashSet::new();
    if let Some(snapshot) = log.snapshot().await? {
        named.extend(snapshot.files.iter().map(|f| f.path.clone()));
        named.extend(log.tombstones(&snapshot).await?.into_iter().map(|(path, _)| path));
    }
    let prefix = format!("{load}-");
    let in_folder = match layout.store.list_with_delimiter(Some(&log.folder)).await {
        Ok(found) => found.objects,
        Err(object_store::Error::NotFound { .. }) => Vec::new(),
        Err(e) => return Err(storage::error(e, log.folder.as_ref())),
    };
    let unnamed = in_folder
        .into_iter()
        .map(|meta| meta.location)
        .filter(|path| path.filename().is_some_and(|name| name.starts_with(&prefix) && !named.contains(name)));
    data_file::remove(&layout.store, unnamed.collect()).await?;
    remove_half_written(layout, table, &prefix)
}

/// Local files that were being written when a process died have a name that the store hides.
fn remove_half_written(layout: &Layout, table: &TableName, prefix: &str) -> Result<()> {
    let Some(local) = layout.local() else {
        return Ok(());
    };
    let folder = local.join(table.schema.as_deref().unwrap_or(crate::layout::DEFAULT_SCHEMA)).join(&table.name);
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Ok(());
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|n| n.starts_with(prefix) && n.contains(".parquet#")) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Loads of a sync that have notes, and where those stand.
pub async fn noted(layout: &Layout, sync: &str) -> Result<Vec<(LoadId, Path)>> {
    let folders = folders(layout, &layout.sync_stages(sync)).await?;
    Ok(folders.into_iter().filter_map(|path| Some((LoadId(path.filename()?.to_owned()), path))).collect())
}

/// Removes what was staged for a load, of whichever sync it is.
pub async fn abort(layout: &Layout, load: &LoadId) -> Result<()> {
    for sync in folders(layout, &layout.stages()).await? {
        clear(layout, &sync.join(load.0.as_str()), load).await?;
    }
    Ok(())
}

async fn folders(layout: &Layout, folder: &Path) -> Result<Vec<Path>> {
    match layout.store.list_with_delimiter(Some(folder)).await {
        Ok(found) => Ok(found.common_prefixes),
        Err(object_store::Error::NotFound { .. }) => Ok(Vec::new()),
        Err(e) => Err(storage::error(e, folder.as_ref())),
    }
}
