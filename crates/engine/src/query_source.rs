//! A query as a source: one stream, whose rows are the query's result. A model is a load of it.
//!
//! A hash join holds one side in memory, and does not spill. A load that finds no memory for it fails, and when it is tried again both sides are
//! sorted instead: slower, and without a bound to the size of either.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::common::{Column, ScalarValue};
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::Expr;
use futures::StreamExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::json;
use trib_core::interval::Interval;
use trib_core::source::Cursor;
use trib_core::{Catalog, Code, Emitter, Level, Read, ReadMode, Result, Source, Split, SplitEnd, State, Stream, StreamRead};
use trib_kit::cursor::{self, Boundary, CursorState};

use crate::batches::{Batch, Batches};
use crate::catalog::{Queries, execute};
use crate::failure::query_error;
use crate::range::{self, Range};

const SORTING: &str = "the query ran out of memory, or of another resource: this time its joins sort both sides, and spill";

/// The result of a query as a stream.
pub struct QuerySource {
    queries: Queries,
    name: String,
    sql: String,
    batches: Option<Batches>,
    /// What is asked once a read has found too little memory.
    sorting: OnceLock<Queries>,
    told: AtomicBool,
}

impl QuerySource {
    /// `name` is the stream's. With `batches`, incremental reads go interval by interval.
    pub fn new(queries: Queries, name: &str, sql: &str, batches: Option<Batches>) -> Self {
        Self { queries, name: name.to_owned(), sql: sql.to_owned(), batches, sorting: OnceLock::new(), told: AtomicBool::new(false) }
    }

    fn frame(&self) -> BoxFuture<'_, Result<DataFrame>> {
        self.sorting.get().unwrap_or(&self.queries).frame(&self.sql)
    }
}

/// The one split of a query: which rows of its result, and which columns.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Piece {
    columns: Option<Vec<String>>,
    range: Option<Range>,
    /// The cursor whose greatest value is looked for while rows go by.
    cursor: Option<String>,
    /// Rows at the lower end that were loaded before, where the destination would load them twice.
    before: Option<CursorState>,
    /// The interval whose rows these are.
    interval: Option<Interval>,
}

impl Piece {
    fn of(&self, mut frame: DataFrame) -> Result<DataFrame> {
        if let Some(range) = &self.range {
            frame = range.of(frame)?;
        }
        if let Some(columns) = &self.columns {
            let columns = columns.iter().map(|c| Expr::Column(Column::from_name(c)));
            frame = frame.select(columns).map_err(query_error)?;
        }
        Ok(frame)
    }
}

#[async_trait]
impl Source for QuerySource {
    async fn check(&self) -> Result<()> {
        self.queries.checked(&self.sql).await.map(drop)
    }

    async fn discover(&self, _: &[String]) -> Result<Catalog> {
        let mut stream = Stream::new(&self.name, &self.name, self.queries.schema(&self.sql).await?);
        stream.read_modes = vec![ReadMode::Full, ReadMode::Incremental];
        Ok(Catalog { streams: vec![stream] })
    }

    async fn plan(&self, reads: &[StreamRead], state: &State) -> Result<Vec<Split>> {
        self.noted(self.splits(reads, state).await)
    }

    async fn read(&self, split: &Split, out: &mut Emitter) -> Result<SplitEnd> {
        if self.sorting.get().is_some() && !self.told.swap(true, Ordering::Relaxed) {
            out.log(Level::Warn, SORTING.to_owned()).await?;
        }
        self.noted(self.read_rows(split, out).await)
    }

    fn advance(&self, reads: &[StreamRead], state: &State, ends: &[SplitEnd]) -> Result<State> {
        match &self.batches {
            Some(batches) => batches.advance(reads, state, ends, |split| Ok(serde_json::from_value::<Piece>(split.spec.clone())?.interval)),
            None => cursor::advance(reads, state, ends),
        }
    }
}

impl QuerySource {
    /// From a failure for want of memory on, joins sort.
    fn noted<T>(&self, result: Result<T>) -> Result<T> {
        if result.as_ref().is_err_and(|e| e.code() == Code::ResourceExhausted) {
            self.sorting.get_or_init(|| self.queries.clone().by_sorting().in_small_batches());
        }
        result
    }

    /// An incremental read is a condition on the result, which the optimizer carries down to the tables where that leaves the
    /// result as it is.
    async fn splits(&self, reads: &[StreamRead], state: &State) -> Result<Vec<Split>> {
        let mut splits = Vec::new();
        for read in reads {
            let mut piece = Piece { columns: read.columns.clone(), ..Piece::default() };
            if let Some(batches) = self.batches.as_ref().filter(|_| matches!(read.read, Read::Incremental(_) | Read::Range { .. })) {
                splits.extend(self.batches(batches, read, state).await?);
                continue;
            }
            match &read.read {
                Read::Full | Read::Cdc => {}
                Read::Keys => piece.columns = piece.columns.or_else(|| Some(read.key.clone())),
                Read::Range { column, since, until } => {
                    piece.range = Some(Range { column: column.clone(), from: since.clone(), until: until.clone(), ..Range::default() });
                }
                Read::Incremental(cursor) => {
                    let before = CursorState::of(state, read)?;
                    let (range, frame) = begun(self.frame().await?, cursor, &before)?;
                    if read.exactly_once {
                        // What comes at the upper end later must be told apart from what is there now, so that end is fixed first.
                        let Some(range) = range::increment(frame, cursor, &before).await? else { continue };
                        (piece.range, piece.before) = (Some(range), Some(before));
                    } else {
                        // Rows without a cursor come along in the first read, and stay as they were then.
                        piece.range = range.from.is_some().then_some(range);
                        piece.cursor = Some(cursor.column.clone());
                    }
                }
            }
            splits.push(Split::new(&read.stream, serde_json::to_value(piece)?));
        }
        Ok(splits)
    }

