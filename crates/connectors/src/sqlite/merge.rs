//! The statements that bring staged rows into a table, by write mode. Pure: they are only written here.
//!
//! Parameters are `:at`, the load's time as stored text, and of the row scope `:scope`, its value, or `:from` and `:until`, its ends.

use trib_core::load::{Deletes, Rows};
use trib_core::name::system;
use trib_core::{Error, Result, Table, WriteMode};

use super::database::{quoted, quoted_all};
use super::ddl::physical;

/// One statement, and what the number of its rows means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub sql: String,
    pub tally: Tally,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tally {
    /// Says nothing to people.
    None,
    Inserted,
    Updated,
    Deleted,
    /// A query: how many of the rows that [`Tally::Upserted`] brings are there already.
    Found,
    Upserted,
    /// A query: how many staged rows the table has no row for.
    Unmatched,
}

/// A table and the rows that are staged for it.
pub struct Merge<'a> {
    pub table: &'a Table,
    /// Relations with the columns of [`Table::staging_schema`]; one where the mode matches by key.
    pub staged: &'a [String],
    /// One row of a key at most can be in the table, by an index.
    pub unique: bool,
    /// The table keeps versions of rows.
    pub history: bool,
    /// The table's parent in the same load, and its staged rows.
    pub parent: Option<(&'a Table, &'a str)>,
}

