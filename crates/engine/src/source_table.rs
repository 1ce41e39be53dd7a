//! A stream of a source as a table, for queries that join what lies in several systems.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use tokio::sync::mpsc;
use trib_core::{Code, Emitter, Error, Message, Read, ReadMode, Result, Source, Split, State, Stream, StreamRead};

use crate::execute::IN_FLIGHT;
use crate::pushed;
use crate::router::adapted;
use crate::session::Engine;
use crate::spill::Spill;

/// How long a read waits for a query that does not take its rows, before it puts them on disk.
const PATIENCE: Duration = Duration::from_millis(50);

type Rows = mpsc::Sender<Result<RecordBatch, DataFusionError>>;

/// The stream as it is when a query looks at it. Only the columns that a query needs are read, and where the source evaluates conditions, only the rows that may
/// matter.
pub struct SourceTable {
    connection: String,
    source: Arc<dyn Source>,
    stream: Stream,
    pushes_filter: bool,
    spill: Arc<Path>,
    splits: usize,
}

impl SourceTable {
    /// `connection` is what errors call the source; `pushes_filter` is as the connector says.
    pub fn new(engine: &Engine, connection: &str, source: Arc<dyn Source>, stream: Stream, pushes_filter: bool) -> Result<Self> {
        if source.streams_together() || source.remembered_elsewhere() || !stream.read_modes.contains(&ReadMode::Full) {
            return Err(Error::new(Code::Unsupported, "a query cannot look into this source")
                .detail("its streams cannot be read one by one, and as they are now")
                .connection(connection)
                .stream(&stream.name)
                .hint("sync the stream into a table, and let the query read that one"));
        }
        Ok(Self {
            connection: connection.to_owned(),
            source,
            stream,
            pushes_filter,
            spill: engine.spill().into(),
            splits: engine.threads(),
        })
    }

    fn read(&self, columns: Vec<String>, filters: &[Expr]) -> StreamRead {
        let schema = &self.stream.schema;
        let conditions: Vec<String> = filters.iter().filter_map(|f| pushed::condition(f, schema)).collect();
        let read = pushed::stretch(&filters.iter().collect::<Vec<_>>(), schema).filter(|_| self.pushes_filter);
        StreamRead {
            stream: self.stream.name.clone(),
            columns: Some(columns),
            filter: (self.pushes_filter && !conditions.is_empty()).then(|| conditions.join(" AND ")),
            key: self.stream.primary_key.clone(),
            read: read.unwrap_or(Read::Full),
            split_by: None,
            parallelism: self.splits,
            may_stop: false,
            exactly_once: false,
        }
    }
}

#[async_trait]
impl TableProvider for SourceTable {
    fn schema(&self) -> SchemaRef {
        self.stream.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>, DataFusionError> {
        let schema = &self.stream.schema;
        let pushed = |filter: &&Expr| {
            self.pushes_filter && (pushed::condition(filter, schema).is_some() || pushed::stretch(&[filter], schema).is_some())
        };
        Ok(filters
            .iter()
            .map(|f| if pushed(f) { TableProviderFilterPushDown::Inexact } else { TableProviderFilterPushDown::Unsupported })
            .collect())
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let external = |e: Error| DataFusionError::External(Box::new(e));
        let schema = match projection {
            Some(columns) => Arc::new(self.stream.schema.project(columns)?),
            None => self.stream.schema.clone(),
        };
        // Rows that are only counted need a column to come in.
        let wanted =
            if schema.fields().is_empty() { Arc::new(Schema::new(vec![self.stream.schema.field(0).clone()])) } else { schema.clone() };
        let read = self.read(wanted.fields().iter().map(|f| f.name().clone()).collect(), filters);
        let splits = self.source.plan(&[read], &State::default()).await.map_err(|e| external(e.stream(&self.stream.name)))?;
        if splits.is_empty() {
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let piece = |split: Split| -> Arc<dyn PartitionStream> {
            let (connection, source, stream) = (self.connection.clone(), self.source.clone(), self.stream.name.clone());
            Arc::new(Piece { connection, source, stream, split, schema: schema.clone(), wanted: wanted.clone(), spill: self.spill.clone() })
        };
        let pieces = splits.into_iter().map(piece).collect();
        Ok(Arc::new(StreamingTableExec::try_new(schema, pieces, None, [], false, None)?))
    }
}

impl fmt::Debug for SourceTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SourceTable").field(&self.stream.name).finish()
    }
}

