//! The SQL that brings staged rows into a table that is there. Pure text: [`super::commit`] runs it.
//!
//! In all statements `t` is the table, `s` a staged row, with its columns already cast to the table's types.

use trib_core::load::{Deletes, Rows};
use trib_core::name::system;
use trib_core::{Load, Table, WriteMode};
use trib_kit::sql::{ANSI, literal};

use super::layout::{Filled, Layout, constant, loaded_at};
use super::pg_type::{Kind, PgType};
use super::target::Target;

/// A statement, and what its result counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub sql: String,
    pub counts: Counts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    Nothing,
    /// The rows that the statement touched.
    Inserted,
    Updated,
    Deleted,
    /// One row of two numbers: inserted and updated.
    Upserted,
    /// One number: rows that were deleted only to be inserted anew.
    Replaced,
    /// One number: staged rows that the table has no row for.
    Unmatched,
}

/// Everything that the statements are made of.
pub struct Merge<'a> {
    pub load: &'a Load,
    pub table: &'a Table,
    pub layout: &'a Layout,
    pub target: &'a Target,
    /// The table's name in SQL.
    pub into: String,
    /// The staging table's.
    pub from: String,
    /// The parent's table, staging table and key, where this table is a child whose parent has staged rows.
    pub parent: Option<ParentTables>,
}

#[derive(Clone, Debug)]
pub struct ParentTables {
    pub into: String,
    pub from: String,
    /// Parent rows carry the sequence, by which of several versions one wins.
    pub sequenced: bool,
}

