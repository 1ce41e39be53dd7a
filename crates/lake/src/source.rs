//! The lake as a source: each table is a stream, read at one version, file by file.
//!
//! A version never changes, so a read that was cut goes on in another run with the files that are left of that version.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::common::Column;
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::Expr;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use trib_core::catalog::{Catalog, Stream, propose_cursors};
use trib_core::source::Cursor;
use trib_core::{Code, Emitter, Error, Read, ReadMode, Result, Source, Split, SplitEnd, State, StreamRead, TableName};
use trib_engine::failure::query_error;
use trib_engine::range::{self, Range, value};
use trib_engine::sql;
use trib_kit::cursor::{self, Boundary, CursorState};

use crate::data_file;
use crate::delta_type;
use crate::destination::Lake;
use crate::query;
use crate::table_log::{LiveFile, Snapshot};

/// What it takes to read a split.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Piece {
    table: TableName,
    version: u64,
    files: Vec<String>,
    columns: Vec<String>,
    filter: Option<String>,
    range: Option<Range>,
    /// For the exactness of an incremental read at its ends.
    boundary: Option<Ends>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Ends {
    seen_at: Option<String>,
    seen: std::collections::BTreeSet<String>,
    exactly_once: bool,
}

#[async_trait]
impl Source for Lake {
    async fn check(&self) -> Result<()> {
        self.tables().await.map(drop)
    }

    async fn discover(&self, only: &[String]) -> Result<Catalog> {
        let mut catalog = Catalog::default();
        for table in self.tables().await? {
            let name = table.to_string();
            if !only.is_empty() && !only.contains(&name) {
                continue;
            }
            match self.log(&table)?.snapshot().await {
                Ok(Some(snapshot)) => catalog.streams.push(describe(&table, &snapshot)),
                Ok(None) => {}
                Err(e) => tracing::warn!(table = %name, error = %e, "the table could not be described"),
            }
        }
        Ok(catalog)
    }

    async fn plan(&self, reads: &[StreamRead], state: &State) -> Result<Vec<Split>> {
        let mut splits = Vec::new();
        for read in reads {
            let before = CursorState::of(state, read)?;
            if !before.left.is_empty() {
                splits.extend(before.left);
                continue;
            }
            let table = TableName::parse(&read.stream);
            let Some(snapshot) = self.log(&table)?.snapshot().await? else {
                return Err(Error::new(Code::NotFound, "there is no such table in the lake")
                    .detail(&read.stream)
                    .hint("`trib discover` lists the tables"));
            };
            splits.extend(self.plan_table(read, table, &snapshot, &before).await?);
        }
        Ok(splits)
    }

    async fn read(&self, split: &Split, out: &mut Emitter) -> Result<SplitEnd> {
        let piece: Piece = serde_json::from_value(split.spec.clone())?;
        let stream = split.streams.first().ok_or_else(|| Error::internal("a split has no stream"))?;
        self.read_piece(split, stream, &piece, out).await.map_err(|e| e.stream(stream))
    }

    fn advance(&self, reads: &[StreamRead], state: &State, ends: &[SplitEnd]) -> Result<State> {
        cursor::advance(reads, state, ends)
    }
}

