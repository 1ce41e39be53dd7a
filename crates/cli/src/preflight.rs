//! What is wrong with models, as far as that can be said before anything runs.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use trib_core::error::closest;
use trib_core::{Code, Error, SqlEngine, TableName};
use trib_engine::catalog::{Over, columns_of_model};
use trib_engine::{Queries, Tables};
use trib_project::config::model::Materialized;
use trib_project::graph::{GraphNode, makers};
use trib_project::{Graph, Model, NodeKind, Selection};

use crate::app::Session;
use crate::exit::{Failure, Result};
use crate::models::{check_columns, is_here, queries, renamed};
use crate::tables::CONTROL;

/// Tables that nobody makes, columns that are not there, types that do not fit. Models that read what a selected sync, seed, command or script is about to change
/// are checked when it has.
pub async fn preflight(session: &Session, graph: &Graph, selection: &Selection) -> Result<()> {
    let project = session.project()?;
    let mut errors: Vec<Error> = Vec::new();
    let mut wrong: BTreeSet<&str> = BTreeSet::new();
    for node in graph.order().into_iter().filter(|n| n.kind == NodeKind::Model && selection.contains(&n.name)) {
        let model = project.model(&node.name)?;
        // What reads a model that is wrong would only repeat its mistake.
        if graph.reach(&model.name, true, usize::MAX).iter().any(|above| wrong.contains(above.as_str())) {
            continue;
        }
        let before = errors.len();
        let unmade = unmade(session, model).await?;
        if !model.is_script && unmade.is_empty() && moved_by(session, graph, selection, model)?.is_none() {
            let schema = if is_here(session, model)? {
                let queries = as_written(session, graph, selection, model).await?;
                queries.schema(&model.sql).await.map(Some).map_err(|e| model.mark(e))
            } else {
                inside(session, graph, selection, model).await?
            };
            match schema {
                Err(e) => errors.push(e),
                Ok(schema) => errors.extend(schema.and_then(|schema| check_columns(model, &schema).err())),
            }
        }
        errors.extend(unmade);
        if errors.len() > before {
            wrong.insert(&model.name);
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(Failure(errors)) }
}

/// A selected sync, seed, command or script that the model reads from, directly or not, or a model that is computed elsewhere: what its table will be like is known
/// when it has run.
pub fn moved_by<'a>(session: &Session, graph: &'a Graph, selection: &Selection, model: &Model) -> Result<Option<&'a str>> {
    let project = session.project()?;
    let above = graph.reach(&model.name, true, usize::MAX);
    let here = is_here(session, model)?;
    // What is computed elsewhere, or in another SQL, cannot stand in the query as it is written.
    let elsewhere = |m: &Model| m.spec.connection != model.spec.connection || is_here(session, m).is_ok_and(|there| there != here);
    let away = |name: &str| project.model(name).is_ok_and(elsewhere);
    let moves = |n: &&GraphNode| n.kind != NodeKind::Model || n.is_script || away(&n.name);
    let moving = graph.nodes().iter().find(|n| moves(n) && above.contains(&n.name) && selection.contains(&n.name));
    Ok(moving.map(|n| n.name.as_str()))
}

/// Queries over what the model reads, where the selected models that run before it are as they are written now, not as their tables are.
pub async fn as_written(session: &Session, graph: &Graph, selection: &Selection, model: &Model) -> Result<Queries> {
    let above = graph.reach(&model.name, true, usize::MAX);
    let runs_before =
        |m: &&Model| selection.contains(&m.name) && above.contains(&m.name) && !m.is_script && m.spec.connection == model.spec.connection;
    let names = |m: &Model| [m.table.clone(), TableName::new(None, &m.name)].map(|name| (name, Over::View(m.sql.clone())));
    Ok(queries(session, model).await?.with(session.project()?.models().iter().filter(runs_before).flat_map(names).collect()))
}

/// A model that its database computes, as the database understands it. `None` where it could not be asked: the node itself will say why.
async fn inside(session: &Session, graph: &Graph, selection: &Selection, model: &Model) -> Result<trib_core::Result<Option<SchemaRef>>> {
    use Code as C;
    let destination = session.destination(&model.spec.connection)?;
    let Some(engine) = destination.sql() else { return Ok(Ok(None)) };
    let above = graph.reach(&model.name, true, usize::MAX);
    let written = |m: &Model| {
        m.spec.materialized == Materialized::Ephemeral || !m.is_script && above.contains(&m.name) && selection.contains(&m.name)
    };
    let sql = renamed(session.project()?, engine, model, &written)?;
    let error = match engine.describe(&sql).await {
        Ok(schema) => {
            let schema = schema.project(&columns_of_model(&model.sql, &schema)).map_err(Error::from)?;
            return Ok(Ok(Some(Arc::new(schema))));
        }
        Err(e) => e.connection(&model.spec.connection),
    };
    if !matches!(error.code(), C::ConfigInvalid | C::UsageInvalid | C::NotFound | C::SystemError | C::Unsupported | C::DataInvalid) {
        return Ok(Ok(None));
    }
    let columns = columns(session, engine, graph, selection, model).await?;
    Ok(Err(model.mark(placed(error, model, &columns))))
}

/// What a database says of a query, at the first word of the model's SQL that it names.
fn placed(error: Error, model: &Model, columns: &[String]) -> Error {
    let said: Vec<String> = error.detail_text().map(str::to_owned).into_iter().chain(error.causes()).collect();
    let said = said.join(": ");
    let connection = error.place().connection.clone().unwrap_or_default();
    let mistake =
        Error::new(Code::ConfigInvalid, "the database does not take the model's SQL").detail(&said).connection(connection).source(error);
    let Some((word, line, column)) = named(&said, &model.sql) else { return mistake };
    let mistake = mistake.file("", Some(line), Some(column));
    match closest(word.rsplit('.').next().unwrap_or(&word), columns.iter().map(String::as_str)) {
        Some(near) => mistake.hint(format!("did you mean {near}?")),
        None => mistake,
    }
}

