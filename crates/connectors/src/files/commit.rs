//! Making staged parts visible.
//!
//! Each step can be done again after a crash, and is found done when it was: files are moved to names made of load and part, the table's manifest is replaced in
//! one step, and the marker is written last. A load that a crash has left between manifest and marker is recognised by its writer's
//! entry in the manifest, and either completed or taken back.

use std::collections::BTreeSet;

use trib_core::load::TableOutcome;
use trib_core::protocol::{CommitGate, commit_gate, lease_lost};
use trib_core::{Code, Error, Lease, Load, LoadId, Marker, Outcome, Result, TableLoad, WriteMode};

use super::encoder::Style;
use super::join::join;
use super::manifest::{self, CONTROL, DataFile, TableManifest, Writer, component, stage_folder};
use super::place::{Place, Version, blocking};
use super::stage::StagedFile;

/// See [`trib_core::Destination::commit`].
pub async fn commit(place: &Place, style: &Style, load: &Load, lease: &Lease, single: bool) -> Result<Outcome> {
    let _locked = place.lock().await?;
    let (mut record, version) = manifest::sync(place, &lease.sync).await?;
    let marker = record.markers.get(&load.scope);
    match commit_gate(load, lease.generation, record.generation, marker) {
        CommitGate::Go => {}
        CommitGate::Outdated => return Err(lease_lost(load, marker)),
        CommitGate::AlreadyCommitted => {
            place.remove_all(&stage_folder(&lease.sync, &load.id)).await?;
            return Ok(Outcome { tables: Vec::new(), already_committed: true });
        }
    }
    let (mut tables, mut replaced) = (Vec::new(), Vec::new());
    for table in load.tables.iter().filter(|t| !t.receipts.is_empty()) {
        let (outcome, old) = publish_patiently(place, style, load, lease, table, single).await?;
        tables.push(outcome);
        replaced.extend(old);
    }
    record.markers.insert(load.scope.clone(), Marker::of(load, lease));
    manifest::put_sync(place, &record, &version).await?;
    // From here on the load is committed; what follows is tidying up, which the next commit or sweep does again.
    for name in replaced {
        place.remove(&name).await?;
    }
    place.remove_all(&stage_folder(&lease.sync, &load.id)).await?;
    Ok(Outcome { tables, already_committed: false })
}

/// Publishes a table that another sync may be writing too: where no lock keeps it away, its change of the manifest is taken into account and ours is made
/// again.
async fn publish_patiently(
    place: &Place,
    style: &Style,
    load: &Load,
    lease: &Lease,
    share: &TableLoad,
    single: bool,
) -> Result<(TableOutcome, Vec<String>)> {
    const ATTEMPTS: usize = 8;
    let mut failed = None;
    for _ in 0..ATTEMPTS {
        match publish(place, style, load, lease, share, single).await {
            Err(e) if e.code() == Code::LeaseLost => failed = Some(e),
            done => return done,
        }
    }
    Err(failed.unwrap_or_else(|| lease_lost(load, None)))
}

fn in_part() -> Error {
    Error::new(Code::Unsupported, "files cannot be replaced in part").hint("load into the lake or a database")
}

/// Publishes one table's files. Returns what was done, and the files that are no longer the table's.
async fn publish(
    place: &Place,
    style: &Style,
    load: &Load,
    lease: &Lease,
    share: &TableLoad,
    single: bool,
) -> Result<(TableOutcome, Vec<String>)> {
    let table = &share.table;
    let found = manifest::table(place, &table.name).await?;
    let (mut manifest, version) = found.unwrap_or_else(|| (TableManifest::new(&table.name, style.format), Version::Absent));
    let rows = share.receipts.iter().map(|r| r.rows).sum();
    let outcome = |deleted| TableOutcome { inserted: rows, deleted, ..TableOutcome::new(table.name.clone()) };
    let ours = |w: &Writer| w.sync == lease.sync && w.scope == load.scope;
    if let Some(writer) = manifest.writers.iter().find(|w| ours(w)) {
        if writer.load == load.id {
            return Ok((outcome(0), manifest.replaced));
        }
        if writer.generation > lease.generation {
            return Err(lease_lost(load, None));
        }
    }
    if table.write == WriteMode::Append && manifest.format != style.format && !manifest.files.is_empty() {
        return Err(Error::new(Code::ConfigInvalid, "the table's files have another format than the one that is set")
            .detail(format!("{} there, {} now", manifest.format.extension(), style.format.extension()))
            .setting("format")
            .hint("go on with the old format, or load with `write: replace`"));
    }
    let staged = staged(share)?;
    let published = if single { vec![joined(place, style, load, lease, staged).await?] } else { staged };
    for file in &published {
        place.publish(&file.staged, &file.name, file.bytes).await?;
    }
    // The last load may have died before it had removed what it had replaced.
    for name in std::mem::take(&mut manifest.replaced) {
        place.remove(&name).await?;
    }
    // A load of this writer with this number that never got its marker: its rows come again with this one.
    let unmarked: Option<LoadId> = manifest.writers.iter().find(|w| ours(w) && w.number == load.number).map(|w| w.load.clone());
    let scope = match &table.scope {
        Some(scope) => Some(scope.value().ok_or_else(in_part)?.to_owned()),
        None => None,
    };
    let stays = |file: &DataFile| {
        let replaced = table.write == WriteMode::Replace && (scope.is_none() || file.scope == scope);
        !replaced && unmarked.as_ref() != Some(&file.load)
    };
    let (mut files, old): (Vec<DataFile>, Vec<DataFile>) = std::mem::take(&mut manifest.files).into_iter().partition(stays);
    files.extend(published.into_iter().map(|file| DataFile {
        name: file.name,
        rows: file.rows,
        bytes: file.bytes,
        load: load.id.clone(),
        committed_at: load.loaded_at,
        partition: file.partition,
        scope: scope.clone(),
    }));
    manifest.writers.retain(|w| !ours(w));
    manifest.writers.push(Writer {
        sync: lease.sync.clone(),
        scope: load.scope.clone(),
        number: load.number,
        load: load.id.clone(),
        generation: lease.generation,
    });
    manifest.files = files;
    manifest.format = style.format;
    manifest.schema = table.schema.as_ref().clone();
    manifest.key.clone_from(&table.key);
    manifest.partition_by.clone_from(&table.partition_by);
    let deleted = old.iter().map(|f| f.rows).sum();
    let live: BTreeSet<&str> = manifest.files.iter().map(|f| f.name.as_str()).collect();
    // Whoever names one file means that file and no other.
    manifest.replaced = old.into_iter().map(|f| f.name).filter(|name| !single && !live.contains(name.as_str())).collect();
    manifest::put_table(place, &manifest, &version).await?;
    Ok((outcome(deleted), manifest.replaced))
}

