//! Less of a stream than a run loads: its keys alone, or some of its columns.

use std::sync::Arc;

use trib_core::{Result, WriteMode};
use trib_engine::steps::looked_at;
use trib_engine::{Engine, StreamSpec};

use crate::task::{Refresh, StreamTask};

/// The stream's task, changed so that `write` gets the key and the columns `only` (as the transform names them), and no state moves. Besides them the
/// source is asked for those that `wanted` names, and those that tell which rows count. How it is read is for the caller to say.
pub fn narrowed(
    engine: &Engine,
    stream: &StreamTask,
    write: WriteMode,
    only: Vec<String>,
    wanted: impl Fn(&str) -> bool,
) -> Result<StreamTask> {
    let mut task = stream.clone();
    task.refresh = Refresh::No;
    task.compare = None;
    task.spec.write = write;
    task.spec.only = Some(only);
    task.spec.partition_by.clear();
    let StreamSpec { key, schema, transform, scope, .. } = &mut task.spec;
    let wanted = |name: &String| key.contains(name) || scope.as_ref().is_some_and(|s| s.column == *name) || wanted(name);
    transform.select = None;
    transform.columns.retain(|name, _| wanted(name));
    transform.add.retain(|name, _| wanted(name));
    if let Some(looked_at) = looked_at(engine, schema, transform)? {
        let needed = |name: &String| wanted(name) || looked_at.contains(name);
        let needed: Vec<usize> = (0..schema.fields().len()).filter(|i| needed(schema.field(*i).name())).collect();
        *schema = Arc::new(schema.project(&needed)?);
    }
    Ok(task)
}
