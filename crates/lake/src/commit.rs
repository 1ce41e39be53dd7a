//! How a load becomes visible.
//!
//! What the load leads to is written down first. Then each table of the load gets one commit in its Delta log: files, schema, and the numbers that say which
//! load it was (see [`crate::marker`]). The commit of the scope's anchor comes last, and it alone decides whether the load has happened:
//!
//! * With one table, which is the rule, rows and marker are one atomic step.
//! * With several (children, a change log), the others come first, children before parents. A crash between leaves them ahead of the marker; the next
//!   run commits the same load again, skips what is done, and goes on to the anchor.
//!
//! A commit is made for one version and written as the next, or not at all, so the gate that let it pass, and every file that the merge has looked at,
//! still stand when it is written. When somebody else comes in between, all of it is decided again.

use std::collections::HashSet;
use std::time::Duration;

use object_store::path::Path;
use serde_json::json;
use trib_core::load::{TableLoad, TableOutcome};
use trib_core::protocol::{CommitGate, commit_gate, lease_lost};
use trib_core::{Code, Error, Lease, Load, Marker, Outcome, Result, WriteMode};

use crate::config::LakeConfig;
use crate::edit::{Draft, Edit, Limits};
use crate::layout::Layout;
use crate::marker::{self, Anchor, Stand};
use crate::merge::rules::Counts;
use crate::stage;
use crate::table_log::{Actions, KEY_PROPERTY, Snapshot, Step, TableLog};

/// Others may commit to a table at the same time; more often than this in a row is a fault.
const ATTEMPTS: u32 = 50;

pub struct Commit<'a> {
    pub layout: &'a Layout,
    pub config: &'a LakeConfig,
    pub load: &'a Load,
    pub lease: &'a Lease,
}

/// What one table's commit did.
enum Done {
    Now { counts: Counts, version: u64 },
    Before,
}

