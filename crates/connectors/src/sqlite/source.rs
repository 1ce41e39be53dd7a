//! Reading tables and views.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};

use arrow::datatypes::Schema;
use async_trait::async_trait;
use rusqlite::{Connection, InterruptHandle};
use tokio::sync::Mutex;
use trib_core::catalog::propose_cursors;
use trib_core::error::closest;
use trib_core::source::{Cursor, NullCursor};
use trib_core::{Catalog, Code, Emitter, Error, Read, ReadMode, Result, Source, Split, SplitEnd, State, Stream, StreamRead};
use trib_kit::cursor::{self, CursorState};
use uuid::Uuid;

use super::bound::{Bound, check_cursor};
use super::database::{At, Database, blocking, quoted};
use super::decode::as_text;
use super::error::is_mistaken;
use super::kind::Kind;
use super::scan::{no_such_table, refused, scan};
use super::snapshot::{Reader, Snapshot};
use super::split::{Edge, Rows, Spec, slices};
use super::table::{self, Table, describe};

/// A table with fewer rows than this is not worth several splits.
const WORTH_SPLITTING: i64 = 200_000;

pub struct SqliteSource {
    database: Arc<Database>,
    newest: Mutex<View>,
    snapshots: Snapshots,
}

/// What streams that are planned now see of the database.
#[derive(Default)]
struct View {
    snapshot: Option<Arc<Snapshot>>,
    /// Streams that were planned in it. Planning one again begins a new one.
    planned: BTreeSet<String>,
}

/// The states of the database that splits were planned in and not read in yet: those of one stream may be read while another is planned again.
#[derive(Default)]
struct Snapshots(Arc<SyncMutex<HashMap<String, Held>>>);

struct Held {
    snapshot: Arc<Snapshot>,
    /// Splits that were not read yet.
    splits: usize,
}

impl Snapshots {
    fn hold(&self, snapshot: Arc<Snapshot>, splits: usize) -> String {
        let id = Uuid::new_v4().to_string();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), Held { snapshot, splits });
        id
    }

    /// The snapshot of a split that is read now. Given up with the last of its plan, however the reads end.
    fn take(&self, id: &str) -> Option<(Arc<Snapshot>, Taken)> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = held.get(id)?.snapshot.clone();
        Some((snapshot, Taken { id: id.to_owned(), all: self.0.clone() }))
    }
}

/// One split less is to be read when this is dropped.
struct Taken {
    id: String,
    all: Arc<SyncMutex<HashMap<String, Held>>>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = all.get_mut(&self.id) {
            held.splits = held.splits.saturating_sub(1);
            if held.splits == 0 {
                all.remove(&self.id);
            }
        }
    }
}

impl SqliteSource {
    pub fn new(database: Arc<Database>) -> Self {
        Self { database, newest: Mutex::default(), snapshots: Snapshots::default() }
    }

    /// The snapshot to plan this stream in.
    async fn snapshot_for(&self, stream: &str) -> Result<Option<Arc<Snapshot>>> {
        let mut newest = self.newest.lock().await;
        if newest.snapshot.is_none() || newest.planned.contains(stream) {
            let database = self.database.clone();
            *newest = View { snapshot: blocking(move || Snapshot::begin(&database)).await?, planned: BTreeSet::new() };
        }
        newest.planned.insert(stream.to_owned());
        Ok(newest.snapshot.clone())
    }

    async fn reader(&self, snapshot: Option<Arc<Snapshot>>) -> Result<Reader> {
        if let Some(snapshot) = snapshot {
            return snapshot.reader().await;
        }
        let database = self.database.clone();
        blocking(move || Reader::alone(&database)).await
    }
}

#[async_trait]
impl Source for SqliteSource {
    async fn check(&self) -> Result<()> {
        let database = self.database.clone();
        blocking(move || catalog(&database).map(drop)).await
    }

    async fn discover(&self, _only: &[String]) -> Result<Catalog> {
        let database = self.database.clone();
        blocking(move || catalog(&database)).await
    }

