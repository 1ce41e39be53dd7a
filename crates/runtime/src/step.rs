//! One load: from the plan of its splits to what can be published.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use chrono::Utc;
use trib_core::{Error, Load, LoadId, Part, Receipt, Result, Split, TableLoad, TableName, WriteMode};
use trib_engine::Shelf;
use trib_engine::conform::Stamp;
use trib_engine::plan::SharedPlan;

use crate::event::Event;
use crate::fault;
use crate::guard::{check_not_emptied, check_tables};
use crate::load::{Reading, Staged};
use crate::scope::{Recorded, ScopeRun};
use crate::task::{StreamTask, new_id};
use crate::wanted::Wanted;

/// How far a load has come with its read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// There is more to read.
    More,
    /// All there was is read.
    Done,
    /// All there was is read, and what it would delete stays for now.
    Held,
}

impl ScopeRun<'_> {
    /// One load, from the plan of its splits to the acknowledgement.
    pub async fn load(&mut self, streams: &[StreamTask]) -> Result<Step> {
        let mut wanted = self.wanted(streams).await?;
        if self.moves() {
            for track in &mut self.tracks {
                track.outcome.from_state.get_or_insert_with(|| wanted.state.clone());
            }
        }
        if wanted.begins_anew {
            self.tell(&Event::Note(
                "something else is asked for than when the last read was cut: the stream is read again from its start".into(),
            ));
        }
        let splits = match self.waiting.pop_front() {
            Some(split) => vec![split],
            None => {
                let planned = self.task.source.plan(&wanted.reads, &wanted.from).await?;
                self.one_by_one(planned)
            }
        };
        if let (Some(covers), [stream]) = (splits.first().and_then(|s| s.covers.clone()), wanted.streams.as_mut_slice()) {
            stream.spec.scope = Some(covers);
        }
        fault::point("planned");
        if splits.is_empty() && !wanted.complete() {
            return Ok(Step::Done);
        }
        let Some(shelf) = self.shelf(&wanted).await? else {
            return Ok(Step::Done);
        };
        let planned = shelf.plans().await;
        check_tables(self.task, &self.filled, &wanted, &planned)?;
        self.notice(&planned);

        let stamp = Stamp { load: LoadId(new_id()), loaded_at: Utc::now() };
        let id = stamp.load.clone();
        let refreshes = wanted.refreshing;
        let reading = Reading {
            runtime: self.runtime,
            task: self.task,
            plans: shelf.clone(),
            stamp: stamp.clone(),
            progress: self.tracks.iter().map(|t| (t.stream.clone(), t.progress.clone())).collect(),
            keep: wanted.streams.iter().all(|s| s.spec.only.is_none()),
            may_stop: wanted.reads.iter().all(|r| r.may_stop),
            lost: &self.keeper.lost,
        };
        let staged = reading.run(splits).await;
        drop(reading);
        fault::point("staged");
        let plans = shelf.plans().await;
        self.notice(&plans[planned.len()..]);
        let load = InProgress { run: self, wanted, plans, stamp };
        let finished = match staged {
            Ok(staged) => load.finish(staged).await,
            Err(e) => Err(e),
        };
        let (load, step) = match finished {
            Ok(finished) => finished,
            Err(e) => {
                self.withdraw(&id).await;
                return Err(e);
            }
        };
        if let Some(load) = load {
            self.recorded = Some(Recorded { load: id, then: step, refreshes });
            self.publish(&load).await?;
        }
        Ok(step)
    }

    /// Of splits that are loads of their own the first; the others wait.
    fn one_by_one(&mut self, mut splits: Vec<Split>) -> Vec<Split> {
        if splits.first().is_some_and(|s| s.covers.is_some()) {
            self.waiting = splits.split_off(1).into();
        }
        splits
    }

    async fn wanted(&self, streams: &[StreamTask]) -> Result<Wanted> {
        let record = self.runtime.store.scope(&self.lease().sync, &self.scope).await?;
        let stands = record.map(|r| (Some(r.known), r.state)).unwrap_or_default();
        Wanted::new(streams, stands, self.refreshing(streams), self.together(), self.task.limits.splits)
    }

    /// The plans of the load's streams; `None` when there is nothing that it could do.
    async fn shelf(&self, wanted: &Wanted) -> Result<Option<Arc<Shelf>>> {
        let specs = wanted.streams.iter().map(|s| s.spec.clone());
        let shelf = Arc::new(Shelf::new(self.runtime.engine.clone(), self.task.destination.clone(), specs));
        for stream in &wanted.streams {
            // The others are planned when they turn out to have rows.
            if self.together() && !stream.spec.write.needs_complete_read() {
                continue;
            }
            let Some(plan) = shelf.plan(&stream.spec.stream).await? else { continue };
            if stream.spec.write == WriteMode::Prune && !plan.tables[0].exists {
                // Nothing was ever loaded, so nothing can be gone.
                return Ok(None);
            }
            stream.check_compare(&plan)?;
        }
        Ok(Some(shelf))
    }

    /// Removes what was staged for a load that nothing can publish any more.
    async fn withdraw(&self, load: &LoadId) {
        // What the store knows as staged is for recovery to decide.
        if self.is_recorded(load).await {
            return;
        }
        // That cleaning up fails must not hide why.
        let _ = self.task.destination.abort(load).await;
        let _ = self.runtime.store.drop_rejected(load).await;
    }
}

