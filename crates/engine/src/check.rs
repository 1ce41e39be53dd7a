//! Queries that must give nothing: how many rows they give all the same, and the first of them.

use futures::StreamExt;
use serde_json::Value;
use trib_core::{BatchStream, Result};
use trib_kit::object;

/// Rows that a test did not want.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Failing {
    pub count: u64,
    /// The first of them, as objects.
    pub rows: Vec<Value>,
}

/// Counts rows to their end and keeps the first `keep`.
pub async fn count(mut rows: BatchStream, keep: usize) -> Result<Failing> {
    let mut found = Failing::default();
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        found.count += batch.num_rows() as u64;
        let wanted = keep.saturating_sub(found.rows.len()).min(batch.num_rows());
        found.rows.extend((0..wanted).map(|i| Value::Object(object::row(&batch, i))));
    }
    Ok(found)
}