impl Lake {
    async fn plan_table(&self, read: &StreamRead, table: TableName, snapshot: &Snapshot, before: &CursorState) -> Result<Vec<Split>> {
        let all = || snapshot.schema.fields().iter().map(|f| f.name().clone()).collect();
        let columns = match (&read.read, &read.columns) {
            (_, Some(columns)) => columns.clone(),
            (Read::Keys, None) => read.key.clone(),
            (_, None) => all(),
        };
        let mut piece = Piece {
            table,
            version: snapshot.version,
            files: snapshot.files.iter().map(|f| f.path.clone()).collect(),
            columns,
            filter: read.filter.clone(),
            range: None,
            boundary: None,
        };
        match &read.read {
            Read::Full | Read::Keys => {}
            Read::Cdc => {
                return Err(Error::new(Code::Unsupported, "the lake has no change log to read")
                    .stream(&read.stream)
                    .hint("use `read: incremental`"));
            }
            Read::Range { column, since, until } => {
                snapshot_field(snapshot, column, read)?;
                piece.range = Some(Range { column: column.clone(), from: since.clone(), until: until.clone(), ..Default::default() });
            }
            Read::Incremental(cursor) => match self.increment(read, cursor, snapshot, &piece, before).await? {
                Some(range) => {
                    piece.boundary =
                        Some(Ends { seen_at: before.value.clone(), seen: before.seen.clone(), exactly_once: read.exactly_once });
                    piece.range = Some(range);
                }
                None => return Ok(Vec::new()),
            },
        }
        let files: Vec<&LiveFile> = match &piece.range {
            Some(range) => {
                let field = snapshot_field(snapshot, &range.column, read)?;
                snapshot.files.iter().filter(|f| may_lie_in(f, range, field.data_type())).collect()
            }
            None => snapshot.files.iter().collect(),
        };
        grouped(files, read.parallelism)
            .into_iter()
            .map(|group| {
                let rows = group.iter().map(|f| f.stats.num_records).sum();
                let piece = Piece { files: group.iter().map(|f| f.path.clone()).collect(), ..piece.clone() };
                let mut split = Split::new(&read.stream, serde_json::to_value(piece)?);
                split.rows = rows;
                Ok(split)
            })
            .collect()
    }

    /// The range that an incremental read covers now; `None` when nothing can be new.
    async fn increment(
        &self,
        read: &StreamRead,
        cursor: &Cursor,
        snapshot: &Snapshot,
        piece: &Piece,
        before: &CursorState,
    ) -> Result<Option<Range>> {
        snapshot_field(snapshot, &cursor.column, read)?;
        let range = range::increment(self.frame(piece, None).await?, cursor, before);
        range.await.map_err(|e| e.stream(&read.stream))
    }

    /// The rows of a piece, or of one of its files, before any condition.
    async fn frame(&self, piece: &Piece, file: Option<&str>) -> Result<DataFrame> {
        let log = self.log(&piece.table)?;
        let gone = || Error::new(Code::NotFound, "what was planned to be read is no longer in the table").detail(piece.table.to_string());
        let mut snapshot = log.snapshot_at(Some(piece.version)).await?.ok_or_else(gone)?;
        if let Some(one) = file {
            snapshot.files.retain(|f| f.path == one);
            if snapshot.files.is_empty() {
                return Err(gone());
            }
        }
        let provider = query::provider(&self.layout, &log, snapshot).await?;
        self.session(Vec::new())?.read_table(provider).map_err(query_error)
    }

    async fn read_piece(&self, split: &Split, stream: &str, piece: &Piece, out: &mut Emitter) -> Result<SplitEnd> {
        let mut boundary: Option<(Boundary, usize)> = None;
        for (done, file) in piece.files.iter().enumerate() {
            if done > 0 && out.should_stop() {
                let rest = Piece { files: piece.files[done..].to_vec(), ..piece.clone() };
                let rest = Split::new(stream, serde_json::to_value(rest)?);
                return Ok(SplitEnd::stopped(split, rest, facts(boundary.as_ref())?));
            }
            // The cursor is read along when it is not asked for, and left out again.
            let mut columns = piece.columns.clone();
            let cursor = piece.boundary.as_ref().and(piece.range.as_ref()).map(|r| r.column.clone());
            columns.extend(cursor.iter().filter(|c| !piece.columns.contains(c)).cloned());
            let (schema, frame) = selected(self.frame(piece, Some(file)).await?, piece, &columns)?;
            let mut rows = query::rows(frame).await?;
            if let (Some(ends), Some(range), None) = (&piece.boundary, &piece.range, &boundary)
                && let Some(upper) = &range.to
            {
                let at = schema.index_of(&range.column)?;
                let t = schema.field(at).data_type();
                let new = Boundary::new((at, t), ends.seen_at.as_deref(), upper, ends.seen.clone(), ends.exactly_once)?;
                boundary = Some((new, at));
            }
            while let Some(batch) = rows.next().await {
                let mut batch = data_file::conform(&batch?, &schema, &[])?;
                if let Some((boundary, _)) = &mut boundary {
                    batch = boundary.filter(batch)?;
                }
                if columns.len() > piece.columns.len() {
                    batch = batch.project(&(0..piece.columns.len()).collect::<Vec<_>>())?;
                }
                out.batch(stream, batch).await?;
            }
        }
        Ok(SplitEnd::finished(split, facts(boundary.as_ref())?))
    }
}

