//! Syncs whose destination is an API, made ready to run: what has to be sent is a query over the lake, and a guard looks at it before it goes.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use trib_core::delivery::{Changes, Delivers, Object, Operation};
use trib_core::{Code, Destination, Error, Load, RejectedRow, TableName, WriteMode};
use trib_engine::change_source::Ends;
use trib_engine::changes::{Delivery, Operations};
use trib_engine::ledger::ledger_name;
use trib_engine::rejected::shown;
use trib_engine::{ChangeSource, Queries, StreamSpec};
use trib_project::config::delivery::{Empty, GuardSpec, Most, Send};
use trib_project::{DeliveryPlan, Sync};
use trib_runtime::{Audit, StreamTask, SyncTask};

use crate::app::{Session, usage};
use crate::assemble::{identity, limits, shown_name};
use crate::delivered::mapped;
use crate::exit::{Failure, Result};
use crate::prepare::{Prepared, Wanted, enabled};
use crate::render::amount::duration;

/// The deliveries of a sync that reads from this connection.
pub async fn prepare(session: &Session, sync: &Sync, from: &str, wanted: &Wanted<'_>) -> Result<Prepared> {
    let project = session.project()?;
    let (connection, _) = enabled(session, from)?;
    let api = session.destination(&sync.spec.to)?;
    let lake = session.destination(from)?;
    let (Some(tables), Some(queries)) = (session.native(from)?, session.queries(from).await?) else {
        let error = Error::new(Code::Unsupported, "only tables and models of the lake can be delivered")
            .connection(from)
            .setting("from")
            .hint("load them into the lake with a sync first, and deliver from there");
        return Err(sync.at.mark(error).into());
    };
    let (plans, mut errors) = sync.deliveries();
    let mut notes = Vec::new();
    let mut ready: Vec<(DeliveryPlan, Object, Delivery)> = Vec::new();
    for plan in plans.into_iter().filter(|p| wanted.selection.takes(&sync.name, &p.stream)) {
        let node = format!("{}/{}", sync.name, plan.stream);
        if let Some(pause) = wanted.paused.iter().find(|p| p.node == node) {
            notes.push(format!("{node} is paused by {}", pause.by));
            continue;
        }
        let delivers = api.deliveries().ok_or_else(|| Error::internal("deliveries go to a destination that delivers nothing"))?;
        let resend = plan.send == Send::All || (wanted.ask.full_refresh && plan.full_refresh);
        let ledger = ledger_name(&project.environment.schema_prefix, &sync.name, &plan.stream);
        let made = match described(delivers, &plan.object, &mut notes).await {
            Ok(object) => {
                let places = Places { connection: sync.spec.to.clone(), ledger };
                delivery(delivers, &queries, &plan, &object, resend, places).await.map(|delivery| (object, delivery))
            }
            Err(e) => Err(e),
        };
        match made {
            Ok((object, delivery)) => ready.push((plan, object, delivery)),
            Err(e) => errors.push(plan.at.mark(e.stream(&plan.stream))),
        }
    }
    if wanted.ask.row.is_some() && ready.len() > 1 {
        let streams: Vec<&str> = ready.iter().map(|(plan, ..)| plan.stream.as_str()).collect();
        return Err(usage("a record is chosen in one stream").detail(streams.join(", ")).hint("name it: `SYNC/STREAM`").into());
    }
    let identity = identity(project, &sync.name, from);
    let ends = Ends { queries, tables, lake, api: api.clone() };
    let sent = ready.iter().map(|(_, _, delivery)| delivery.clone()).collect();
    let changes = ChangeSource::new(ends, identity.clone(), sent).only(wanted.ask.row.clone()).anew(wanted.ask.forget);
    let changes = Arc::new(changes);
    let store = session.store().await?;
    let mut streams = Vec::new();
    for (plan, object, delivery) in ready {
        if let Some(delivers) = api.deliveries().filter(|_| plan.log_requests) {
            delivers.keep_requests(&identity, &plan.stream);
        }
        if wanted.ask.counts || wanted.ask.row.is_some() || !project.environment.deliver {
            let counts = match changes.counts(&plan.stream).await {
                Ok(counts) => counts,
                Err(e) => {
                    errors.push(plan.at.mark(e.stream(&plan.stream)));
                    continue;
                }
            };
            if let Some(key) = wanted.ask.row.as_ref().filter(|_| counts.total() == 0) {
                notes.push(format!("no record with the key {key} differs from what was delivered"));
            }
            notes.push(format!(
                "{}/{} → {}: {}",
                sync.name,
                plan.stream,
                plan.object,
                told(api.as_ref(), counts, &object, delivery.operations)
            ));
        }
        if !project.environment.deliver && !wanted.ask.counts {
            notes.push(format!("nothing is sent: the environment {} does not deliver", project.environment.name));
            continue;
        }
        // All that was refused before is sent again, or is not to be sent any more.
        let pending = store.rejected(Some(&identity), Some(&plan.stream), u32::MAX).await?;
        let meant = |row: &RejectedRow| wanted.ask.row.as_ref().is_none_or(|key| has_key(&plan, row, key));
        match task(&changes, &plan, wanted).await {
            Ok(task) => streams.push(StreamTask { retries: pending.iter().filter(|r| meant(&r.row)).map(|r| r.id).collect(), ..task }),
            Err(e) => errors.push(plan.at.mark(e.stream(&plan.stream))),
        }
    }
    let task = SyncTask {
        sync: shown_name(project, &sync.name, from),
        identity,
        source: changes.clone(),
        destination: api,
        streams,
        renew: None,
        limits: limits(&sync.spec, project.threads, connection.threads),
    };
    Ok(Prepared { task, plans: Vec::new(), errors, notes, changes: Some(changes) })
}

