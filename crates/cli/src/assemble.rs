//! From a project's resolved streams to what the runtime carries out: pure.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use trib_core::contract::NewStreams;
use trib_core::name::system;
use trib_core::transform::{ColumnRule, Transform};
use trib_core::{Code, Error, Read, ReadMode, Result, Stream, WriteMode};
use trib_engine::StreamSpec;
use trib_project::config::stream::Detect;
use trib_project::config::sync::SyncSpec;
use trib_project::{Project, StreamPlan};
use trib_runtime::{Budget, Compare, Limits, Refresh, StreamTask};

/// What a command asks of all its streams.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// Read from the very beginning, and replace the tables.
    pub full_refresh: bool,
    /// Empty sources may empty tables.
    pub allow_empty: bool,
    /// Streams, as (sync, stream), whose emptiness somebody has approved.
    pub approved: Vec<(String, String)>,
    /// Only this range of the cursor, whatever the state says.
    pub range: Option<Range>,
    /// Only these columns, for rows that are there.
    pub columns: Vec<String>,
    /// Nothing is sent to an API: what would be is counted.
    pub counts: bool,
    /// What was delivered is to be forgotten: it is not held against.
    pub forget: bool,
    /// Of a delivery: the one record whose key has this text.
    pub row: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Range {
    pub since: Option<String>,
    pub until: Option<String>,
}

/// What state and markers are kept under, whether the sync has one source or several: a second one must not make it forget the first.
/// None of the separators can stand in a name.
pub fn identity(project: &Project, sync: &str, connection: &str) -> String {
    format!("{}{sync}:{connection}", prefix(project))
}

/// The sync and the source that an identity stands for; `None` when it is not of this project and environment.
pub fn identified<'a>(project: &Project, identity: &'a str) -> Option<(&'a str, &'a str)> {
    identity.strip_prefix(&prefix(project))?.split_once(':')
}

fn prefix(project: &Project) -> String {
    format!("{}:{}:", project.name, project.environment.name)
}

/// A sync as runs show it: each source of a sync that has several, or had another, is a sync of its own there.
pub fn shown_name(project: &Project, sync: &str, connection: &str) -> String {
    // A model and a seed are read from no connection.
    let only = connection.is_empty() || project.sync(sync).is_ok_and(|s| s.spec.from.0 == [connection]);
    if only { sync.to_owned() } else { format!("{sync}@{connection}") }
}

/// One stream, as the runtime takes it. `pushes_filter` says that the source evaluates conditions itself.
pub fn stream_task(plan: &StreamPlan, stream: &Stream, pushes_filter: bool, ask: &Ask) -> Result<StreamTask> {
    let (schema, transform, pushed_filter) = reading(plan, stream, pushes_filter)?;
    let read = match &ask.range {
        None => plan.read.clone(),
        Some(range) => ranged(plan, range, !ask.columns.is_empty())?,
    };
    let spec = StreamSpec {
        stream: plan.stream.clone(),
        schema,
        transform,
        only: None,
        table: plan.table.clone(),
        naming: plan.naming,
        key: plan.key.clone(),
        write: plan.write,
        deletes: plan.deletes.apply,
        scope: plan.scope.clone(),
        contract: plan.contract.clone(),
        partition_by: plan.partition_by.clone(),
        system_columns: true,
        changes: plan.mode == ReadMode::Cdc,
    };
    let approved = ask.approved.iter().any(|(sync, name)| *sync == plan.sync && *name == plan.stream);
    let compare = Compare { every: plan.deletes.every, apply: plan.deletes.apply };
    Ok(StreamTask {
        spec,
        read,
        pushed_filter,
        split_by: plan.split_by.clone(),
        compare: (plan.deletes.detect == Detect::Compare && ask.range.is_none() && ask.columns.is_empty()).then_some(compare),
        allow_empty: ask.allow_empty || plan.allow_empty || approved,
        refresh: if ask.full_refresh && plan.full_refresh { Refresh::Full } else { Refresh::No },
        rows: stream.rows.filter(|_| plan.mode == ReadMode::Full && pushed_nothing(plan)),
        retries: Vec::new(),
        audit: None,
        made_from: None,
    })
}

/// The catalog's estimate is of the whole stream.
fn pushed_nothing(plan: &StreamPlan) -> bool {
    plan.transform.filter.is_none()
}

/// What is read, what becomes of it here, and the condition that the source evaluates.
fn reading(plan: &StreamPlan, stream: &Stream, pushes_filter: bool) -> Result<(SchemaRef, Transform, Option<String>)> {
    let mut transform = plan.transform.clone();
    transform.select = transform.select.take().or_else(|| without_ours(&stream.schema, &transform));
    let pushed_filter = if pushes_filter { transform.filter.take() } else { None };
    let schema = match &transform.select {
        None => stream.schema.clone(),
        Some(select) => {
            // A condition that is evaluated here, and a cursor, need their columns though nobody wants them in the table.
            let mut names: Vec<&str> = select.iter().map(String::as_str).collect();
            let filter = transform.filter.as_deref().unwrap_or_default();
            let needed = stream.schema.fields().iter().map(|f| f.name().as_str());
            let needed = needed.filter(|name| mentions(filter, name) || cursor(&plan.read) == Some(name));
            let extra: Vec<&str> = needed.filter(|name| !names.contains(name)).collect();
            names.extend(&extra);
            if transform.sql.is_none() {
                let dropped = || ColumnRule { drop: true, ..ColumnRule::default() };
                transform.columns.extend(extra.iter().map(|name| ((*name).to_owned(), dropped())));
            }
            let indices: Result<Vec<usize>> = names.iter().map(|name| index(stream, name)).collect();
            Arc::new(stream.schema.project(&indices?)?)
        }
    };
    // Rules that a glob gives hold for the streams that have the column.
    if transform.sql.is_none() {
        transform.columns.retain(|name, _| has(&schema, name));
    }
    Ok((schema, transform, pushed_filter))
}

