//! What a table must hold after a load, computed the plain way: the oracle for every destination.

use std::collections::{BTreeMap, BTreeSet};

use trib_core::load::Deletes;
use trib_core::name::system;
use trib_core::{Table, WriteMode};

use crate::rows::{self, NULL, Row};

/// A table's rows in memory.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub rows: Vec<Row>,
}

/// The parent of a child table.
#[derive(Clone, Copy, Debug)]
pub struct Parents<'a> {
    /// The parent's rows of the same load.
    pub staged: &'a [Row],
    /// What the parent's table holds after the load.
    pub held: &'a [Row],
}

/// Rows that a load has inserted, updated and deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub inserted: u64,
    pub updated: u64,
    pub deleted: u64,
    pub unmatched: u64,
}

type Key = Vec<String>;

impl Model {
    /// `staged` are rows of [`Table::staging_schema`], `at` is the canonical text of the load's time. A child table is applied after its parent.
    pub fn apply(&mut self, table: &Table, staged: &[Row], parents: Option<&Parents<'_>>, at: &str) -> Tally {
        // Rows from before a column was added have no value in it.
        for row in &mut self.rows {
            for field in table.schema.fields() {
                row.entry(field.name().clone()).or_insert_with(|| NULL.to_owned());
            }
        }
        if let (Some(tie), Some(parents), false) = (&table.parent, parents, matches!(table.write, WriteMode::Replace | WriteMode::Append)) {
            return self.follow(table, &tie.columns, staged, parents);
        }
        let mut staged = staged.to_vec();
        staged.sort_by_key(|row| row.get(system::SEQ).and_then(|s| s.parse::<i64>().ok()));
        match table.write {
            WriteMode::Replace => {
                self.rows.retain(|row| !in_scope(table, row));
                self.add(table, &staged)
            }
            WriteMode::Append => self.add(table, &staged),
            WriteMode::Insert => {
                let mut there: BTreeSet<Key> = self.rows.iter().map(|r| key(table, r)).collect();
                staged.retain(|row| there.insert(key(table, row)));
                self.add(table, &staged)
            }
            WriteMode::Upsert | WriteMode::Mirror => self.merge(table, &staged),
            WriteMode::Prune => {
                let keep: BTreeSet<Key> = staged.iter().map(|r| key(table, r)).collect();
                Tally { deleted: self.delete(table, |k| !keep.contains(k)), ..Tally::default() }
            }
            WriteMode::History => self.remember(table, &staged, at),
            WriteMode::Update => self.update(table, &staged),
        }
    }

    fn add(&mut self, table: &Table, staged: &[Row]) -> Tally {
        self.rows.extend(staged.iter().map(|row| visible(table, row)));
        Tally { inserted: staged.len() as u64, ..Tally::default() }
    }

    /// Change by change, as they happened; counts compare before and after.
    fn merge(&mut self, table: &Table, staged: &[Row]) -> Tally {
        let alive =
            |rows: &[Row]| -> BTreeMap<Key, Row> { rows.iter().filter(|r| !is_deleted(r)).map(|r| (key(table, r), r.clone())).collect() };
        let (before, there) = (alive(&self.rows), self.rows.iter().map(|r| key(table, r)).collect::<BTreeSet<_>>());
        for row in staged {
            match row.get(system::OP).map(String::as_str) {
                Some("\"t\"") => {
                    self.delete(table, |_| true);
                }
                Some("\"d\"") => {
                    let gone = key(table, row);
                    self.delete(table, |k| *k == gone);
                }
                _ => {
                    let new = visible(table, row);
                    let its = key(table, &new);
                    self.rows.retain(|r| key(table, r) != its);
                    self.rows.push(new);
                }
            }
        }
        if table.write == WriteMode::Mirror && !table.changes {
            let keep: BTreeSet<Key> = staged.iter().map(|r| key(table, r)).collect();
            self.delete(table, |k| !keep.contains(k));
        }
        let after = alive(&self.rows);
        Tally {
            inserted: after.keys().filter(|k| !there.contains(*k)).count() as u64,
            updated: after.iter().filter(|(k, row)| there.contains(*k) && before.get(*k) != Some(row)).count() as u64,
            deleted: before.keys().filter(|k| !after.contains_key(*k)).count() as u64,
            ..Tally::default()
        }
    }

    /// Deletes live rows of the load's scope by key, the way the table deletes.
    fn delete(&mut self, table: &Table, gone: impl Fn(&Key) -> bool) -> u64 {
        let hit = |row: &Row| in_scope(table, row) && !is_deleted(row) && gone(&key(table, row));
        let hits = self.rows.iter().filter(|r| hit(r)).count() as u64;
        match table.deletes {
            Deletes::Ignore => return 0,
            Deletes::Hard => self.rows.retain(|r| !hit(r)),
            Deletes::Soft => {
                for row in self.rows.iter_mut().filter(|r| hit(r)) {
                    row.insert(system::DELETED_AT.to_owned(), SET.to_owned());
                }
            }
        }
        hits
    }

