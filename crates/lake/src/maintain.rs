//! Upkeep of a table: small files become large ones, files that nobody needs go, the log gets a checkpoint.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::time::Duration;

use chrono::Utc;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use serde_json::json;
use trib_core::{Code, Error, Result, TableName};
use trib_kit::storage;

use crate::data_file::{self, FileWriter, join};
use crate::destination::Lake;
use crate::marker;
use crate::table_log::{Actions, LiveFile, Snapshot, Step, TableLog};

pub async fn maintain(lake: &Lake, table: &TableName, retention: Duration) -> Result<String> {
    let log = lake.log(table)?;
    let Some(snapshot) = log.snapshot().await? else {
        return Err(Error::new(Code::NotFound, "there is no such table in the lake").detail(table.to_string()));
    };
    let mut said = String::new();
    let (from, to) = compact(lake, &log, snapshot).await?;
    if from > 0 {
        // Writing to a String cannot fail.
        let _ = write!(said, "{from} files became {to}; ");
    }
    let removed = vacuum(lake, table, &log, retention).await?;
    let _ = write!(said, "{removed} old files removed");
    if let Some(snapshot) = log.snapshot().await? {
        log.checkpoint(snapshot.version, 1).await;
    }
    Ok(said)
}

/// Small files that together make one large one. The rows are the same, and the commit says so.
async fn compact(lake: &Lake, log: &TableLog, mut snapshot: Snapshot) -> Result<(usize, usize)> {
    let target = lake.config.file_bytes();
    for _ in 0..10 {
        snapshot.writable()?;
        snapshot.mergeable()?;
        let small: Vec<&LiveFile> = small_files(&snapshot.files, target);
        if small.len() < 2 {
            return Ok((0, 0));
        }
        let prefix = format!("compact-{}", uuid::Uuid::new_v4().simple());
        let mut writer = FileWriter::new(lake.layout.store.clone(), log.folder.clone(), prefix, snapshot.schema.clone(), target);
        let key_like: Vec<String> = snapshot.schema.fields().iter().take(32).map(|f| f.name().clone()).collect();
        writer = writer.bounded(&key_like);
        for file in &small {
            let path = join(&log.folder, &file.path);
            let mut batches = data_file::read(&lake.layout.store, &path, file.size, &snapshot.schema, &[]).await?.boxed();
            while let Some(batch) = batches.try_next().await? {
                writer.write(&batch).await?;
            }
        }
        let files = writer.finish().await?;
        let mut actions = Actions::new("OPTIMIZE", &json!({"targetSize": target.to_string()}), &json!({}));
        for file in &small {
            actions.remove(file, false)?;
        }
        for file in &files {
            actions.add(file, false)?;
        }
        if let Step::Done(_) = log.step(Some(&snapshot), &actions).await? {
            return Ok((small.len(), files.len()));
        }
        let written = files.iter().map(|f| log.folder.clone().join(f.name.as_str())).collect();
        data_file::remove(&lake.layout.store, written).await?;
        snapshot = log.snapshot().await?.ok_or_else(|| Error::new(Code::NotFound, "the table was removed"))?;
    }
    Err(Error::new(Code::TransactionAborted, "others commit to the table faster than it can be compacted").detail(log.folder.to_string()))
}

/// Oldest first, so that rows keep about the order in which they came, and key ranges stay narrow.
fn small_files(files: &[LiveFile], target: u64) -> Vec<&LiveFile> {
    files.iter().rev().filter(|f| f.size < target / 2).collect()
}

/// Removes files that have left the table longer than `retention` ago, and files that no log names and no load is staging.
async fn vacuum(lake: &Lake, table: &TableName, log: &TableLog, retention: Duration) -> Result<u64> {
    let snapshot = log.snapshot().await?.ok_or_else(|| Error::new(Code::NotFound, "the table was removed"))?;
    let cutoff = Utc::now() - chrono::Duration::from_std(retention).unwrap_or(chrono::Duration::MAX);
    let mut wanted: HashSet<String> = snapshot.files.iter().map(|f| f.path.clone()).collect();
    let gone = log.tombstones(&snapshot).await?;
    wanted.extend(gone.into_iter().filter(|(_, at)| *at >= cutoff.timestamp_millis()).map(|(path, _)| path));
    let staging = staging(lake, table).await?;

    let mut old = Vec::new();
    let mut listed = lake.layout.store.list(Some(&log.folder));
    while let Some(meta) = listed.try_next().await.map_err(|e| storage::error(e, log.folder.as_ref()))? {
        let Some(parts) = meta.location.prefix_match(&log.folder) else {
            continue;
        };
        let relative: Vec<String> = parts.map(|p| p.as_ref().to_owned()).collect();
        let relative = relative.join("/");
        let ours_to_judge = relative.ends_with(".parquet") && !relative.starts_with('_');
        let is_staged = staging.iter().any(|load| relative.starts_with(load));
        if ours_to_judge && !is_staged && !wanted.contains(&relative) && meta.last_modified < cutoff {
            old.push(meta.location);
        }
    }
    data_file::remove(&lake.layout.store, old).await
}

/// How files of loads begin that are staged for this table and may still be committed.
async fn staging(lake: &Lake, table: &TableName) -> Result<Vec<String>> {
    let note = format!("{table}.json");
    let notes = marker::list(&lake.layout, &lake.layout.stages()).await?;
    let of_table = notes.iter().filter(|path| path.filename() == Some(note.as_str()));
    let loads = of_table.filter_map(|path| path.parts().rev().nth(1).map(|load| format!("{}-", load.as_ref())));
    Ok(loads.collect())
}
