//! What a run would do with a stream, without doing it.

use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use serde::Serialize;
use trib_core::protocol::{Known, Recovery, recover};
use trib_core::source::NullCursor;
use trib_core::{LoadId, Marker, Read, Result, State, WriteMode};
use trib_engine::StreamPlan;

use crate::guard::check_tables;
use crate::prune;
use crate::scope::TOGETHER;
use crate::task::{Refresh, Runtime, StreamTask, SyncTask};
use crate::wanted::Wanted;

/// One stream of a plan.
#[derive(Clone, Debug, Serialize)]
pub struct StreamOutline {
    pub stream: String,
    pub read: &'static str,
    pub write: &'static str,
    pub key: Vec<String>,
    /// What the source is asked for.
    pub columns: Vec<String>,
    /// Where the read begins.
    pub from_state: State,
    /// What is done first with a load that an earlier run has left.
    pub unfinished: Option<Unfinished>,
    pub expected_rows: Option<u64>,
    pub tables: Vec<TableOutline>,
    /// What this way of reading cannot see.
    pub blind_spots: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Unfinished {
    pub load: LoadId,
    pub what: &'static str,
}

impl Unfinished {
    fn some(load: LoadId, what: &'static str) -> Option<Self> {
        Some(Self { load, what })
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct TableOutline {
    pub table: String,
    pub exists: bool,
    pub columns: usize,
    /// DDL, one line each.
    pub changes: Vec<String>,
    pub notes: Vec<String>,
    /// Columns whose values the destination cannot hold exactly.
    pub lossy: Vec<String>,
}

/// Looks at both sides and changes neither. An error is one that the run would end with.
pub async fn outline(runtime: &Runtime, task: &SyncTask, stream: &StreamTask) -> Result<StreamOutline> {
    let (one, destination) = (std::slice::from_ref(stream), task.destination.as_ref());
    let together = task.source.streams_together();
    prune::check(one, together)?;
    let scope = if together { TOGETHER } else { &stream.spec.stream };
    let record = runtime.store.scope(&task.identity, scope).await?;
    let (known, state): (Option<Known>, State) = record.map_or((None, State::default()), |s| (Some(s.known), s.state));
    let marker = marker(task, scope, known.as_ref()).await?;
    let refreshing = stream.refresh == Refresh::Full;
    // What is to do first, and where the scope stands then.
    let (unfinished, state) = match recover(known.as_ref(), marker.as_ref(), refreshing) {
        Recovery::GoOn => (None, state),
        Recovery::CommitStaged(load) => (Unfinished::some(load.id, "was staged by an earlier run, and is published first"), load.state),
        Recovery::MoveState(load) => (Unfinished::some(load.id, "is visible already, and the state follows first"), load.state),
        Recovery::ReadAgain(load) => (Unfinished::some(load, "was not finished by an earlier run, and is dropped first"), state),
        Recovery::Refuse(_) if refreshing || task.source.remembered_elsewhere() => (None, state),
        Recovery::Refuse(disagreement) => return Err(disagreement.error(scope)),
    };
    let wanted = Wanted::new(one, (known, state), refreshing, together, task.limits.splits)?;
    let spec = wanted.streams[0].spec.clone();
    let write = spec.write.as_str();
    let plan = Arc::new(StreamPlan::compile(&runtime.engine, spec, destination).await?);
    stream.check_compare(&plan)?;
    let filled = marker.map(|m| m.filled).unwrap_or_default();
    check_tables(task, &filled, &wanted, std::slice::from_ref(&plan))?;
    if let Some(compare) = stream.compare {
        let keys = prune::task(&runtime.engine, stream, compare)?;
        StreamPlan::compile(&runtime.engine, keys.spec, destination).await?;
    }
    let tables = plan
        .tables
        .iter()
        .map(|t| TableOutline {
            table: t.table().name.to_string(),
            exists: t.exists,
            columns: t.table().schema.fields().len(),
            changes: t.changes.iter().map(ToString::to_string).collect(),
            notes: t.notes.clone(),
            lossy: t.lossy.clone(),
        })
        .collect();
    Ok(StreamOutline {
        stream: stream.spec.stream.clone(),
        read: mode(&stream.read),
        write,
        key: stream.spec.key.clone(),
        columns: stream.spec.schema.fields().iter().map(|f| f.name().clone()).collect(),
        from_state: wanted.from,
        unfinished,
        expected_rows: stream.rows,
        tables,
        // What an API is told of rows that are gone is counted beforehand.
        blind_spots: if destination.deliveries().is_some() { Vec::new() } else { blind_spots(stream) },
    })
}

/// The scope's marker; where the destination cannot tell it without being taken over, the one that the store has last seen.
async fn marker(task: &SyncTask, scope: &str, known: Option<&Known>) -> Result<Option<Marker>> {
    if let Some(markers) = task.destination.markers(&task.identity, &task.tables()).await? {
        return Ok(markers.into_iter().find(|m| m.scope == scope));
    }
    let seen = |known: &Known| {
        let load = known.load.clone()?;
        let (state, filled) = (State::default(), Vec::new());
        Some(Marker {
            scope: scope.to_owned(),
            number: known.number,
            load,
            generation: 0,
            state,
            committed_at: DateTime::UNIX_EPOCH,
            filled,
        })
    };
    Ok(known.and_then(seen))
}

fn mode(read: &Read) -> &'static str {
    match read {
        Read::Full => "full",
        Read::Incremental(_) => "incremental",
        Read::Cdc => "cdc",
        Read::Range { .. } => "range",
        Read::Keys => "keys",
    }
}

/// What a reader of the destination should know that this read mode misses.
pub fn blind_spots(stream: &StreamTask) -> Vec<String> {
    let mut spots = Vec::new();
    let finds_deletes = stream.compare.is_some();
    match &stream.read {
        Read::Incremental(cursor) => {
            let column = &cursor.column;
            if !finds_deletes {
                spots.push("rows deleted at the source stay (find them with `deletes: {detect: compare}`)".to_owned());
            }
            // The source's own cursor, which is no column, sees whatever is new by its own measure.
            let Ok(field) = stream.spec.schema.field_with_name(column) else { return spots };
            spots.push(format!("changes that do not move {column} are not seen"));
            match cursor.lookback {
                None => spots.push(format!("rows committed late, with an older {column} than the state's, are not seen (set `lookback`)")),
                Some(units) if field.data_type().is_numeric() => {
                    spots.push(format!("rows committed late, with a {column} more than {units} below the state's, are not seen"));
                }
                Some(seconds) => {
                    let time = humantime::format_duration(Duration::from_secs(seconds));
                    spots.push(format!("rows committed more than {time} late by {column} are not seen"));
                }
            }
            match cursor.null_cursor {
                NullCursor::Exclude => spots.push(format!("rows whose {column} is NULL are left out (set `null_cursor`)")),
                NullCursor::Include => spots.push(format!("rows whose {column} is NULL are read in every run")),
                NullCursor::Fail => {}
            }
        }
        Read::Full
            if !finds_deletes
                && matches!(stream.spec.write, WriteMode::Upsert | WriteMode::Insert | WriteMode::Append | WriteMode::History) =>
        {
            spots.push("rows deleted at the source stay (use `write: mirror`, or `deletes: {detect: compare}`)".to_owned());
        }
        _ => {}
    }
    spots
}
