//! Leases, and where the marker of a scope stands.
//!
//! What a load leads to (its state can be large) is written to a file of its own before the commit. The commit then carries two numbers as
//! Delta's application transactions: the load's number, and a fingerprint of its id. They are written in the very commit that makes the rows visible, survive checkpoints, go
//! when the table goes, and ask nothing of other tools that write to the table. The marker is the file that both numbers fit; files
//! that they do not fit are of loads that died or lost.
//!
//! The table whose log decides is one that the scope writes, its *anchor*. A note says which. A scope whose first load had no table gets
//! a log of its own.
//!
//! A lease is a file named by its generation, which only one can create.

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use trib_core::{Code, Error, Lease, Load, LoadId, Marker, Result, TableName};
use trib_kit::storage;

use crate::layout::{Layout, folder};
use crate::table_log::{Actions, Snapshot, TableLog};

/// Where the marker of a scope stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Anchor {
    pub scope: String,
    /// `None`: the scope's own log.
    pub table: Option<TableName>,
}

/// The last load of a scope, as a table's log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stand {
    pub number: u64,
    pub print: i64,
}

impl Stand {
    pub fn of(number: u64, load: &LoadId) -> Self {
        let digest = Sha256::digest(load.0.as_bytes());
        let print = digest.iter().take(8).fold(0u64, |print, byte| print << 8 | u64::from(*byte));
        Self { number, print: (print >> 1) as i64 }
    }

    /// What a table's log says of a scope; `None` when no load of it was committed there.
    pub async fn read(log: &TableLog, snapshot: &Snapshot, sync: &str, scope: &str) -> Result<Option<Self>> {
        let app = application(sync, scope);
        // 0 is what forgetting leaves behind.
        let Some(number) = log.transaction(snapshot, &app).await?.filter(|n| *n > 0) else {
            return Ok(None);
        };
        let print = log.transaction(snapshot, &format!("{app}:load")).await?.unwrap_or(0);
        Ok(Some(Self { number: number.unsigned_abs(), print }))
    }

    pub fn write(self, actions: &mut Actions, sync: &str, scope: &str) {
        let app = application(sync, scope);
        actions.transaction(&app, self.number as i64);
        actions.transaction(&format!("{app}:load"), self.print);
    }

    /// What was prepared for the load that this stands for.
    pub async fn marker(self, layout: &Layout, sync: &str, scope: &str) -> Result<Option<Marker>> {
        let prefix = format!("{:020}-", self.number);
        for path in list(layout, &layout.markers(sync, scope)).await? {
            if path.filename().is_some_and(|name| name.starts_with(&prefix))
                && let Some(marker) = get::<Marker>(layout, &path).await?
                && Self::of(marker.number, &marker.load) == self
            {
                return Ok(Some(marker));
            }
        }
        Ok(None)
    }
}

/// Writes what a load leads to, so that its commit need only point to it.
pub async fn prepare(layout: &Layout, sync: &str, marker: &Marker) -> Result<()> {
    let path = layout.markers(sync, &marker.scope).join(format!("{:020}-{}.json", marker.number, marker.load));
    put(layout, &path, marker, PutMode::Overwrite).await
}

/// Removes what was prepared by earlier loads, and by others of this number.
pub async fn outdate(layout: &Layout, sync: &str, scope: &str, number: u64, load: &LoadId) -> Result<()> {
    let keep = format!("{number:020}-{load}.json");
    let next = format!("{:020}-", number + 1);
    let old = list(layout, &layout.markers(sync, scope)).await?.into_iter();
    let old = old.filter(|path| path.filename().is_some_and(|name| name != keep && name < next.as_str())).collect();
    crate::data_file::remove(&layout.store, old).await.map(drop)
}

/// The name under which a sync's scope counts its loads in a log.
fn application(sync: &str, scope: &str) -> String {
    format!("trib:{sync}:{scope}")
}

impl Anchor {
    pub fn log(&self, layout: &Layout, sync: &str) -> Result<TableLog> {
        let folder = match &self.table {
            Some(table) => layout.table(table)?,
            None => layout.scope_log(sync, &self.scope),
        };
        Ok(TableLog::new(layout, folder))
    }

    pub async fn marker(&self, layout: &Layout, sync: &str) -> Result<Option<Marker>> {
        let log = self.log(layout, sync)?;
        match log.snapshot().await? {
            Some(snapshot) => marker(layout, &log, &snapshot, sync, &self.scope).await,
            None => Ok(None),
        }
    }
}

/// The scope's marker, as a log that is its anchor decides.
pub async fn marker(layout: &Layout, log: &TableLog, snapshot: &Snapshot, sync: &str, scope: &str) -> Result<Option<Marker>> {
    let Some(stand) = Stand::read(log, snapshot, sync, scope).await? else {
        return Ok(None);
    };
    match stand.marker(layout, sync, scope).await? {
        Some(marker) => Ok(Some(marker)),
        None => Err(Error::new(Code::StateMissing, "the table has a load of which nothing else is known")
            .detail(format!("{}, load number {}", log.folder, stand.number))
            .stream(scope)
            .hint("files below `_trib/markers` were removed: bring them back, or `trib state reset` and load again")),
    }
}