impl Merge<'_> {
    /// Children are merged before their parents, whose rows these statements expect as they were.
    pub fn steps(&self) -> Result<Vec<Step>> {
        match (self.table.write, self.parent) {
            (WriteMode::Append, _) => Ok(self.append()),
            (WriteMode::Replace, _) => self.replace(),
            (WriteMode::Insert, _) => self.insert(),
            (WriteMode::Upsert | WriteMode::Mirror, None) => self.upsert(),
            (WriteMode::Upsert | WriteMode::Mirror, Some(_)) => self.replace_children(),
            (WriteMode::History, _) => self.version(),
            (WriteMode::Prune, None) => Ok(self
                .remove(&format!("{} NOT IN (SELECT {} FROM {})", self.key(), list(&self.table.key), self.one()?))?
                .into_iter()
                .collect()),
            (WriteMode::Prune, Some(_)) => Ok(self.remove_orphans()?.into_iter().collect()),
            (WriteMode::Update, _) => self.update(),
        }
    }

    fn append(&self) -> Vec<Step> {
        let soft = self.table.changes && self.table.deletes == Deletes::Soft;
        let mut columns = self.columns();
        let mut values = columns.clone();
        let op = quoted(system::OP);
        let mut condition = String::new();
        if soft {
            columns.push(quoted(system::DELETED_AT));
            values.push(format!("CASE WHEN {op} = 'd' THEN :at END"));
            condition = format!(" WHERE {op} <> 't'");
        } else if self.table.changes {
            // Nothing that was appended is taken away again.
            condition = format!(" WHERE {op} NOT IN ('d', 't')");
        }
        let (columns, values) = (columns.join(", "), values.join(", "));
        let insert = |staged: &String| Step {
            sql: format!("INSERT INTO {} ({columns}) SELECT {values} FROM {staged}{condition}", self.target()),
            tally: Tally::Inserted,
        };
        self.staged.iter().map(insert).collect()
    }

    fn replace(&self) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        if self.table.scope.is_some() {
            steps.push(Step { sql: format!("DELETE FROM {} WHERE {}", self.target(), self.in_scope()?), tally: Tally::Deleted });
        }
        steps.extend(self.append());
        Ok(steps)
    }

    /// Empties a table that is replaced as a whole, before it gets another shape.
    pub fn clear(&self) -> Step {
        Step { sql: format!("DELETE FROM {}", self.target()), tally: Tally::Deleted }
    }

    fn insert(&self) -> Result<Vec<Step>> {
        let staged = self.one()?;
        let columns = self.columns().join(", ");
        let (winner, there) = match self.parent {
            None => (first_of_key(self.table, staged, "r"), exists(&self.target(), &self.match_key("t", "r"))),
            // Children of a row that was there already stay what they are.
            Some((parent, _)) => (self.child_winner("r")?, exists(&target(parent), &self.match_parent("t", "r")?)),
        };
        let sql = format!("INSERT INTO {} ({columns}) SELECT {columns} FROM {staged} AS r WHERE {winner} AND NOT {there}", self.target());
        Ok(vec![Step { sql, tally: Tally::Inserted }])
    }

    fn upsert(&self) -> Result<Vec<Step>> {
        let staged = self.one()?;
        let mut steps = self.change_log_deletes(self.table, staged, &self.key())?;
        let winner = format!("{}{}", last_of_key(self.table, staged, "r"), self.not_deleted("r"));
        let found = exists(&self.target(), &self.match_key("t", "r"));
        steps.push(Step { sql: format!("SELECT count(*) FROM {staged} AS r WHERE {winner} AND {found}"), tally: Tally::Found });
        let columns = self.columns();
        let listed = columns.join(", ");
        // In the order of the key, so that the table's pages are visited once.
        let order = list(&self.table.key);
        let mut sql =
            format!("INSERT INTO {} ({listed}) SELECT {listed} FROM {staged} AS r WHERE {winner} ORDER BY {order}", self.target());
        if self.unique {
            let is_key = |column: &&String| self.table.key.iter().any(|k| quoted(k) == **column);
            let mut sets: Vec<String> = columns.iter().filter(|c| !is_key(c)).map(|c| format!("{c} = excluded.{c}")).collect();
            if self.has(system::DELETED_AT) {
                sets.push(format!("{} = NULL", quoted(system::DELETED_AT)));
            }
            let action = if sets.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {}", sets.join(", ")) };
            sql = format!("{sql} ON CONFLICT ({order}) DO {action}");
        } else {
            let old = format!("DELETE FROM {} WHERE {} IN (SELECT {order} FROM {staged} AS r WHERE {winner})", self.target(), self.key());
            steps.push(Step { sql: old, tally: Tally::None });
        }
        steps.push(Step { sql, tally: Tally::Upserted });
        if self.table.write == WriteMode::Mirror && !self.table.changes {
            steps.extend(self.remove(&format!("{} NOT IN (SELECT {order} FROM {staged})", self.key()))?);
        }
        Ok(steps)
    }

    /// The staged columns of rows that are there and hold other values.
    fn update(&self) -> Result<Vec<Step>> {
        let (staged, target) = (self.one()?, self.target());
        let winner = last_of_key(self.table, staged, "r");
        let current = if self.history { format!(" AND t.{} IS NULL", quoted(system::VALID_TO)) } else { String::new() };
        let found = format!("{}{current}", self.match_key("t", "r"));
        let is_key = |column: &&String| self.table.key.iter().any(|k| quoted(k) == **column);
        let columns = self.columns();
        let sets: Vec<String> = columns.iter().filter(|c| !is_key(c)).map(|c| format!("{c} = r.{c}")).collect();
        let missing = exists(&target, &found);
        Ok(vec![
            Step { sql: format!("SELECT count(*) FROM {staged} AS r WHERE {winner} AND NOT {missing}"), tally: Tally::Unmatched },
            Step {
                sql: format!(
                    "UPDATE {target} AS t SET {} FROM {staged} AS r WHERE {found} AND {winner} AND ({})",
                    sets.join(", "),
                    self.differs().unwrap_or_else(|| "0".to_owned())
                ),
                tally: Tally::Updated,
            },
        ])
    }

    /// The condition that a staged row `r` holds other values than the row `t` that is there; `None` where a row is nothing but its key.
    fn differs(&self) -> Option<String> {
        let data = self.table.data_columns().filter(|f| !self.table.key.contains(f.name()));
        let differs: Vec<String> = data.map(|f| format!("r.{0} IS NOT t.{0}", quoted(f.name()))).collect();
        (!differs.is_empty()).then(|| differs.join(" OR "))
    }

    fn replace_children(&self) -> Result<Vec<Step>> {
        let (parent, parents) = self.parent()?;
        let mut steps = self.change_log_deletes(parent, parents, &self.parent_key()?)?;
        let alive = if parent.changes { format!(" WHERE {}", last_alive(parent, parents, "p")) } else { String::new() };
        let (here, there) = (self.parent_key()?, self.parent_key_there()?);
        steps.push(Step {
            sql: format!("DELETE FROM {} WHERE {here} IN (SELECT {there} FROM {parents} AS p{alive})", self.target()),
            tally: Tally::Deleted,
        });
        let columns = self.columns().join(", ");
        steps.push(Step {
            sql: format!(
                "INSERT INTO {} ({columns}) SELECT {columns} FROM {} AS r WHERE {}",
                self.target(),
                self.one()?,
                self.child_winner("r")?
            ),
            tally: Tally::Inserted,
        });
        if self.table.write == WriteMode::Mirror && !parent.changes {
            steps.extend(self.remove_orphans()?);
        }
        Ok(steps)
    }

    /// Versions: a current one that has changed is closed, and what has no current one gets it.
    fn version(&self) -> Result<Vec<Step>> {
        let staged = self.one()?;
        let valid_to = quoted(system::VALID_TO);
        let (mut steps, winner) = match self.parent {
            None => {
                let winner = format!("{}{}", last_of_key(self.table, staged, "r"), self.not_deleted("r"));
                (self.change_log_deletes(self.table, staged, &self.key())?, winner)
            }
            Some((parent, parents)) => {
                let mut steps = self.change_log_deletes(parent, parents, &self.parent_key()?)?;
                let winner = self.child_winner("r")?;
                let (here, there) = (self.parent_key()?, self.parent_key_there()?);
                let (key, listed) = (self.key(), list(&self.table.key));
                let alive = last_alive(parent, parents, "p");
                steps.push(Step {
                    sql: format!(
                        "UPDATE {} SET {valid_to} = :at WHERE {valid_to} IS NULL AND {here} IN (SELECT {there} FROM {parents} AS p WHERE {alive}) \
                         AND {key} NOT IN (SELECT {listed} FROM {staged} AS r WHERE {winner})",
                        self.target()
                    ),
                    tally: Tally::Deleted,
                });
                (steps, winner)
            }
        };
        let current = format!("{} AND t.{valid_to} IS NULL", self.match_key("t", "r"));
        if let Some(differs) = self.differs() {
            steps.push(Step {
                sql: format!(
                    "UPDATE {} AS t SET {valid_to} = :at FROM {staged} AS r WHERE {current} AND {winner} AND ({differs})",
                    self.target()
                ),
                tally: Tally::Updated,
            });
        }
        let columns = self.columns().join(", ");
        steps.push(Step {
            sql: format!(
                "INSERT INTO {} ({columns}, {}) SELECT {columns}, :at FROM {staged} AS r WHERE {winner} AND NOT {}",
                self.target(),
                quoted(system::VALID_FROM),
                exists(&self.target(), &current)
            ),
            tally: Tally::Inserted,
        });
        Ok(steps)
    }

    /// What a change log takes away: everything that does not come again, at its last truncation, and the keys whose last change is a delete.
    /// `changes` are the staged changes of `of`, and `key` are this table's columns for the key of `of`.
    fn change_log_deletes(&self, of: &Table, changes: &str, key: &str) -> Result<Vec<Step>> {
        if !of.changes {
            return Ok(Vec::new());
        }
        let (op, listed) = (quoted(system::OP), list(&of.key));
        let alive = last_alive(of, changes, "r");
        let truncated = self.remove(&format!(
            "EXISTS (SELECT 1 FROM {changes} WHERE {op} = 't') AND {key} NOT IN (SELECT {listed} FROM {changes} AS r WHERE {alive})"
        ))?;
        let last = last_of_key(of, changes, "r");
        let deleted = self.remove(&format!("{key} IN (SELECT {listed} FROM {changes} AS r WHERE {last} AND r.{op} = 'd')"))?;
        Ok(truncated.into_iter().chain(deleted).collect())
    }

    /// Rows whose parent is not staged.
    fn remove_orphans(&self) -> Result<Option<Step>> {
        let (_, parents) = self.parent()?;
        self.remove(&format!("{} NOT IN (SELECT {} FROM {parents})", self.parent_key()?, self.parent_key_there()?))
    }

    /// What happens to rows that are gone at the source.
    fn remove(&self, condition: &str) -> Result<Option<Step>> {
        let target = self.target();
        let mut condition = condition.to_owned();
        if self.table.scope.is_some() {
            condition = format!("{condition} AND {}", self.in_scope()?);
        }
        let mark = |column: &str| {
            let column = quoted(column);
            format!("UPDATE {target} SET {column} = :at WHERE {column} IS NULL AND {condition}")
        };
        let sql = match self.table.deletes {
            Deletes::Ignore => return Ok(None),
            _ if self.history => mark(system::VALID_TO),
            Deletes::Soft => mark(system::DELETED_AT),
            Deletes::Hard => format!("DELETE FROM {target} WHERE {condition}"),
        };
        Ok(Some(Step { sql, tally: Tally::Deleted }))
    }

    fn target(&self) -> String {
        target(self.table)
    }

    /// The one relation that the mode matches by key.
    fn one(&self) -> Result<&str> {
        match self.staged {
            [one] => Ok(one),
            _ => Err(Error::internal("rows that are matched by key were not gathered")),
        }
    }

    fn parent(&self) -> Result<(&Table, &str)> {
        self.parent.ok_or_else(|| Error::internal("a child table without its parent"))
    }

    /// The staged columns that readers will see.
    fn columns(&self) -> Vec<String> {
        let staging = self.table.staging_schema();
        let names = staging.fields().iter().map(|f| f.name().as_str()).filter(|n| ![system::SEQ, system::OP].contains(n));
        names.map(quoted).collect()
    }

    fn has(&self, column: &str) -> bool {
        self.table.schema.field_with_name(column).is_ok()
    }

    fn key(&self) -> String {
        tuple(&self.table.key)
    }

    fn match_key(&self, left: &str, right: &str) -> String {
        matching(self.table.key.iter().map(|k| (k.as_str(), k.as_str())), left, right)
    }

    fn parent_key(&self) -> Result<String> {
        Ok(tuple(&self.ties()?.iter().map(|(here, _)| here.clone()).collect::<Vec<_>>()))
    }

    fn parent_key_there(&self) -> Result<String> {
        Ok(list(&self.ties()?.iter().map(|(_, there)| there.clone()).collect::<Vec<_>>()))
    }

    /// The parent's row `left` is the one of the child's row `right`.
    fn match_parent(&self, left: &str, right: &str) -> Result<String> {
        Ok(matching(self.ties()?.iter().map(|(here, there)| (there.as_str(), here.as_str())), left, right))
    }

    fn ties(&self) -> Result<&[(String, String)]> {
        let parent = self.table.parent.as_ref().ok_or_else(|| Error::internal("a child table without its parent"))?;
        Ok(&parent.columns)
    }

    /// The row belongs to the version of its parent that wins. Where there are several, the child carries the number of its own.
    fn child_winner(&self, row: &str) -> Result<String> {
        let (parent, parents) = self.parent()?;
        let (wins, rival) = match self.table.write {
            WriteMode::Insert => (first_of_key(parent, parents, "p"), no_other(parent, parents, "p", ">")),
            _ => (last_alive(parent, parents, "p"), no_other(parent, parents, "p", "<")),
        };
        let (seq, tie) = (quoted(system::SEQ), self.match_parent("p", row)?);
        Ok(format!("EXISTS (SELECT 1 FROM {parents} AS p WHERE {tie} AND {wins} AND (p.{seq} = {row}.{seq} OR {rival}))"))
    }

    fn not_deleted(&self, row: &str) -> String {
        if self.table.changes { format!(" AND {row}.{} <> 'd'", quoted(system::OP)) } else { String::new() }
    }

    fn in_scope(&self) -> Result<String> {
        let scope = self.table.scope.as_ref().ok_or_else(|| Error::internal("a scope that is not there"))?;
        let parent = self.table.parent.as_ref();
        let column = if self.has(&scope.column) {
            Some(&scope.column)
        } else {
            parent.and_then(|p| p.columns.iter().find(|(_, there)| *there == scope.column)).map(|(here, _)| here)
        };
        let column = column.ok_or_else(|| {
            Error::new(trib_core::Code::Unsupported, "the rows of a child table cannot be told apart by scope")
                .detail(self.table.name.to_string())
                .hint("give the stream a key, or keep nested columns as JSON")
        })?;
        let column = quoted(column);
        Ok(match &scope.rows {
            Rows::With(_) => format!("{column} = :scope"),
            Rows::Between { .. } => format!("{column} >= :from AND {column} < :until"),
            Rows::Staged if self.staged.is_empty() => "0".to_owned(),
            Rows::Staged => {
                let all: Vec<String> = self.staged.iter().map(|staged| format!("SELECT {column} FROM {staged}")).collect();
                let all = all.join(" UNION ALL ");
                format!("({column} IN ({all}) OR {column} IS NULL AND EXISTS (SELECT 1 FROM ({all}) WHERE {column} IS NULL))")
            }
        })
    }
}

