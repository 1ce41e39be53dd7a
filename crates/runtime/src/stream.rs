//! One stream's way through a run: recovery, then load after load until nothing is left.

use std::sync::Arc;

use chrono::Utc;
use trib_core::load::TableOutcome;
use trib_core::protocol::{Known, Recovery, recover};
use trib_core::{Code, Error, Lease, Load, LoadId, Marker, Outcome, Read, Result, SplitEnd, State, TableLoad, TableName, WriteMode};
use trib_engine::conform::Stamp;
use trib_engine::steps::looked_at;
use trib_engine::{Progress, StreamPlan, StreamSpec};
use trib_store::Counts;

use crate::event::Event;
use crate::fault;
use crate::lease::Keeper;
use crate::load::{Reading, Staged, cancelled};
use crate::retry;
use crate::task::{Refresh, Runtime, StreamTask, SyncTask, new_id};

/// A stream in a run, with what it has moved so far.
pub struct StreamRun<'a> {
    pub runtime: &'a Runtime,
    pub task: &'a SyncTask,
    pub stream: StreamTask,
    pub keeper: &'a Keeper,
    pub progress: Arc<Progress>,
    pub outcome: StreamOutcome,
}

/// What a stream has done in this run.
#[derive(Clone, Debug, Default)]
pub struct StreamOutcome {
    pub counts: Counts,
    pub loads: u64,
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

impl StreamRun<'_> {
    pub fn scope(&self) -> &str {
        &self.stream.spec.stream
    }

    fn lease(&self) -> &Lease {
        &self.keeper.lease
    }

    fn tell(&self, event: &Event) {
        self.runtime.observer.event(&self.task.sync, Some(self.scope()), event);
    }

    /// Loads until nothing is left. A load that fails in a way that waiting may mend is tried again, after asking the destination
    /// anew what it has: the answer to a commit may have been lost on its way.
    pub async fn run(&mut self, marker: Option<Marker>) -> Result<()> {
        let expected = self.stream.rows;
        self.tell(&Event::Started { progress: self.progress.clone(), expected });
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
                return Err(error.stream(self.scope()));
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
        let tables = [self.stream.spec.table.clone()];
        let markers = self.task.destination.open(self.lease(), &tables).await?;
        Ok(markers.into_iter().find(|m| m.scope == self.scope()))
    }

    async fn steps(&mut self, marker: Option<Marker>) -> Result<()> {
        self.recover(marker).await?;
        let read = self.stream.clone();
        while self.load(&read).await? == Step::More {}
        if let Some(prune) = self.prune_due().await? {
            self.load(&prune).await?;
            self.runtime.store.record_prune(self.lease(), self.scope(), Utc::now()).await?;
        }
        Ok(())
    }

