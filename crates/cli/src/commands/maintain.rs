//! `trib maintain`

use std::time::Duration;

use serde_json::json;
use trib_core::TableName;

use crate::app::Session;
use crate::exit::{Exit, Result};

/// Upkeep of tables: small files are put together, and what no reader needs any more is removed
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib maintain shop.orders --retention 7d")]
pub struct Args {
    /// As the project names them
    #[arg(required = true, value_name = "TABLE")]
    tables: Vec<String>,
    /// The connection that holds them
    #[arg(long, short, default_value = "warehouse")]
    connection: String,
    /// Files that have not been part of the table for so long are removed
    #[arg(long, default_value = "7d", value_parser = humantime::parse_duration)]
    retention: Duration,
}

pub async fn run(args: &Args, session: &Session) -> Result<Exit> {
    let destination = session.destination(&args.connection)?;
    for name in &args.tables {
        let table = session.project()?.environment.physical(&TableName::parse(name));
        let done = destination.maintain(&table, args.retention).await?;
        session.output.either(|| json!({"table": name, "done": done}), || format!("{name}: {done}"));
    }
    Ok(Exit::Success)
}