/// Where a delivery goes, and where it is noted what was delivered.
pub struct Places {
    pub connection: String,
    pub ledger: TableName,
}

/// Everything about one delivery that can be known without reading a row.
pub async fn delivery(
    api: &dyn Delivers,
    queries: &Queries,
    plan: &DeliveryPlan,
    object: &Object,
    resend: bool,
    places: Places,
) -> trib_core::Result<Delivery> {
    let asked = plan.asked(object)?;
    let map = mapped(queries, plan).await?;
    plan.check_fields(object, &map, asked)?;
    plan.check_look_ups(object, |name| api.object(name))?;
    let operations = Operations { created: asked.created, updated: asked.updated, deleted: asked.deleted, rows_delete: asked.rows_delete };
    Ok(Delivery {
        node: format!("{}/{}", plan.sync, plan.stream),
        stream: plan.stream.clone(),
        connection: places.connection,
        object: plan.object.clone(),
        table: plan.table.clone(),
        key: plan.key.clone(),
        map,
        operations,
        resend,
        skip_empty: plan.empty == Empty::Skip,
        look_ups: plan.look_ups.clone(),
        ledger: places.ledger,
    })
}

/// The object as the API describes it; as the manifest does, and with a note, where these credentials may not ask.
pub async fn described(api: &dyn Delivers, name: &str, notes: &mut Vec<String>) -> trib_core::Result<Object> {
    match api.describe(name).await {
        Err(e) if e.code() == Code::PermissionDenied => {
            notes.push(format!("the fields of {name} are not checked: {e}"));
            api.object(name)
        }
        described => described,
    }
}

