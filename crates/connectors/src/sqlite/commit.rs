//! One load becomes visible, in one transaction.

use std::path::Path;

use rusqlite::{Connection, Statement};
use trib_core::load::{Rows, TableOutcome, table_gone};
use trib_core::protocol::{CommitGate, commit_gate, lease_lost};
use trib_core::{Code, Error, Lease, Load, Marker, Outcome, Receipt, Result, TableLoad, WriteMode};

use super::database::{At, Database, quoted};
use super::ddl::{self, physical};
use super::marker;
use super::merge::{Merge, Step, Tally};
use super::side_file::{self, ROWS, Staged};
use super::table::{KeyIndex, describe};
use trib_kit::calendar;

/// SQLite attaches ten databases at most, as it is compiled; one is kept free for gathered parts, one in reserve.
const ATTACHED: usize = 8;

/// Publishes loads of one or several syncs in one transaction.
pub fn commit(database: &Database, loads: &[(Load, Lease)]) -> Result<Vec<Outcome>> {
    let connection = database.writer()?;
    let mut outcomes = Vec::new();
    // Asked before the parts are: those of a committed load may be gone.
    for (load, lease) in loads {
        outcomes.push(gate(&connection, database, load, lease)?);
    }
    let open: Vec<&(Load, Lease)> = loads.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_none()).map(|(load, _)| load).collect();
    let mut relations = match open.first() {
        Some((first, lease)) => {
            let gathered = side_file::of_gathered(&database.path, &lease.sync, &first.id);
            attach(&connection, database, &open.iter().flat_map(|(load, _)| &load.tables).collect::<Vec<_>>(), &gathered)?
        }
        None => Vec::new(),
    };
    connection.execute_batch("BEGIN IMMEDIATE").at(&database.path)?;
    for ((load, lease), outcome) in loads.iter().zip(&mut outcomes).filter(|(_, outcome)| outcome.is_none()) {
        let others = relations.split_off(load.tables.len());
        let of_load = std::mem::replace(&mut relations, others);
        // Somebody may have come in between.
        *outcome = gate(&connection, database, load, lease)?;
        if outcome.is_none() {
            let tables = publish(&connection, database, load, &of_load)?;
            let marker = Marker { committed_at: chrono::Utc::now(), ..Marker::of(load, lease) };
            marker::write(&connection, &lease.sync, &marker)?.at(&database.path)?;
            *outcome = Some(Outcome { tables, already_committed: false });
        }
    }
    connection.execute_batch("COMMIT").at(&database.path)?;
    drop(connection);
    for (load, lease) in loads {
        // The load is done whether or not its files can be removed; the next sweep takes them.
        if let Err(e) = side_file::remove(&database.path, Some(&lease.sync), |found| *found == load.id) {
            tracing::warn!(load = %load.id, error = %e, "staged files of a committed load could not be removed");
        }
    }
    Ok(outcomes.into_iter().flatten().collect())
}

fn gate(connection: &Connection, database: &Database, load: &Load, lease: &Lease) -> Result<Option<Outcome>> {
    let generation = marker::generation(connection, &lease.sync).at(&database.path)?;
    let marker = marker::one(connection, &lease.sync, &load.scope).at(&database.path)?.transpose()?;
    match commit_gate(load, lease.generation, generation, marker.as_ref()) {
        CommitGate::Go => Ok(None),
        CommitGate::AlreadyCommitted => Ok(Some(Outcome { tables: Vec::new(), already_committed: true })),
        CommitGate::Outdated => Err(lease_lost(load, marker.as_ref())),
    }
}

fn file_of(receipt: &Receipt) -> Result<Option<String>> {
    let staged: Staged = serde_json::from_value(receipt.staged.clone())
        .map_err(|e| Error::new(Code::DataInvalid, "the receipt is not one that this destination has given").source(e))?;
    Ok(staged.file)
}

