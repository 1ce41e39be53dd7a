//! One scope's way through a run: recovery, then load after load until nothing is left. A scope is what loads together: a stream, or all the
//! streams of a source whose rows come out of one split.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use chrono::Utc;
use trib_core::load::TableOutcome;
use trib_core::protocol::{Known, Recovery, recover};
use trib_core::{
    Code, Error, Lease, Load, LoadId, Marker, Outcome, Read, Result, SplitEnd, State, StreamRead, TableLoad, TableName, WriteMode,
};
use trib_engine::conform::Stamp;
use trib_engine::plan::SharedPlan;
use trib_engine::steps::looked_at;
use trib_engine::{Progress, Shelf, StreamSpec};
use trib_store::Counts;

use crate::event::Event;
use crate::fault;
use crate::lease::Keeper;
use crate::load::{Reading, Staged, cancelled};
use crate::retry;
use crate::task::{Refresh, Runtime, StreamTask, SyncTask, new_id};

/// The scope of streams that share loads. No stream has this name, since it is a pattern.
pub const TOGETHER: &str = "*";

/// A scope in a run.
pub struct ScopeRun<'a> {
    pub runtime: &'a Runtime,
    pub task: &'a SyncTask,
    /// What state and markers are kept under.
    pub scope: String,
    pub streams: Vec<StreamTask>,
    pub keeper: &'a Keeper,
    /// One for each stream that there was in this run.
    pub tracks: Vec<Track>,
    pub loads: u64,
}

/// A stream with what it has moved so far.
pub struct Track {
    pub stream: String,
    pub table: TableName,
    pub began: Instant,
    pub progress: Arc<Progress>,
    pub outcome: StreamOutcome,
    /// What its tables are like was told.
    pub noted: bool,
}

/// What a stream has done in this run.
#[derive(Clone, Debug, Default)]
pub struct StreamOutcome {
    pub counts: Counts,
    pub tables: Vec<TableOutcome>,
    pub from_state: Option<State>,
    pub to_state: Option<State>,
    pub changes: Vec<String>,
}

/// Whether a load has read all there was.
#[derive(PartialEq)]
enum Step {
    More,
    Done,
}

