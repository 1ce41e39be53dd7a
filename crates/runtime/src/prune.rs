//! `deletes: {detect: compare}`: a read of the keys alone, which finds out what is gone.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use trib_core::contract::Contract;
use trib_core::{Code, Error, Read, Result, WriteMode};
use trib_engine::steps::looked_at;
use trib_engine::{Engine, StreamSpec};

use crate::task::{Compare, Refresh, StreamTask};

/// Refuses what cannot be compared.
pub fn check(streams: &[StreamTask], together: bool) -> Result<()> {
    match streams.iter().find(|s| s.compare.is_some() && together) {
        None => Ok(()),
        Some(stream) => Err(Error::new(Code::Unsupported, "deletes cannot be found by comparing where all streams are read together")
            .stream(&stream.spec.stream)
            .hint("leave `deletes: {detect: compare}` out, or read the stream in full with `write: mirror`")),
    }
}

/// Whether it is time to compare.
pub fn is_due(compare: Compare, last: Option<DateTime<Utc>>) -> bool {
    match (last, compare.every) {
        (Some(last), Some(every)) => Utc::now() - last >= TimeDelta::from_std(every).unwrap_or(TimeDelta::MAX),
        _ => true,
    }
}

/// The stream's task, reduced to its keys.
pub fn task(engine: &Engine, stream: &StreamTask, compare: Compare) -> Result<StreamTask> {
    let mut prune = stream.clone();
    prune.read = Read::Keys;
    prune.refresh = Refresh::No;
    prune.spec.write = WriteMode::Prune;
    prune.spec.deletes = compare.apply;
    prune.spec.contract = Contract::default();
    let StreamSpec { key, schema, transform, scope, .. } = &mut prune.spec;
    transform.select = None;
    transform.columns.retain(|name, _| key.contains(name));
    // What is added may be part of the key, as the scope is; the rest is not asked for.
    transform.add.retain(|name, _| key.contains(name) || scope.as_ref().is_some_and(|s| s.column == *name));
    if let Some(looked_at) = looked_at(engine, schema, transform)? {
        let needed = |name: &String| key.contains(name) || looked_at.contains(name);
        let needed: Vec<usize> = (0..schema.fields().len()).filter(|i| needed(schema.field(*i).name())).collect();
        *schema = Arc::new(schema.project(&needed)?);
    }
    Ok(prune)
}
