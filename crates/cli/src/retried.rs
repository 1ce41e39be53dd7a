//! Rejected rows as a source, so that another try goes the way of every other load.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use serde_json::Value;
use trib_core::{Catalog, Emitter, Read, Result, Source, Split, SplitEnd, State, StreamRead, WriteMode};
use trib_engine::json::read_rows;
use trib_runtime::{Refresh, StreamTask};

/// Rows of one stream, in the form in which they were rejected.
pub struct RejectedRows {
    pub stream: String,
    pub schema: SchemaRef,
    pub rows: Vec<Value>,
}

#[async_trait]
impl Source for RejectedRows {
    async fn check(&self) -> Result<()> {
        Ok(())
    }

    async fn discover(&self, _only: &[String]) -> Result<Catalog> {
        Ok(Catalog::default())
    }

    async fn plan(&self, _reads: &[StreamRead], _state: &State) -> Result<Vec<Split>> {
        Ok(vec![Split::new(&self.stream, Value::Null)])
    }

    async fn read(&self, split: &Split, out: &mut Emitter) -> Result<SplitEnd> {
        let batch = read_rows(&self.rows, &self.schema)
            .map_err(|e| e.hint("the stream's columns have changed: `trib backfill` reads its rows again"))?;
        out.batch(&self.stream, batch).await?;
        Ok(SplitEnd::finished(split, Value::Null))
    }

    fn advance(&self, _reads: &[StreamRead], state: &State, _ends: &[SplitEnd]) -> Result<State> {
        Ok(state.clone())
    }
}

/// The stream's task, changed so that it adds single rows and moves no state: `Range` reads never do.
pub fn as_retry(mut task: StreamTask) -> StreamTask {
    task.read = Read::Range { column: String::new(), since: None, until: None };
    task.refresh = Refresh::No;
    task.compare = None;
    task.pushed_filter = None;
    task.rows = None;
    task.spec.write = match task.spec.write {
        WriteMode::Replace | WriteMode::Mirror if !task.spec.key.is_empty() => WriteMode::Upsert,
        WriteMode::Replace | WriteMode::Mirror => WriteMode::Append,
        other => other,
    };
    task
}

/// [`RejectedRows`] behind the trait.
pub fn source(stream: &str, schema: SchemaRef, rows: Vec<Value>) -> Arc<dyn Source> {
    Arc::new(RejectedRows { stream: stream.to_owned(), schema, rows })
}
