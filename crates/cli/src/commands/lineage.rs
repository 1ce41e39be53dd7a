//! `trib lineage`

use std::fmt::Write;

use serde_json::{Value, json};
use trib_core::error::closest;
use trib_core::{Code, Error, TableName};
use trib_engine::lineage::Step;

use crate::app::Session;
use crate::exit::{Exit, Result};
use crate::lineage::{ColumnName, Edge, Lineage};

/// Where a table's columns come from and where they go: source, sync, table, model
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib lineage analytics.revenue.total")]
pub struct Args {
    /// A table, a model, or a column of either; all nodes when left out
    #[arg(value_name = "TABLE[.COLUMN]")]
    what: Option<String>,
}

pub async fn run(args: &Args, session: &Session) -> Result<Exit> {
    let Some(what) = &args.what else {
        nodes(session)?;
        return Ok(Exit::Success);
    };
    let lineage = Lineage::of(session).await?;
    let found = columns(session, &lineage, what)?;
    for error in &lineage.unknown {
        session.output.note(format!("not traced: {error}"));
    }
    session.output.either(
        || found.iter().map(|c| to_json(&lineage, c)).collect(),
        || found.iter().map(|c| text(&lineage, c, found.len() > 1)).collect::<String>(),
    );
    Ok(Exit::Success)
}

/// The project's nodes, and which read which.
fn nodes(session: &Session) -> Result<()> {
    let graph = session.graph()?;
    let edges: Vec<(&str, &str)> =
        graph.order().into_iter().flat_map(|n| graph.parents(&n.name).map(|p| (p, n.name.as_str())).collect::<Vec<_>>()).collect();
    session.output.either(
        || edges.iter().map(|(from, to)| json!({"from": from, "to": to})).collect(),
        || edges.iter().map(|(from, to)| format!("{from} → {to}\n")).collect::<String>(),
    );
    Ok(())
}

/// The columns that are meant: one, or all of a table.
fn columns(session: &Session, lineage: &Lineage, what: &str) -> Result<Vec<ColumnName>> {
    let project = session.project()?;
    let table = |text: &str| {
        project.models().iter().find(|m| m.is_called(&TableName::parse(text))).map_or(text.to_owned(), |m| m.table.to_string())
    };
    let whole = lineage.columns_of(&table(what));
    if !whole.is_empty() {
        return Ok(whole);
    }
    if let Some((name, column)) = what.rsplit_once('.') {
        let known = lineage.columns_of(&table(name));
        if let Some(found) = known.iter().find(|c| c.column == column) {
            return Ok(vec![found.clone()]);
        }
        if !known.is_empty() {
            let error = Error::new(Code::NotFound, "the table has no such column").detail(what);
            return Err(match closest(column, known.iter().map(|c| c.column.as_str())) {
                Some(near) => error.hint(format!("did you mean {name}.{near}?")),
                None => error.hint(format!("there are {}", known.iter().map(|c| c.column.as_str()).collect::<Vec<_>>().join(", "))),
            }
            .into());
        }
    }
    let error = Error::new(Code::NotFound, "nothing of the project has this name").detail(what);
    Err(match closest(what, lineage.names()) {
        Some(near) => error.hint(format!("did you mean {near}?")),
        None => error.hint("`trib ls` lists the nodes with their tables"),
    }
    .into())
}

fn how(step: Step) -> &'static str {
    match step {
        Step::Identity => "",
        Step::Transformed => ", transformed",
        Step::Aggregated => ", aggregated",
    }
}

/// A tree in both directions, or of each column of a table only the nearest.
fn text(lineage: &Lineage, column: &ColumnName, brief: bool) -> String {
    let mut out = format!("{}.{}\n", column.table, column.column);
    for upstream in [true, false] {
        let edges: Vec<(usize, &Edge)> = lineage.reach(column, upstream).into_iter().filter(|(depth, _)| !brief || *depth == 1).collect();
        for (depth, edge) in edges {
            let (arrow, end) = if upstream { ("←", &edge.from) } else { ("→", &edge.to) };
            // Writing into a String cannot fail.
            let _ = writeln!(out, "{}{arrow} {}.{} ({}{})", "  ".repeat(depth), end.table, end.column, edge.node, how(edge.how));
        }
    }
    out
}

fn to_json(lineage: &Lineage, column: &ColumnName) -> Value {
    let edges = |upstream| lineage.reach(column, upstream).into_iter().map(|(_, e)| json!(e)).collect::<Vec<_>>();
    json!({"table": column.table, "column": column.column, "upstream": edges(true), "downstream": edges(false)})
}