/// The columns of a table that Tributary has made, without its own: each table has those of its own loads. What a rule or SQL names comes along.
/// `None`: there are none of ours.
fn without_ours(schema: &Schema, transform: &Transform) -> Option<Vec<String>> {
    let ours = |name: &str| name.starts_with(system::PREFIX);
    let sql = || transform.sql.iter().chain(transform.add.values());
    let named = |name: &str| transform.columns.contains_key(name) || sql().any(|sql| mentions(sql, name));
    let names = || schema.fields().iter().map(|f| f.name());
    names().any(|name| ours(name)).then(|| names().filter(|name| !ours(name) || named(name)).cloned().collect())
}

fn cursor(read: &Read) -> Option<&str> {
    match read {
        Read::Incremental(cursor) => Some(&cursor.column),
        _ => None,
    }
}

fn has(schema: &Schema, column: &str) -> bool {
    schema.field_with_name(column).is_ok() || column.split_once('.').is_some_and(|(outer, _)| schema.field_with_name(outer).is_ok())
}

fn index(stream: &Stream, column: &str) -> Result<usize> {
    stream.field(column)?;
    Ok(stream.schema.index_of(column)?)
}

/// Whether SQL may speak of a column: it has its name as a word. A word that means something else costs only a column that is read in vain.
fn mentions(sql: &str, column: &str) -> bool {
    let (sql, column) = (sql.to_lowercase(), column.to_lowercase());
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    sql.match_indices(&column).any(|(at, _)| !part(sql[..at].chars().next_back()) && !part(sql[at + column.len()..].chars().next()))
}

/// `absorbed`: whatever the table's write mode, no rows are added.
fn ranged(plan: &StreamPlan, range: &Range, absorbed: bool) -> Result<Read> {
    let refuse = |message, hint: &str| Err(plan.at.mark(Error::new(Code::Unsupported, message).stream(&plan.stream).hint(hint)));
    let Some(column) = cursor(&plan.read) else {
        return refuse(
            "only a stream with a cursor has ranges to read again",
            "give the stream a `cursor:`, or use `trib run --full-refresh`",
        );
    };
    if !absorbed && !matches!(plan.write, WriteMode::Insert | WriteMode::Upsert | WriteMode::History) && !plan.duplicates {
        return refuse(
            "reading a range again would load its rows twice",
            "with a key and `write: upsert` each row stays single; `duplicates: allow` permits it",
        );
    }
    Ok(Read::Range { column: column.to_owned(), since: range.since.clone(), until: range.until.clone() })
}

/// How much a sync may do at once and how patient it is.
pub fn limits(sync: &SyncSpec, project_threads: Option<usize>, connection_threads: usize) -> Limits {
    let usual = Limits::default();
    Limits {
        streams: sync.threads.or(project_threads).unwrap_or(usual.streams).min(connection_threads).max(1),
        splits: usual.splits.min(connection_threads).max(1),
        stall_timeout: sync.stall_timeout.map_or(usual.stall_timeout, |t| t.0),
        attempts: sync.retry.attempts.max(1),
        backoff: sync.retry.backoff.0,
        rejected: sync.load.rejected.unwrap_or(usual.rejected),
        budget: Budget {
            rows: sync.load.rows.unwrap_or(usual.budget.rows),
            bytes: sync.load.bytes.map_or(usual.budget.bytes, |b| b.0),
            time: sync.load.time.map_or(usual.budget.time, |t| t.0),
        },
    }
}

/// What the contract says to a stream that has appeared since the sync was last run: nothing, a note, or an error.
#[derive(Debug)]
pub enum Newcomer {
    Known,
    Taken,
    LeftOut,
    Refused(Error),
}

/// `named` is that the project names the stream itself, which is a wish and no surprise; `known` are the streams that were loaded before.
pub fn newcomer(plan: &StreamPlan, named: bool, known: &[&str]) -> Newcomer {
    if named || known.is_empty() || known.contains(&plan.stream.as_str()) {
        return Newcomer::Known;
    }
    match plan.contract.new_streams {
        NewStreams::Evolve => Newcomer::Taken,
        NewStreams::Ignore => Newcomer::LeftOut,
        NewStreams::Freeze => {
            let error = Error::new(Code::ContractBroken, "the source has a new stream and the contract freezes them")
                .detail(&plan.stream)
                .stream(&plan.stream)
                .hint("name it under `streams:`, put it under `exclude:`, or allow it with `contract: {new_streams: evolve}`");
            Newcomer::Refused(plan.at.mark(error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_condition() {
        let cases = [
            ("status <> 'test'", "status", true),
            ("order_status <> 'x'", "status", false),
            ("Status = 1", "status", true),
            ("a=1 and \"größe\" > 2", "größe", true),
            ("", "a", false),
        ];
        for (sql, column, expected) in cases {
            assert_eq!(mentions(sql, column), expected, "{sql} {column}");
        }
    }
}
