//! `trib backfill --columns`: a read of some columns, which rows that are there get.

use std::collections::BTreeSet;

use trib_core::error::closest;
use trib_core::load::Deletes;
use trib_core::{Code, Error, Read, Result, WriteMode};
use trib_engine::Engine;
use trib_engine::steps::Steps;

use crate::narrow::narrowed;
use crate::task::{StreamTask, SyncTask};

/// The stream's task of a sync, reduced to its key and to columns that are named as the source, or as the table has them.
///
/// A range that the task reads stays; otherwise all rows are read. No state moves.
pub async fn fill(engine: &Engine, sync: &SyncTask, stream: &StreamTask, columns: &[String]) -> Result<StreamTask> {
    task(engine, sync, stream, columns).await.map_err(|e| e.stream(&stream.spec.stream))
}

async fn task(engine: &Engine, sync: &SyncTask, stream: &StreamTask, columns: &[String]) -> Result<StreamTask> {
    let whole_rows = "leave `--columns` out: then whole rows are read again";
    if sync.source.streams_together() {
        return Err(Error::new(Code::Unsupported, "columns cannot be read alone where all streams are read together")
            .hint("`trib run --full-refresh` reads everything again"));
    }
    if !sync.destination.capabilities().write_modes.contains(&WriteMode::Update) {
        return Err(Error::new(Code::Unsupported, "the destination cannot change single columns of rows that are there").hint(whole_rows));
    }
    let (spec, transform) = (&stream.spec, &stream.spec.transform);
    if spec.key.is_empty() {
        return Err(Error::new(Code::Unsupported, "without a key there is no telling which row a value belongs to")
            .hint("name the stream's `key`, or load everything again with `trib run --full-refresh`"));
    }
    let steps = Steps::compile(engine, &spec.schema, transform).await?;
    let loaded: BTreeSet<&str> = steps.output().fields().iter().map(|f| f.name().as_str()).collect();
    let mut only = Vec::new();
    for column in columns {
        let by_source = steps.renamed(transform, column).filter(|name| loaded.contains(name));
        let Some(name) = by_source.or_else(|| loaded.get(column.as_str()).copied()) else {
            let error = Error::new(Code::NotFound, "the stream loads no such column").detail(column).setting("--columns");
            return Err(match closest(column, loaded.iter().copied()) {
                Some(near) => error.hint(format!("did you mean {near:?}?")),
                None => error.hint(format!("it has {}", loaded.into_iter().collect::<Vec<_>>().join(", "))),
            });
        };
        if spec.key.iter().any(|key| steps.renamed(transform, key) == Some(name)) {
            return Err(Error::new(Code::ConfigInvalid, "the key says which row a value belongs to, and cannot be one of the values")
                .detail(column)
                .setting("--columns")
                .hint("name other columns; the key is always read"));
        }
        only.push(name.to_owned());
    }
    let range = match &stream.read {
        Read::Range { column, .. } => Some(column.as_str()),
        _ => None,
    };
    let named = |name: &str| range == Some(name) || steps.renamed(transform, name).is_some_and(|name| only.iter().any(|o| o == name));
    let mut task = narrowed(engine, stream, WriteMode::Update, only.clone(), named)?;
    task.spec.deletes = Deletes::Ignore;
    if range.is_none() {
        task.read = Read::Keys;
    }
    Ok(task)
}