/// The last word of a sentence that also stands in the SQL as a word of its own, keywords aside, and its line and column there.
fn named(said: &str, sql: &str) -> Option<(String, usize, usize)> {
    let part = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    let words = said.lines().next()?.split(|c: char| !part(c)).filter(|w| w.len() > 1);
    let wanted: Vec<&str> = words.collect();
    // Names are quoted, or stand at the end; what stands before them is the system's own sentence.
    wanted.iter().rev().find_map(|word| {
        let lower = sql.to_lowercase();
        let word = word.trim_matches('.').to_lowercase();
        let apart = |at: usize| {
            let before = lower[..at].chars().next_back();
            let after = lower[at + word.len()..].chars().next();
            !before.is_some_and(|c| part(c) && c != '.') && !after.is_some_and(|c| part(c) && c != '.')
        };
        let at = lower.match_indices(&word).map(|(at, _)| at).find(|at| apart(*at))?;
        let keyword = ["select", "from", "column", "table", "near", "at", "in", "as", "is", "or", "and", "not", "to", "of", "by", "type"];
        if keyword.contains(&word.as_str()) {
            return None;
        }
        let line = 1 + lower[..at].matches('\n').count();
        let column = 1 + lower[..at].rsplit('\n').next().unwrap_or_default().chars().count();
        Some((word, line, column))
    })
}

/// The columns of what a model reads.
async fn columns(session: &Session, engine: &dyn SqlEngine, graph: &Graph, selection: &Selection, model: &Model) -> Result<Vec<String>> {
    let project = session.project()?;
    let destination = session.destination(&model.spec.connection)?;
    let above = graph.reach(&model.name, true, usize::MAX);
    let written = |m: &Model| m.spec.materialized == Materialized::Ephemeral || above.contains(&m.name) && selection.contains(&m.name);
    let mut columns = Vec::new();
    for table in &model.reads {
        let made = project.models().iter().find(|m| m.is_called(table) && m.spec.connection == model.spec.connection);
        match made.filter(|m| written(m)) {
            Some(parent) => {
                let sql = renamed(project, engine, parent, &written)?;
                let schema = engine.describe(&sql).await;
                columns.extend(schema.iter().flat_map(|s| s.fields().iter()).map(|f| f.name().clone()));
            }
            None => {
                let there = destination.inspect(&project.environment.physical(made.map_or(table, |m| &m.table))).await;
                columns.extend(there.ok().flatten().iter().flat_map(|t| &t.columns).map(|c| c.field.name().clone()));
            }
        }
    }
    Ok(columns)
}

/// Tables that the model reads and that neither are there nor will be.
pub async fn unmade(session: &Session, model: &Model) -> Result<Vec<Error>> {
    let project = session.project()?;
    let connection = &model.spec.connection;
    let tables = if is_here(session, model)? { Some(session.tables(connection, None)?) } else { None };
    let mut errors = Vec::new();
    for mention in &model.mentions {
        let elsewhere = project.elsewhere(connection, mention.connection.as_deref(), &mention.table);
        let (place, table) = elsewhere.clone().unwrap_or_else(|| (connection.clone(), mention.table.clone()));
        let (place, table) = (&place, &table);
        if table.schema.as_deref() == Some(CONTROL) || !makers(project, place, table).is_empty() {
            continue;
        }
        let other = tables.as_ref().zip(elsewhere.as_ref()).and_then(|(tables, (place, _))| tables.other(place));
        match (&tables, other) {
            (_, Some(other)) => errors.extend(other.find(table).await.err().map(|e| model.mark(e))),
            (Some(tables), None) => errors.extend(tables.find(table).await.err().map(|e| model.mark(e))),
            (None, None) => errors.extend(absent(session, connection, table).await?.map(|e| model.mark(e))),
        }
    }
    Ok(errors)
}

/// An error when a database has no such table. That it cannot be asked is said by the node itself.
async fn absent(session: &Session, connection: &str, table: &TableName) -> Result<Option<Error>> {
    let project = session.project()?;
    let destination = session.destination(connection)?;
    let Ok(None) = destination.inspect(&project.environment.physical(table)).await else { return Ok(None) };
    let mut known: Vec<String> =
        project.models().iter().map(|m| m.name.clone()).chain(project.seeds().iter().map(|s| s.name.clone())).collect();
    if let Ok(source) = session.source(connection) {
        known.extend(source.discover(&[]).await.iter().flat_map(|c| &c.streams).map(|s| s.name.clone()));
    }
    let error = Error::new(Code::NotFound, "there is no such table").detail(table.to_string()).connection(connection);
    Ok(Some(match closest(&table.to_string(), known.iter().map(String::as_str)) {
        Some(near) => error.hint(format!("did you mean {near}?")),
        None => error,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_names_what_is_wrong() {
        let sql = "select o.custmer,\n  sum(amount) as total\nfrom raw.orders o group by 1";
        let cases = [
            ("column o.custmer does not exist", Some(("o.custmer", 1, 8))),
            ("no such column: o.custmer", Some(("o.custmer", 1, 8))),
            ("function sum(text) does not exist", Some(("sum", 2, 3))),
            ("syntax error at or near \"amount\"", Some(("amount", 2, 7))),
            ("division by zero", None),
        ];
        for (said, expected) in cases {
            let found = named(said, sql);
            assert_eq!(found.as_ref().map(|(word, line, column)| (word.as_str(), *line, *column)), expected, "{said}");
        }
    }
}
