//! Models and seeds, made ready to run.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Field, Schema, SchemaRef};
use chrono::TimeDelta;
use trib_core::error::closest;
use trib_core::load::{RowScope, Rows};
use trib_core::name::{Naming, system};
use trib_core::source::{Cursor, NullCursor};
use trib_core::{Code, Destination, Error, Read, Source, SqlEngine, TableName, WriteMode};
use trib_engine::catalog::columns_of_model;
use trib_engine::script::{Format, Made, Script};
use trib_engine::{Batches, InsideSource, Queries, QuerySource, StreamSpec};
use trib_kit::process::Program;
use trib_kit::sql::ANSI;
use trib_project::config::amount::Lookback;
use trib_project::config::model::{Materialized, ScriptFormat};
use trib_project::graph::GraphNode;
use trib_project::{Model, Project, Seed, sql_tables};
use trib_runtime::{Limits, Refresh, StreamTask, SyncTask};

use crate::app::Session;
use crate::assemble::{Ask, identity};
use crate::exit::Result;
use crate::made_from;
use crate::prepare::enabled;
use crate::python;

/// A model computes before it gives its first row, so silence says less than with a source.
const PATIENCE: Duration = Duration::from_hours(6);

/// How long a script may run that says nothing about it.
const SCRIPT_TIME: Duration = Duration::from_hours(1);

/// Where a model's query is computed.
pub enum Computing {
    /// Here, over tables that the query engine scans.
    Here(Queries),
    /// In the database where its table lies, in that database's own SQL and with its own names.
    Inside(Arc<dyn Destination>, String),
    /// By a program, which has run already.
    Script(Arc<Made>),
}

impl Computing {
    /// Over the tables as they are.
    pub async fn of(session: &Session, model: &Model) -> Result<Self> {
        Ok(match here(session, model).await? {
            Some(queries) => Computing::Here(queries),
            None => inside(session, model)?,
        })
    }

    async fn schema(&mut self, model: &Model) -> trib_core::Result<SchemaRef> {
        match self {
            Computing::Here(queries) => queries.schema(&model.sql).await.map_err(|e| model.mark(e)),
            Computing::Script(made) => Ok(made.schema.clone()),
            Computing::Inside(destination, sql) => match destination.sql() {
                Some(engine) => {
                    let described = engine.describe(sql).await.map_err(|e| model.mark(e.connection(&model.spec.connection)))?;
                    let schema = Arc::new(described.project(&columns_of_model(&model.sql, &described))?);
                    if schema.fields().len() < described.fields().len() {
                        let columns: Vec<String> = schema.fields().iter().map(|f| ANSI.identifier(f.name())).collect();
                        *sql = format!("select {} from ({sql}) as q", columns.join(", "));
                    }
                    Ok(schema)
                }
                None => Err(Error::internal("a model inside a system that knows no SQL")),
            },
        }
    }
}

fn inside(session: &Session, model: &Model) -> Result<Computing> {
    let connection = &model.spec.connection;
    let destination = session.destination(connection)?;
    let project = session.project()?;
    let sql = match destination.sql() {
        Some(engine) => renamed(project, engine, model, &|m| m.spec.materialized == Materialized::Ephemeral)?,
        None => {
            let error = Error::new(Code::Unsupported, "the connection cannot run SQL, so no models can be made in it");
            return Err(model.at.mark(error.connection(connection).setting("connection")).into());
        }
    };
    Ok(Computing::Inside(destination, sql))
}