    /// Children go and come with their parents; `tie` pairs the columns of both.
    fn follow(&mut self, table: &Table, tie: &[(String, String)], staged: &[Row], parents: &Parents<'_>) -> Tally {
        let of_child = |row: &Row| -> Key { tie.iter().map(|(here, _)| row[here].clone()).collect() };
        let of_parent = |row: &Row| -> Key { tie.iter().map(|(_, there)| row[there].clone()).collect() };
        let seq = |row: &Row| row[system::SEQ].parse::<i64>().unwrap_or_default();
        let mut winners: BTreeMap<Key, i64> = BTreeMap::new();
        for parent in parents.staged {
            let winner = winners.entry(of_parent(parent)).or_insert_with(|| seq(parent));
            *winner = if table.write == WriteMode::Insert { seq(parent).min(*winner) } else { seq(parent).max(*winner) };
        }
        if table.write == WriteMode::Insert {
            // Parents that were there stay, and so do their children.
            let load = parents.staged.first().map(|p| &p[system::LOAD_ID]);
            let brought: BTreeSet<Key> = parents.held.iter().filter(|p| Some(&p[system::LOAD_ID]) == load).map(of_parent).collect();
            winners.retain(|key, _| brought.contains(key));
        }
        self.rows.retain(|row| !winners.contains_key(&of_child(row)));
        let taken: Vec<Row> = staged.iter().filter(|row| winners.get(&of_child(row)) == Some(&seq(row))).cloned().collect();
        let tally = self.add(table, &taken);
        if table.write == WriteMode::Mirror && table.deletes == Deletes::Hard {
            let held: BTreeSet<Key> = parents.held.iter().map(of_parent).collect();
            self.rows.retain(|row| held.contains(&of_child(row)));
        }
        tally
    }

    /// The staged columns of rows that are there, where a value differs. Of a history, of the current versions.
    fn update(&mut self, table: &Table, staged: &[Row]) -> Tally {
        let mut tally = Tally::default();
        let last: BTreeMap<Key, &Row> = staged.iter().map(|r| (key(table, r), r)).collect();
        for (its, new) in last {
            let current = |r: &Row| r.get(system::VALID_TO).is_none_or(|to| to == NULL);
            let mut met = false;
            for row in self.rows.iter_mut().filter(|r| current(r) && key(table, r) == its) {
                met = true;
                if table.data_columns().any(|c| row[c.name()] != new[c.name()]) {
                    row.extend(visible(table, new));
                    tally.updated += 1;
                }
            }
            tally.unmatched += u64::from(!met);
        }
        tally
    }

    /// Slowly changing dimension, type 2: one new version per key whose data have changed.
    fn remember(&mut self, table: &Table, staged: &[Row], at: &str) -> Tally {
        let last: BTreeMap<Key, &Row> = staged.iter().map(|r| (key(table, r), r)).collect();
        let mut tally = Tally::default();
        for (its, row) in last {
            let deleted = row.get(system::OP).is_some_and(|op| op == "\"d\"");
            let current = self.rows.iter_mut().find(|r| r[system::VALID_TO] == NULL && key(table, r) == its);
            if let Some(current) = current {
                let same = table.data_columns().all(|c| row.get(c.name()).is_none_or(|v| *v == current[c.name()]));
                if same && !deleted {
                    continue;
                }
                current.insert(system::VALID_TO.to_owned(), at.to_owned());
                tally.updated += 1;
            }
            if !deleted {
                let mut new = visible(table, row);
                new.insert(system::VALID_FROM.to_owned(), at.to_owned());
                self.rows.push(new);
                tally.inserted += 1;
            }
        }
        tally
    }
}

/// Stands for any time in [`system::DELETED_AT`].
pub const SET: &str = "set";

fn key(table: &Table, row: &Row) -> Key {
    table.key.iter().map(|c| row[c].clone()).collect()
}

fn in_scope(table: &Table, row: &Row) -> bool {
    table.scope.as_ref().is_none_or(|scope| scope.value().is_none_or(|value| row[&scope.column] == rows::quoted(value)))
}

fn is_deleted(row: &Row) -> bool {
    row.get(system::DELETED_AT).is_some_and(|at| at != NULL)
}

/// A staged row as readers see it.
fn visible(table: &Table, row: &Row) -> Row {
    let columns = table.schema.fields().iter().map(|f| f.name());
    columns.map(|name| (name.clone(), row.get(name).cloned().unwrap_or_else(|| NULL.to_owned()))).collect()
}