fn facts(boundary: Option<&(Boundary, usize)>) -> Result<serde_json::Value> {
    boundary.map_or(Ok(serde_json::Value::Null), |(b, _)| b.facts())
}

fn describe(table: &TableName, snapshot: &Snapshot) -> Stream {
    let schema = restored(&snapshot.schema);
    let mut stream = Stream::new(table.to_string(), &table.name, schema);
    stream.schema_name.clone_from(&table.schema);
    stream.primary_key = snapshot.key();
    stream.cursors = propose_cursors(&stream.schema, &stream.primary_key);
    stream.read_modes = vec![ReadMode::Full, ReadMode::Incremental];
    stream.rows = snapshot.rows();
    stream.bytes = Some(snapshot.files.iter().map(|f| f.size).sum());
    stream
}

fn restored(schema: &Schema) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().map(|f| delta_type::restored(f)).collect::<Vec<_>>()))
}

fn snapshot_field<'a>(snapshot: &'a Snapshot, column: &str, read: &StreamRead) -> Result<&'a Field> {
    snapshot.schema.field_with_name(column).map_err(|_| {
        let error = Error::new(Code::NotFound, "the table has no such column").detail(column).stream(&read.stream);
        match trib_core::error::closest(column, snapshot.schema.fields().iter().map(|f| f.name().as_str())) {
            Some(near) => error.hint(format!("did you mean {near:?}?")),
            None => error,
        }
    })
}

/// The columns of those rows that filter and range let through.
fn selected(mut frame: DataFrame, piece: &Piece, columns: &[String]) -> Result<(SchemaRef, DataFrame)> {
    if let Some(filter) = &piece.filter {
        let condition = sql::expression(&frame.clone().into_parts().0, filter, frame.schema())?;
        frame = frame.filter(condition).map_err(query_error)?;
    }
    if let Some(range) = &piece.range {
        frame = range.of(frame)?;
    }
    let expressions = columns.iter().map(|c| Expr::Column(Column::from_name(c)));
    let frame = frame.select(expressions).map_err(query_error)?;
    Ok((restored(frame.schema().as_arrow()), frame))
}

/// Whether the log leaves it open that a file has rows in the range.
fn may_lie_in(file: &LiveFile, range: &Range, data_type: &DataType) -> bool {
    if range.nulls {
        return true;
    }
    let Some((least, greatest)) = file.stats.bounds(&range.column, data_type) else {
        return true;
    };
    let compare = |bound: &ArrayRef, text: &str| -> Option<std::cmp::Ordering> {
        let value = value(text, data_type).ok()?;
        arrow::array::make_comparator(bound, &value, arrow::compute::SortOptions::default()).ok().map(|c| c(0, 0))
    };
    let below = range.from.as_deref().and_then(|from| compare(&greatest, from)).is_some_and(std::cmp::Ordering::is_lt);
    let above = range.to.as_deref().and_then(|to| compare(&least, to)).is_some_and(std::cmp::Ordering::is_gt);
    let beyond = range.until.as_deref().and_then(|until| compare(&least, until)).is_some_and(std::cmp::Ordering::is_ge);
    !(below || above || beyond)
}

/// Files in at most `parts` groups of about one size.
fn grouped(mut files: Vec<&LiveFile>, parts: usize) -> Vec<Vec<&LiveFile>> {
    files.sort_by_key(|f| std::cmp::Reverse(f.size));
    let mut groups: Vec<(u64, Vec<&LiveFile>)> = vec![(0, Vec::new()); parts.max(1).min(files.len())];
    for file in files {
        if let Some(smallest) = groups.iter_mut().min_by_key(|(bytes, _)| *bytes) {
            smallest.0 += file.size;
            smallest.1.push(file);
        }
    }
    groups.into_iter().map(|(_, files)| files).collect()
}