/// One split.
#[derive(Clone)]
struct Piece {
    connection: String,
    source: Arc<dyn Source>,
    stream: String,
    split: Split,
    /// Of the rows that come out.
    schema: SchemaRef,
    /// Of the rows that are read.
    wanted: SchemaRef,
    spill: Arc<Path>,
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Piece").field(&self.stream).finish()
    }
}

impl PartitionStream for Piece {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut stream = RecordBatchReceiverStream::builder(self.schema.clone(), IN_FLIGHT);
        let (piece, rows) = (self.clone(), stream.tx());
        stream.spawn(async move { piece.run(rows).await.map_err(|e| DataFusionError::External(Box::new(e))) });
        stream.build()
    }
}

impl Piece {
    /// A read goes on to its end, whether its rows are taken or not: a query may want another stream's rows first, which wait until this read gives its connection
    /// back.
    async fn run(self, rows: Rows) -> Result<()> {
        let (mut emitter, messages) = Emitter::channel(IN_FLIGHT, Arc::default());
        let reading = async {
            let end = self.source.read(&self.split, &mut emitter).await;
            drop(emitter);
            end
        };
        let (_, waiting) =
            tokio::try_join!(reading, self.pass_on(messages, &rows)).map_err(|e| e.connection(&self.connection).stream(&self.stream))?;
        let Some(waiting) = waiting else { return Ok(()) };
        let piece = self.clone();
        let passed = tokio::task::spawn_blocking(move || -> Result<()> {
            for batch in waiting.read()? {
                if rows.blocking_send(piece.projected(&batch?)).is_err() {
                    break;
                }
            }
            Ok(())
        });
        passed.await.map_err(|e| Error::new(Code::Internal, "a task of the query has panicked").source(e))?
    }

    /// Gives what was not taken.
    async fn pass_on(&self, mut messages: mpsc::Receiver<Message>, rows: &Rows) -> Result<Option<Spill>> {
        let mut announced = None;
        let mut waiting: Option<Spill> = None;
        while let Some(message) = messages.recv().await {
            let batch = match message {
                Message::Batch { stream, batch, .. } if *stream == *self.stream => batch,
                Message::Schema { stream, schema } if *stream == *self.stream => {
                    announced = Some(schema);
                    continue;
                }
                Message::Reject { stream, row } if *stream == *self.stream => {
                    return Err(Error::new(Code::DataInvalid, "a row cannot be read, and a query has no place for rejected ones")
                        .detail(row.reason)
                        .row(row.place)
                        .hint("sync the stream into a table: such rows are set aside there"));
                }
                _ => continue,
            };
            let batch = adapted(&batch, &self.wanted, announced.as_ref(), &self.stream)?;
            if let Some(spill) = &mut waiting {
                spill.write(&batch)?;
                continue;
            }
            match rows.send_timeout(self.projected(&batch), PATIENCE).await {
                Ok(()) => {}
                Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                    let mut spill = Spill::new(&self.spill, &self.wanted)?;
                    spill.write(&batch)?;
                    waiting = Some(spill);
                }
                // The query has all that it needs.
                Err(mpsc::error::SendTimeoutError::Closed(_)) => return Err(crate::execute::stopped()),
            }
        }
        Ok(waiting)
    }

    fn projected(&self, batch: &RecordBatch) -> Result<RecordBatch, DataFusionError> {
        if !self.schema.fields().is_empty() {
            return Ok(batch.clone());
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), Vec::new(), &options)?)
    }
}
