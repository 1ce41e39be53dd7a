//! Models and seeds, made ready to run.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use trib_core::error::closest;
use trib_core::name::Naming;
use trib_core::source::{Cursor, NullCursor};
use trib_core::{Code, Destination, Error, Read, Source, SqlEngine, TableName, WriteMode};
use trib_engine::catalog::Over;
use trib_engine::{InsideSource, Queries, QuerySource, StreamSpec, Tables};
use trib_project::config::amount::Lookback;
use trib_project::config::model::Materialized;
use trib_project::graph::GraphNode;
use trib_project::{Graph, Model, NodeKind, Project, Seed, Selection, sql_tables};
use trib_runtime::{Limits, Refresh, StreamTask, SyncTask};

use crate::app::Session;
use crate::assemble::{Ask, identity};
use crate::exit::{Failure, Result};
use crate::prepare::enabled;
use crate::tables::{CONTROL, ProjectTables};

/// A model computes before it gives its first row, so silence says less than with a source.
const PATIENCE: Duration = Duration::from_hours(6);

/// Where a model's query is computed.
pub enum Computing {
    /// Here, over tables that the query engine scans.
    Here(Queries),
    /// In the database where its table lies, in that database's own SQL and with its own names.
    Inside(Arc<dyn Destination>, String),
}

impl Computing {
    /// Over the tables as they are.
    pub async fn of(session: &Session, model: &Model) -> Result<Self> {
        Ok(match session.queries(&model.spec.connection).await? {
            Some(queries) => Computing::Here(queries),
            None => inside(session, model)?,
        })
    }

    async fn schema(&self, model: &Model) -> trib_core::Result<SchemaRef> {
        match self {
            Computing::Here(queries) => queries.schema(&model.sql).await.map_err(|e| model.mark(e)),
            Computing::Inside(destination, sql) => match destination.sql() {
                Some(engine) => engine.describe(sql).await.map_err(|e| model.mark(e.connection(&model.spec.connection))),
                None => Err(Error::internal("a model inside a system that knows no SQL")),
            },
        }
    }
}

/// The query with the names that its tables have in the database; ephemeral models stand in it as subqueries.
fn inside(session: &Session, model: &Model) -> Result<Computing> {
    let connection = &model.spec.connection;
    let destination = session.destination(connection)?;
    let project = session.project()?;
    let sql = match destination.sql() {
        Some(engine) => renamed(project, engine, model)?,
        None => {
            let error = Error::new(Code::Unsupported, "the connection cannot run SQL, so no models can be made in it");
            return Err(model.at.mark(error.connection(connection).setting("connection")).into());
        }
    };
    Ok(Computing::Inside(destination, sql))
}

fn renamed(project: &Project, engine: &dyn SqlEngine, model: &Model) -> trib_core::Result<String> {
    let there = |table: &TableName| {
        let made = project.models().iter().find(|m| m.is_called(table) && m.spec.connection == model.spec.connection);
        match made {
            Some(m) if m.spec.materialized == Materialized::Ephemeral => {
                renamed(project, engine, m).map(|sql| format!("({sql})")).unwrap_or_else(|_| engine.table(table))
            }
            Some(m) => engine.table(&project.environment.physical(&m.table)),
            None => {
                let seed = project.seeds().iter().find(|s| s.is_called(table) && s.connection == model.spec.connection);
                engine.table(&project.environment.physical(seed.map_or(table, |s| &s.table)))
            }
        }
    };
    let sql = sql_tables::renamed(&model.sql, |table| Some(there(table))).map_err(|e| model.mark(e))?;
    Ok(sql.trim().trim_end_matches(';').to_owned())
}