    async fn plan(&self, reads: &[StreamRead], state: &State) -> Result<Vec<Split>> {
        let mut splits = Vec::new();
        for read in reads {
            let before = CursorState::of(state, read)?;
            if !before.left.is_empty() {
                for split in before.left {
                    let mut spec = Spec::of(&split)?;
                    if let Some(id) = spec.snapshot.take() {
                        drop(self.snapshots.take(&id));
                    }
                    splits.push(Split { rows: split.rows, ..spec.split(&read.stream)? });
                }
                continue;
            }
            let snapshot = self.snapshot_for(&read.stream).await?;
            let parallel = snapshot.as_ref().map_or(1, |s| s.readers).min(read.parallelism);
            let reader = self.reader(snapshot.clone()).await?;
            let (database, asked) = (self.database.clone(), read.clone());
            let mut specs = blocking(move || plan(reader.connection()?, &database, &asked, before, parallel)).await?;
            if let Some(snapshot) = snapshot.filter(|_| !specs.is_empty()) {
                let id = self.snapshots.hold(snapshot, specs.len());
                specs.iter_mut().for_each(|(spec, _)| spec.snapshot = Some(id.clone()));
            }
            for (spec, rows) in specs {
                splits.push(Split { rows, ..spec.split(&read.stream)? });
            }
        }
        Ok(splits)
    }

    async fn read(&self, split: &Split, out: &mut Emitter) -> Result<SplitEnd> {
        let (snapshot, _taken) = Spec::of(split)?.snapshot.and_then(|id| self.snapshots.take(&id)).unzip();
        let reader = self.reader(snapshot).await?;
        let mut interrupt = Interrupt(Some(reader.connection()?.get_interrupt_handle()));
        let (database, split, mut out) = (self.database.clone(), split.clone(), out.clone());
        let end = blocking(move || scan(reader.connection()?, &database, &split, &mut out)).await;
        interrupt.0 = None;
        end
    }

    fn advance(&self, reads: &[StreamRead], state: &State, ends: &[SplitEnd]) -> Result<State> {
        cursor::advance(reads, state, ends)
    }
}

/// Ends the statement when nobody waits for it any more: a scan that finds no rows would not notice otherwise.
struct Interrupt(Option<InterruptHandle>);

impl Drop for Interrupt {
    fn drop(&mut self) {
        if let Some(handle) = &self.0 {
            handle.interrupt();
        }
    }
}

fn catalog(database: &Database) -> Result<Catalog> {
    let connection = database.reader()?;
    let mut streams = Vec::new();
    let mut columns = BTreeSet::new();
    for name in table::names(&connection).at(&database.path)? {
        match describe(&connection, &name) {
            Ok(Some(table)) if !table.columns.is_empty() => {
                columns.extend(table.columns.iter().map(|c| format!("{name}.{}", c.name)));
                streams.push(stream(&connection, database, &table).at(&database.path)?);
            }
            Ok(_) => {}
            // A view of a table that is gone does not hide the others.
            Err(e) if is_mistaken(&e) => {
                tracing::warn!(stream = name, error = %e, "the view cannot be read and is left out");
            }
            Err(e) => return Err(e).at(&database.path),
        }
    }
    for setting in database.columns.keys() {
        if !columns.contains(setting) {
            let error =
                Error::new(Code::ConfigInvalid, "the setting names a column that is not there").setting(format!("columns.{setting}"));
            return Err(match closest(setting, columns.iter().map(String::as_str)) {
                Some(near) => error.hint(format!("did you mean {near:?}?")),
                None => error.hint("write `table.column`, as `trib discover` shows them"),
            });
        }
    }
    Ok(Catalog { streams })
}

fn stream(connection: &Connection, database: &Database, table: &Table) -> rusqlite::Result<Stream> {
    let fields: Vec<_> = table.columns.iter().map(|c| table.kind(database, c).field(&c.name, table.is_nullable(c), &c.declared)).collect();
    let schema = Arc::new(Schema::new(fields));
    let primary_key = table.key();
    let sorts = |name: &String| table.column(name).is_some_and(|c| table.kind(database, c).sorts());
    let mut cursors = propose_cursors(&schema, &primary_key);
    cursors.retain(sorts);
    // A number that is indexed by itself and unique is likely to rise.
    for index in table::indexes(connection, &table.name)? {
        if let [column] = &index.columns[..]
            && index.unique
            && !cursors.contains(column)
            && schema.field_with_name(column).is_ok_and(|f| f.data_type().is_integer())
            && sorts(column)
        {
            cursors.push(column.clone());
        }
    }
    let rows = table::estimate(connection, table);
    Ok(Stream {
        primary_key,
        cursors,
        rows,
        read_modes: vec![ReadMode::Full, ReadMode::Incremental],
        ..Stream::new(&table.name, &table.name, schema)
    })
}