    async fn read_rows(&self, split: &Split, out: &mut Emitter) -> Result<SplitEnd> {
        let piece: Piece = serde_json::from_value(split.spec.clone())?;
        let rows = execute(piece.of(self.frame().await?)?);
        let (schema, mut rows) = rows.await?;
        let mut ends = Ends::of(&piece, &schema)?;
        while let Some(batch) = rows.next().await {
            let batch = ends.watch(batch?)?;
            out.batch(&self.name, batch).await?;
        }
        Ok(SplitEnd::finished(split, ends.facts()?))
    }

    async fn batches(&self, batches: &Batches, read: &StreamRead, state: &State) -> Result<Vec<Split>> {
        let (ends, data_type) = {
            let frame = self.frame().await?;
            let data_type = frame.schema().field_with_unqualified_name(&batches.column).map_err(query_error)?.data_type().clone();
            let from = batches.looks_from(read, state, &data_type)?;
            (range::ends(frame, &batches.column, from), data_type)
        };
        let ends = ends.await?;
        let due = batches.due(read, state, ends, &data_type)?;
        let split = |batch: &Batch| -> Result<Split> {
            let (from, until) = (Some(batch.from.clone()), Some(batch.until.clone()));
            let range = Some(Range { column: batches.column.clone(), from, until, ..Range::default() });
            let piece = Piece { columns: read.columns.clone(), range, interval: Some(batch.interval), ..Piece::default() };
            Ok(batches.split(&read.stream, batch, serde_json::to_value(piece)?))
        };
        due.iter().map(split).collect()
    }
}

/// The range that begins where the last read ended, and the rows in it.
fn begun(frame: DataFrame, cursor: &Cursor, before: &CursorState) -> Result<(Range, DataFrame)> {
    let field = frame.schema().field_with_unqualified_name(&cursor.column).map_err(query_error)?;
    let from = range::lower(cursor, before, field.data_type())?;
    let range = Range { column: cursor.column.clone(), from, until: cursor.end.clone(), ..Range::default() };
    let frame = if range.from.is_some() { range.of(frame)? } else { frame };
    Ok((range, frame))
}

/// What is noticed of an incremental read's ends while its rows go by.
enum Ends {
    Unwatched,
    Exact(Box<Boundary>),
    /// The place of the cursor, and the greatest value so far.
    Greatest(usize, Option<ScalarValue>),
}

impl Ends {
    fn of(piece: &Piece, schema: &SchemaRef) -> Result<Self> {
        if let (Some(before), Some(range)) = (&piece.before, &piece.range)
            && let Some(upper) = &range.to
        {
            let at = schema.index_of(&range.column)?;
            let cursor = (at, schema.field(at).data_type());
            let boundary = Boundary::new(cursor, before.value.as_deref(), upper, before.seen.clone(), true)?;
            return Ok(Ends::Exact(Box::new(boundary)));
        }
        match &piece.cursor {
            Some(column) => Ok(Ends::Greatest(schema.index_of(column)?, None)),
            None => Ok(Ends::Unwatched),
        }
    }

    fn watch(&mut self, batch: RecordBatch) -> Result<RecordBatch> {
        match self {
            Ends::Unwatched => Ok(batch),
            Ends::Exact(boundary) => boundary.filter(batch),
            Ends::Greatest(column, greatest) => {
                if let Some(value) = max_of(batch.column(*column))?
                    && greatest.as_ref().is_none_or(|known| value.partial_cmp(known) == Some(std::cmp::Ordering::Greater))
                {
                    *greatest = Some(value);
                }
                Ok(batch)
            }
        }
    }

    fn facts(&self) -> Result<serde_json::Value> {
        match self {
            Ends::Unwatched => Ok(serde_json::Value::Null),
            Ends::Exact(boundary) => boundary.facts(),
            Ends::Greatest(_, None) => Ok(json!({"value": null})),
            Ends::Greatest(_, Some(value)) => Ok(json!({"value": range::text(&value.to_array().map_err(query_error)?)?})),
        }
    }
}

/// The greatest value that is not NULL.
fn max_of(column: &ArrayRef) -> Result<Option<ScalarValue>> {
    let last = arrow::compute::SortOptions { descending: true, nulls_first: false };
    let first = arrow::compute::sort_to_indices(column, Some(last), Some(1))?;
    let Some(at) = first.values().first().map(|i| *i as usize).filter(|i| column.is_valid(*i)) else { return Ok(None) };
    Ok(Some(ScalarValue::try_from_array(column, at).map_err(query_error)?))
}