fn target(table: &Table) -> String {
    format!("main.{}", quoted(&physical(&table.name)))
}

fn list(columns: &[String]) -> String {
    quoted_all(columns.iter().map(String::as_str))
}

/// What can be compared with the rows of a subquery.
fn tuple(columns: &[String]) -> String {
    if columns.len() == 1 { list(columns) } else { format!("({})", list(columns)) }
}

fn matching<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>, left: &str, right: &str) -> String {
    pairs.map(|(l, r)| format!("{left}.{} = {right}.{}", quoted(l), quoted(r))).collect::<Vec<_>>().join(" AND ")
}

fn exists(target: &str, condition: &str) -> String {
    format!("EXISTS (SELECT 1 FROM {target} AS t WHERE {condition})")
}

fn first_of_key(table: &Table, staged: &str, row: &str) -> String {
    no_other(table, staged, row, "<")
}

/// No later row of the load has the key, and no truncation came after it.
fn last_of_key(table: &Table, staged: &str, row: &str) -> String {
    let last = no_other(table, staged, row, ">");
    if !table.changes {
        return last;
    }
    let (seq, op) = (quoted(system::SEQ), quoted(system::OP));
    format!("{last} AND {row}.{op} <> 't' AND {row}.{seq} > coalesce((SELECT max({seq}) FROM {staged} WHERE {op} = 't'), {row}.{seq} - 1)")
}

fn last_alive(table: &Table, staged: &str, row: &str) -> String {
    let deleted = if table.changes { format!(" AND {row}.{} <> 'd'", quoted(system::OP)) } else { String::new() };
    format!("{}{deleted}", last_of_key(table, staged, row))
}

fn no_other(table: &Table, staged: &str, row: &str, than: &str) -> String {
    let same = matching(table.key.iter().map(|k| (k.as_str(), k.as_str())), "o", row);
    let seq = quoted(system::SEQ);
    format!("NOT EXISTS (SELECT 1 FROM {staged} AS o WHERE {same} AND o.{seq} {than} {row}.{seq})")
}
