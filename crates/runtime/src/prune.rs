//! `deletes: {detect: compare}`: a read of the keys alone, which finds out what is gone.

use chrono::{DateTime, TimeDelta, Utc};
use trib_core::contract::Contract;
use trib_core::{Code, Error, Read, Result, WriteMode};
use trib_engine::Engine;

use crate::narrow::narrowed;
use crate::task::{Compare, StreamTask};

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
    let mut prune = narrowed(engine, stream, WriteMode::Prune, Vec::new(), |_| false)?;
    prune.read = Read::Keys;
    prune.spec.deletes = compare.apply;
    prune.spec.contract = Contract::default();
    Ok(prune)
}
