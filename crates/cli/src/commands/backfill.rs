//! `trib backfill`

use crate::app::{Session, usage};
use crate::args::Select;
use crate::assemble::{Ask, Range};
use crate::conduct::conduct;
use crate::exit::{Exit, Result};

/// Read a range again, whatever the state says, and never move the state
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib backfill shop/public.orders --since 2025-01-01 --until 2025-02-01")]
pub struct Args {
    #[command(flatten)]
    select: Select,
    /// From here on, by the stream's cursor (inclusive)
    #[arg(long, value_name = "VALUE")]
    since: Option<String>,
    /// Up to here (exclusive)
    #[arg(long, value_name = "VALUE")]
    until: Option<String>,
    /// Only these columns, for rows that are in the table already: one that has been added to the stream, say. Without a range, of all rows
    #[arg(long, value_name = "COLUMN,…", value_delimiter = ',')]
    columns: Vec<String>,
}

pub async fn run(args: &Args, session: &Session) -> Result<Exit> {
    if args.select.select.is_empty() {
        return Err(usage("a backfill needs to know what to read again").hint("name a sync, or `sync/stream`").into());
    }
    let ranged = args.since.is_some() || args.until.is_some();
    if !ranged && args.columns.is_empty() {
        return Err(usage("a backfill needs a range, or columns")
            .hint("give `--since`, `--until` or both, or `--columns`; `trib run --full-refresh` reads everything")
            .into());
    }
    let selection = session.select(&args.select).await?;
    let range = ranged.then(|| Range { since: args.since.clone(), until: args.until.clone() });
    let ask = Ask { range, columns: args.columns.clone(), ..Ask::default() };
    let columns = (!args.columns.is_empty()).then(|| args.columns.join(","));
    let options = [("since", &args.since), ("until", &args.until), ("columns", &columns)];
    let options: Vec<String> = options.iter().filter_map(|(name, value)| Some(format!("--{name} {}", value.as_ref()?))).collect();
    let command = format!("trib backfill {} {}", args.select.select.join(" "), options.join(" "));
    conduct(session, &selection, &ask, &command).await
}