/// The model as a load of its query; `None` where there is nothing to store, and the query was only checked (or the database has made a view
/// of it).
pub async fn model(session: &Session, model: &Model, computing: Computing, ask: &Ask) -> Result<Option<SyncTask>> {
    model.ready()?;
    enabled(session, &model.spec.connection)?;
    let schema = computing.schema(model).await?;
    check_columns(model, &schema)?;
    if !model.spec.materialized.is_stored() {
        return Ok(None);
    }
    let destination = session.destination(&model.spec.connection)?;
    let (read, write) = modes(model, &schema, ask).map_err(|e| model.at.mark(e))?;
    check_mode(destination.as_ref(), write).map_err(|e| model.at.mark(e).connection(&model.spec.connection))?;
    let source: Arc<dyn Source> = match computing {
        Computing::Here(queries) => Arc::new(QuerySource { queries, name: model.name.clone(), sql: model.sql.clone() }),
        Computing::Inside(destination, sql) => {
            check_inside(&read, write).map_err(|e| model.at.mark(e))?;
            Arc::new(InsideSource { destination, name: model.name.clone(), sql })
        }
    };
    let mut stream = stored(&model.name, schema, session.project()?.environment.physical(&model.table), write);
    stream.spec.key = key(model);
    stream.spec.partition_by = model.spec.partition_by.clone().unwrap_or_default().0;
    stream.read = read;
    stream.refresh = if ask.full_refresh { Refresh::Full } else { Refresh::No };
    Ok(Some(task(session, &model.name, source, destination, stream)?))
}

/// A view of the lake is the project's; in a database it is the database's own.
pub async fn make_view(session: &Session, model: &Model, computing: &Computing) -> trib_core::Result<()> {
    let (Computing::Inside(destination, sql), Materialized::View) = (computing, model.spec.materialized) else { return Ok(()) };
    let Ok(project) = session.project() else { return Ok(()) };
    match destination.sql() {
        Some(engine) => {
            let made = engine.create_view(&project.environment.physical(&model.table), sql).await;
            made.map_err(|e| model.mark(e.connection(&model.spec.connection)))
        }
        None => Ok(()),
    }
}

/// What the database computes is not looked at row by row on its way.
fn check_inside(read: &Read, write: WriteMode) -> trib_core::Result<()> {
    let refuse = |message, setting: &str, hint: &str| Err(Error::new(Code::Unsupported, message).setting(setting).hint(hint.to_owned()));
    match read {
        Read::Incremental(_) if write == WriteMode::Append => refuse(
            "inside a database, an incremental model needs a key",
            "key",
            "rows at the cursor's last value are computed again, and a key tells them apart",
        ),
        Read::Incremental(cursor) if cursor.lookback.is_some() => refuse(
            "inside a database, a model cannot look back",
            "lookback",
            "compute a range again with `trib backfill`, or make the model on the lake",
        ),
        _ => Ok(()),
    }
}

/// A model or seed of the graph as its load; `None` where nothing is stored.
pub async fn task_of(session: &Session, node: &GraphNode) -> Result<Option<SyncTask>> {
    let project = session.project()?;
    if let Some(found) = project.seeds().iter().find(|s| s.name == node.name) {
        return seed(session, found).await.map(Some);
    }
    let found = project.model(&node.name)?;
    model(session, found, Computing::of(session, found).await?, &Ask::default()).await
}

/// The seed as a load of its file.
pub async fn seed(session: &Session, seed: &Seed) -> Result<SyncTask> {
    enabled(session, &seed.connection)?;
    let destination = session.destination(&seed.connection)?;
    let (connector, settings) = session.registry().by_url(&seed.file)?;
    let context = trib_core::Context { connection: seed.name.clone(), project_dir: session.project()?.dir.clone(), threads: 1 };
    let source = connector.make_source(&settings, &context)?;
    let catalog = source.discover(&[]).await.map_err(|e| seed.at.mark(e))?;
    let offered = catalog.streams.first().ok_or_else(|| seed.at.mark(Error::new(Code::DataInvalid, "the seed has no columns")))?;
    let table = session.project()?.environment.physical(&seed.table);
    let mut stream = stored(&offered.name, offered.schema.clone(), table, WriteMode::Replace);
    stream.spec.naming = Naming::SnakeCase;
    task(session, &seed.name, source, destination, stream)
}