impl ScopeRun<'_> {
    fn lease(&self) -> &Lease {
        &self.keeper.lease
    }

    fn together(&self) -> bool {
        self.scope == TOGETHER
    }

    /// Tells what concerns the scope as a whole: its one stream, or the sync.
    fn tell(&self, event: &Event) {
        let stream = (!self.together()).then_some(self.scope.as_str());
        self.runtime.observer.event(&self.task.sync, stream, event);
    }

    /// Where an error belongs that names no stream itself.
    fn place(&self, error: Error) -> Error {
        if self.together() { error } else { error.stream(&self.scope) }
    }

    /// Begins to follow the streams that are new.
    async fn follow(&mut self) -> Result<()> {
        for stream in &self.streams {
            let (name, table) = (&stream.spec.stream, &stream.spec.table);
            if self.tracks.iter().any(|t| t.stream == *name) {
                continue;
            }
            let progress = Arc::new(Progress::default());
            let started = Event::Started { progress: progress.clone(), expected: stream.rows };
            self.runtime.observer.event(&self.task.sync, Some(name), &started);
            let outcome = StreamOutcome::default();
            self.tracks.push(Track { stream: name.clone(), table: table.clone(), began: Instant::now(), progress, outcome, noted: false });
            self.runtime.store.stream_progress(&self.runtime.run, &self.task.sync, name, &Counts::default()).await?;
        }
        Ok(())
    }

    /// Loads until nothing is left. A load that fails in a way that waiting may mend is tried again, after asking the destination
    /// anew what it has: the answer to a commit may have been lost on its way.
    pub async fn run(&mut self, marker: Option<Marker>) -> Result<()> {
        self.follow().await?;
        let mut marker = Some(marker);
        let mut attempt = 1;
        loop {
            let result = match marker.take() {
                Some(marker) => self.steps(marker).await,
                None => match self.ask_marker().await {
                    Ok(marker) => self.steps(marker).await,
                    Err(e) => Err(e),
                },
            };
            let Err(error) = result else {
                return Ok(());
            };
            let Some(pause) = retry::pause(&error, attempt, &self.task.limits) else {
                return Err(self.place(error));
            };
            let of = self.task.limits.attempts;
            self.tell(&Event::Retrying { error: Arc::new(error), attempt, of, pause });
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.keeper.lost.cancelled() => return Err(cancelled(self.runtime)),
            }
            attempt += 1;
        }
    }

    async fn ask_marker(&self) -> Result<Option<Marker>> {
        let tables: Vec<TableName> = self.streams.iter().map(|s| s.spec.table.clone()).collect();
        let markers = self.task.destination.open(self.lease(), &tables).await?;
        Ok(markers.into_iter().find(|m| m.scope == self.scope))
    }

    async fn steps(&mut self, marker: Option<Marker>) -> Result<()> {
        if let Some(stream) = self.streams.iter().find(|s| s.compare.is_some() && self.together()) {
            return Err(Error::new(Code::Unsupported, "deletes cannot be found by comparing where all streams are read together")
                .stream(&stream.spec.stream)
                .hint("leave `deletes: {detect: compare}` out, or read the stream in full with `write: mirror`"));
        }
        self.recover(marker).await?;
        while self.load(&self.streams.clone()).await? == Step::More {
            self.renew().await?;
        }
        if let Some(prune) = self.prune_due().await? {
            self.load(&[prune]).await?;
            self.runtime.store.record_prune(self.lease(), &self.scope, Utc::now()).await?;
        }
        Ok(())
    }

    /// Streams that share a split may have changed, or new ones have come, while it was read.
    async fn renew(&mut self) -> Result<()> {
        if let Some(renew) = &self.task.renew {
            self.streams = renew(&self.task.source.discover(&[]).await?)?;
            self.follow().await?;
        }
        Ok(())
    }

    /// Deals with what an earlier run has left.
    async fn recover(&mut self, marker: Option<Marker>) -> Result<()> {
        let store = &self.runtime.store;
        let known = store.known(&self.lease().sync, &self.scope).await?;
        let told = |what, load: &LoadId| Event::Recovered { what, load: load.clone() };
        match recover(known.as_ref(), marker.as_ref()) {
            Recovery::GoOn => {}
            Recovery::CommitStaged(load) => {
                self.tell(&told("was staged and is published now", &load.id));
                self.publish(&load).await?;
            }
            Recovery::ReadAgain(load) => {
                self.tell(&told("was not finished and is read again", &load));
                self.task.destination.abort(&load).await?;
                store.discard_staged(self.lease(), &self.scope).await?;
            }
            Recovery::MoveState(load) => {
                self.tell(&told("was visible already; the state follows", &load.id));
                let outcome = Outcome { already_committed: true, ..Outcome::default() };
                store.committed(self.lease(), &load, &outcome, &self.runtime.run).await?;
            }
            // Everything is loaded again, or sent again by whoever remembers, so only the numbering has to go on.
            Recovery::Refuse(_) if self.refreshing() || self.task.source.remembered_elsewhere() => match &marker {
                Some(marker) => store.adopt(self.lease(), marker).await?,
                None => store.reset(self.lease(), std::slice::from_ref(&self.scope)).await?,
            },
            Recovery::Refuse(disagreement) => return Err(disagreement.error(&self.scope)),
        }
        Ok(())
    }

    /// The read of keys that finds out what is gone, when it is due.
    async fn prune_due(&self) -> Result<Option<StreamTask>> {
        let [stream] = self.streams.as_slice() else {
            return Ok(None);
        };
        let Some(compare) = stream.compare.filter(|_| !self.together()) else {
            return Ok(None);
        };
        let last = self.runtime.store.last_prune(&self.lease().sync, &self.scope).await?;
        let recent = match (last, compare.every) {
            (Some(last), Some(every)) => Utc::now() - last < chrono::TimeDelta::from_std(every).unwrap_or(chrono::TimeDelta::MAX),
            _ => false,
        };
        if recent {
            return Ok(None);
        }
        let mut prune = stream.clone();
        prune.read = Read::Keys;
        prune.refresh = Refresh::No;
        prune.spec.write = WriteMode::Prune;
        prune.spec.deletes = compare.apply;
        prune.spec.contract = trib_core::contract::Contract::default();
        let StreamSpec { key, schema, transform, scope, .. } = &mut prune.spec;
        transform.select = None;
        transform.columns.retain(|name, _| key.contains(name));
        // What is added may be part of the key, as the scope is; the rest is not asked for.
        transform.add.retain(|name, _| key.contains(name) || scope.as_ref().is_some_and(|s| s.column == *name));
        if let Some(looked_at) = looked_at(&self.runtime.engine, schema, transform)? {
            let needed = |name: &String| key.contains(name) || looked_at.contains(name);
            let needed: Vec<usize> = (0..schema.fields().len()).filter(|i| needed(schema.field(*i).name())).collect();
            *schema = Arc::new(schema.project(&needed)?);
        }
        Ok(Some(prune))
    }

    /// One load, from the plan of its splits to the acknowledgement.
    async fn load(&mut self, streams: &[StreamTask]) -> Result<Step> {
        let (store, source) = (&self.runtime.store, &self.task.source);
        let identity = self.lease().sync.clone();
        let known = store.known(&identity, &self.scope).await?;
        let state = store.state_of(&identity, &self.scope).await?;
        let refreshing = self.refreshing() && self.loads == 0;
        let streams: Vec<StreamTask> = streams.iter().map(|s| for_this_load(s, refreshing)).collect();
        let from = if refreshing { State::default() } else { state.clone() };
        for track in &mut self.tracks {
            track.outcome.from_state.get_or_insert_with(|| state.clone());
        }

        let reads: Vec<StreamRead> = streams.iter().map(|s| s.stream_read(self.task.limits.splits)).collect();
        let splits = source.plan(&reads, &from).await?;
        fault::point("planned");
        let complete = streams.iter().any(|s| s.spec.write.needs_complete_read());
        if splits.is_empty() && !complete {
            return Ok(Step::Done);
        }
        let specs = streams.iter().map(|s| s.spec.clone());
        let plans = Arc::new(Shelf::new(self.runtime.engine.clone(), self.task.destination.clone(), specs));
        for stream in &streams {
            // The others are planned when they turn out to have rows.
            if !self.together() || stream.spec.write.needs_complete_read() {
                let plan = plans.plan(&stream.spec.stream).await?;
                let Some(plan) = plan else { continue };
                if stream.spec.write == WriteMode::Prune && !plan.tables[0].exists {
                    // Nothing was ever loaded, so nothing can be gone.
                    return Ok(Step::Done);
                }
                stream.check_compare(&plan)?;
            }
        }
        let planned = plans.plans().await;
        self.tell_notes(&planned);

        let stamp = Stamp { load: LoadId(new_id()), loaded_at: Utc::now() };
        let id = stamp.load.clone();
        let reading = Reading {
            runtime: self.runtime,
            task: self.task,
            plans: plans.clone(),
            stamp: stamp.clone(),
            progress: self.tracks.iter().map(|t| (t.stream.clone(), t.progress.clone())).collect(),
            keep: streams.iter().all(|s| s.spec.write != WriteMode::Prune),
            may_stop: reads.iter().all(|r| r.may_stop),
            lost: &self.keeper.lost,
        };
        let staged = reading.run(splits).await;
        drop(reading);
        fault::point("staged");
        let all = plans.plans().await;
        self.tell_notes(&all[planned.len()..]);
        let loaded = match staged {
            Ok(staged) => match next_state(self.task, &streams, &reads, &from, &state, &staged.ends) {
                Ok(next) => self.finish_load(&streams, &all, stamp, known.as_ref(), (&state, next), staged).await,
                Err(e) => Err(e),
            },
            Err(e) => Err(e),
        };
        if loaded.is_err() && !self.is_recorded(&id).await {
            // Nothing can publish it any more. That cleaning up fails must not hide why.
            let _ = self.task.destination.abort(&id).await;
            let _ = store.drop_rejected(&id).await;
        }
        loaded
    }

    /// Reads begin at the very beginning. Streams that share a split can only do so together.
    fn refreshing(&self) -> bool {
        self.streams.iter().any(|s| s.refresh == Refresh::Full)
    }

    /// Whether the store knows the load as staged: then its fate is decided by recovery, not here.
    async fn is_recorded(&self, id: &LoadId) -> bool {
        match self.runtime.store.known(&self.lease().sync, &self.scope).await {
            Ok(Some(Known { staged: Some(load), .. })) => load.id == *id,
            Ok(_) => false,
            Err(_) => true,
        }
    }

    /// What is noticed about the tables: once, and again when something has changed.
    fn tell_notes(&mut self, plans: &[SharedPlan]) {
        for plan in plans {
            let Some(track) = self.tracks.iter_mut().find(|t| t.stream == plan.spec.stream) else { continue };
            let told = std::mem::replace(&mut track.noted, true);
            if told && plan.tables.iter().all(|t| t.changes.is_empty()) {
                continue;
            }
            for table in &plan.tables {
                let name = &table.table().name;
                for change in table.changes.iter().map(|c| format!("{name}: {c}")) {
                    if !track.outcome.changes.contains(&change) {
                        track.outcome.changes.push(change);
                    }
                }
                for note in table.notes.iter().chain(&table.lossy) {
                    self.runtime.observer.event(&self.task.sync, Some(&track.stream), &Event::Note(format!("{name}: {note}")));
                }
            }
        }
    }

    async fn finish_load(
        &mut self,
        streams: &[StreamTask],
        plans: &[SharedPlan],
        stamp: Stamp,
        known: Option<&Known>,
        (state, next): (&State, State),
        mut staged: Staged,
    ) -> Result<Step> {
        let more = staged.ends.iter().any(|e| e.rest.is_some());
        let step = if more { Step::More } else { Step::Done };
        let complete = streams.iter().any(|s| s.spec.write.needs_complete_read());
        let whole = |stream: &StreamTask| staged.ends.iter().any(|end| end.whole.contains(&stream.spec.stream));
        if more && streams.iter().any(|s| s.spec.write.needs_complete_read() && !whole(s)) {
            if staged.receipts.iter().any(|r| r.rows > 0) {
                return Err(Error::internal("a source stopped in the middle of a read that must be complete"));
            }
            // It has not begun yet: the streams are not what was planned.
            self.task.destination.abort(&stamp.load).await?;
            self.task.source.acknowledge(&next).await?;
            return Ok(step);
        }
        for stream in streams.iter().filter(|s| s.spec.write.needs_complete_read()) {
            self.guard_empty(stream, plans, known, &staged)?;
        }
        let nothing_new = next == *state || self.task.source.remembered_elsewhere() && staged.rejected == 0;
        if staged.receipts.is_empty() && !complete && nothing_new {
            // Only rows that were loaded before, or that were rejected.
            self.task.source.acknowledge(&next).await?;
            return Ok(step);
        }
        if self.together() {
            self.keep_refused(plans, &stamp.load, &mut staged).await?;
        }
        let load = Load {
            id: stamp.load,
            scope: self.scope.clone(),
            number: known.map_or(0, |k| k.number) + 1,
            tables: tables_of(plans, staged.receipts),
            state: next,
            loaded_at: stamp.loaded_at,
        };
        for stream in streams {
            // Keys that only say what is gone are no rows to look at.
            if let Some(audit) = stream.audit.as_ref().filter(|_| stream.spec.write != WriteMode::Prune) {
                audit.audit(&load).await?;
            }
        }
        let retries: Vec<u64> = streams.iter().flat_map(|s| s.retries.iter().copied()).collect();
        self.runtime.store.record_staged(self.lease(), &load, &retries).await?;
        fault::point("recorded");
        self.publish(&load).await?;
        Ok(step)
    }

    /// Rows that the destination would not take, under the names of their streams: the load's own scope names none.
    async fn keep_refused(&self, plans: &[SharedPlan], load: &LoadId, staged: &mut Staged) -> Result<()> {
        for receipt in staged.receipts.iter_mut().filter(|r| !r.rejected.is_empty()) {
            let writes = |p: &&SharedPlan| p.tables.iter().any(|t| t.table().name == receipt.table);
            let stream = plans.iter().find(writes).map_or(self.scope.as_str(), |p| p.spec.stream.as_str());
            let rows = std::mem::take(&mut receipt.rejected);
            if let Some(track) = self.tracks.iter().find(|t| t.stream == stream) {
                track.progress.rows_rejected.fetch_add(rows.len() as u64, std::sync::atomic::Ordering::Relaxed);
            }
            self.runtime.store.reject(&self.runtime.run, &self.lease().sync, stream, load, &rows).await?;
        }
        Ok(())
    }

    /// Nothing was read where something must have been: a table is not emptied without a yes.
    fn guard_empty(&self, stream: &StreamTask, plans: &[SharedPlan], known: Option<&Known>, staged: &Staged) -> Result<()> {
        let Some(root) = plans.iter().find(|p| p.spec.stream == stream.spec.stream).and_then(|p| p.tables.first()) else {
            return Ok(());
        };
        let rows: u64 = staged.receipts.iter().filter(|r| r.table == root.table().name).map(|r| r.rows).sum();
        let loaded_before = known.is_some_and(|k| k.number > 0);
        if rows > 0 || stream.allow_empty || !loaded_before || !root.exists {
            return Ok(());
        }
        Err(Error::new(Code::Held, "the source gave no rows, and this load would empty the table")
            .detail(stream.spec.table.to_string())
            .stream(&stream.spec.stream)
            .hint("if that is right, run with `--allow-empty`, or set `allow_empty: true` in the sync"))
    }

    /// Commit, state, acknowledgement.
    async fn publish(&mut self, load: &Load) -> Result<()> {
        if self.keeper.lost.is_cancelled() {
            return Err(cancelled(self.runtime));
        }
        self.tell(&Event::Committing { load: load.id.clone(), rows: load.rows() });
        let outcome = self.task.destination.commit(load, self.lease()).await?;
        fault::point("committed");
        self.runtime.store.committed(self.lease(), load, &outcome, &self.runtime.run).await?;
        fault::point("moved");
        self.task.source.acknowledge(&load.state).await?;
        fault::point("acknowledged");
        self.loads += 1;
        self.tell(&Event::Committed { load: load.id.clone(), tables: outcome.tables.clone(), state: load.state.clone() });
        let owners = owners(load, &self.streams);
        for track in &mut self.tracks {
            track.outcome.to_state = Some(load.state.clone());
        }
        for table in outcome.tables {
            let owner = owners.get(&table.table);
            if let Some(track) = self.tracks.iter_mut().find(|t| Some(&t.stream) == owner) {
                track.outcome.counts.written += table.inserted;
                track.outcome.counts.updated += table.updated;
                track.outcome.counts.deleted += table.deleted;
                track.outcome.tables.push(table);
            }
        }
        Ok(())
    }
}

