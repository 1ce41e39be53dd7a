//! A query that its own destination computes, as a source: rows never leave the system.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use trib_core::{
    Catalog, Code, Destination, Emitter, Error, Read, ReadMode, Result, Source, Split, SplitEnd, SqlEngine, State, Stream, StreamRead,
};
use trib_kit::sql::{ANSI, literal};

use crate::range;

/// The result of a query in the destination's own SQL as a stream.
pub struct InsideSource {
    pub destination: Arc<dyn Destination>,
    /// The stream's name.
    pub name: String,
    pub sql: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Piece {
    sql: String,
    /// Where an incremental read ends.
    reached: Option<Reached>,
}

/// How far an incremental read has come, as the system writes the value.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Reached {
    cursor: String,
    value: String,
}

impl InsideSource {
    fn engine(&self) -> Result<&dyn SqlEngine> {
        self.destination.sql().ok_or_else(|| Error::new(Code::Unsupported, "the connection cannot run SQL, so no models can be made in it"))
    }

    /// The greatest value of a column, as text.
    async fn greatest(&self, column: &str, condition: &str) -> Result<Option<String>> {
        let sql = format!("select cast(max({}) as text) as greatest from ({}) as q{condition}", ANSI.identifier(column), self.sql);
        let mut rows = self.engine()?.query(&sql).await?;
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            if batch.num_rows() > 0 {
                return range::text(batch.column(0));
            }
        }
        Ok(None)
    }

    /// What lies between the value that was reached and the greatest one now, both included; `None` when there is nothing.
    async fn increment(&self, stream: &str, column: &str, state: &State) -> Result<Option<Piece>> {
        let before: Option<Reached> = state.stream(stream).map(|value| serde_json::from_value(value.clone())).transpose()?;
        if let Some(before) = before.as_ref().filter(|b| b.cursor != column) {
            return Err(Error::new(Code::ConfigInvalid, "the cursor is another column than the one that the state belongs to")
                .detail(format!("{column} now, {} in the state", before.cursor))
                .hint("`trib run --full-refresh` computes everything with the new cursor"));
        }
        let schema = self.engine()?.describe(&self.sql).await?;
        let number = schema.field_with_name(column).is_ok_and(|f| f.data_type().is_numeric());
        let value = |text: &str| if number { text.to_owned() } else { literal(text) };
        let cursor = ANSI.identifier(column);
        let from = before.map(|b| format!(" where {cursor} >= {}", value(&b.value))).unwrap_or_default();
        let Some(greatest) = self.greatest(column, &from).await? else { return Ok(None) };
        let and = if from.is_empty() { "where" } else { "and" };
        let sql = format!("select * from ({}) as q{from} {and} {cursor} <= {}", self.sql, value(&greatest));
        Ok(Some(Piece { sql, reached: Some(Reached { cursor: column.to_owned(), value: greatest }) }))
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
            let piece = match &read.read {
                Read::Incremental(cursor) => self.increment(&read.stream, &cursor.column, state).await?,
                Read::Range { column, since, until } => {
                    let bound = |sign: &str, value: &Option<String>| {
                        value.as_ref().map(|v| format!("{} {sign} {}", ANSI.identifier(column), literal(v)))
                    };
                    let bounds: Vec<String> = bound(">=", since).into_iter().chain(bound("<", until)).collect();
                    Some(Piece { sql: format!("select * from ({}) as q where {}", self.sql, bounds.join(" and ")), reached: None })
                }
                Read::Full | Read::Cdc | Read::Keys => Some(Piece { sql: self.sql.clone(), reached: None }),
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
        let mut next = state.clone();
        for read in reads {
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