fn task(session: &Session, name: &str, source: Arc<dyn Source>, destination: Arc<dyn Destination>, stream: StreamTask) -> Result<SyncTask> {
    let limits = Limits { stall_timeout: PATIENCE, attempts: 2, backoff: Duration::from_secs(5), ..Limits::default() };
    let identity = identity(session.project()?, name, "");
    Ok(SyncTask { sync: name.to_owned(), identity, source, destination, streams: vec![stream], renew: None, limits })
}

/// All rows of a stream into a table, as the project wrote their names.
fn stored(stream: &str, schema: SchemaRef, table: TableName, write: WriteMode) -> StreamTask {
    // That a query gives no rows is an answer; what empties its sources was guarded there.
    StreamTask { allow_empty: true, ..StreamTask::whole(StreamSpec::plain(stream, schema, table, write)) }
}

/// Queries over what the model may read.
pub async fn queries(session: &Session, model: &Model) -> Result<Queries> {
    let connection = &model.spec.connection;
    Ok(session.queries(connection).await?.ok_or_else(|| {
        let error = Error::new(Code::Unsupported, "this can be done with models on the lake only").connection(connection);
        model.at.mark(error)
    })?)
}

fn key(model: &Model) -> Vec<String> {
    model.spec.key.clone().unwrap_or_default().0
}

/// What is computed, and what becomes of it.
fn modes(model: &Model, schema: &SchemaRef, ask: &Ask) -> trib_core::Result<(Read, WriteMode)> {
    let field = |name: &str, setting: &str| {
        schema.field_with_name(name).map_err(|_| {
            let error = Error::new(Code::ConfigInvalid, "the model's result has no such column").detail(name).setting(setting);
            match closest(name, schema.fields().iter().map(|f| f.name().as_str())) {
                Some(near) => error.hint(format!("did you mean {near}?")),
                None => error,
            }
        })
    };
    for column in key(model) {
        field(&column, "key")?;
    }
    let write = match model.spec.materialized {
        Materialized::History => WriteMode::History,
        Materialized::Incremental if model.spec.key.is_some() => WriteMode::Upsert,
        Materialized::Incremental => WriteMode::Append,
        _ => WriteMode::Replace,
    };
    let Some(column) = &model.spec.cursor else {
        if ask.range.is_some() {
            return Err(Error::new(Code::Unsupported, "only a model with a cursor has ranges to compute again")
                .detail(&model.name)
                .hint("use `trib run --full-refresh`"));
        }
        return Ok((Read::Full, write));
    };
    let number = field(column, "cursor")?.data_type().is_numeric();
    let lookback = match model.spec.lookback {
        None => None,
        Some(Lookback::Units(units)) => Some(units),
        Some(Lookback::Time(time)) if !number => Some(time.as_secs()),
        Some(Lookback::Time(_)) => {
            return Err(Error::new(Code::ConfigInvalid, "a length of time does not fit a cursor that is a number").setting("lookback"));
        }
    };
    if let Some(range) = &ask.range {
        if write == WriteMode::Append {
            return Err(Error::new(Code::Unsupported, "computing a range again would append its rows twice")
                .detail(&model.name)
                .hint("give the model a `key:`, so that its rows are replaced"));
        }
        return Ok((Read::Range { column: column.clone(), since: range.since.clone(), until: range.until.clone() }, write));
    }
    let cursor = Cursor { column: column.clone(), lookback, null_cursor: NullCursor::Exclude, start: None, end: None };
    Ok((Read::Incremental(cursor), write))
}

fn check_mode(destination: &dyn Destination, write: WriteMode) -> trib_core::Result<()> {
    if destination.capabilities().write_modes.contains(&write) {
        return Ok(());
    }
    Err(Error::new(Code::Unsupported, "the destination cannot write in this way").detail(write.as_str()).setting("materialized"))
}

