//! Tables that one environment has made become those of another: nothing is computed, the destination copies rows or files where nobody looks, and what
//! was copied is published as any load is. A promotion is a load whose rows the destination has already, so markers, recovery and the sweep of what a
//! killed process has left are those of all loads.
//!
//! All tables are staged before the first is published; then all become visible together as far as the destination can.

use arrow::datatypes::Schema;
use chrono::Utc;
use futures::StreamExt;
use std::sync::Arc;
use trib_core::name::system;
use trib_core::protocol::{Aftermath, Recovery, aftermath, recover};
use trib_core::{Code, Destination, Error, Lease, Load, LoadId, Outcome, Part, Result, State, TableLoad, TableName, WriteMode};
use trib_engine::{StreamPlan, StreamSpec};

use crate::fault;
use crate::lease::Keeper;
use crate::load::cancelled;
use crate::task::{Runtime, new_id};

/// Tables that are copied at the same time.
const SIDE_BY_SIDE: usize = 4;

/// One table on its way from an environment to another.
#[derive(Clone, Debug)]
pub struct Promotion {
    /// As the user calls the model or seed.
    pub name: String,
    /// What state and markers are kept under, where the table comes from and where it goes.
    pub identities: [String; 2],
    pub scope: String,
    pub tables: [TableName; 2],
    pub key: Vec<String>,
    /// The last load of each when the promotion was decided on. When another has come since, it has to be decided anew.
    pub seen: [Option<LoadId>; 2],
    /// Goes along with the rows.
    pub state: State,
    pub made_from: String,
}

/// Carries out the promotions, in their order. `source` is where the tables come from; nobody writes them meanwhile.
pub async fn promote(runtime: &Runtime, source: &Runtime, at: &Arc<dyn Destination>, promotions: &[Promotion]) -> Result<Vec<Outcome>> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let result = async {
        for one in promotions {
            theirs.push(Keeper::take(source, &one.identities[0]).await?);
            ours.push(Keeper::take(runtime, &one.identities[1]).await?);
        }
        fault::point("leased");
        let promoting = Promoting { runtime, source, at, promotions, keepers: &ours };
        promoting.run().await
    }
    .await;
    for keeper in ours {
        keeper.release(runtime).await;
    }
    for keeper in theirs {
        keeper.release(source).await;
    }
    result
}

struct Promoting<'a> {
    runtime: &'a Runtime,
    source: &'a Runtime,
    at: &'a Arc<dyn Destination>,
    promotions: &'a [Promotion],
    keepers: &'a [Keeper],
}

