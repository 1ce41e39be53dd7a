//! Publishing a load: everything in one transaction, under the lock of the sync's lease.

use std::collections::HashMap;

use tokio_postgres::SimpleQueryMessage;
use trib_core::contract::SchemaChange;
use trib_core::load::{Receipt, TableLoad, TableOutcome, table_gone};
use trib_core::name::{system, truncate};
use trib_core::protocol::{CommitGate, commit_gate, lease_lost};
use trib_core::{Code, Error, Lease, Load, Outcome, Result, WriteMode};
use trib_kit::sql::{ANSI, literal};

use super::column_type::column_type;
use super::connect::Session;
use super::layout::{Filled, Layout, MAX_IDENTIFIER, Place, constant};
use super::merge::{Counts, Merge, ParentTables};
use super::target::{self, Target};
use super::{control, error};

/// Sorting before a merge takes memory. What building a key's index takes is left to the server: its small runs stay in the caches.
const BEGIN: &str = "BEGIN; \
    SELECT set_config('work_mem', greatest(pg_size_bytes(current_setting('work_mem')), 67108864) / 1024 || 'kB', true)";

/// Publishes loads of one or several syncs in one transaction. When this fails, the transaction dies with the session.
pub async fn commit(session: &Session, loads: &[(Load, Lease)]) -> Result<Vec<Outcome>> {
    let (mut outcomes, mut last) = (Vec::new(), Vec::new());
    for (load, lease) in loads {
        let begin = if outcomes.is_empty() { BEGIN } else { "SELECT" };
        let rows = session.rows(&format!("{begin}; {}", control::lock(load, lease))).await?;
        let (generation, marker) = control::gate_rows(&rows)?;
        outcomes.push(match commit_gate(load, lease.generation, generation, marker.as_ref()) {
            CommitGate::Go => publish(session, load, lease, &mut last).await?,
            CommitGate::AlreadyCommitted => Outcome { tables: Vec::new(), already_committed: true },
            CommitGate::Outdated => {
                session.run("ROLLBACK").await?;
                return Err(lease_lost(load, marker.as_ref()));
            }
        });
    }
    last.push("COMMIT".to_owned());
    session.run(&last.join("; ")).await?;
    Ok(outcomes)
}

/// Brings the load's rows into its tables. What is to be said at the transaction's end goes to `last`.
async fn publish(session: &Session, load: &Load, lease: &Lease, last: &mut Vec<String>) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    // Staging tables that have become tables, by their old names: child tables look for their parents' staged rows.
    let mut published: HashMap<Place, Place> = HashMap::new();
    for table in load.tables.iter().filter(|t| !t.receipts.is_empty()) {
        let staged = staging_place(table)?;
        let publishing = Publishing { session, load, table, staged: staged.clone(), place: Place::of(&table.table.name) };
        publishing.keep_only_receipts().await?;
        let (counts, became) = publishing.publish(&published).await.map_err(|e| e.stream(&load.scope))?;
        outcome.tables.push(counts);
        if became {
            // Child tables still ask for the sequence of their parents' rows.
            last.push(publishing.strip()?);
            last.push(control::forget_staged(&staged));
            published.insert(staged, publishing.place);
        } else {
            last.push(control::drop_staged(&staged));
        }
    }
    last.push(control::write_marker(load, lease)?);
    Ok(outcome)
}

fn staging_place(table: &TableLoad) -> Result<Place> {
    let of = |receipt: &Receipt| -> Result<Place> { Ok(serde_json::from_value(receipt.staged.clone())?) };
    let first = table.receipts.first().ok_or_else(|| Error::internal("a table without receipts is published"))?;
    let place = of(first)?;
    for other in &table.receipts {
        if of(other)? != place {
            return Err(Error::internal("the parts of one table are staged in several"));
        }
    }
    Ok(place)
}

struct Publishing<'a> {
    session: &'a Session,
    load: &'a Load,
    table: &'a TableLoad,
    staged: Place,
    place: Place,
}