/// The query with the names that its tables have in the database. Models that are `inlined` stand in it as subqueries.
pub fn renamed(project: &Project, engine: &dyn SqlEngine, model: &Model, inlined: &dyn Fn(&Model) -> bool) -> trib_core::Result<String> {
    let there = |table: &TableName| {
        let made = project.models().iter().find(|m| m.is_called(table) && m.spec.connection == model.spec.connection);
        match made {
            Some(m) if inlined(m) => {
                renamed(project, engine, m, inlined).map(|sql| format!("({sql})")).unwrap_or_else(|_| engine.table(table))
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
pub async fn model(session: &Session, model: &Model, mut computing: Computing, ask: &Ask) -> Result<Option<SyncTask>> {
    model.ready()?;
    enabled(session, &model.spec.connection)?;
    let schema = computing.schema(model).await?;
    check_columns(model, &schema)?;
    if !model.spec.materialized.is_stored() {
        return Ok(None);
    }
    let destination = session.destination(&model.spec.connection)?;
    let (read, write) = modes(model, &schema, ask).map_err(|e| model.at.mark(e))?;
    let batches = batches(model, ask).map_err(|e| model.at.mark(e))?;
    check_mode(destination.as_ref(), write).map_err(|e| model.at.mark(e).connection(&model.spec.connection))?;
    let source: Arc<dyn Source> = match computing {
        Computing::Here(queries) => Arc::new(QuerySource::new(queries, &model.name, &model.sql, batches)),
        Computing::Script(made) => made,
        Computing::Inside(destination, sql) => {
            check_inside(&read, write).map_err(|e| model.at.mark(e))?;
            Arc::new(InsideSource { destination, name: model.name.clone(), sql, batches })
        }
    };
    let mut stream = stored(&model.name, schema, session.project()?.environment.physical(&model.table), write);
    stream.spec.key = key(model);
    if model.spec.replaced_by().is_none() {
        stream.spec.partition_by = model.spec.partition_by.clone().unwrap_or_default().0;
    }
    // What a refresh computes is everything.
    let part = model.spec.replaced_by().or(model.spec.cursor.as_deref().filter(|_| model.spec.batch_size.is_some()));
    stream.spec.scope = part.filter(|_| !ask.full_refresh).map(|column| RowScope { column: column.to_owned(), rows: Rows::Staged });
    stream.read = read;
    stream.made_from = made_from::claim(session, &model.name).await?;
    stream.refresh = if ask.full_refresh { Refresh::Full } else { Refresh::No };
    Ok(Some(task(session, &model.name, source, destination, stream)?))
}

/// Runs the program of a model over what it reads; `log` gets what it says.
pub async fn script(session: &Session, model: &Model, queries: &Queries, log: impl Fn(String)) -> Result<Made> {
    let (project, engine) = (session.project()?, session.engine()?);
    let mark = |e: Error| model.at.mark(e);
    let mut declared = Vec::new();
    for (name, column) in &model.spec.columns {
        if let Some(sql_type) = &column.sql_type {
            declared.push(Field::new(name, engine.sql_type(sql_type).map_err(|e| mark(e.setting(format!("columns.{name}.type"))))?, true));
        }
    }
    let python = python::interpreter(&model.spec.requirements, &project.dir.join(".tributary/python")).await.map_err(mark)?;
    let script = Script {
        program: Program { program: python, args: vec![model.at.file.to_string()], env: Vec::new(), dir: project.dir.clone() },
        name: model.name.clone(),
        format: match model.spec.format {
            ScriptFormat::Arrow => Format::Arrow,
            ScriptFormat::Json => Format::Json,
        },
        reads: model.mentions.iter().map(|m| (m.name(), m.sql())).collect(),
        timeout: model.spec.timeout.map_or(SCRIPT_TIME, |t| t.0),
        declared,
    };
    Ok(script.run(queries, engine.spill(), log).await.map_err(|e| model.mark(mark(e)))?)
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
        Read::Incremental(cursor) if cursor.lookback.is_some() && write != WriteMode::Replace => refuse(
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
    if found.is_script {
        // What it gives is known when it has run; here only its name and its table count.
        let destination = session.destination(&found.spec.connection)?;
        let (nothing, table) = (Arc::new(Schema::empty()), project.environment.physical(&found.table));
        let source =
            Arc::new(InsideSource { destination: destination.clone(), name: found.name.clone(), sql: String::new(), batches: None });
        return task(session, &found.name, source, destination, stored(&found.name, nothing, table, WriteMode::Replace)).map(Some);
    }
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
    stream.made_from = made_from::claim(session, &seed.name).await?;
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

/// Whether a model is computed here: where the query engine can scan its connection, where it reads several connections, and where it is a program. Others are
/// computed by the database in which they lie.
pub fn is_here(session: &Session, model: &Model) -> Result<bool> {
    Ok(model.is_script || !model.elsewhere.is_empty() || session.native(&model.spec.connection)?.is_some())
}

/// Queries over what the model may read, where it is computed here.
pub async fn here(session: &Session, model: &Model) -> Result<Option<Queries>> {
    let connection = &model.spec.connection;
    if !is_here(session, model)? {
        return Ok(None);
    }
    if !model.spec.materialized.is_stored() && session.native(connection)?.is_none() {
        let error = Error::new(Code::Unsupported, "what a database is asked for cannot look into another connection");
        return Err(model.at.mark(error.connection(connection).setting("materialized").hint("make it a `table`")).into());
    }
    let queries = session.queries_across(connection).await?;
    Ok(Some(if model.is_script { queries } else { queries.of_model() }))
}

/// The same, or an error.
pub async fn queries(session: &Session, model: &Model) -> Result<Queries> {
    Ok(here(session, model).await?.ok_or_else(|| {
        let error = Error::new(Code::Unsupported, "this can be done with models on the lake only").connection(&model.spec.connection);
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
        Materialized::Incremental if model.spec.batch_size.is_some() || model.spec.replaced_by().is_some() => WriteMode::Replace,
        Materialized::Incremental if model.spec.key.is_some() => WriteMode::Upsert,
        Materialized::Incremental => WriteMode::Append,
        _ => WriteMode::Replace,
    };
    if let Some(column) = model.spec.replaced_by() {
        field(column, "partition_by")?;
    }
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

/// How the model's result is cut, where it is computed interval by interval.
fn batches(model: &Model, ask: &Ask) -> trib_core::Result<Option<Batches>> {
    let (Some(period), Some(column)) = (model.spec.batch_size, &model.spec.cursor) else { return Ok(None) };
    let lookback = match model.spec.lookback {
        None => TimeDelta::zero(),
        Some(Lookback::Time(time)) => TimeDelta::from_std(time).unwrap_or(TimeDelta::MAX),
        Some(Lookback::Units(_)) => {
            let error = Error::new(Code::ConfigInvalid, "with `batch_size`, how far to look back is a length of time");
            return Err(error.setting("lookback").hint("such as `3d`"));
        }
    };
    let begin = model.spec.begin.as_deref().map(trib_engine::batches::parsed).transpose().map_err(|e| e.setting("begin"))?;
    Ok(Some(Batches { column: column.clone(), period, lookback, begin, whole: ask.full_refresh }))
}

fn check_mode(destination: &dyn Destination, write: WriteMode) -> trib_core::Result<()> {
    if destination.capabilities().write_modes.contains(&write) {
        return Ok(());
    }
    Err(Error::new(Code::Unsupported, "the destination cannot write in this way").detail(write.as_str()).setting("materialized"))
}

/// Every column of a table has a name, and one of its own.
pub fn check_columns(model: &Model, schema: &SchemaRef) -> trib_core::Result<()> {
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
        if name.starts_with(system::PREFIX) {
            let hint = "name the columns that you want, or give this one another name with `as`";
            return wrong("a column of the model has a name that is kept for Tributary's own", name, hint);
        }
    }
    Ok(())
}