impl Promoting<'_> {
    async fn run(&self) -> Result<Vec<Outcome>> {
        for (one, keeper) in self.promotions.iter().zip(self.keepers) {
            self.open(one, &keeper.lease).await.map_err(|e| e.stream(&one.name))?;
        }
        let ids: Vec<LoadId> = self.promotions.iter().map(|_| LoadId(new_id())).collect();
        let loads = match self.stage(&ids).await {
            Ok(loads) => loads,
            Err(e) => {
                for id in &ids {
                    // That cleaning up fails must not hide why; the next run sweeps.
                    let _ = self.at.abort(id).await;
                }
                return Err(e);
            }
        };
        fault::point("staged");
        for (load, lease) in &loads {
            self.runtime.store.record_staged(lease, load, &[], &[]).await?;
        }
        fault::point("recorded");
        self.publish(&loads).await
    }

    /// Commits and state: of all at once where one transaction publishes them, otherwise one after the other.
    async fn publish(&self, loads: &[(Load, Lease)]) -> Result<Vec<Outcome>> {
        let together = self.at.capabilities().atomic_across_tables;
        let (mut rest, mut outcomes) = (loads, Vec::new());
        while !rest.is_empty() {
            if self.keepers.iter().any(|k| k.lost.is_cancelled()) {
                return Err(cancelled(self.runtime));
            }
            let (now, later) = rest.split_at(if together { rest.len() } else { 1 });
            let done = match self.at.commit_together(now).await {
                Ok(done) => done,
                Err(e) => {
                    self.settle(rest, &e).await;
                    return Err(e);
                }
            };
            fault::point("committed");
            for ((load, lease), outcome) in now.iter().zip(&done) {
                self.runtime.store.committed(lease, load, outcome, &self.runtime.run).await?;
            }
            fault::point("moved");
            outcomes.extend(done);
            rest = later;
        }
        Ok(outcomes)
    }

    /// Deals with what an earlier run has left where the table goes, and checks that both sides are as they were when this was decided on.
    async fn open(&self, one: &Promotion, lease: &Lease) -> Result<()> {
        let store = &self.runtime.store;
        let [from, to] = &one.tables;
        let markers = self.at.open(lease, std::slice::from_ref(to)).await?;
        let marker = markers.into_iter().find(|m| m.scope == one.scope);
        let known = store.known(&lease.sync, &one.scope).await?;
        // What was staged and never published gives way to what is promoted now.
        match recover(known.as_ref(), marker.as_ref(), true) {
            Recovery::GoOn | Recovery::CommitStaged(_) => {}
            Recovery::ReadAgain(load) => {
                self.at.abort(&load).await?;
                store.discard_staged(lease, &one.scope).await?;
            }
            Recovery::MoveState(load) => {
                let outcome = Outcome { already_committed: true, ..Outcome::default() };
                store.committed(lease, &load, &outcome, &self.runtime.run).await?;
            }
            Recovery::Refuse(disagreement) => return Err(disagreement.error(&one.scope)),
        }
        self.at.sweep(lease, &[]).await?;
        let last = |known: Option<trib_core::protocol::Known>| known.and_then(|k| k.load);
        let there = self.source.store.known(&one.identities[0], &one.scope).await?;
        let marked = self.at.markers(&one.identities[0], std::slice::from_ref(from)).await?;
        let marked = marked.map(|all| all.into_iter().find(|m| m.scope == one.scope).map(|m| m.load));
        let source_stands = there.as_ref().is_some_and(|k| k.staged.is_none())
            && last(there) == one.seen[0]
            && marked.is_none_or(|load| load == one.seen[0]);
        for (stands, table) in [(source_stands, from), (last(known) == one.seen[1], to)] {
            if !stands {
                return Err(Error::new(Code::TransactionAborted, "the table has changed since the promotion was decided on")
                    .detail(table.to_string())
                    .hint("call it again: it looks at both environments anew"));
            }
        }
        Ok(())
    }

    async fn stage(&self, ids: &[LoadId]) -> Result<Vec<(Load, Lease)>> {
        let staging = self.promotions.iter().zip(self.keepers).zip(ids).map(|((one, keeper), id)| async move {
            let staged = tokio::select! {
                staged = self.stage_one(one, &keeper.lease, id) => staged,
                () = keeper.lost.cancelled() => Err(cancelled(self.runtime)),
            };
            Ok((staged.map_err(|e| e.stream(&one.name))?, keeper.lease.clone()))
        });
        let staged: Vec<Result<(Load, Lease)>> = futures::stream::iter(staging).buffered(SIDE_BY_SIDE).collect().await;
        staged.into_iter().collect()
    }

    async fn stage_one(&self, one: &Promotion, lease: &Lease, id: &LoadId) -> Result<Load> {
        let [from, to] = &one.tables;
        let found = self.at.inspect(from).await?;
        let found =
            found.ok_or_else(|| Error::new(Code::NotFound, "the table that is to be promoted is not there").detail(from.to_string()))?;
        let fields: Vec<_> = found.columns.iter().map(|c| c.field.clone()).filter(|f| !f.name().starts_with(system::PREFIX)).collect();
        let plain = StreamSpec::plain(&one.scope, Arc::new(Schema::new(fields)), to.clone(), WriteMode::Replace);
        let plan = StreamPlan::compile(&self.runtime.engine, StreamSpec { key: one.key.clone(), ..plain }, self.at.as_ref()).await?;
        let [planned] = plan.tables.as_slice() else {
            return Err(Error::new(Code::Unsupported, "a table with child tables cannot be promoted").detail(from.to_string()));
        };
        let part = Part { load: id.clone(), sync: lease.sync.clone(), split: 0, attempt: 0 };
        let loaded_at = Utc::now();
        let receipt = self.at.stage_table(&part, planned.table(), from, loaded_at).await?;
        let number = self.runtime.store.known(&lease.sync, &one.scope).await?.map_or(0, |k| k.number) + 1;
        let filled = if receipt.rows > 0 { vec![to.clone()] } else { Vec::new() };
        Ok(Load {
            id: id.clone(),
            scope: one.scope.clone(),
            number,
            tables: vec![TableLoad { table: planned.table().clone(), changes: planned.changes.clone(), receipts: vec![receipt] }],
            state: one.state.clone(),
            filled,
            made_from: Some(one.made_from.clone()),
            loaded_at,
        })
    }

    /// What became of loads whose commit has failed, as far as the destination can say.
    async fn settle(&self, loads: &[(Load, Lease)], error: &Error) {
        for (load, lease) in loads {
            let tables: Vec<TableName> = load.tables.iter().map(|t| t.table.name.clone()).collect();
            // A destination that does not answer leaves all open, for the next run to decide.
            let Ok(markers) = self.at.open(lease, &tables).await else { continue };
            let marker = markers.into_iter().find(|m| m.scope == load.scope);
            // What fails here is found out by the next run as well.
            let _ = match aftermath(load, error.code(), marker.as_ref(), self.at.capabilities()) {
                Aftermath::Published => {
                    let outcome = Outcome { already_committed: true, ..Outcome::default() };
                    self.runtime.store.committed(lease, load, &outcome, &self.runtime.run).await
                }
                Aftermath::Open | Aftermath::InPart => Ok(()),
                Aftermath::Dropped => match self.at.abort(&load.id).await {
                    Ok(()) => self.runtime.store.discard_staged(lease, &load.scope).await,
                    failed => failed,
                },
            };
        }
    }
}
