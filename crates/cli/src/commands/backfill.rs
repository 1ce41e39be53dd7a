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
}

pub async fn run(args: &Args, session: &Session) -> Result<Exit> {
    if args.select.select.is_empty() {
        return Err(usage("a backfill needs to know what to read again").hint("name a sync, or `sync/stream`").into());
    }
    if args.since.is_none() && args.until.is_none() {
        return Err(usage("a backfill needs a range")
            .hint("give `--since`, `--until` or both; `trib run --full-refresh` reads everything")
            .into());
    }
    let selection = session.select(&args.select).await?;
    let range = Range { since: args.since.clone(), until: args.until.clone() };
    let ask = Ask { range: Some(range), ..Ask::default() };
    let ends = [("since", &args.since), ("until", &args.until)];
    let ends: Vec<String> = ends.iter().filter_map(|(name, value)| Some(format!("--{name} {}", value.as_ref()?))).collect();
    let command = format!("trib backfill {} {}", args.select.select.join(" "), ends.join(" "));
    conduct(session, &selection, &ask, &command).await
}