impl Commit<'_> {
    pub async fn run(&self) -> Result<Outcome> {
        let Self { layout, load, lease, .. } = self;
        let anchor = marker::anchor(layout, &lease.sync, load).await?;
        let marker = anchor.marker(layout, &lease.sync).await?;
        if self.gate(marker.as_ref()).await? == CommitGate::AlreadyCommitted {
            self.tidy().await;
            return Ok(Outcome { tables: Vec::new(), already_committed: true });
        }
        let prepared = Marker { committed_at: chrono::Utc::now(), ..Marker::of(load, lease) };
        marker::prepare(layout, &lease.sync, &prepared).await?;
        let mut outcomes: Vec<Option<TableOutcome>> = vec![None; load.tables.len()];
        let mut anchored = None;
        for (at, share) in load.tables.iter().enumerate().rev() {
            if anchor.table.as_ref() == Some(&share.table.name) {
                anchored = Some((at, share));
                continue;
            }
            let log = TableLog::new(layout, layout.table(&share.table.name)?);
            let done = self.table(&anchor, &log, Some(share), false).await?;
            outcomes[at] = Some(outcome(share, &done));
        }
        let log = anchor.log(layout, &lease.sync)?;
        let done = self.table(&anchor, &log, anchored.map(|(_, share)| share), true).await?;
        if let Done::Before = done {
            self.tidy().await;
            return Ok(Outcome { tables: Vec::new(), already_committed: true });
        }
        if let Some((at, share)) = anchored {
            outcomes[at] = Some(outcome(share, &done));
        }
        self.tidy().await;
        Ok(Outcome { tables: outcomes.into_iter().flatten().collect(), already_committed: false })
    }

    async fn gate(&self, marker: Option<&Marker>) -> Result<CommitGate> {
        let generation = marker::generation(self.layout, &self.lease.sync).await?;
        match commit_gate(self.load, self.lease.generation, generation, marker) {
            CommitGate::Outdated => Err(lease_lost(self.load, marker)),
            gate => Ok(gate),
        }
    }

    /// One table's commit; `share` is `None` for an anchor that the load does not write, which then only gets the marker.
    async fn table(&self, anchor: &Anchor, log: &TableLog, share: Option<&TableLoad>, anchored: bool) -> Result<Done> {
        let Self { layout, load, lease, .. } = self;
        for attempt in 0..ATTEMPTS {
            let before = log.snapshot().await?;
            if anchored {
                let marker = match &before {
                    Some(snapshot) => marker::marker(layout, log, snapshot, &lease.sync, &load.scope).await?,
                    None => None,
                };
                if self.gate(marker.as_ref()).await? == CommitGate::AlreadyCommitted {
                    return Ok(Done::Before);
                }
            } else {
                // Whoever has taken the sync over may have done so between two tables.
                let marker = anchor.marker(layout, &lease.sync).await?;
                self.gate(marker.as_ref()).await?;
                if let Some(snapshot) = &before
                    && let Some(stand) = Stand::read(log, snapshot, &lease.sync, &load.scope).await?
                    && self.applied_before(stand, share).await?
                {
                    return Ok(Done::Before);
                }
            }
            let edit = match share {
                Some(share) => Some(self.edit(log, before.as_ref(), share).await?),
                None => None,
            };
            let actions = self.actions(before.as_ref(), share, edit.as_ref())?;
            match log.step(before.as_ref(), &actions).await {
                Ok(Step::Done(version)) => {
                    log.checkpoint(version, self.config.checkpoint_every).await;
                    return Ok(Done::Now { counts: edit.map(|e| e.counts).unwrap_or_default(), version });
                }
                Ok(Step::Taken) => {
                    if let Some(edit) = edit {
                        edit.discard(layout, log).await?;
                    }
                    // A little apart from whoever else is at it.
                    tokio::time::sleep(Duration::from_millis(u64::from(attempt.min(20)) * 10)).await;
                }
                // The write may have happened all the same, so its files stay; they are swept when it has not.
                Err(e) => return Err(e),
            }
        }
        Err(busy(log))
    }

    /// Whether this table has the load already. Another load under the same number was committed here and nowhere else: its run died, and
    /// what led to it was lost. Rows that are matched by key are simply written again; others would be there twice.
    async fn applied_before(&self, stand: Stand, share: Option<&TableLoad>) -> Result<bool> {
        let Self { layout, load, lease, .. } = self;
        if stand == Stand::of(load.number, &load.id) {
            return Ok(true);
        }
        let appends = share.is_some_and(|s| s.table.write == WriteMode::Append);
        if stand.number == load.number && appends {
            let lost = stand.marker(layout, &lease.sync, &load.scope).await?;
            let lost = lost.map_or("an unknown load".to_owned(), |m| m.load.to_string());
            return Err(Error::new(Code::StateMissing, "a table has rows of a load that was never finished, and that nothing is known of")
                .detail(format!("{lost}, number {}", stand.number))
                .stream(&load.scope)
                .hint(format!("delete the rows with `_trib_load_id = '{lost}'` from the table, then run again")));
        }
        Ok(false)
    }

    async fn edit(&self, log: &TableLog, before: Option<&Snapshot>, share: &TableLoad) -> Result<Edit> {
        // Children that keep what is there ask for their parents as they were; the parent's own commit comes later.
        let parent = match &share.table.parent {
            Some(parent) if share.table.write == WriteMode::Insert => {
                TableLog::new(self.layout, self.layout.table(&parent.table)?).snapshot().await?
            }
            _ => None,
        };
        let limits = Limits { file_bytes: self.config.file_bytes(), key_bytes: self.config.merge_bytes() };
        let draft = Draft { layout: self.layout, limits, load: self.load, share, log, before, parent_before: parent.as_ref() };
        draft.edit().await
    }

    fn actions(&self, before: Option<&Snapshot>, share: Option<&TableLoad>, edit: Option<&Edit>) -> Result<Actions> {
        let Self { load, lease, config, .. } = self;
        let info = json!({
            "sync": lease.sync, "scope": load.scope, "load": load.id, "number": load.number,
            "generation": lease.generation, "holder": lease.holder,
        });
        let mode = share.map_or("marker", |s| s.table.write.as_str());
        let mut actions = Actions::new("WRITE", &json!({"mode": mode}), &info);
        let mut properties = json!({
            "delta.logRetentionDuration": format!("interval {} days", config.log_retention_days),
            "delta.deletedFileRetentionDuration": format!("interval {} days", config.file_retention_days),
        });
        if let Some(share) = share.filter(|s| !s.table.key.is_empty()) {
            properties[KEY_PROPERTY] = json!(serde_json::to_string(&share.table.key)?);
        }
        match (edit, before) {
            (Some(edit), _) => {
                actions.protocol(before, &edit.schema);
                if edit.schema_changed {
                    actions.metadata(before, &edit.schema, &properties);
                }
                for file in &edit.removes {
                    actions.remove(file, true)?;
                }
                for file in &edit.adds {
                    actions.add(file, true)?;
                }
            }
            (None, Some(_)) => {}
            // A log that only ever holds markers is still a table to those who look.
            (None, None) => {
                let schema = marker_schema();
                actions.protocol(None, &schema);
                actions.metadata(None, &schema, &properties);
            }
        }
        Stand::of(load.number, &load.id).write(&mut actions, &lease.sync, &load.scope);
        Ok(actions)
    }

    /// Removes what the load has staged and not published. Left undone by a crash, the next sweep does it.
    async fn tidy(&self) {
        let Self { layout, load, lease, .. } = self;
        let notes: Path = layout.stage(&lease.sync, &load.id);
        let tidied = async {
            stage::clear(layout, &notes, &load.id).await?;
            marker::outdate(layout, &lease.sync, &load.scope, load.number, &load.id).await
        };
        if let Err(e) = tidied.await {
            tracing::warn!(load = %self.load.id, error = %e, "staged files could not be removed; the next run tries again");
        }
    }
}