/// A refreshed table is replaced by what is read from the very beginning; only history adds to what it has.
fn for_this_load(stream: &StreamTask, refreshing: bool) -> StreamTask {
    let mut stream = stream.clone();
    if refreshing && stream.refresh == Refresh::Full && stream.spec.write != WriteMode::History {
        stream.spec.write = WriteMode::Replace;
    }
    stream
}

/// The stream that each of a load's tables belongs to.
fn owners(load: &Load, streams: &[StreamTask]) -> HashMap<TableName, String> {
    let of = |share: &TableLoad| {
        let root = share.table.parent.as_ref().map_or(&share.table.name, |p| &p.table);
        let named = streams.iter().find(|s| s.spec.table == *root);
        let stream = named.or(streams.first().filter(|_| streams.len() == 1))?;
        Some((share.table.name.clone(), stream.spec.stream.clone()))
    };
    load.tables.iter().filter_map(of).collect()
}

/// Where the load leads to. Reading a range again, or comparing keys, moves nothing.
fn next_state(
    task: &SyncTask,
    streams: &[StreamTask],
    reads: &[StreamRead],
    from: &State,
    state: &State,
    ends: &[SplitEnd],
) -> Result<State> {
    let moves = |stream: &StreamTask| matches!(stream.read, Read::Full | Read::Incremental(_) | Read::Cdc);
    if streams.iter().any(moves) { task.source.advance(reads, from, ends) } else { Ok(state.clone()) }
}

/// Receipts by table, in the plans' order: parents first.
fn tables_of(plans: &[SharedPlan], receipts: Vec<trib_core::Receipt>) -> Vec<TableLoad> {
    let planned = plans.iter().flat_map(|p| &p.tables);
    let mut tables: Vec<TableLoad> =
        planned.map(|t| TableLoad { table: t.table().clone(), changes: t.changes.clone(), receipts: Vec::new() }).collect();
    for receipt in receipts {
        let place = |name: &TableName| tables.iter().position(|t| t.table.name == *name);
        if let Some(i) = place(&receipt.table) {
            tables[i].receipts.push(receipt);
        }
    }
    tables
}
