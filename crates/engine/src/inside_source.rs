//! A query that its own destination computes, as a source: rows never leave the system.

use std::sync::Arc;

use arrow::datatypes::DataType;
use async_trait::async_trait;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use trib_core::interval::Interval;
use trib_core::{
    Catalog, Code, Destination, Emitter, Error, Read, ReadMode, Result, Source, Split, SplitEnd, SqlEngine, State, Stream, StreamRead,
};
use trib_kit::cursor::{same_cursor, stored};
use trib_kit::sql::{ANSI, literal};

use crate::batches::{Batch, Batches, Ends};
use crate::range;

/// The result of a query in the destination's own SQL as a stream.
pub struct InsideSource {
    pub destination: Arc<dyn Destination>,
    /// The stream's name.
    pub name: String,
    pub sql: String,
    /// Incremental reads go interval by interval.
    pub batches: Option<Batches>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Piece {
    sql: String,
    /// Where an incremental read ends.
    reached: Option<Reached>,
    /// The interval whose rows these are.
    interval: Option<Interval>,
}

/// How far an incremental read has come, as the system writes the value.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reached {
    cursor: String,
    value: String,
}

impl Reached {
    /// `None` before the first run.
    fn of(state: &State, read: &StreamRead) -> Result<Option<Self>> {
        let before: Option<Self> = stored(state, read)?;
        same_cursor(read, before.as_ref().map(|b| b.cursor.as_str()))?;
        Ok(before)
    }
}

impl InsideSource {
    fn engine(&self) -> Result<&dyn SqlEngine> {
        self.destination.sql().ok_or_else(|| Error::new(Code::Unsupported, "the connection cannot run SQL, so no models can be made in it"))
    }

    /// The least and the greatest value of a column, as text.
    async fn ends(&self, column: &str, condition: &str) -> Result<Ends> {
        let column = ANSI.identifier(column);
        let ends = format!("cast(min({column}) as text) as least, cast(max({column}) as text) as greatest");
        let mut rows = self.engine()?.query(&format!("select {ends} from ({}) as q{condition}", self.sql)).await?;
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            if batch.num_rows() > 0 {
                return Ok(range::text(batch.column(0))?.zip(range::text(batch.column(1))?));
            }
        }
        Ok(None)
    }

    async fn batches(&self, batches: &Batches, read: &StreamRead, state: &State) -> Result<Vec<Split>> {
        let schema = self.engine()?.describe(&self.sql).await?;
        let data_type = schema.field_with_name(&batches.column).map_or(DataType::Null, |f| f.data_type().clone());
        let column = ANSI.identifier(&batches.column);
        let from = batches.looks_from(read, state, &data_type)?;
        let from = from.map(|from| format!(" where {column} >= {}", literal(&from))).unwrap_or_default();
        let ends = self.ends(&batches.column, &from).await?;
        let due = batches.due(read, state, ends, &data_type)?;
        let split = |batch: &Batch| -> Result<Split> {
            let (from, until) = (literal(&batch.from), literal(&batch.until));
            let sql = format!("select * from ({}) as q where {column} >= {from} and {column} < {until}", self.sql);
            let piece = Piece { sql, interval: Some(batch.interval), ..Piece::default() };
            Ok(batches.split(&read.stream, batch, serde_json::to_value(piece)?))
        };
        due.iter().map(split).collect()
    }

    /// What lies between the value that was reached and the greatest one now, both included; `None` when there is nothing.
    async fn increment(&self, read: &StreamRead, column: &str, state: &State) -> Result<Option<Piece>> {
        let before = Reached::of(state, read)?;
        let schema = self.engine()?.describe(&self.sql).await?;
        let number = schema.field_with_name(column).is_ok_and(|f| f.data_type().is_numeric());
        let value = |text: &str| if number { text.to_owned() } else { literal(text) };
        let cursor = ANSI.identifier(column);
        let from = before.map(|b| format!(" where {cursor} >= {}", value(&b.value))).unwrap_or_default();
        let Some((_, greatest)) = self.ends(column, &from).await? else { return Ok(None) };
        let and = if from.is_empty() { "where" } else { "and" };
        let sql = format!("select * from ({}) as q{from} {and} {cursor} <= {}", self.sql, value(&greatest));
        Ok(Some(Piece { sql, reached: Some(Reached { cursor: column.to_owned(), value: greatest }), ..Piece::default() }))
    }
}

#[async_trait]
impl Source for InsideSource {
    async fn check(&self) -> Result<()> {
        self.engine()?.describe(&self.sql).await.map(drop)
    }

    async fn discover(&self, _: &[String]) -> Result<Catalog> {
        let mut stream = Stream::new(&self.name, &self.name, self.engine()?.describe(&self.sql).await?);
        stream.read_modes = vec![ReadMode::Full, ReadMode::Incremental];
        Ok(Catalog { streams: vec![stream] })
    }

    async fn plan(&self, reads: &[StreamRead], state: &State) -> Result<Vec<Split>> {
        let mut splits = Vec::new();
        for read in reads {
            if let Some(batches) = self.batches.as_ref().filter(|_| matches!(read.read, Read::Incremental(_) | Read::Range { .. })) {
                splits.extend(self.batches(batches, read, state).await?);
                continue;
            }
            let piece = match &read.read {
                Read::Incremental(cursor) => self.increment(read, &cursor.column, state).await?,
                Read::Range { column, since, until } => {
                    let bound = |sign: &str, value: &Option<String>| {
                        value.as_ref().map(|v| format!("{} {sign} {}", ANSI.identifier(column), literal(v)))
                    };
                    let bounds: Vec<String> = bound(">=", since).into_iter().chain(bound("<", until)).collect();
                    Some(Piece { sql: format!("select * from ({}) as q where {}", self.sql, bounds.join(" and ")), ..Piece::default() })
                }
                Read::Full | Read::Cdc | Read::Keys => Some(Piece { sql: self.sql.clone(), ..Piece::default() }),
            };
            if let Some(piece) = piece {
                splits.push(Split::new(&read.stream, serde_json::to_value(piece)?));
            }
        }
        Ok(splits)
    }

    async fn read(&self, _: &Split, _: &mut Emitter) -> Result<SplitEnd> {
        Err(Error::internal("a query that runs inside its destination was to be read"))
    }

    fn inside(&self, split: &Split) -> Result<Option<String>> {
        let piece: Piece = serde_json::from_value(split.spec.clone())?;
        Ok(Some(piece.sql))
    }

    fn advance(&self, reads: &[StreamRead], state: &State, ends: &[SplitEnd]) -> Result<State> {
        if let Some(batches) = &self.batches {
            return batches.advance(reads, state, ends, |split| Ok(serde_json::from_value::<Piece>(split.spec.clone())?.interval));
        }
        let mut next = state.clone();
        for read in reads {
            Reached::of(state, read)?;
            for end in ends.iter().filter(|e| e.split.streams.contains(&read.stream)) {
                let piece: Piece = serde_json::from_value(end.split.spec.clone())?;
                match piece.reached {
                    Some(reached) => drop(next.streams.insert(read.stream.clone(), serde_json::to_value(reached)?)),
                    None => drop(next.streams.remove(&read.stream)),
                }
            }
        }
        Ok(next)
    }
}