impl Publishing<'_> {
    /// Checks that every receipt's part is staged with all its rows, and deletes the rows of attempts without a receipt.
    async fn keep_only_receipts(&self) -> Result<()> {
        let staged = control::parts(self.session, &self.staged).await?;
        let receipts = &self.table.receipts;
        for receipt in receipts {
            let (split, attempt) = (receipt.part.split, receipt.part.attempt);
            let part = staged.iter().find(|p| p.split == split && p.attempt == attempt);
            if part.is_none_or(|p| p.rows != receipt.rows) {
                return Err(Error::new(Code::NotFound, "a staged part is not there as its receipt says")
                    .detail(format!(
                        "{}, split {split}: {} rows staged, {} in the receipt",
                        self.table.table.name,
                        part.map_or(0, |p| p.rows),
                        receipt.rows
                    ))
                    .hint("run the sync again: it reads the step anew"));
            }
        }
        let stray: Vec<String> = staged
            .iter()
            .filter(|p| p.rows > 0 && !receipts.iter().any(|r| r.part.split == p.split && r.part.attempt == p.attempt))
            .map(|p| p.xid.to_string())
            .collect();
        if stray.is_empty() {
            return Ok(());
        }
        let sql = format!("DELETE FROM {} WHERE xmin::text::bigint IN ({})", self.staged.sql(), stray.join(", "));
        self.session.run(&sql).await
    }

    /// Brings the rows into the table. True when the staging table has become the table.
    async fn publish(&self, published: &HashMap<Place, Place>) -> Result<(TableOutcome, bool)> {
        let table = &self.table.table;
        let layout = Layout::of(table)?;
        let existing = target::find(self.session, &self.place).await?;
        let mut outcome = TableOutcome::new(table.name.clone());
        if table.write == WriteMode::Prune && existing.is_none() {
            return Ok((outcome, false));
        }
        if self.may_become_table(&layout, existing.as_ref()) {
            outcome.inserted = self.become_table(&layout, existing.as_ref()).await?;
            return Ok((outcome, true));
        }
        let target = match existing {
            Some(target) => self.change(target).await?,
            None if table.write == WriteMode::Update => return Err(table_gone(&table.name)),
            None => self.create(&layout).await?,
        };
        let parent = table.parent.as_ref().and_then(|parent| {
            let tables = self.load.tables.iter().find(|t| t.table.name == parent.table && !t.receipts.is_empty())?;
            let from = staging_place(tables).ok()?;
            let into = Place::of(&parent.table).sql();
            let became = published.contains_key(&from);
            let sequenced = tables.table.write.needs_sequence() && layout.has_extra(system::SEQ);
            let from = if became { into.clone() } else { from.sql() };
            Some(ParentTables { into, from, sequenced })
        });
        let merge =
            Merge { load: self.load, table, layout: &layout, target: &target, into: self.place.sql(), from: self.staged.sql(), parent };
        self.run(&merge, &mut outcome).await?;
        Ok((outcome, false))
    }

    /// All statements of a merge in one round trip.
    async fn run(&self, merge: &Merge<'_>, outcome: &mut TableOutcome) -> Result<()> {
        let steps = merge.steps();
        if steps.is_empty() {
            return Ok(());
        }
        let sql = steps.iter().map(|step| step.sql.as_str()).collect::<Vec<_>>().join("; ");
        let messages = self.session.client.simple_query(&sql).await.map_err(error::driver)?;
        let mut steps = steps.iter();
        let mut numbers: Vec<u64> = Vec::new();
        for message in messages {
            match message {
                SimpleQueryMessage::Row(row) => {
                    numbers = (0..row.len()).map(|i| row.get(i).and_then(|n| n.parse().ok()).unwrap_or(0)).collect();
                }
                SimpleQueryMessage::CommandComplete(touched) => {
                    let number = |i: usize| numbers.get(i).copied().unwrap_or(0);
                    match steps.next().map(|step| step.counts) {
                        Some(Counts::Inserted) => outcome.inserted += touched,
                        Some(Counts::Updated) => outcome.updated += touched,
                        Some(Counts::Deleted) => outcome.deleted += touched,
                        Some(Counts::Upserted) => {
                            outcome.inserted += number(0);
                            outcome.updated += number(1);
                        }
                        Some(Counts::Replaced) => outcome.updated += number(0),
                        Some(Counts::Unmatched) => outcome.unmatched += number(0),
                        Some(Counts::Nothing) | None => {}
                    }
                }
                _ => {}
            }
        }
        if merge.steps().iter().any(|step| step.counts == Counts::Replaced) {
            outcome.inserted -= outcome.updated.min(outcome.inserted);
        }
        Ok(())
    }

    /// Whether the staging table can take the table's place, so that no row is written a second time.
    fn may_become_table(&self, layout: &Layout, existing: Option<&Target>) -> bool {
        let table = &self.table.table;
        if table.changes || matches!(table.write, WriteMode::Prune | WriteMode::Update) || !layout.can_become_table() {
            return false;
        }
        let whole = matches!(table.write, WriteMode::Replace | WriteMode::Append);
        if table.parent.is_some() && !whole {
            return false;
        }
        match existing {
            None => true,
            Some(target) => table.write == WriteMode::Replace && table.scope.is_none() && target.stands_alone,
        }
    }

    /// Makes the staging table the table. Gives the number of rows.
    async fn become_table(&self, layout: &Layout, existing: Option<&Target>) -> Result<u64> {
        let table = &self.table.table;
        let staged = self.staged.sql();
        let mut rows: u64 = self.table.receipts.iter().map(|r| r.rows).sum();
        let mut shape: Vec<String> = Vec::new();
        let mut defaults: Vec<String> = Vec::new();
        for column in &layout.columns {
            let name = ANSI.identifier(&column.name);
            match &column.filled {
                Filled::Staged { staged, wanted } => {
                    let field = table.schema.field_with_name(&column.name)?;
                    let wanted = existing.and_then(|t| t.own_type(field, &wanted.name)).unwrap_or(&wanted.name);
                    if staged.name != wanted {
                        shape.push(format!("ALTER COLUMN {name} TYPE {wanted} USING {name}::{wanted}"));
                    }
                }
                Filled::ByCommit { wanted } => {
                    // The rows that are there get the default without being written; the catalog remembers it for them.
                    let not_null = if column.nullable { "" } else { " NOT NULL" };
                    shape.push(format!("ADD COLUMN {name} {}{not_null} DEFAULT {}", wanted.name, constant(&column.name, self.load)));
                    defaults.push(format!("ALTER COLUMN {name} DROP DEFAULT"));
                }
            }
        }
        let mut sql: Vec<String> = Vec::new();
        for changes in [shape, defaults] {
            if !changes.is_empty() {
                sql.push(format!("ALTER TABLE {staged} {}", changes.join(", ")));
            }
        }
        if !sql.is_empty() {
            self.session.run(&sql.join("; ")).await?;
        }
        let key = self.key_constraint(layout);
        if let Some(key) = &key {
            rows -= self.add_key(layout, key).await?;
        }
        let mut last = Vec::new();
        if existing.is_some() {
            last.push(format!("DROP TABLE {}", self.place.sql()));
        }
        last.push(format!("ALTER TABLE {staged} RENAME TO {}", ANSI.identifier(&self.place.name)));
        if key.is_some() {
            last.push(self.rename_key());
        }
        last.extend(existing.into_iter().flat_map(|t| t.dress.clone()));
        self.session.run(&last.join("; ")).await?;
        Ok(rows)
    }

    /// Takes from a table that was a staging table what only that needed.
    fn strip(&self) -> Result<String> {
        let layout = Layout::of(&self.table.table)?;
        let mut actions: Vec<String> = layout.extra.iter().map(|c| format!("DROP COLUMN {}", ANSI.identifier(&c.name))).collect();
        actions.push("RESET (autovacuum_enabled, toast.autovacuum_enabled)".to_owned());
        Ok(format!("ALTER TABLE {} {}", self.place.sql(), actions.join(", ")))
    }

    /// The columns of the primary key; none where rows may repeat.
    fn key_constraint(&self, layout: &Layout) -> Option<Vec<String>> {
        let mut key = layout.key.clone();
        match self.table.table.write {
            WriteMode::Append => return None,
            WriteMode::History => key.push(system::VALID_FROM.to_owned()),
            _ => {}
        }
        (!layout.key.is_empty()).then_some(key)
    }

    /// Adds the primary key; gives how many rows had to go because a later (for `insert`: earlier) row of the load has their key.
    async fn add_key(&self, layout: &Layout, key: &[String]) -> Result<u64> {
        let staged = self.staged.sql();
        let columns = ANSI.identifiers(key.iter().map(String::as_str));
        let add = format!("ALTER TABLE {staged} ADD CONSTRAINT {} PRIMARY KEY ({columns})", ANSI.identifier(&self.temporary_key_name()));
        let sequenced = layout.has_extra(system::SEQ);
        let result = self.session.client.batch_execute(&format!("SAVEPOINT before_key; {add}; RELEASE before_key")).await;
        let Err(e) = result else { return Ok(0) };
        if !error::is_state(&e, &["23505"]) {
            return Err(error::driver(e));
        }
        if !sequenced {
            return Err(
                error::driver(e).hint("the stream's `key` does not identify its rows: name another, or leave it out with `key: []`")
            );
        }
        let order = if self.table.table.write == WriteMode::Insert { "" } else { " DESC" };
        let sql = format!(
            "ROLLBACK TO before_key; DELETE FROM {staged} WHERE ctid IN (SELECT ctid FROM (SELECT ctid, row_number() OVER \
             (PARTITION BY {columns} ORDER BY {}{order}) AS n FROM {staged}) d WHERE n > 1); {add}",
            ANSI.identifier(system::SEQ)
        );
        let counts = self.session.counts(&sql).await?;
        Ok(counts.get(1).copied().unwrap_or(0))
    }

    fn temporary_key_name(&self) -> String {
        truncate(&format!("{}_key", self.staged.name), MAX_IDENTIFIER)
    }

    /// The usual name, unless something else of the schema has it.
    fn rename_key(&self) -> String {
        let usual = truncate(&format!("{}_pkey", self.place.name), MAX_IDENTIFIER);
        let body = format!(
            "BEGIN ALTER TABLE {} RENAME CONSTRAINT {} TO {}; EXCEPTION WHEN duplicate_table OR duplicate_object THEN NULL; END",
            self.place.sql(),
            ANSI.identifier(&self.temporary_key_name()),
            ANSI.identifier(&usual)
        );
        format!("DO {}", literal(&body))
    }

    /// An empty table with the load's columns and key.
    async fn create(&self, layout: &Layout) -> Result<Target> {
        let mut sql = layout.create_table(&self.place);
        if let Some(key) = self.key_constraint(layout) {
            let columns = ANSI.identifiers(key.iter().map(String::as_str));
            sql = format!("{sql}; ALTER TABLE {} ADD PRIMARY KEY ({columns})", self.place.sql());
        }
        self.session.run(&sql).await?;
        self.found().await
    }

    /// The existing table after the load's schema changes.
    async fn change(&self, target: Target) -> Result<Target> {
        let mut actions = Vec::new();
        for change in &self.table.changes {
            match change {
                SchemaChange::CreateTable => {}
                SchemaChange::AddColumn { field } => {
                    let native = column_type(field)?.native;
                    actions.push(format!("ADD COLUMN IF NOT EXISTS {} {native}", ANSI.identifier(field.name())));
                }
                SchemaChange::WidenColumn { column, to, .. } => {
                    let (name, native) = (ANSI.identifier(column), column_type(to)?.native);
                    actions.push(format!("ALTER COLUMN {name} TYPE {native} USING {name}::{native}"));
                }
                SchemaChange::DropNotNull { column } => {
                    actions.push(format!("ALTER COLUMN {} DROP NOT NULL", ANSI.identifier(column)));
                }
            }
        }
        // Columns of ours that a table from elsewhere does not have yet.
        for column in &self.table.table.schema.fields {
            let added = actions.iter().any(|a| a.contains(&ANSI.identifier(column.name())));
            if column.name().starts_with(system::PREFIX) && target.type_of(column.name()).is_none() && !added {
                actions.push(format!("ADD COLUMN {} {}", ANSI.identifier(column.name()), column_type(column)?.native));
            }
        }
        if actions.is_empty() {
            return Ok(target);
        }
        self.session.run(&format!("ALTER TABLE {} {}", self.place.sql(), actions.join(", "))).await?;
        self.found().await
    }

    async fn found(&self) -> Result<Target> {
        target::find(self.session, &self.place).await?.ok_or_else(|| Error::internal("a table is gone in the transaction that has made it"))
    }
}