    /// Deals with what an earlier run has left.
    async fn recover(&mut self, marker: Option<Marker>) -> Result<()> {
        let store = &self.runtime.store;
        let known = store.known(&self.lease().sync, self.scope()).await?;
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
                store.discard_staged(self.lease(), self.scope()).await?;
            }
            Recovery::MoveState(load) => {
                self.tell(&told("was visible already; the state follows", &load.id));
                let outcome = Outcome { already_committed: true, ..Outcome::default() };
                store.committed(self.lease(), &load, &outcome, &self.runtime.run).await?;
            }
            Recovery::Refuse(_) if self.stream.refresh == Refresh::Full => match &marker {
                // Everything is loaded again, so only the numbering has to go on.
                Some(marker) => store.adopt(self.lease(), marker).await?,
                None => store.reset(self.lease(), &[self.scope().to_owned()]).await?,
            },
            Recovery::Refuse(disagreement) => return Err(disagreement.error(self.scope())),
        }
        Ok(())
    }

    /// The read of keys that finds out what is gone, when it is due.
    async fn prune_due(&self) -> Result<Option<StreamTask>> {
        let Some(compare) = self.stream.compare else {
            return Ok(None);
        };
        let last = self.runtime.store.last_prune(&self.lease().sync, self.scope()).await?;
        let recent = match (last, compare.every) {
            (Some(last), Some(every)) => Utc::now() - last < chrono::TimeDelta::from_std(every).unwrap_or(chrono::TimeDelta::MAX),
            _ => false,
        };
        if recent {
            return Ok(None);
        }
        let mut prune = self.stream.clone();
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
    async fn load(&mut self, stream: &StreamTask) -> Result<Step> {
        let (store, source) = (&self.runtime.store, &self.task.source);
        let scope = self.scope().to_owned();
        let identity = self.lease().sync.clone();
        let known = store.known(&identity, &scope).await?;
        let state = store.state_of(&identity, &scope).await?;
        let refreshing = stream.refresh == Refresh::Full && self.outcome.loads == 0;
        let stream = &self.for_this_load(stream, refreshing);
        let from = if refreshing { State::default() } else { state.clone() };
        self.outcome.from_state.get_or_insert_with(|| state.clone());

        let reads = [stream.stream_read(self.task.limits.splits)];
        let splits = source.plan(&reads, &from).await?;
        fault::point("planned");
        let complete = stream.spec.write.needs_complete_read();
        if splits.is_empty() && !complete {
            return Ok(Step::Done);
        }
        let plan = Arc::new(StreamPlan::compile(&self.runtime.engine, stream.spec.clone(), self.task.destination.as_ref()).await?);
        if stream.spec.write == WriteMode::Prune && !plan.tables[0].exists {
            // Nothing was ever loaded, so nothing can be gone.
            return Ok(Step::Done);
        }
        stream.check_compare(&plan)?;
        self.tell_notes(&plan);

        let stamp = Stamp { load: LoadId(new_id()), loaded_at: Utc::now() };
        let id = stamp.load.clone();
        let reading = Reading {
            runtime: self.runtime,
            task: self.task,
            scope: &scope,
            plan: plan.clone(),
            stamp: stamp.clone(),
            progress: self.progress.clone(),
            may_stop: reads[0].may_stop,
            lost: &self.keeper.lost,
        };
        let staged = reading.run(splits).await;
        drop(reading);
        fault::point("staged");
        let loaded = match staged {
            Ok(staged) => self.finish_load(stream, &plan, stamp, known.as_ref(), &reads, &from, &state, staged).await,
            Err(e) => Err(e),
        };
        if loaded.is_err() && !self.is_recorded(&id).await {
            // Nothing can publish it any more. That cleaning up fails must not hide why.
            let _ = self.task.destination.abort(&id).await;
            let _ = store.drop_rejected(&id).await;
        }
        loaded
    }

    /// Whether the store knows the load as staged: then its fate is decided by recovery, not here.
    async fn is_recorded(&self, id: &LoadId) -> bool {
        match self.runtime.store.known(&self.lease().sync, self.scope()).await {
            Ok(Some(Known { staged: Some(load), .. })) => load.id == *id,
            Ok(_) => false,
            Err(_) => true,
        }
    }

    /// A refreshed table is replaced by what is read from the very beginning; only history adds to what it has.
    fn for_this_load(&self, stream: &StreamTask, refreshing: bool) -> StreamTask {
        let mut stream = stream.clone();
        if refreshing && stream.spec.write != WriteMode::History {
            stream.spec.write = WriteMode::Replace;
        }
        stream
    }

    fn tell_notes(&mut self, plan: &StreamPlan) {
        if self.outcome.loads > 0 {
            return;
        }
        for table in &plan.tables {
            let name = &table.table().name;
            let changes = table.changes.iter().map(|c| format!("{name}: {c}"));
            self.outcome.changes.extend(changes);
            for note in table.notes.iter().chain(&table.lossy) {
                self.tell(&Event::Note(format!("{name}: {note}")));
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the facts of one load, gathered in one place and used in one")]
    async fn finish_load(
        &mut self,
        stream: &StreamTask,
        plan: &StreamPlan,
        stamp: Stamp,
        known: Option<&Known>,
        reads: &[trib_core::StreamRead],
        from: &State,
        state: &State,
        staged: Staged,
    ) -> Result<Step> {
        let more = staged.ends.iter().any(|e| e.rest.is_some());
        if more && stream.spec.write.needs_complete_read() {
            return Err(Error::internal("a source stopped in the middle of a read that must be complete"));
        }
        let next = next_state(self.task, stream, reads, from, state, &staged.ends)?;
        let rows: u64 = staged.receipts.iter().map(|r| r.rows).sum();
        if rows == 0 && stream.spec.write.needs_complete_read() {
            self.guard_empty(stream, plan, known)?;
        }
        if staged.receipts.is_empty() && next == *state && !stream.spec.write.needs_complete_read() {
            // Only rows that were loaded before, or that were rejected.
            return Ok(if more { Step::More } else { Step::Done });
        }
        let load = Load {
            id: stamp.load,
            scope: self.scope().to_owned(),
            number: known.map_or(0, |k| k.number) + 1,
            tables: tables_of(plan, staged.receipts),
            state: next,
            loaded_at: stamp.loaded_at,
        };
        // Keys that only say what is gone are no rows to look at.
        if let Some(audit) = stream.audit.as_ref().filter(|_| stream.spec.write != WriteMode::Prune) {
            audit.audit(&load).await?;
        }
        self.runtime.store.record_staged(self.lease(), &load, &stream.retries).await?;
        fault::point("recorded");
        self.publish(&load).await?;
        Ok(if more { Step::More } else { Step::Done })
    }

    /// Nothing was read where something must have been: a table is not emptied without a yes.
    fn guard_empty(&self, stream: &StreamTask, plan: &StreamPlan, known: Option<&Known>) -> Result<()> {
        let loaded_before = known.is_some_and(|k| k.number > 0);
        let there = plan.tables.first().is_some_and(|t| t.exists);
        if stream.allow_empty || !loaded_before || !there {
            return Ok(());
        }
        Err(Error::new(Code::Held, "the source gave no rows, and this load would empty the table")
            .detail(stream.spec.table.to_string())
            .stream(self.scope())
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
        self.outcome.loads += 1;
        for table in &outcome.tables {
            self.outcome.counts.written += table.inserted;
            self.outcome.counts.updated += table.updated;
            self.outcome.counts.deleted += table.deleted;
        }
        self.outcome.to_state = Some(load.state.clone());
        self.tell(&Event::Committed { load: load.id.clone(), tables: outcome.tables.clone(), state: load.state.clone() });
        self.outcome.tables.extend(outcome.tables);
        Ok(())
    }
}

/// Where the load leads to. Reading a range again, or comparing keys, moves nothing.
fn next_state(
    task: &SyncTask,
    stream: &StreamTask,
    reads: &[trib_core::StreamRead],
    from: &State,
    state: &State,
    ends: &[SplitEnd],
) -> Result<State> {
    match stream.read {
        Read::Range { .. } | Read::Keys => Ok(state.clone()),
        Read::Full | Read::Incremental(_) | Read::Cdc => task.source.advance(reads, from, ends),
    }
}

/// Receipts by table, in the plan's order: parents first.
fn tables_of(plan: &StreamPlan, receipts: Vec<trib_core::Receipt>) -> Vec<TableLoad> {
    let mut tables: Vec<TableLoad> =
        plan.tables.iter().map(|t| TableLoad { table: t.table().clone(), changes: t.changes.clone(), receipts: Vec::new() }).collect();
    for receipt in receipts {
        let place = |name: &TableName| tables.iter().position(|t| t.table.name == *name);
        if let Some(i) = place(&receipt.table) {
            tables[i].receipts.push(receipt);
        }
    }
    tables
}
