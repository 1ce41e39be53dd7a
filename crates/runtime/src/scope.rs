//! One scope's way through a run: recovery, then load after load until nothing is left. A scope is what loads together: a stream, or all the
//! streams of a source whose rows come out of one split.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use trib_core::protocol::{Aftermath, Known, Recovery, aftermath, recover};
use trib_core::{Error, Lease, Load, LoadId, Marker, Outcome, Result, Split, TableLoad, TableName};
use trib_engine::Progress;
use trib_engine::plan::SharedPlan;
use trib_store::Counts;

use crate::event::Event;
use crate::fault;
use crate::lease::Keeper;
use crate::load::cancelled;
use crate::prune;
use crate::retry;
use crate::step::Step;
use crate::task::{Refresh, Runtime, StreamTask, SyncTask};
use crate::track::Track;

/// How often a delivery is asked what keeps it.
const TROUBLE: Duration = Duration::from_secs(2);

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
    /// Loads that have become visible in this run.
    published: u64,
    /// The last load that this run has recorded as staged.
    pub recorded: Option<Recorded>,
    /// The tables were replaced by what is read from the very beginning.
    refreshed: bool,
    /// Tables that rows of the scope have gone into, as the destination's marker has it ([`Load::filled`]).
    pub filled: Vec<TableName>,
    /// Splits that were planned and are loads of their own.
    pub waiting: VecDeque<Split>,
}

/// A load of this run that is to be published.
pub struct Recorded {
    pub load: LoadId,
    /// What is to be done when it is.
    pub then: Step,
    /// It replaces the tables by what was read from the very beginning.
    pub refreshes: bool,
}

impl<'a> ScopeRun<'a> {
    pub fn new(runtime: &'a Runtime, task: &'a SyncTask, scope: String, streams: Vec<StreamTask>, keeper: &'a Keeper) -> Self {
        Self {
            runtime,
            task,
            scope,
            streams,
            keeper,
            tracks: Vec::new(),
            published: 0,
            recorded: None,
            refreshed: false,
            filled: Vec::new(),
            waiting: VecDeque::new(),
        }
    }

    pub fn lease(&self) -> &Lease {
        &self.keeper.lease
    }

    pub fn together(&self) -> bool {
        self.scope == TOGETHER
    }

    /// Reads begin at the very beginning. Streams that share a split can only do so together.
    pub fn refreshing(&self, streams: &[StreamTask]) -> bool {
        !self.refreshed && streams.iter().any(|s| s.refresh == Refresh::Full)
    }

    /// Tells what concerns the scope as a whole: its one stream, or the sync.
    pub fn tell(&self, event: &Event) {
        let stream = (!self.together()).then_some(self.scope.as_str());
        self.runtime.observer.event(&self.task.sync, stream, event);
    }

    /// Tells what is noticed about the tables.
    pub fn notice(&mut self, plans: &[SharedPlan]) {
        for plan in plans {
            let Some(track) = self.tracks.iter_mut().find(|t| t.stream == plan.spec.stream) else { continue };
            for note in track.notice(plan) {
                self.runtime.observer.event(&self.task.sync, Some(&track.stream), &Event::Note(note));
            }
        }
    }

    /// Where an error belongs that names no stream itself.
    fn place(&self, error: Error) -> Error {
        if self.together() { error } else { error.stream(&self.scope) }
    }

    /// Begins to follow the streams that are new.
    async fn follow(&mut self) -> Result<()> {
        for stream in &self.streams {
            let name = &stream.spec.stream;
            if self.tracks.iter().any(|t| t.stream == *name) {
                continue;
            }
            let progress = Arc::new(Progress::default());
            let started = Event::Started { progress: progress.clone(), expected: stream.rows };
            self.runtime.observer.event(&self.task.sync, Some(name), &started);
            self.tracks.push(Track::new(stream, progress));
            self.runtime.store.stream_progress(&self.runtime.run, &self.task.sync, name, &Counts::default()).await?;
        }
        Ok(())
    }