fn marker_schema() -> arrow::datatypes::SchemaRef {
    use arrow::datatypes::{DataType, Field, Schema};
    std::sync::Arc::new(Schema::new(vec![Field::new("nothing", DataType::Boolean, true)]))
}

fn outcome(share: &TableLoad, done: &Done) -> TableOutcome {
    let (counts, version) = match done {
        Done::Now { counts, version } => (*counts, Some(version.to_string())),
        Done::Before => (Counts::default(), None),
    };
    let Counts { inserted, updated, deleted, unmatched } = counts;
    TableOutcome { table: share.table.name.clone(), inserted, updated, deleted, unmatched, version }
}

/// Takes the rows that a load has appended out of its tables again, file by file as they came; what was matched by key is written again by the next load.
/// `false` where a table's files are no longer those that came: they have been compacted since.
pub async fn take_back(layout: &Layout, load: &Load, lease: &Lease) -> Result<bool> {
    let mut all = true;
    for share in load.tables.iter().filter(|share| !share.receipts.is_empty() && share.table.write == WriteMode::Append) {
        let log = TableLog::new(layout, layout.table(&share.table.name)?);
        all &= take_back_from(layout, &log, share, load, lease).await?;
    }
    Ok(all)
}

async fn take_back_from(layout: &Layout, log: &TableLog, share: &TableLoad, load: &Load, lease: &Lease) -> Result<bool> {
    let mut came = HashSet::new();
    for receipt in &share.receipts {
        came.extend(stage::Staged::of(receipt)?.files.into_iter().map(|file| file.name));
    }
    for _ in 0..ATTEMPTS {
        let Some(before) = log.snapshot().await? else { return Ok(true) };
        if Stand::read(log, &before, &lease.sync, &load.scope).await? != Some(Stand::of(load.number, &load.id)) {
            return Ok(true);
        }
        let there: Vec<_> = before.files.iter().filter(|file| came.contains(&file.path)).collect();
        // Rows of a change log are not appended as they came.
        if there.len() != came.len() || share.table.changes {
            return Ok(false);
        }
        if marker::generation(layout, &lease.sync).await? > lease.generation {
            return Err(lease_lost(load, None));
        }
        let mut actions = Actions::new("TAKE BACK", &json!({}), &json!({"sync": lease.sync, "scope": load.scope, "load": load.id}));
        for file in there {
            actions.remove(file, true)?;
        }
        Stand { number: 0, print: 0 }.write(&mut actions, &lease.sync, &load.scope);
        if let Step::Done(_) = log.step(Some(&before), &actions).await? {
            return Ok(true);
        }
    }
    Err(busy(log))
}

fn busy(log: &TableLog) -> Error {
    Error::new(Code::TransactionAborted, "others commit to the table faster than the load can").detail(log.folder.to_string())
}

/// Takes a scope's marker out of its anchor, so that the next load is the first.
pub async fn forget(layout: &Layout, lease: &Lease, scope: &str, tables: &[trib_core::TableName]) -> Result<()> {
    let newest = marker::generation(layout, &lease.sync).await?;
    if newest > lease.generation {
        return Err(Error::new(Code::LeaseLost, "another run has taken this sync over").stream(scope));
    }
    let mut folders = Vec::new();
    for anchor in marker::anchors(layout, &lease.sync).await?.iter().filter(|a| a.scope == scope) {
        folders.push(anchor.log(layout, &lease.sync)?.folder);
    }
    for table in tables {
        folders.push(layout.table(table)?);
    }
    folders.sort();
    folders.dedup();
    for folder in folders {
        let log = TableLog::new(layout, folder);
        for _ in 0..ATTEMPTS {
            let Some(before) = log.snapshot().await? else {
                break;
            };
            if Stand::read(&log, &before, &lease.sync, scope).await?.is_none() {
                break;
            }
            let mut actions = Actions::new("FORGET", &json!({}), &json!({"sync": lease.sync, "scope": scope}));
            Stand { number: 0, print: 0 }.write(&mut actions, &lease.sync, scope);
            if let Step::Done(_) = log.step(Some(&before), &actions).await? {
                break;
            }
        }
    }
    marker::forget_anchor(layout, &lease.sync, scope).await
}
