//! `trib why`

use std::fmt::Write;

use chrono::SecondsFormat;
use serde_json::json;
use trib_core::error::closest;
use trib_core::{Code, Error, TableName};

use crate::app::{Session, usage};
use crate::exit::{Exit, Result};
use crate::lineage::KnownTable;
use crate::render::verdicts::plain;
use crate::why::{Found, Tracer, Values};

/// One row's way: the load that brought it, the rows that it was made from, and what was made from it
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib why shop.orders 1017")]
pub struct Args {
    /// A table or model
    table: String,
    /// The values of its key, in the key's order; or `COLUMN=VALUE`
    #[arg(required = true, value_name = "KEY")]
    key: Vec<String>,
}

pub async fn run(args: &Args, session: &Session) -> Result<Exit> {
    let tracer = Tracer::new(session).await?;
    let project = session.project()?;
    let model = project.models().iter().find(|m| m.is_called(&TableName::parse(&args.table)));
    let name = model.map_or(args.table.clone(), |m| m.table.to_string());
    let Some(table) = tracer.table(&name) else {
        let error = Error::new(Code::NotFound, "the project makes no table of this name").detail(&args.table);
        return Err(match closest(&name, tracer.lineage().tables.iter().map(|t| t.name.as_str())) {
            Some(near) => error.hint(format!("did you mean {near}?")),
            None => error.hint("`trib ls` lists the nodes with their tables"),
        }
        .into());
    };
    let wanted = wanted(session, table, &args.key)?;
    let why = tracer.why(table, &wanted).await?;
    let nothing = why.upstream.count == 0;
    let here = &project.environment.name;
    session.output.either(
        || json!({"row": why.upstream, "goes_into": why.downstream}),
        || {
            let mut out = String::new();
            text(&why.upstream, "", 0, here, &mut out);
            for found in &why.downstream {
                text(found, "→ ", 1, here, &mut out);
            }
            out
        },
    );
    Ok(if nothing { Exit::Failed } else { Exit::Success })
}

/// The columns that are meant, each with its value.
fn wanted(session: &Session, table: &KnownTable, given: &[String]) -> Result<Values> {
    let has = |column: &str| table.columns.iter().any(|(name, _)| name == column);
    let named: Option<Values> = given
        .iter()
        .map(|g| g.split_once('=').filter(|(column, _)| has(column)).map(|(column, value)| (column.to_owned(), value.to_owned())))
        .collect();
    if let Some(named) = named {
        return Ok(named);
    }
    let key = crate::site::key(session.project()?, table);
    if key.len() == given.len() {
        return Ok(key.into_iter().zip(given.iter().cloned()).collect());
    }
    let columns: Vec<&str> = table.columns.iter().map(|(name, _)| name.as_str()).collect();
    let error = usage("the values are not those of the table's key").detail(match key.as_slice() {
        [] => format!("{} has no key that is known", table.name),
        key => format!("the key of {} is {}", table.name, key.join(", ")),
    });
    Err(error.hint(format!("say `COLUMN=VALUE`; there are {}", columns.join(", "))).into())
}

/// `here` is the environment that is looked at.
fn text(found: &Found, arrow: &str, depth: usize, here: &str, out: &mut String) {
    let indent = "  ".repeat(depth);
    let wanted: Vec<String> = found.wanted.iter().map(|(column, value)| format!("{column} = {value}")).collect();
    let asked = if wanted.is_empty() { String::new() } else { format!("  {}", wanted.join(", ")) };
    // Writing into a String cannot fail.
    let _ = writeln!(out, "{indent}{arrow}{}{asked}", found.table);
    if let Some(note) = &found.note {
        let _ = writeln!(out, "{indent}    {note}");
    } else if found.count == 0 {
        let _ = writeln!(out, "{indent}    there is no such row");
    }
    for row in &found.rows {
        let values: Vec<String> = row.iter().map(|(column, value)| format!("{column} {}", plain(value))).collect();
        let _ = writeln!(out, "{indent}    {}", values.join(", "));
    }
    if found.count > found.rows.len() as u64 {
        let _ = writeln!(out, "{indent}    and {} more", found.count - found.rows.len() as u64);
    }
    for load in &found.loads {
        let node = found.node.as_deref().unwrap_or_default();
        let place = if load.environment == here { String::new() } else { format!(" in {}", load.environment) };
        let at = load.committed_at.to_rfc3339_opts(SecondsFormat::Secs, true);
        let command = load.command.as_ref().map(|command| format!(" ({command})")).unwrap_or_default();
        let _ = writeln!(out, "{indent}    load {} of {node}{place}, visible {at}, run {}{command}", load.load, load.run);
    }
    for reason in &found.rejected {
        let _ = writeln!(out, "{indent}    rejected: {reason}");
    }
    let arrow = if arrow.is_empty() { "← " } else { arrow };
    for next in &found.next {
        text(next, arrow, depth + 1, here, out);
    }
}