/// The scope's anchor, noted when there is none yet: the load's first table.
///
/// A note whose table was never made (the load that wanted it died) gives way to one that this load makes.
pub async fn anchor(layout: &Layout, sync: &str, load: &Load) -> Result<Anchor> {
    let path = note(layout, sync, &load.scope);
    let wanted = Anchor { scope: load.scope.clone(), table: load.tables.first().map(|t| t.table.name.clone()) };
    if let Some(noted) = get::<Anchor>(layout, &path).await? {
        let writes = |table: &TableName| load.tables.iter().any(|t| t.table.name == *table);
        let stands = match &noted.table {
            None => true,
            Some(table) => writes(table) || noted.log(layout, sync)?.exists().await?,
        };
        if stands {
            return Ok(noted);
        }
    }
    put(layout, &path, &wanted, PutMode::Overwrite).await?;
    Ok(wanted)
}

/// All markers of a sync.
pub async fn all(layout: &Layout, sync: &str) -> Result<Vec<Marker>> {
    let mut markers = Vec::new();
    for anchor in anchors(layout, sync).await? {
        markers.extend(anchor.marker(layout, sync).await?);
    }
    Ok(markers)
}

/// All scopes of a sync that have ever been committed to.
pub async fn anchors(layout: &Layout, sync: &str) -> Result<Vec<Anchor>> {
    let mut anchors = Vec::new();
    for path in list(layout, &layout.anchors(sync)).await? {
        anchors.extend(get::<Anchor>(layout, &path).await?);
    }
    Ok(anchors)
}

pub async fn forget_anchor(layout: &Layout, sync: &str, scope: &str) -> Result<()> {
    crate::data_file::remove(&layout.store, vec![note(layout, sync, scope)]).await.map(drop)
}

fn note(layout: &Layout, sync: &str, scope: &str) -> Path {
    layout.anchors(sync).join(format!("{}.json", folder(scope)))
}

/// Makes this the sync's newest lease, durably.
pub async fn raise(layout: &Layout, lease: &Lease) -> Result<()> {
    let newest = generation(layout, &lease.sync).await?;
    let path = lease_file(layout, &lease.sync, lease.generation);
    let ours = newest <= lease.generation
        && match put(layout, &path, lease, PutMode::Create).await {
            Ok(()) => true,
            // Opened before, by us or by another that claims the same generation.
            Err(e) if e.code() == Code::LeaseLost => get::<Lease>(layout, &path).await?.as_ref() == Some(lease),
            Err(e) => return Err(e),
        };
    if !ours {
        return Err(Error::new(Code::LeaseLost, "another run has taken this sync over")
            .detail(format!("this lease is of generation {}, the lake has seen {newest}", lease.generation))
            .hint("let the other run finish; `trib runs` shows it"));
    }
    // The newest says all; older ones would only make the list longer.
    let older = list(layout, &layout.leases(&lease.sync)).await?.into_iter().filter(|p| *p < path).collect();
    crate::data_file::remove(&layout.store, older).await.map(drop)
}

/// The greatest generation that the sync was opened with; 0 when it never was.
pub async fn generation(layout: &Layout, sync: &str) -> Result<u64> {
    let files = list(layout, &layout.leases(sync)).await?;
    let of = |path: &Path| path.filename()?.strip_suffix(".json")?.parse::<u64>().ok();
    Ok(files.iter().filter_map(of).max().unwrap_or(0))
}

fn lease_file(layout: &Layout, sync: &str, generation: u64) -> Path {
    layout.leases(sync).join(format!("{generation:020}.json"))
}

pub async fn list(layout: &Layout, folder: &Path) -> Result<Vec<Path>> {
    let found = layout.store.list(Some(folder)).map_ok(|meta| meta.location).try_collect().await;
    match found {
        Ok(paths) => Ok(paths),
        Err(object_store::Error::NotFound { .. }) => Ok(Vec::new()),
        Err(e) => Err(storage::error(e, folder.as_ref())),
    }
}

pub async fn get<T: DeserializeOwned>(layout: &Layout, path: &Path) -> Result<Option<T>> {
    let bytes: Bytes = match layout.store.get(path).await {
        Ok(found) => found.bytes().await.map_err(|e| storage::error(e, path.as_ref()))?,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(e) => return Err(storage::error(e, path.as_ref())),
    };
    Ok(Some(serde_json::from_slice(&bytes)?))
}

pub async fn put<T: Serialize>(layout: &Layout, path: &Path, content: &T, mode: PutMode) -> Result<()> {
    let bytes = serde_json::to_vec_pretty(content)?;
    let options = PutOptions { mode, ..Default::default() };
    layout.store.put_opts(path, bytes.into(), options).await.map_err(|e| storage::error(e, path.as_ref()))?;
    Ok(())
}