/// What is to be read, in pieces, each with the rows to expect.
fn plan(
    connection: &Connection,
    database: &Database,
    read: &StreamRead,
    before: CursorState,
    parallel: usize,
) -> Result<Vec<(Spec, Option<u64>)>> {
    let table = describe(connection, &read.stream).at(&database.path)?.ok_or_else(|| no_such_table(&read.stream))?;
    let planner = Planner { connection, database, read, table: &table, parallel };
    // SQLite would take a quoted name that is no column for a text.
    for column in read.key.iter().chain(read.columns.iter().flatten()) {
        planner.kind(column)?;
    }
    let specs = match &read.read {
        Read::Full => planner.full()?,
        Read::Incremental(cursor) => planner.incremental(cursor, before)?,
        Read::Range { column, since, until } => planner.range(column, since.as_deref(), until.as_deref())?,
        Read::Keys => {
            let columns = read.columns.as_ref().unwrap_or(&read.key).clone();
            vec![Spec { columns, ..planner.spec(Rows::All, Vec::new()) }]
        }
        Read::Cdc => {
            return Err(Error::new(Code::Unsupported, "SQLite has no change log to read")
                .stream(&read.stream)
                .hint("use `read: incremental` with a cursor, and `deletes: {detect: compare}`"));
        }
    };
    let rows = table::estimate(connection, &table);
    let whole = matches!(read.read, Read::Full | Read::Keys) && read.filter.is_none();
    let count = specs.len().max(1) as u64;
    let share = rows.filter(|_| whole).map(|rows| rows / count);
    Ok(specs.into_iter().map(|spec| (spec, share)).collect())
}

struct Planner<'a> {
    connection: &'a Connection,
    database: &'a Database,
    read: &'a StreamRead,
    table: &'a Table,
    parallel: usize,
}