/// Attaches the side files of tables and gives the relations of each. Parts are gathered in one file where a mode needs all rows of
/// a table in one place, or where there are too many to attach.
fn attach(connection: &Connection, database: &Database, tables: &[&TableLoad], gathered: &Path) -> Result<Vec<Vec<String>>> {
    let mut files: Vec<Vec<(String, u64)>> = Vec::new();
    for table in tables {
        let mut parts = Vec::new();
        for receipt in &table.receipts {
            if let Some(file) = file_of(receipt)? {
                parts.push((file, receipt.rows));
            }
        }
        files.push(parts);
    }
    let must_gather = |i: usize| tables[i].table.write.needs_key() && files[i].len() > 1;
    let left: usize = (0..files.len()).filter(|i| !must_gather(*i)).map(|i| files[i].len()).sum();
    let gathers = |i: usize| !files[i].is_empty() && (must_gather(i) || left > ATTACHED);

    if (0..files.len()).any(gathers) {
        let gathering = side_file::create(gathered)?;
        for (i, table) in tables.iter().enumerate().filter(|(i, _)| gathers(*i)) {
            gather(&gathering, gathered, database, &format!("{ROWS}_{i}"), table, &files[i])?;
        }
        side_file::finish(gathering, gathered)?;
        attach_file(connection, gathered, "gathered")?;
    }
    let mut attached = 0;
    let mut relations = Vec::new();
    for (i, table) in tables.iter().enumerate() {
        let mut of_table = Vec::new();
        if gathers(i) {
            of_table.push(format!("gathered.{ROWS}_{i}"));
        } else {
            for (file, rows) in &files[i] {
                let path = database.path.with_file_name(file);
                let alias = format!("part_{attached}");
                attached += 1;
                attach_file(connection, &path, &alias)?;
                check_rows(connection, &path, &alias, *rows)?;
                of_table.push(format!("{alias}.{ROWS}"));
            }
        }
        if of_table.is_empty() && table.table.write.needs_key() {
            let name = format!("temp.none_{i}");
            connection.execute_batch(&side_file::create_rows(&name, &table.table)?).at(&database.path)?;
            of_table.push(name);
        }
        relations.push(of_table);
    }
    Ok(relations)
}

fn attach_file(connection: &Connection, path: &Path, alias: &str) -> Result<()> {
    // SQLite would make an empty database of a file that is not there.
    if !path.exists() {
        return Err(Error::new(Code::NotFound, "a staged part is no longer there")
            .detail(path.display().to_string())
            .hint("`*-trib-*.db` files beside the database belong to unfinished loads; run the sync again: it reads the step anew"));
    }
    connection.execute(&format!("ATTACH ?1 AS {alias}"), [path.to_string_lossy()]).at(path)?;
    Ok(())
}

/// Row ids count the rows of a part, since none is ever deleted from it.
fn check_rows(connection: &Connection, path: &Path, alias: &str, expected: u64) -> Result<()> {
    let found: i64 = connection.query_row(&format!("SELECT coalesce(max(rowid), 0) FROM {alias}.{ROWS}"), [], |r| r.get(0)).at(path)?;
    if found as u64 == expected {
        return Ok(());
    }
    Err(Error::new(Code::DataInvalid, "a staged part does not have the rows that its receipt says")
        .detail(format!("{}: {found} rows instead of {expected}", path.display()))
        .hint("something else has written the file; run the sync again: it reads the step anew"))
}

fn gather(gathering: &Connection, path: &Path, database: &Database, name: &str, table: &TableLoad, files: &[(String, u64)]) -> Result<()> {
    gathering.execute_batch(&format!("{} COMMIT;", side_file::create_rows(name, &table.table)?)).at(path)?;
    for (file, rows) in files {
        let part = database.path.with_file_name(file);
        attach_file(gathering, &part, "part")?;
        check_rows(gathering, &part, "part", *rows)?;
        gathering.execute_batch(&format!("INSERT INTO main.{name} SELECT * FROM part.{ROWS}; DETACH part;")).at(path)?;
    }
    gathering.execute_batch(&format!("BEGIN; {}", side_file::index_rows(name, &table.table))).at(path)
}