/// The mappings of the syncs that go to a connection, held against what its API says; those without `map` have the columns of a table, which a plan asks.
pub async fn check_mappings(session: &Session, connection: &str, api: &dyn Delivers, notes: &mut Vec<String>) -> Result<()> {
    let syncs = session.project()?.syncs().iter().filter(|s| s.spec.enabled && s.spec.to == connection);
    let mut errors = Vec::new();
    for plan in syncs.flat_map(|sync| sync.deliveries().0) {
        let checked = async {
            let object = described(api, &plan.object, notes).await?;
            let asked = plan.asked(&object)?;
            match &plan.map {
                Some(map) => plan.check_fields(&object, map, asked),
                None => Ok(()),
            }
        };
        if let Err(e) = checked.await {
            errors.push(plan.at.mark(e.stream(&plan.stream)));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(Failure(errors)) }
}

async fn task(changes: &Arc<ChangeSource>, plan: &DeliveryPlan, wanted: &Wanted<'_>) -> trib_core::Result<StreamTask> {
    let schema = changes.schema(&plan.stream).await?;
    // Whoever names a record wants it to be sent.
    let approved = wanted.ask.row.is_some() || wanted.ask.approved.iter().any(|(sync, name)| *sync == plan.sync && *name == plan.stream);
    let guard = Guard {
        changes: changes.clone(),
        stream: plan.stream.clone(),
        limits: plan.guard.clone(),
        allow_empty: wanted.ask.allow_empty || plan.allow_empty,
        approved,
    };
    let plain = StreamSpec::plain(&plan.stream, schema, TableName::new(None, &plan.object), WriteMode::Upsert);
    let key = plan.key.iter().map(|(field, _)| field.clone()).collect();
    let spec = StreamSpec { key, system_columns: false, ..plain };
    Ok(StreamTask { allow_empty: true, audit: Some(Arc::new(guard)), ..StreamTask::whole(spec) })
}

/// Whether a refused row is the one whose first key field has this text.
fn has_key(plan: &DeliveryPlan, row: &RejectedRow, key: &str) -> bool {
    plan.key.first().and_then(|(field, _)| row.row.get(field)).is_some_and(|value| shown(value) == key)
}

/// What would be sent, in words.
fn told(api: &dyn Destination, counts: Changes, object: &Object, operations: Operations) -> String {
    let kinds = [
        ("created", counts.created, operations.created),
        ("updated", counts.updated, operations.updated),
        ("deleted", counts.deleted, operations.deleted),
    ];
    let mut records: BTreeMap<Operation, u64> = BTreeMap::new();
    for (_, rows, operation) in kinds {
        if let Some(operation) = operation {
            *records.entry(operation).or_default() += rows;
        }
    }
    let most = |operation: &Operation| object.operations.get(operation).copied().unwrap_or(1).max(1);
    let calls: Vec<(Operation, u64)> = records.iter().map(|(operation, rows)| (*operation, rows.div_ceil(most(operation)))).collect();
    let said: Vec<String> = kinds.iter().map(|(what, rows, _)| format!("{rows} {what}")).collect();
    let time = match api.deliveries().and_then(|api| api.least_time(&object.name, &calls)) {
        Some(time) => format!(", which take {} at least by the API's limits", duration(time)),
        None => String::new(),
    };
    format!("{}, in {} API calls{time}", said.join(", "), calls.iter().map(|(_, calls)| calls).sum::<u64>())
}

/// Holds a delivery that would change more than it may.
struct Guard {
    changes: Arc<ChangeSource>,
    stream: String,
    limits: GuardSpec,
    allow_empty: bool,
    approved: bool,
}

#[async_trait]
impl Audit for Guard {
    async fn audit(&self, _: &Load) -> trib_core::Result<()> {
        if self.approved {
            return Ok(());
        }
        let changes = self.changes.last_read(&self.stream);
        let (rows, delivered) = self.changes.sizes(&self.stream).await?;
        let held = |what: String| {
            let Changes { created, updated, deleted } = changes;
            Error::new(Code::Held, "the delivery would change more than it may")
                .detail(format!("{what}; it would create {created}, update {updated} and delete {deleted}"))
                .stream(&self.stream)
                .hint("if that is right, let it through with `trib run … --approve RUN`, or raise the limit under `guard:`")
        };
        if rows == 0 && changes.deleted > 0 && !self.allow_empty {
            return Err(held(format!("{} has no rows, and {delivered} records were delivered", self.stream)));
        }
        let limits = [
            ("max_creates", self.limits.max_creates, changes.created),
            ("max_changes", self.limits.max_changes, changes.updated),
            ("max_deletes", self.limits.max_deletes, changes.deleted),
        ];
        for (name, limit, rows) in limits {
            // Of nothing, everything would be too many per cent: the first delivery is measured in rows only.
            let counts = |limit: &Most| delivered > 0 || matches!(limit, Most::Rows(_));
            if let Some(limit) = limit.filter(counts)
                && limit.exceeded(rows, delivered)
            {
                return Err(held(format!("`guard: {{{name}: {limit}}}` of {delivered} delivered records")));
            }
        }
        Ok(())
    }
}