/// A load whose splits have been read.
struct InProgress<'a, 'r> {
    run: &'a ScopeRun<'r>,
    wanted: Wanted,
    /// Of the streams that have rows, and of those that have a table all the same.
    plans: Vec<SharedPlan>,
    stamp: Stamp,
}

impl InProgress<'_, '_> {
    /// Looks at what was staged, and records it. No load when there is nothing to be published.
    async fn finish(&self, mut staged: Staged) -> Result<(Option<Load>, Step)> {
        let (run, wanted) = (self.run, &self.wanted);
        let (source, destination) = (&run.task.source, &run.task.destination);
        check_tables(run.task, &run.filled, wanted, &self.plans)?;
        let next = wanted.next(source.as_ref(), &staged.ends)?;
        let more = staged.ends.iter().any(|e| e.rest.is_some());
        let step = if more || !run.waiting.is_empty() { Step::More } else { Step::Done };
        let wholes: Vec<String> = staged.ends.iter().flat_map(|end| end.whole.clone()).collect();
        let whole = |stream: &StreamTask| wholes.contains(&stream.spec.stream);
        if more && wanted.streams.iter().any(|s| s.spec.write.needs_complete_read() && !whole(s)) {
            if staged.receipts.iter().any(|r| r.rows > 0) {
                return Err(Error::internal("a source stopped in the middle of a read that must be complete"));
            }
            // It has not begun yet: the streams are not what was planned.
            destination.abort(&self.stamp.load).await?;
            source.acknowledge(&next).await?;
            return Ok((None, step));
        }
        let rejected = staged.rejected + staged.receipts.iter().map(|r| r.rejected.len() as u64).sum::<u64>();
        if rejected > 0 && wanted.streams.iter().any(|s| s.spec.write == WriteMode::Prune) {
            self.tell_held(rejected);
            destination.abort(&self.stamp.load).await?;
            return Ok((None, Step::Held));
        }
        if rejected > 0 && wanted.streams.iter().any(|s| s.spec.write == WriteMode::Update) {
            let rows = counted(rejected);
            self.run.tell(&Event::Note(format!(
                "{rows} rejected: what is there stays; a backfill of whole rows keeps them with their reasons"
            )));
        }
        for stream in wanted.streams.iter().filter(|s| s.spec.write.needs_complete_read()) {
            // Of a mirror that deletes nothing no table becomes empty.
            let deletes = rejected == 0 || stream.spec.write != WriteMode::Mirror;
            if let Some(plan) = self.plan_of(stream).filter(|_| deletes) {
                let of_stream = |r: &&Receipt| plan.tables.first().is_some_and(|root| root.table().name == r.table);
                let rows = staged.receipts.iter().filter(of_stream).map(|r| r.rows).sum();
                let rejected = (rejected, staged.first_rejected(&stream.spec.stream, plan));
                check_not_emptied(destination.as_ref(), stream, plan, rows, rejected).await?;
            }
        }
        self.stage_nothing(&mut staged).await?;
        let nothing_new = next == wanted.state || source.remembered_elsewhere();
        if staged.receipts.is_empty() && nothing_new && rejected == 0 {
            // Only rows that were loaded before.
            source.acknowledge(&next).await?;
            return Ok((None, step));
        }
        if run.together() {
            self.keep_refused(&mut staged).await?;
        }
        let mut tables = self.tables(staged.receipts);
        if rejected > 0 && hold_deletes(&mut tables) {
            self.tell_held(rejected);
        }
        let load = Load {
            id: self.stamp.load.clone(),
            scope: run.scope.clone(),
            number: wanted.number + 1,
            filled: self.filled(&tables),
            made_from: self.made_from().await?,
            tables,
            state: next,
            loaded_at: self.stamp.loaded_at,
        };
        for stream in &wanted.streams {
            // Keys that only say what is gone are no rows to look at.
            if let Some(audit) = stream.audit.as_ref().filter(|_| stream.spec.write != WriteMode::Prune) {
                audit.audit(&load).await?;
            }
        }
        let read_whole = wanted.replaced(|stream| !more || whole(stream));
        run.runtime.store.record_staged(run.lease(), &load, &wanted.retries(), &read_whole).await?;
        fault::point("recorded");
        Ok((Some(load), step))
    }