/// Applies schema changes and merges the rows. Inside the transaction.
fn publish(connection: &Connection, database: &Database, load: &Load, relations: &[Vec<String>]) -> Result<Vec<TableOutcome>> {
    let at = &database.path;
    // A table without receipts is not part of this load.
    let tables: Vec<(usize, &TableLoad)> = load.tables.iter().enumerate().filter(|(_, t)| !t.receipts.is_empty()).collect();
    let mut outcomes: Vec<(usize, Counts)> = Vec::new();
    let mut indexes = vec![KeyIndex::Missing; load.tables.len()];
    for (i, TableLoad { table, changes, .. }) in &tables {
        let mut counts = Counts::default();
        if table.write == WriteMode::Replace && table.scope.is_none() {
            if describe(connection, &physical(&table.name)).at(at)?.is_some() {
                let merge = Merge { table, staged: &[], unique: false, history: false, parent: None };
                counts.run(connection, database, load, table, &merge.clear())?;
            }
            ddl::apply(connection, database, table, changes)?;
            ddl::reshape(connection, database, table)?;
        } else {
            ddl::apply(connection, database, table, changes)?;
        }
        if table.write == WriteMode::Update && describe(connection, &physical(&table.name)).at(at)?.is_none() {
            return Err(table_gone(&table.name));
        }
        ddl::check_affinities(connection, database, table)?;
        if table.write.needs_key() {
            indexes[*i] = ddl::ensure_key_index(connection, database, table)?;
        }
        outcomes.push((*i, counts));
    }
    // Children first: what happens to them depends on which parents were there before.
    for (at, (i, TableLoad { table, .. })) in tables.iter().enumerate().rev() {
        if table.write == WriteMode::Prune && describe(connection, &physical(&table.name)).at(&database.path)?.is_none() {
            continue;
        }
        let parent = match &table.parent {
            Some(tie) if table.write.needs_key() => {
                let found = load.tables.iter().position(|t| t.table.name == tie.table);
                let found = found.ok_or_else(|| Error::internal("a child table is loaded without its parent"))?;
                let staged = relations[found].first().ok_or_else(|| Error::internal("a parent's rows were not gathered"))?;
                Some((&load.tables[found].table, staged.as_str()))
            }
            _ => None,
        };
        let merge = Merge {
            table,
            staged: &relations[*i],
            unique: indexes[*i] == KeyIndex::Unique,
            history: ddl::is_history(connection, database, &table.name)?,
            parent,
        };
        for step in merge.steps()? {
            outcomes[at].1.run(connection, database, load, table, &step)?;
        }
    }
    Ok(outcomes
        .into_iter()
        .map(|(i, counts)| TableOutcome {
            inserted: counts.inserted,
            updated: counts.updated,
            deleted: counts.deleted,
            unmatched: counts.unmatched,
            ..TableOutcome::new(load.tables[i].table.name.clone())
        })
        .collect())
}

#[derive(Clone, Copy, Default)]
struct Counts {
    inserted: u64,
    updated: u64,
    deleted: u64,
    found: u64,
    unmatched: u64,
}

impl Counts {
    fn run(&mut self, connection: &Connection, database: &Database, load: &Load, table: &trib_core::Table, step: &Step) -> Result<()> {
        tracing::debug!(table = %table.name, sql = step.sql, "merging");
        let rows = execute(connection, load, table, step).at(&database.path).map_err(|e| e.stream(&load.scope))?;
        match step.tally {
            Tally::None => {}
            Tally::Inserted => self.inserted += rows,
            Tally::Updated => self.updated += rows,
            Tally::Deleted => self.deleted += rows,
            Tally::Found => self.found = rows,
            Tally::Unmatched => self.unmatched += rows,
            Tally::Upserted => {
                self.updated += self.found;
                self.inserted += rows - self.found;
            }
        }
        Ok(())
    }
}

fn execute(connection: &Connection, load: &Load, table: &trib_core::Table, step: &Step) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare(&step.sql)?;
    let mut at = String::new();
    calendar::write_stamp(&mut at, load.loaded_at.timestamp_micros(), arrow::datatypes::TimeUnit::Microsecond);
    at.push('Z');
    bind(&mut statement, ":at", &at)?;
    match table.scope.as_ref().map(|s| &s.rows) {
        Some(Rows::With(value)) => bind(&mut statement, ":scope", value)?,
        Some(Rows::Between { from, until }) => {
            bind(&mut statement, ":from", from)?;
            bind(&mut statement, ":until", until)?;
        }
        Some(Rows::Staged) | None => {}
    }
    if matches!(step.tally, Tally::Found | Tally::Unmatched) {
        let mut rows = statement.raw_query();
        let count: i64 = rows.next()?.map_or(Ok(0), |row| row.get(0))?;
        return Ok(count as u64);
    }
    Ok(statement.raw_execute()? as u64)
}

fn bind(statement: &mut Statement<'_>, name: &str, value: &str) -> rusqlite::Result<()> {
    match statement.parameter_index(name)? {
        Some(parameter) => statement.raw_bind_parameter(parameter, value),
        None => Ok(()),
    }
}

/// Upkeep: statistics for the planner, and the space of deleted rows where there is much of it.
pub fn maintain(database: &Database, table: &str) -> Result<String> {
    let connection = database.writer()?;
    let at = &database.path;
    let mut done = Vec::new();
    if describe(&connection, table).at(at)?.is_some() {
        connection.execute_batch(&format!("ANALYZE main.{}", quoted(table))).at(at)?;
        done.push("analyzed".to_owned());
    }
    let count = |pragma: &str| connection.query_row(&format!("PRAGMA main.{pragma}"), [], |r| r.get::<_, i64>(0)).at(at);
    let (free, all, size) = (count("freelist_count")?, count("page_count")?, count("page_size")?);
    if free * 10 > all {
        connection.execute_batch("VACUUM").at(at)?;
        done.push(format!("{} KiB given back", free * size / 1024));
    }
    Ok(if done.is_empty() { "nothing to do".to_owned() } else { done.join(", ") })
}