/// The staged files of all receipts, in the order of their splits, after their counts were checked.
fn staged(share: &TableLoad) -> Result<Vec<StagedFile>> {
    let mut receipts: Vec<_> = share.receipts.iter().collect();
    receipts.sort_by_key(|r| (r.part.split, r.part.attempt));
    let mut all = Vec::new();
    for receipt in receipts {
        let files: Vec<StagedFile> = serde_json::from_value(receipt.staged.clone())?;
        if files.iter().map(|f| f.rows).sum::<u64>() != receipt.rows {
            return Err(Error::internal("a receipt counts other rows than its files")
                .detail(format!("{} split {}", receipt.table, receipt.part.split)));
        }
        all.extend(files);
    }
    Ok(all)
}

/// One file of all parts.
async fn joined(place: &Place, style: &Style, load: &Load, lease: &Lease, parts: Vec<StagedFile>) -> Result<StagedFile> {
    let Some(first) = parts.first().cloned() else { return Err(Error::internal("a load without files")) };
    // Parts without rows are there to say what the columns are; one of them suffices.
    let mut filled: Vec<&StagedFile> = parts.iter().filter(|p| p.rows > 0).collect();
    if filled.is_empty() {
        filled.push(&first);
    }
    if let [only] = filled.as_slice() {
        return Ok((*only).clone());
    }
    let target = format!("{}/joined{}", stage_folder(&lease.sync, &load.id), style.extension());
    let rows = parts.iter().map(|p| p.rows).sum();
    // A commit that is done again after its last crash finds the parts, since they go only after the marker is there.
    let mut files = Vec::with_capacity(filled.len());
    for part in filled {
        files.push(place.local_copy(&part.staged).await?);
    }
    let (out, style) = (place.create(&target)?, style.clone());
    let bytes = blocking(move || join(files, &style, out)).await?;
    Ok(StagedFile { staged: target, rows, bytes, ..first })
}

/// See [`trib_core::Destination::abort`].
pub async fn abort(place: &Place, load: &LoadId) -> Result<()> {
    let _locked = place.lock().await?;
    let key = component(&load.0);
    for sync in place.folders(&format!("{CONTROL}/stage")).await? {
        place.remove_all(&format!("{CONTROL}/stage/{sync}/{key}")).await?;
    }
    // A commit may have died after it had moved files, and before the manifest named them.
    let tables = manifest::tables(place).await?;
    let live: BTreeSet<&str> = tables.iter().flat_map(|t| &t.files).map(|f| f.name.as_str()).collect();
    let prefix = format!("{key}-");
    for name in place.files("").await? {
        let file = name.rsplit('/').next().unwrap_or(&name);
        if file.starts_with(&prefix) && !live.contains(name.as_str()) {
            place.remove(&name).await?;
        }
    }
    Ok(())
}

/// See [`trib_core::Destination::forget`].
pub async fn forget(place: &Place, lease: &Lease, scopes: &[String]) -> Result<()> {
    let _locked = place.lock().await?;
    let (mut record, version) = manifest::sync(place, &lease.sync).await?;
    record.markers.retain(|scope, _| !scopes.contains(scope));
    for mut table in manifest::tables(place).await? {
        let before = table.writers.len();
        table.writers.retain(|w| w.sync != lease.sync || !scopes.contains(&w.scope));
        if table.writers.len() != before
            && let Some((_, version)) = manifest::table(place, &table.table).await?
        {
            manifest::put_table(place, &table, &version).await?;
        }
    }
    if matches!(version, Version::Absent) {
        return Ok(());
    }
    manifest::put_sync(place, &record, &version).await
}