    fn plan_of(&self, stream: &StreamTask) -> Option<&SharedPlan> {
        self.plans.iter().find(|p| p.spec.stream == stream.spec.stream)
    }

    /// A table that is to hold what was read, and nothing else, has a part even where no split has made one.
    async fn stage_nothing(&self, staged: &mut Staged) -> Result<()> {
        let split = staged.ends.len() as u32;
        for plan in self.plans.iter().filter(|p| p.stages_nothing_too()) {
            for table in plan.tables.iter().map(|t| t.table()) {
                if staged.receipts.iter().any(|r| r.table == table.name) {
                    continue;
                }
                let part = Part { load: self.stamp.load.clone(), sync: self.run.task.identity.clone(), split, attempt: 0 };
                let nothing = Box::pin(futures::stream::empty());
                let receipt = self.run.task.destination.stage(&part, table, nothing).await.map_err(|e| e.stream(&plan.spec.stream))?;
                staged.receipts.push(receipt);
            }
        }
        Ok(())
    }

    /// Rows that the destination would not take, under the names of their streams: the load's own scope names none.
    async fn keep_refused(&self, staged: &mut Staged) -> Result<()> {
        let run = self.run;
        for receipt in staged.receipts.iter_mut().filter(|r| !r.rejected.is_empty()) {
            let writes = |p: &&SharedPlan| p.tables.iter().any(|t| t.table().name == receipt.table);
            let stream = self.plans.iter().find(writes).map_or(run.scope.as_str(), |p| p.spec.stream.as_str());
            let rows = std::mem::take(&mut receipt.rejected);
            if let Some(track) = run.tracks.iter().find(|t| t.stream == stream) {
                track.progress.rows_rejected.fetch_add(rows.len() as u64, Ordering::Relaxed);
            }
            run.runtime.store.reject(&run.runtime.run, &run.lease().sync, stream, &self.stamp.load, &rows).await?;
        }
        Ok(())
    }

    /// What the marker is to say of the tables that have rows.
    fn filled(&self, tables: &[TableLoad]) -> Vec<TableName> {
        let replaces = |s: &StreamTask| matches!(s.spec.write, WriteMode::Replace | WriteMode::Mirror);
        // Of what is replaced nothing counts that was before, and a stream that loads alone fills no tables but its own.
        let (run, streams) = (self.run, &self.wanted.streams);
        let has = |s: &StreamTask, table: &TableName| self.plan_of(s).is_some_and(|p| p.tables.iter().any(|t| t.table().name == *table));
        let replaced =
            |table: &TableName| self.wanted.refreshing || streams.iter().any(|s| replaces(s) && (!run.together() || has(s, table)));
        let before = run.filled.iter().filter(|t| !replaced(t)).cloned();
        let adds = |t: &TableLoad| !matches!(t.table.write, WriteMode::Prune | WriteMode::Update);
        let fills = |t: &&TableLoad| adds(t) && t.receipts.iter().any(|r| r.rows > 0);
        let now = tables.iter().filter(fills).map(|t| t.table.name.clone());
        before.chain(now).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The definition that all rows of the table will come from: this load's, when it replaces all of them or those that stay are of the same.
    async fn made_from(&self) -> Result<Option<String>> {
        let [stream] = self.wanted.streams.as_slice() else { return Ok(None) };
        let Some(made_from) = &stream.made_from else { return Ok(None) };
        let replaces = self.wanted.refreshing || stream.spec.write == WriteMode::Replace && stream.spec.scope.is_none();
        let is_new = self.plan_of(stream).and_then(|p| p.tables.first()).is_some_and(|t| !t.exists);
        if replaces || is_new {
            return Ok(Some(made_from.clone()));
        }
        let those_that_stay = self.run.runtime.store.scope(&self.run.lease().sync, &self.run.scope).await?.and_then(|r| r.made_from);
        Ok(those_that_stay.filter(|before| before == made_from))
    }

    fn tell_held(&self, rejected: u64) {
        let rows = counted(rejected);
        self.run.tell(&Event::Note(format!("{rows} rejected, so nothing is deleted: what could not be loaded may still be at the source")));
    }

    /// Receipts by table, in the plans' order: parents first.
    fn tables(&self, receipts: Vec<Receipt>) -> Vec<TableLoad> {
        let planned = self.plans.iter().flat_map(|p| &p.tables);
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
}

fn counted(rows: u64) -> String {
    if rows == 1 { "1 row was".to_owned() } else { format!("{rows} rows were") }
}

/// Where rows were rejected, not being among those that were read is no sign of being gone. Returns whether anything would have been deleted.
fn hold_deletes(tables: &mut [TableLoad]) -> bool {
    let mut held = false;
    for table in tables.iter_mut().map(|t| &mut t.table).filter(|t| t.write == WriteMode::Mirror) {
        table.write = WriteMode::Upsert;
        held = true;
    }
    held
}