impl Planner<'_> {
    fn spec(&self, rows: Rows, order: Vec<String>) -> Spec {
        let all = || self.table.columns.iter().map(|c| c.name.clone()).collect();
        Spec {
            table: self.table.name.clone(),
            columns: self.read.columns.clone().unwrap_or_else(all),
            filter: self.read.filter.clone(),
            rows,
            may_stop: self.read.may_stop && !order.is_empty(),
            order,
            after: None,
            boundary: None,
            snapshot: None,
        }
    }

    fn full(&self) -> Result<Vec<Spec>> {
        if self.read.may_stop {
            // Without a key there is no place to go on from, and the read is not cut.
            return Ok(vec![self.spec(Rows::All, self.read.key.clone())]);
        }
        let column = match &self.read.split_by {
            Some(column) if matches!(self.kind(column)?, Kind::Integer(_)) => Some(column.as_str()),
            Some(column) => {
                return Err(Error::new(Code::Unsupported, "the read can only be split by a column of integers")
                    .detail(column)
                    .setting("split_by")
                    .stream(&self.read.stream));
            }
            None => self.table.rowid(),
        };
        if self.parallel > 1
            && let Some(column) = column
            && let Some((least, greatest)) = table::integer_range(self.connection, self.table, column).at(&self.database.path)?
            && greatest.saturating_sub(least) >= WORTH_SPLITTING
        {
            let slices = slices(column, least, greatest, self.parallel);
            return Ok(slices.into_iter().map(|slice| self.spec(slice, Vec::new())).collect());
        }
        Ok(vec![self.spec(Rows::All, Vec::new())])
    }

    fn range(&self, column: &str, since: Option<&str>, until: Option<&str>) -> Result<Vec<Spec>> {
        let kind = self.cursor_kind(column)?;
        let sample = self.greatest(column, &[])?;
        let bound = |text: Option<&str>| text.map(|t| Bound::from_user(&kind, t, sample.as_ref())).transpose();
        let rows = Rows::Range { column: column.to_owned(), since: bound(since)?, until: bound(until)? };
        Ok(vec![self.spec(rows, if self.read.may_stop { self.read.key.clone() } else { Vec::new() })])
    }

    fn incremental(&self, cursor: &Cursor, before: CursorState) -> Result<Vec<Spec>> {
        let column = cursor.column.as_str();
        let kind = self.cursor_kind(column)?;
        let mut specs = Vec::new();
        if cursor.null_cursor != NullCursor::Exclude && self.has_null(column)? {
            if cursor.null_cursor == NullCursor::Fail {
                return Err(Error::new(Code::DataInvalid, "there are rows whose cursor is NULL")
                    .detail(column)
                    .stream(&self.read.stream)
                    .hint("set `null_cursor: include` to read them in every run, or `exclude` to leave them out"));
            }
            let order = if self.read.may_stop { self.read.key.clone() } else { Vec::new() };
            specs.push(self.spec(Rows::NullCursor { column: column.to_owned() }, order));
        }
        let sample = self.greatest(column, &[])?;
        if let Some(greatest) = &sample {
            greatest.with_value(|value| as_text(&kind, value))?.map_err(|e| e.stream(&self.read.stream).row(column))?;
        }
        let user = |text: &Option<String>| text.as_deref().map(|t| Bound::from_user(&kind, t, sample.as_ref())).transpose();
        let end = user(&cursor.end)?;
        let upper = match &end {
            Some(end) => self.greatest(column, std::slice::from_ref(end))?,
            None => sample.clone(),
        };
        let Some(upper) = upper else {
            return Ok(specs);
        };
        let reached = before.value.as_deref().map(|text| Bound::from_state(&kind, text));
        let lower = match (&reached, cursor.lookback) {
            (Some(reached), Some(lookback)) => Some(reached.less(&kind, lookback)?),
            (Some(reached), None) => Some(reached.clone()),
            (None, _) => user(&cursor.start)?,
        };
        if self.is_less(&upper, lower.as_ref())? {
            return Ok(specs);
        }
        // The state never goes back, also where the rows at its value are gone by now.
        let upper = match &reached {
            Some(reached) if self.is_less(&upper, Some(reached))? => reached.clone(),
            _ => upper,
        };
        let mut order = vec![column.to_owned()];
        order.extend(self.read.key.iter().filter(|k| *k != column).cloned());
        let boundary = Some(Edge { reached, seen: before.seen, exactly_once: self.read.exactly_once });
        let rows = Rows::Cursor { column: column.to_owned(), lower, upper };
        specs.push(Spec { boundary, ..self.spec(rows, order) });
        Ok(specs)
    }

    fn kind(&self, column: &str) -> Result<Kind> {
        let found = self.table.column(column).ok_or_else(|| {
            let error = Error::new(Code::NotFound, "the table has no such column").detail(column).stream(&self.read.stream);
            match closest(column, self.table.columns.iter().map(|c| c.name.as_str())) {
                Some(near) => error.hint(format!("did you mean {near:?}?")),
                None => error.hint("`trib discover` lists the columns"),
            }
        })?;
        Ok(self.table.kind(self.database, found))
    }

    fn cursor_kind(&self, column: &str) -> Result<Kind> {
        let kind = self.kind(column)?;
        check_cursor(&kind, column).map_err(|e| e.stream(&self.read.stream))?;
        Ok(kind)
    }

    /// Conditions and the query around them, with the user's filter.
    fn query_row<T>(&self, sql: &str, bounds: &[Bound], get: impl FnOnce(&rusqlite::Row<'_>) -> rusqlite::Result<T>) -> Result<Option<T>> {
        let filter = self.read.filter.as_ref().map_or_else(String::new, |filter| format!(" AND (\n{filter}\n)"));
        let sql = sql.replace("{filter}", &filter);
        let mut statement = self.connection.prepare(&sql).map_err(|e| refused(e, self.database, &self.spec(Rows::All, Vec::new())))?;
        let mut rows = statement.query(rusqlite::params_from_iter(bounds)).at(&self.database.path)?;
        rows.next().and_then(|row| row.map(get).transpose()).at(&self.database.path)
    }

    /// The greatest cursor, below `end` where one is given.
    fn greatest(&self, column: &str, end: &[Bound]) -> Result<Option<Bound>> {
        let (table, column) = (quoted(&self.table.name), quoted(column));
        let below = if end.is_empty() { String::new() } else { format!(" AND {column} COLLATE BINARY < ?1") };
        let sql = format!(
            "SELECT {column} FROM main.{table} WHERE {column} IS NOT NULL{below}{{filter}} ORDER BY {column} COLLATE BINARY DESC LIMIT 1"
        );
        Ok(self.query_row(&sql, end, |row| Ok(Bound::of(row.get_ref(0)?)))?.flatten())
    }

    fn has_null(&self, column: &str) -> Result<bool> {
        let (table, column) = (quoted(&self.table.name), quoted(column));
        let sql = format!("SELECT 1 FROM main.{table} WHERE {column} IS NULL{{filter}} LIMIT 1");
        Ok(self.query_row(&sql, &[], |_| Ok(()))?.is_some())
    }

    /// As SQLite compares them.
    fn is_less(&self, left: &Bound, right: Option<&Bound>) -> Result<bool> {
        let Some(right) = right else {
            return Ok(false);
        };
        self.connection.query_row("SELECT ?1 < ?2", [left, right], |row| row.get(0)).at(&self.database.path)
    }
}
