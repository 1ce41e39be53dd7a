//! What a run would do with a stream, without doing it.

use serde::Serialize;
use trib_core::protocol::Known;
use trib_core::source::NullCursor;
use trib_core::{Read, Result, State, WriteMode};
use trib_engine::StreamPlan;

use crate::scope::TOGETHER;
use crate::task::{Refresh, Runtime, StreamTask, SyncTask};

/// One stream of a plan.
#[derive(Clone, Debug, Serialize)]
pub struct StreamOutline {
    pub stream: String,
    pub read: &'static str,
    pub write: &'static str,
    pub key: Vec<String>,
    /// Where the read begins.
    pub from_state: State,
    /// A load that was staged and not published waits for the next run.
    pub unfinished: Option<String>,
    pub expected_rows: Option<u64>,
    pub tables: Vec<TableOutline>,
    /// What this way of reading cannot see.
    pub blind_spots: Vec<String>,
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

/// Looks at both sides and changes neither.
pub async fn outline(runtime: &Runtime, task: &SyncTask, stream: &StreamTask) -> Result<StreamOutline> {
    let mut spec = stream.spec.clone();
    if stream.refresh == Refresh::Full && spec.write != WriteMode::History {
        spec.write = WriteMode::Replace;
    }
    let write = spec.write.as_str();
    let plan = StreamPlan::compile(&runtime.engine, spec, task.destination.as_ref()).await?;
    stream.check_compare(&plan)?;
    let name = if task.source.streams_together() { TOGETHER } else { &stream.spec.stream };
    let scope = runtime.store.scope(&task.identity, name).await?;
    let (known, state): (Option<Known>, State) = scope.map_or((None, State::default()), |s| (Some(s.known), s.state));
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
        from_state: if stream.refresh == Refresh::Full { State::default() } else { state },
        unfinished: known.and_then(|k| k.staged).map(|l| l.id.to_string()),
        expected_rows: stream.rows,
        tables,
        blind_spots: blind_spots(stream),
    })
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
            if stream.spec.schema.field_with_name(column).is_err() {
                // The source's own cursor, which is no column: it sees whatever is new by its own measure.
                return spots;
            }
            spots.push(format!("changes that do not move {column} are not seen"));
            match cursor.lookback {
                None => spots.push(format!("rows committed late, with an older {column} than the state's, are not seen (set `lookback`)")),
                Some(units) => spots.push(format!("rows committed more than {units} (seconds or units) late by {column} are not seen")),
            }
            match cursor.null_cursor {
                NullCursor::Exclude => spots.push(format!("rows whose {column} is NULL are left out (set `null_cursor`)")),
                NullCursor::Include => spots.push(format!("rows whose {column} is NULL are read in every run")),
                NullCursor::Fail => {}
            }
        }
        Read::Full if matches!(stream.spec.write, WriteMode::Upsert | WriteMode::Insert | WriteMode::Append | WriteMode::History) => {
            if !finds_deletes {
                spots.push("rows deleted at the source stay (use `write: mirror`, or `deletes: {detect: compare}`)".to_owned());
            }
        }
        _ => {}
    }
    spots
}