    /// Loads until nothing is left. A load that fails in a way that waiting may mend is tried again, after asking the destination
    /// anew what it has: the answer to a commit may have been lost on its way. Attempts are counted from the last load that became visible.
    pub async fn run(&mut self, marker: Option<Marker>) -> Result<()> {
        self.follow().await?;
        let mut marker = Some(marker);
        let (mut attempt, mut published) = (1, 0);
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
            if std::mem::replace(&mut published, self.published) < self.published {
                attempt = 1;
            }
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
        prune::check(&self.streams, self.together())?;
        // After a failure State says anew what is left.
        self.waiting.clear();
        // What an earlier attempt has read to its end is not read once more.
        if self.recover(marker).await? != Step::Done {
            while self.load(&self.streams.clone()).await? == Step::More {
                self.renew().await?;
            }
        }
        if let Some(keys) = self.prune_due().await?
            && self.load(&[keys]).await? == Step::Done
        {
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

    /// The read of keys that finds out what is gone, when it is due.
    async fn prune_due(&self) -> Result<Option<StreamTask>> {
        let [stream] = self.streams.as_slice() else {
            return Ok(None);
        };
        let Some(compare) = stream.compare.filter(|_| !self.together()) else {
            return Ok(None);
        };
        let last = self.runtime.store.last_prune(&self.lease().sync, &self.scope).await?;
        if !prune::is_due(compare, last) {
            return Ok(None);
        }
        prune::task(&self.runtime.engine, stream, compare).map(Some)
    }

    /// Deals with what an earlier run, or attempt, has left. Says whether there is anything to be read.
    async fn recover(&mut self, marker: Option<Marker>) -> Result<Step> {
        let store = &self.runtime.store;
        let known = store.known(&self.lease().sync, &self.scope).await?;
        self.filled = marker.as_ref().map(|m| m.filled.clone()).unwrap_or_default();
        let refreshing = self.refreshing(&self.streams);
        // What this run has staged is what was asked of it.
        let ours = known.as_ref().and_then(|k| k.staged.as_ref()).is_some_and(|l| self.own(&l.id).is_some());
        match recover(known.as_ref(), marker.as_ref(), refreshing && !ours) {
            Recovery::GoOn => {}
            Recovery::CommitStaged(load) => {
                self.tell_recovered("was staged and is published now", &load.id);
                let Err(e) = self.publish(&load).await else {
                    return Ok(self.then(&load.id));
                };
                if self.is_recorded(&load.id).await {
                    return Err(e);
                }
                self.tell(&Event::Note(format!("load {} could not be published: {e}", load.id)));
                self.tell_recovered("could not be published and is read again", &load.id);
            }
            Recovery::ReadAgain(load) => {
                self.tell_recovered("was not published and is read again", &load);
                self.discard(&load).await?;
            }
            Recovery::MoveState(load) => {
                self.tell_recovered("was visible already; the state follows", &load.id);
                self.keep_undelivered(&load).await?;
                let outcome = Outcome { already_committed: true, ..Outcome::default() };
                store.committed(self.lease(), &load, &outcome, &self.runtime.run).await?;
                self.has_published(&load.id);
                self.task.source.acknowledge(&load.state).await?;
                return Ok(self.then(&load.id));
            }
            // Everything is loaded again, or sent again by whoever remembers, so only the numbering has to go on.
            Recovery::Refuse(_) if refreshing || self.task.source.remembered_elsewhere() => match &marker {
                Some(marker) => store.adopt(self.lease(), marker).await?,
                None => store.reset(self.lease(), std::slice::from_ref(&self.scope)).await?,
            },
            Recovery::Refuse(disagreement) => return Err(disagreement.error(&self.scope)),
        }
        Ok(Step::More)
    }

    /// The load, when this run has recorded it.
    fn own(&self, load: &LoadId) -> Option<&Recorded> {
        self.recorded.as_ref().filter(|recorded| recorded.load == *load)
    }

    /// What follows the load. After one of an earlier run that is everything that this run was asked for.
    fn then(&self, load: &LoadId) -> Step {
        self.own(load).map_or(Step::More, |recorded| recorded.then)
    }

    fn tell_recovered(&self, what: &'static str, load: &LoadId) {
        self.tell(&Event::Recovered { what, load: load.clone() });
    }

    /// Drops a load that was recorded as staged.
    async fn discard(&self, load: &LoadId) -> Result<()> {
        self.task.destination.abort(load).await?;
        self.runtime.store.discard_staged(self.lease(), &self.scope).await
    }

    /// Whether the store knows the load as staged: then its fate is decided by recovery.
    pub async fn is_recorded(&self, id: &LoadId) -> bool {
        match self.runtime.store.known(&self.lease().sync, &self.scope).await {
            Ok(Some(Known { staged: Some(load), .. })) => load.id == *id,
            Ok(_) => false,
            Err(_) => true,
        }
    }

    /// What an API would not take is known only when it was asked.
    pub(super) async fn keep_undelivered(&self, load: &Load) -> Result<()> {
        let Some(api) = self.task.destination.deliveries() else { return Ok(()) };
        let rows = api.undelivered(&self.lease().sync, &load.id).await?;
        if let Some(track) = self.tracks.iter().find(|t| t.stream == self.scope) {
            track.progress.rows_rejected.fetch_add(rows.len() as u64, std::sync::atomic::Ordering::Relaxed);
        }
        self.runtime.store.reject(&self.runtime.run, &self.lease().sync, &self.scope, &load.id, &rows).await
    }

    /// A delivery to an API takes as long as the API lets it: it is told to end, and what keeps it is passed on.
    async fn commit(&self, load: &Load) -> Result<Outcome> {
        let commit = self.task.destination.commit(load, self.lease());
        let Some(api) = self.task.destination.deliveries() else { return commit.await };
        let sync = &self.lease().sync;
        let mut asked = tokio::time::interval(TROUBLE);
        tokio::pin!(commit);
        loop {
            tokio::select! {
                biased;
                done = &mut commit => return done,
                () = self.keeper.lost.cancelled() => {
                    api.stop(sync);
                    return commit.await;
                }
                _ = asked.tick() => {
                    if let Some(why) = api.trouble(sync) {
                        self.tell(&Event::Note(why));
                    }
                }
            }
        }
    }

    /// Commit, state, acknowledgement.
    pub async fn publish(&mut self, load: &Load) -> Result<()> {
        if self.keeper.lost.is_cancelled() {
            return Err(cancelled(self.runtime));
        }
        self.tell(&Event::Committing { load: load.id.clone(), rows: load.rows() });
        let outcome = match self.commit(load).await {
            Ok(outcome) => outcome,
            Err(e) => self.settle(load, e).await?,
        };
        fault::point("committed");
        self.keep_undelivered(load).await?;
        self.runtime.store.committed(self.lease(), load, &outcome, &self.runtime.run).await?;
        fault::point("moved");
        self.has_published(&load.id);
        self.filled.clone_from(&load.filled);
        self.task.source.acknowledge(&load.state).await?;
        fault::point("acknowledged");
        self.tell(&Event::Committed { load: load.id.clone(), tables: outcome.tables.clone(), state: load.state.clone() });
        for table in outcome.tables.iter().filter(|t| t.unmatched > 0) {
            let (rows, table) = (table.unmatched, &table.table);
            let rows = if rows == 1 { "1 row that was read is".to_owned() } else { format!("{rows} rows that were read are") };
            self.tell(&Event::Note(format!("{rows} not in {table}, and left out: only a whole row can be added")));
        }
        let owners = owners(load, &self.streams);
        if self.moves() {
            for track in &mut self.tracks {
                track.outcome.to_state = Some(load.state.clone());
            }
        }
        for table in outcome.tables {
            let owner = owners.get(&table.table);
            if let Some(track) = self.tracks.iter_mut().find(|t| Some(&t.stream) == owner) {
                track.count(table);
            }
        }
        Ok(())
    }

    /// What became of a load whose commit has failed, as far as the destination can say. One that can never be published is dropped.
    async fn settle(&self, load: &Load, error: Error) -> Result<Outcome> {
        // A destination that does not answer leaves all open, and what it says now is not why the commit has failed.
        let Ok(marker) = self.ask_marker().await else {
            return Err(error);
        };
        match aftermath(load, error.code(), marker.as_ref(), self.task.destination.capabilities()) {
            Aftermath::Published => return Ok(Outcome { already_committed: true, ..Outcome::default() }),
            Aftermath::Open => {}
            Aftermath::InPart => match self.task.destination.take_back(load, self.lease()).await {
                Ok(true) => self.give_up(&load.id).await,
                Ok(false) => self.tell_kept(&load.id),
                Err(e) => self.tell(&Event::Note(format!("what is visible of load {} could not be taken back: {e}", load.id))),
            },
            Aftermath::Dropped => self.give_up(&load.id).await,
        }
        Err(error)
    }

    /// Drops a load that can never be published.
    async fn give_up(&self, load: &LoadId) {
        if let Err(e) = self.discard(load).await {
            self.tell(&Event::Note(format!("what was staged for load {load} could not be removed: {e}")));
        }
    }

    fn tell_kept(&self, load: &LoadId) {
        self.tell(&Event::Note(format!(
            "load {load} is kept: some of its rows may be visible, and only it knows them again. A run publishes the rest once the cause is mended; \
             `--full-refresh` gives it up and loads everything again"
        )));
    }

    /// Whether the streams go on from where they stood: a range that is read again, and rejected rows that are loaded, move nothing.
    pub fn moves(&self) -> bool {
        self.streams.iter().any(|s| s.read.moves_state())
    }

    fn has_published(&mut self, load: &LoadId) {
        self.published += 1;
        self.refreshed |= self.own(load).is_some_and(|recorded| recorded.refreshes);
    }
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
