//! `trib query`

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use trib_core::{Code, Error, TableName};
use trib_engine::Queries;
use trib_project::sql_tables;

use crate::app::Session;
use crate::exit::{Exit, Result};
use crate::render::rows::{self, Format};
use crate::tables::{CONTROL, ProjectTables};

/// Rows that a table for people shows unless it is told otherwise.
const SHOWN: usize = 1000;

/// Look at the result. Runs, loads, state and rejected rows are tables too (_trib.runs, …)
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib query \"select status, count(*) from shop.orders group by status\"")]
pub struct Args {
    /// One query; `-` reads it from standard input
    #[arg(value_name = "SQL")]
    sql: String,
    /// The connection that is asked, in its own SQL; `warehouse` when left out
    #[arg(long, short, value_name = "NAME")]
    connection: Option<String>,
    /// How the rows are written. A table shows 300 characters of a value, the others all of it
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// At most so many rows; 0 is all. A table shows 1000 when left out
    #[arg(long, value_name = "ROWS")]
    limit: Option<usize>,
}

pub async fn run(args: &Args, session: &Session) -> Result<Exit> {
    let sql = if args.sql == "-" { std::io::read_to_string(std::io::stdin())? } else { args.sql.clone() };
    let format = args.format.unwrap_or(if session.output.json { Format::Json } else { Format::Table });
    let limit = match (args.limit, format) {
        (Some(limit), _) => (limit > 0).then_some(limit),
        (None, Format::Table) => Some(SHOWN),
        (None, Format::Csv | Format::Json) => None,
    };
    let (connection, _) = session.connection(args.connection.as_deref().unwrap_or("warehouse"))?;
    // What cannot be parsed here may still be right in the connection's own SQL.
    let read = sql_tables::tables(&sql).unwrap_or_default();
    let only_ours = !read.is_empty() && read.iter().all(|t| t.schema.as_deref() == Some(CONTROL));
    if only_ours {
        let store = Some(session.store().await?.clone());
        let tables = ProjectTables::new(session.shared_project()?, &connection.name, None, store, BTreeMap::new());
        let (schema, stream) = Queries::new(session.engine()?, Arc::new(tables)).rows(&sql).await?;
        rows::write(&schema, stream, format, limit, session.output).await?;
        return Ok(Exit::Success);
    }
    let Some(queries) = session.queries(&connection.name).await? else {
        return elsewhere(session, &connection.name, &sql, &read, format, limit).await;
    };
    let (schema, stream) = queries.rows(&sql).await?;
    rows::write(&schema, stream, format, limit, session.output).await?;
    Ok(Exit::Success)
}

/// The connection answers in its own SQL.
async fn elsewhere(
    session: &Session,
    name: &str,
    sql: &str,
    read: &BTreeSet<TableName>,
    format: Format,
    limit: Option<usize>,
) -> Result<Exit> {
    if read.iter().any(|t| t.schema.as_deref() == Some(CONTROL)) {
        let error = Error::new(Code::Unsupported, "one query cannot reach the control database and this connection").connection(name);
        return Err(error.hint("ask for `_trib` tables in a query of their own").into());
    }
    let destination = session.destination(name)?;
    let engine = destination.sql().ok_or_else(|| {
        Error::new(Code::Unsupported, "the connection cannot run SQL").connection(name).hint("name another one with `-c`")
    })?;
    let mut stream = engine.query(sql).await.map_err(|e| e.connection(name))?;
    // The stream does not tell its columns before its first batch.
    let Some(first) = futures::StreamExt::next(&mut stream).await.transpose().map_err(|e| e.connection(name))? else {
        rows::write(&Arc::new(arrow::datatypes::Schema::empty()), stream, format, limit, session.output).await?;
        return Ok(Exit::Success);
    };
    let schema = first.schema();
    let all = Box::pin(futures::StreamExt::chain(futures::stream::iter([Ok(first)]), stream));
    rows::write(&schema, all, format, limit, session.output).await?;
    Ok(Exit::Success)
}
