//! Leases, and where the marker of a scope stands.
//!
//! A marker is kept in the log of one of the tables that its scope writes, the *anchor*, as a Delta `domainMetadata` entry. So it is written in the
//! very commit that makes the rows visible, it survives checkpoints, and it goes when the table goes. A note beside the lake's tables
//! says which table that is. A scope whose first load had no table gets a log of its own.
//!
//! A lease is a file named by its generation, which only one can create.

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use trib_core::{Code, Error, Lease, Load, LoadId, Marker, Result, TableName};
use trib_kit::storage;

use crate::layout::Layout;
use crate::table_log::{Snapshot, TableLog};

/// Where the marker of a scope stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Anchor {
    pub scope: String,
    /// `None`: the scope's own log.
    pub table: Option<TableName>,
}

/// What tables other than the anchor remember of a load that wrote them too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    pub number: u64,
    pub load: LoadId,
}

/// The name under which a sync's scope keeps things in a log.
pub fn domain(sync: &str, scope: &str) -> String {
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
            Some(snapshot) => marker(&log, &snapshot, sync, &self.scope).await,
            None => Ok(None),
        }
    }
}

/// The scope's marker in a log that is its anchor.
pub async fn marker(log: &TableLog, snapshot: &Snapshot, sync: &str, scope: &str) -> Result<Option<Marker>> {
    match log.domain(snapshot, &domain(sync, scope)).await? {
        Some(text) => Ok(Some(serde_json::from_str(&text)?)),
        None => Ok(None),
    }
}

/// What a table that is not the anchor remembers.
pub async fn applied(log: &TableLog, snapshot: &Snapshot, sync: &str, scope: &str) -> Result<Option<Applied>> {
    match log.domain(snapshot, &domain(sync, scope)).await? {
        Some(text) => Ok(Some(serde_json::from_str(&text)?)),
        None => Ok(None),
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
    layout.anchors(sync).join(format!("{scope}.json"))
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