impl Merge<'_> {
    pub fn steps(&self) -> Vec<Step> {
        match (self.table.write, &self.table.parent) {
            (WriteMode::Replace, _) => vec![self.clear(), self.insert_all()],
            (WriteMode::Append, _) => vec![self.insert_all()],
            (_, Some(_)) => self.children(),
            (WriteMode::Insert, None) => vec![self.insert_new()],
            (WriteMode::Upsert, None) => self.upsert(),
            (WriteMode::Mirror, None) => {
                let mut steps = self.upsert();
                if !self.table.changes {
                    steps.extend(self.remove_absent());
                }
                steps
            }
            (WriteMode::History, None) => self.history(),
            (WriteMode::Prune, None) => self.remove_absent().into_iter().collect(),
            (WriteMode::Update, None) => self.update(),
        }
    }

    fn clear(&self) -> Step {
        let sql = match (self.scope("t"), self.target.referenced) {
            (Some(scope), _) => format!("DELETE FROM {} t WHERE {scope}", self.into),
            // TRUNCATE refuses where foreign keys point at the table.
            (None, true) => format!("DELETE FROM {}", self.into),
            (None, false) => format!("TRUNCATE {}", self.into),
        };
        step(sql, Counts::Nothing)
    }

    fn insert_all(&self) -> Step {
        let only = if self.table.changes { format!(" WHERE {} IN ('i', 'u')", staged(system::OP)) } else { String::new() };
        step(
            format!("INSERT INTO {} ({}) SELECT {} FROM {} s{only}", self.into, self.columns(), self.values(), self.from),
            Counts::Inserted,
        )
    }

    /// One row per key, in the order of the key: an index takes sorted keys nearly twice as fast.
    fn winners(&self, last: bool) -> String {
        let key: Vec<String> = self.layout.key.iter().map(|k| self.value(k)).collect();
        let key = key.join(", ");
        let barrier = if self.table.changes {
            let (seq, op) = (ANSI.identifier(system::SEQ), ANSI.identifier(system::OP));
            format!(
                " WHERE s.{op} <> 't' AND s.{seq} > coalesce((SELECT max({seq}) FROM {} WHERE {op} = 't'), -9223372036854775808)",
                self.from
            )
        } else {
            String::new()
        };
        let order = if last { " DESC" } else { "" };
        format!("SELECT DISTINCT ON ({key}) s.* FROM {} s{barrier} ORDER BY {key}, s.{}{order}", self.from, ANSI.identifier(system::SEQ))
    }

    fn insert_new(&self) -> Step {
        let new = if self.target.is_unique(&self.layout.key) {
            format!(" ON CONFLICT ({}) DO NOTHING", self.key())
        } else {
            format!(" WHERE NOT EXISTS (SELECT FROM {} t WHERE {})", self.into, self.matched())
        };
        let sql = format!("INSERT INTO {} ({}) SELECT {} FROM ({}) s{new}", self.into, self.columns(), self.values(), self.winners(false));
        step(sql, Counts::Inserted)
    }

    fn upsert(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut live = String::new();
        if self.table.changes {
            steps.extend(self.barrier());
            let gone = format!("{} AND {} = 'd'", self.matched(), staged(system::OP));
            steps.extend(self.remove(&format!("({})", self.winners(true)), &gone));
            live = format!(" WHERE {} <> 'd'", staged(system::OP));
        }
        let select = format!("SELECT {} FROM ({}) s{live}", self.values(), self.winners(true));
        if self.target.is_unique(&self.layout.key) {
            let set: Vec<String> = self
                .layout
                .columns
                .iter()
                .filter(|c| !self.layout.key.contains(&c.name))
                .map(|c| format!("{0} = excluded.{0}", ANSI.identifier(&c.name)))
                .collect();
            let action = if set.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {}", set.join(", ")) };
            // The row is new when no transaction has ever replaced or locked it.
            steps.push(step(
                format!(
                    "WITH m AS (INSERT INTO {} AS t ({}) {select} ON CONFLICT ({}) DO {action} RETURNING xmax = 0 AS fresh) \
                     SELECT count(*) FILTER (WHERE fresh), count(*) FILTER (WHERE NOT fresh) FROM m",
                    self.into,
                    self.columns(),
                    self.key()
                ),
                Counts::Upserted,
            ));
        } else {
            steps.push(step(
                format!(
                    "WITH d AS (DELETE FROM {} t USING ({}) s WHERE {} RETURNING {}) SELECT count(DISTINCT d) FROM d",
                    self.into,
                    self.winners(true),
                    self.matched(),
                    self.layout.key.iter().map(|k| format!("t.{}", ANSI.identifier(k))).collect::<Vec<_>>().join(", ")
                ),
                Counts::Replaced,
            ));
            steps.push(step(format!("INSERT INTO {} ({}) {select}", self.into, self.columns()), Counts::Inserted));
        }
        steps
    }

    /// The staged columns of rows that are there and hold other values.
    fn update(&self) -> Vec<Step> {
        let set = self.layout.columns.iter().filter(|c| !self.layout.key.contains(&c.name));
        let set: Vec<String> = set.map(|c| format!("{} = {}", ANSI.identifier(&c.name), self.value(&c.name))).collect();
        let mut matched = self.matched();
        if self.target.type_of(system::VALID_TO).is_some() {
            matched = format!("t.{} IS NULL AND {matched}", ANSI.identifier(system::VALID_TO));
        }
        let (winners, into) = (self.winners(true), &self.into);
        vec![
            step(format!("SELECT count(*) FROM ({winners}) s WHERE NOT EXISTS (SELECT FROM {into} t WHERE {matched})"), Counts::Unmatched),
            step(
                format!("UPDATE {into} t SET {} FROM ({winners}) s WHERE {matched} AND ({})", set.join(", "), self.differs()),
                Counts::Updated,
            ),
        ]
    }

    /// The condition that a staged row holds other values than the one that is there.
    fn differs(&self) -> String {
        let data = self.table.data_columns().filter(|f| !self.layout.key.contains(f.name()));
        let differs = data.map(|f| {
            let name = ANSI.identifier(f.name());
            let compared = if has_equality(self.wanted(f.name())) { "" } else { "::text" };
            format!("t.{name}{compared} IS DISTINCT FROM ({}){compared}", self.value(f.name()))
        });
        let differs: Vec<String> = differs.collect();
        if differs.is_empty() { "false".to_owned() } else { differs.join(" OR ") }
    }

    /// Rows of the table whose key was not staged.
    fn remove_absent(&self) -> Option<Step> {
        let absent = format!("NOT EXISTS (SELECT FROM {} s WHERE {})", self.from, self.matched());
        let which = self.and_scope(&absent);
        let column = |name: &str| self.target.type_of(name).is_some();
        if column(system::VALID_TO) {
            let to = ANSI.identifier(system::VALID_TO);
            let sql = format!("UPDATE {} t SET {to} = {} WHERE t.{to} IS NULL AND {which}", self.into, loaded_at(self.load));
            return (self.table.deletes != Deletes::Ignore).then(|| step(sql, Counts::Deleted));
        }
        match self.table.deletes {
            Deletes::Ignore => None,
            Deletes::Hard => Some(step(format!("DELETE FROM {} t WHERE {which}", self.into), Counts::Deleted)),
            Deletes::Soft => {
                let at = ANSI.identifier(system::DELETED_AT);
                let sql = format!("UPDATE {} t SET {at} = {} WHERE t.{at} IS NULL AND {which}", self.into, loaded_at(self.load));
                Some(step(sql, Counts::Deleted))
            }
        }
    }

    /// Removes the rows that `s`, one of `source`, stands for.
    fn remove(&self, source: &str, which: &str) -> Option<Step> {
        match self.table.deletes {
            Deletes::Ignore => None,
            Deletes::Hard => Some(step(format!("DELETE FROM {} t USING {source} s WHERE {which}", self.into), Counts::Deleted)),
            Deletes::Soft => {
                let at = ANSI.identifier(system::DELETED_AT);
                let sql =
                    format!("UPDATE {} t SET {at} = {} FROM {source} s WHERE t.{at} IS NULL AND {which}", self.into, loaded_at(self.load));
                Some(step(sql, Counts::Deleted))
            }
        }
    }

    /// A truncate in the change log takes everything that was there before it.
    fn barrier(&self) -> Option<Step> {
        let was_truncated = format!("EXISTS (SELECT FROM {} s WHERE {} = 't')", self.from, staged(system::OP));
        let which = self.and_scope(&was_truncated);
        match self.table.deletes {
            Deletes::Ignore => None,
            Deletes::Hard => Some(step(format!("DELETE FROM {} t WHERE {which}", self.into), Counts::Deleted)),
            Deletes::Soft => {
                let at = ANSI.identifier(system::DELETED_AT);
                let sql = format!("UPDATE {} t SET {at} = {} WHERE t.{at} IS NULL AND {which}", self.into, loaded_at(self.load));
                Some(step(sql, Counts::Deleted))
            }
        }
    }

    /// A row that differs from its current version ends that version and begins the next; an equal one changes nothing.
    fn history(&self) -> Vec<Step> {
        let to = ANSI.identifier(system::VALID_TO);
        let end = loaded_at(self.load);
        let differs = self.differs();
        let winners = self.winners(true);
        let current = format!("t.{to} IS NULL AND {}", self.matched());
        let close = |which: &str, counts| {
            step(format!("UPDATE {} t SET {to} = {end} FROM ({winners}) s WHERE {current} AND {which}", self.into), counts)
        };
        let mut steps = Vec::new();
        let mut live = String::new();
        if self.table.changes {
            let truncated = format!("EXISTS (SELECT FROM {} s WHERE {} = 't')", self.from, staged(system::OP));
            let which = self.and_scope(&truncated);
            steps.push(step(format!("UPDATE {} t SET {to} = {end} WHERE t.{to} IS NULL AND {which}", self.into), Counts::Deleted));
            steps.push(close(&format!("{} = 'd'", staged(system::OP)), Counts::Deleted));
            live = format!("{} <> 'd' AND ", staged(system::OP));
        }
        steps.push(close(&format!("({differs})"), Counts::Updated));
        steps.push(step(
            format!(
                "INSERT INTO {} ({}) SELECT {} FROM ({winners}) s WHERE {live}NOT EXISTS (SELECT FROM {} t WHERE {current})",
                self.into,
                self.columns(),
                self.values(),
                self.into
            ),
            Counts::Inserted,
        ));
        steps
    }

    /// Child rows go and come with the rows that they belong to. A child row carries the sequence of its parent row, so that only
    /// the children of the version that won are taken.
    fn children(&self) -> Vec<Step> {
        let (Some(tie), Some(parent)) = (&self.table.parent, &self.parent) else {
            return Vec::new();
        };
        let tied = |child: &str, other: &str, cast: bool| -> String {
            let pairs = tie.columns.iter().map(|(c, p)| {
                let value = if cast { self.value(c) } else { format!("{child}.{}", ANSI.identifier(c)) };
                format!("{value} = {other}.{}", ANSI.identifier(p))
            });
            pairs.collect::<Vec<_>>().join(" AND ")
        };
        let insert_only = self.table.write == WriteMode::Insert;
        let mut which = Vec::new();
        if parent.sequenced {
            let keys = ANSI.identifiers(tie.columns.iter().map(|(_, p)| p.as_str()));
            let seq = ANSI.identifier(system::SEQ);
            let winner = if insert_only { "min" } else { "max" };
            which.push(format!(
                "EXISTS (SELECT FROM (SELECT {keys}, {winner}({seq}) AS w FROM {} GROUP BY {keys}) p WHERE p.w = s.{seq} AND {})",
                parent.from,
                tied("s", "p", false)
            ));
        }
        let mut steps = Vec::new();
        if insert_only {
            // Only parents that this load has brought: those that were there keep their children.
            let brought = format!("p.{} = {}", ANSI.identifier(system::LOAD_ID), literal(&self.load.id.0));
            which.push(format!("EXISTS (SELECT FROM {} p WHERE {brought} AND {})", parent.into, tied("s", "p", true)));
        } else {
            let staged_parent = format!("EXISTS (SELECT FROM {} p WHERE {})", parent.from, tied("t", "p", false));
            steps.push(step(format!("DELETE FROM {} t WHERE {staged_parent}", self.into), Counts::Deleted));
        }
        let condition = if which.is_empty() { String::new() } else { format!(" WHERE {}", which.join(" AND ")) };
        steps.push(step(
            format!("INSERT INTO {} ({}) SELECT {} FROM {} s{condition}", self.into, self.columns(), self.values(), self.from),
            Counts::Inserted,
        ));
        if self.table.deletes == Deletes::Hard && (self.table.write == WriteMode::Mirror || self.table.changes) {
            let orphan = format!("NOT EXISTS (SELECT FROM {} p WHERE {})", parent.into, tied("t", "p", false));
            steps.push(step(format!("DELETE FROM {} t WHERE {}", self.into, self.and_scope(&orphan)), Counts::Deleted));
        }
        steps
    }

    fn columns(&self) -> String {
        ANSI.identifiers(self.layout.columns.iter().map(|c| c.name.as_str()))
    }

    fn values(&self) -> String {
        self.layout.columns.iter().map(|c| self.value(&c.name)).collect::<Vec<_>>().join(", ")
    }

    fn key(&self) -> String {
        ANSI.identifiers(self.layout.key.iter().map(String::as_str))
    }

    fn matched(&self) -> String {
        self.layout.key.iter().map(|k| format!("t.{} = {}", ANSI.identifier(k), self.value(k))).collect::<Vec<_>>().join(" AND ")
    }

    /// A column's value as the table wants it.
    fn value(&self, name: &str) -> String {
        let column = self.layout.columns.iter().find(|c| c.name == name);
        let Some(column) = column else { return staged(name) };
        let wanted = self.wanted(name);
        match &column.filled {
            Filled::Staged { staged: t, .. } if t.name == wanted => staged(name),
            Filled::Staged { .. } => format!("{}::{wanted}", staged(name)),
            Filled::ByCommit { .. } => format!("{}::{wanted}", constant(name, self.load)),
        }
    }

    fn wanted(&self, name: &str) -> &str {
        let declared = self.layout.columns.iter().find(|c| c.name == name).map(|c| c.wanted().name.as_str());
        self.target.type_of(name).or(declared).unwrap_or("text")
    }

    fn scope(&self, row: &str) -> Option<String> {
        let scope = self.table.scope.as_ref()?;
        let column = format!("{row}.{}", ANSI.identifier(&scope.column));
        Some(match &scope.rows {
            Rows::With(value) => format!("{column} = {}", literal(value)),
            Rows::Between { from, until } => format!("{column} >= {} AND {column} < {}", literal(from), literal(until)),
            Rows::Staged => {
                let (value, from) = (self.value(&scope.column), &self.from);
                let null = format!("{column} IS NULL AND EXISTS (SELECT 1 FROM {from} s WHERE {value} IS NULL)");
                format!("({column} IN (SELECT {value} FROM {from} s) OR {null})")
            }
        })
    }

    fn and_scope(&self, condition: &str) -> String {
        match self.scope("t") {
            Some(scope) => format!("{scope} AND {condition}"),
            None => condition.to_owned(),
        }
    }
}