/// Every column of a table has a name, and one of its own.
fn check_columns(model: &Model, schema: &SchemaRef) -> trib_core::Result<()> {
    let wrong = |message, name: &str, hint: &str| {
        Err(model.mark(Error::new(Code::ConfigInvalid, message).detail(format!("`{name}`")).hint(hint.to_owned())))
    };
    let mut seen = BTreeSet::new();
    for field in schema.fields() {
        let name = field.name();
        if name.contains(['(', ')']) {
            return wrong("a column of the model has no name", name, "give it one: `sum(amount) as total`");
        }
        if !seen.insert(name.to_lowercase()) {
            return wrong("two columns of the model have one name", name, "give one of them another: `c.id as customer_id`");
        }
        if name.starts_with(trib_core::name::system::PREFIX) {
            let hint = "name the columns that you want, or give this one another name with `as`";
            return wrong("a column of the model has a name that is kept for Tributary's own", name, hint);
        }
    }
    Ok(())
}

/// What is wrong with the selected models, as far as that can be said before anything runs: tables that nobody makes, columns that
/// are not there, types that do not fit. Models that read what a selected sync or seed is about to change are checked when it has.
pub async fn preflight(session: &Session, graph: &Graph, selection: &Selection) -> Result<()> {
    let project = session.project()?;
    let mut errors: Vec<Error> = Vec::new();
    let mut wrong: BTreeSet<&str> = BTreeSet::new();
    for node in graph.order().into_iter().filter(|n| n.kind == NodeKind::Model && selection.contains(&n.name)) {
        let model = project.model(&node.name)?;
        // What reads a model that is wrong would only repeat its mistake.
        let after_wrong = graph.reach(&model.name, true, usize::MAX).iter().any(|above| wrong.contains(above.as_str()));
        if after_wrong || session.native(&model.spec.connection)?.is_none() {
            continue;
        }
        let before = errors.len();
        let unmade = unmade(session, model).await?;
        if unmade.is_empty() && moved_by(graph, selection, model).is_none() {
            let queries = as_written(session, graph, selection, model).await?;
            match queries.schema(&model.sql).await {
                Err(e) => errors.push(model.mark(e)),
                Ok(schema) => errors.extend(check_columns(model, &schema).err()),
            }
        }
        errors.extend(unmade);
        if errors.len() > before {
            wrong.insert(&model.name);
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(Failure(errors)) }
}

/// A selected sync or seed that the model reads from, directly or not.
pub fn moved_by<'a>(graph: &'a Graph, selection: &Selection, model: &Model) -> Option<&'a str> {
    let above = graph.reach(&model.name, true, usize::MAX);
    let moves = |n: &&GraphNode| n.kind != NodeKind::Model && above.contains(&n.name) && selection.contains(&n.name);
    graph.nodes().iter().find(moves).map(|n| n.name.as_str())
}

/// Queries over what the model reads, where the selected models that run before it are as they are written now, not as their tables are.
pub async fn as_written(session: &Session, graph: &Graph, selection: &Selection, model: &Model) -> Result<Queries> {
    let above = graph.reach(&model.name, true, usize::MAX);
    let runs_before = |m: &&Model| selection.contains(&m.name) && above.contains(&m.name) && m.spec.connection == model.spec.connection;
    let names = |m: &Model| [m.table.clone(), TableName::new(None, &m.name)].map(|name| (name, Over::View(m.sql.clone())));
    Ok(queries(session, model).await?.with(session.project()?.models().iter().filter(runs_before).flat_map(names).collect()))
}

/// Tables that the model reads and that neither are there nor will be.
pub async fn unmade(session: &Session, model: &Model) -> Result<Vec<Error>> {
    let project = session.project()?;
    let connection = &model.spec.connection;
    let tables = ProjectTables::new(session.native(connection)?, None, project, connection).await?;
    let mut errors = Vec::new();
    for mention in &model.mentions {
        let table = &mention.table;
        let made = project.models().iter().any(|m| m.is_called(table))
            || project.seeds().iter().any(|s| s.is_called(table))
            || project.syncs().iter().any(|s| s.spec.to == *connection && trib_project::graph::writes(s, &table.to_string()))
            || table.schema.as_deref() == Some(CONTROL);
        if !made && let Err(e) = tables.find(table).await {
            errors.push(model.mark(e));
        }
    }
    Ok(errors)
}
