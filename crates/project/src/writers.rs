//! Two streams for one table.

use std::collections::HashMap;

use trib_core::{Code, Error, TableName};

use crate::resolve::StreamPlan;

/// Streams, of any syncs, that write one table without scopes that keep them apart.
pub fn check_writers(streams: &[StreamPlan]) -> Vec<Error> {
    rivals(streams).into_iter().map(|(_, error)| error).collect()
}

/// The streams that are alone with their table, and what is wrong with the others.
pub(crate) fn without_rivals(streams: Vec<StreamPlan>) -> (Vec<StreamPlan>, Vec<Error>) {
    let found = rivals(&streams);
    let tables: Vec<TableName> = found.iter().map(|(at, _)| streams[*at].table.clone()).collect();
    let kept = streams.into_iter().filter(|s| !tables.contains(&s.table)).collect();
    (kept, found.into_iter().map(|(_, error)| error).collect())
}

/// The index of each stream that comes second to a table, and what is wrong with that.
fn rivals(streams: &[StreamPlan]) -> Vec<(usize, Error)> {
    let mut writers: HashMap<(&str, &TableName), Vec<usize>> = HashMap::new();
    let mut found = Vec::new();
    for (i, stream) in streams.iter().enumerate() {
        let others = writers.entry((&stream.to, &stream.table)).or_default();
        let apart = |other: &StreamPlan| match (&other.scope, &stream.scope) {
            (Some(a), Some(b)) => a.column == b.column && a.rows != b.rows,
            _ => false,
        };
        if let Some(first) = others.iter().map(|&o| &streams[o]).find(|o| !apart(o)) {
            let named = |s: &StreamPlan| format!("{}/{} of {}", s.sync, s.stream, s.connection);
            let error = Error::new(Code::ConfigInvalid, "two streams are written into one table")
                .detail(format!("{} and {} into {}", named(first), named(stream), stream.logical))
                .stream(&stream.stream)
                .hint("put `{schema}` or `{connection}` into `into:`; or tell their rows apart with `add: {source: \"'{connection}'\"}` and `scope: source`");
            found.push((i, stream.at.mark(error)));
        }
        others.push(i);
    }
    found
}