fn staged(name: &str) -> String {
    format!("s.{}", ANSI.identifier(name))
}

fn step(sql: String, counts: Counts) -> Step {
    Step { sql, counts }
}

/// Types without `=` are compared by their text.
fn has_equality(type_name: &str) -> bool {
    let t = PgType::parse(type_name);
    match t.kind {
        Kind::Json => false,
        Kind::Spelled => ["inet", "cidr", "macaddr", "macaddr8", "bit", "bit varying", "money"].contains(&type_name),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};
    use trib_core::load::RowScope;
    use trib_core::{LoadId, State, TableName};

    use super::super::target::TargetColumn;
    use super::*;

    fn statements(change: impl Fn(&mut Table), unique: bool) -> Vec<String> {
        let fields = vec![Field::new("id", DataType::Int64, false), Field::new("v", DataType::Utf8, true)];
        let mut table = Table {
            name: TableName::parse("t"),
            schema: Arc::new(Schema::new(fields)),
            key: vec!["id".into()],
            write: WriteMode::Upsert,
            deletes: Deletes::Hard,
            scope: None,
            parent: None,
            partition_by: vec![],
            changes: false,
        };
        change(&mut table);
        let load = Load {
            id: LoadId("l".into()),
            scope: "s".into(),
            number: 1,
            tables: vec![],
            state: State::default(),
            filled: Vec::new(),
            made_from: None,
            loaded_at: chrono::DateTime::UNIX_EPOCH,
        };
        let column = |name: &str, t: &str| TargetColumn { name: name.into(), type_name: t.into(), base_type: t.into(), nullable: true };
        let target = Target {
            columns: vec![column("id", "bigint"), column("v", "mood")],
            key: vec![],
            unique: if unique { vec![vec!["id".into()]] } else { vec![] },
            stands_alone: true,
            referenced: false,
            dress: vec![],
        };
        let layout = Layout::of(&table).unwrap();
        let merge =
            Merge { load: &load, table: &table, layout: &layout, target: &target, into: "t".into(), from: "n".into(), parent: None };
        merge.steps().into_iter().map(|step| step.sql).collect()
    }

    #[test]
    fn an_upsert_goes_in_the_order_of_the_key() {
        assert_eq!(
            statements(|_| {}, true),
            [
                "WITH m AS (INSERT INTO t AS t (\"id\", \"v\") SELECT s.\"id\", s.\"v\"::mood FROM (SELECT DISTINCT ON (s.\"id\") s.* FROM n s \
              ORDER BY s.\"id\", s.\"_trib_seq\" DESC) s ON CONFLICT (\"id\") DO UPDATE SET \"v\" = excluded.\"v\" RETURNING xmax = 0 AS fresh) \
              SELECT count(*) FILTER (WHERE fresh), count(*) FILTER (WHERE NOT fresh) FROM m"
            ]
        );
        let without_index = statements(|_| {}, false);
        assert!(without_index[0].starts_with("WITH d AS (DELETE FROM t t USING ("), "{without_index:?}");
        assert!(without_index[1].starts_with("INSERT INTO t ("), "{without_index:?}");
    }

    #[test]
    fn a_replace_empties_no_more_than_its_scope() {
        let replaced = |scope: Option<RowScope>| {
            let change = move |table: &mut Table| {
                table.write = WriteMode::Replace;
                table.scope.clone_from(&scope);
            };
            statements(change, true)[0].clone()
        };
        assert_eq!(replaced(None), "TRUNCATE t");
        assert_eq!(replaced(Some(RowScope::with("v", "it's"))), "DELETE FROM t t WHERE t.\"v\" = 'it''s'");
        let of = |rows| Some(RowScope { column: "v".into(), rows });
        assert_eq!(
            replaced(of(Rows::Between { from: "2024-01-01".into(), until: "2024-02-01".into() })),
            "DELETE FROM t t WHERE t.\"v\" >= '2024-01-01' AND t.\"v\" < '2024-02-01'"
        );
        assert_eq!(
            replaced(of(Rows::Staged)),
            "DELETE FROM t t WHERE (t.\"v\" IN (SELECT s.\"v\"::mood FROM n s) \
             OR t.\"v\" IS NULL AND EXISTS (SELECT 1 FROM n s WHERE s.\"v\"::mood IS NULL))"
        );
    }
}
