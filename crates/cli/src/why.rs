//! One row's way: the load that brought it, the rows that it was made from, and those that were made from it.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::DataType;
use futures::future::LocalBoxFuture;
use serde::Serialize;
use serde_json::{Map, Value};
use trib_core::name::system;
use trib_core::{Code, Error};
use trib_engine::check::{Failing, count};
use trib_engine::lineage::Step;
use trib_project::data_test::{ident, quoted};
use trib_store::{Published, Store};

use crate::app::Session;
use crate::assemble::identity;
use crate::exit::Result;
use crate::lineage::{ColumnName, KnownTable, Lineage};

/// Rows of one table that are shown.
const ROWS: usize = 3;

/// Columns and the text of the value that they have.
pub type Values = BTreeMap<String, String>;

/// Rows of one table or stream, and what stands behind them.
#[derive(Debug, Serialize)]
pub struct Found {
    pub table: String,
    pub node: Option<String>,
    /// What was asked for.
    pub wanted: Values,
    pub count: u64,
    /// The first of them, our own columns left out.
    pub rows: Vec<Map<String, Value>>,
    /// The loads that brought these.
    pub loads: Vec<Published>,
    /// Rows with these values that were rejected on their way here, with the reason.
    pub rejected: Vec<String>,
    /// Why nothing more can be said.
    pub note: Option<String>,
    pub next: Vec<Found>,
}

/// The row itself, with what it comes from below it, and what comes from it.
pub struct Why {
    pub upstream: Found,
    pub downstream: Vec<Found>,
}

pub struct Tracer<'a> {
    session: &'a Session,
    lineage: Lineage,
    rejected: Vec<(String, String, Map<String, Value>)>,
}

impl<'a> Tracer<'a> {
    pub async fn new(session: &'a Session) -> Result<Self> {
        let store = session.store().await?;
        let lineage = Lineage::of(session).await?;
        Ok(Self { session, lineage, rejected: rejected(store).await? })
    }

    pub fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    pub fn table(&self, name: &str) -> Option<&KnownTable> {
        self.lineage.tables.iter().find(|t| t.name == name)
    }

    pub async fn why(&self, table: &KnownTable, wanted: &Values) -> Result<Why> {
        let upstream = self.trace(table, wanted.clone(), true, BTreeSet::new()).await?;
        let downstream = self.trace(table, wanted.clone(), false, BTreeSet::new()).await?.next;
        Ok(Why { upstream, downstream })
    }

    fn trace<'b>(
        &'b self,
        table: &'b KnownTable,
        wanted: Values,
        up: bool,
        mut seen: BTreeSet<String>,
    ) -> LocalBoxFuture<'b, Result<Found>> {
        Box::pin(async move {
            let mut found = self.rows(table, wanted).await?;
            if !seen.insert(table.name.clone()) || found.count == 0 {
                return Ok(found);
            }
            let beside: Vec<String> = if up {
                table.reads.iter().cloned().collect()
            } else {
                self.lineage.tables.iter().filter(|t| t.reads.contains(&table.name)).map(|t| t.name.clone()).collect()
            };
            for other in beside {
                let there = self.carried(table, &other, &found, up);
                let next = match self.table(&other) {
                    Some(known) if !there.is_empty() => self.trace(known, there, up, seen.clone()).await?,
                    known => end(&other, known, there, up),
                };
                found.next.push(next);
            }
            Ok(found)
        })
    }

    /// What is known of another table's rows: columns whose values stood as they are on the way, and all rows found have the same.
    fn carried(&self, table: &KnownTable, other: &str, found: &Found, up: bool) -> Values {
        let mut values = Values::new();
        for edge in self.lineage.edges.iter().filter(|e| e.how == Step::Identity) {
            let (here, there): (&ColumnName, &ColumnName) = if up { (&edge.to, &edge.from) } else { (&edge.from, &edge.to) };
            if here.table != table.name || there.table != other {
                continue;
            }
            let exact = |t: &KnownTable, column: &str| t.columns.iter().any(|(name, t)| name == column && compares(t));
            if !exact(table, &here.column) {
                continue;
            }
            let mut all = found.rows.iter().map(|row| row.get(&here.column).and_then(text));
            let Some(Some(first)) = all.next() else { continue };
            // Downstream only what was asked for tells rows apart; the rest may have been grouped away.
            let is_wanted = up || found.wanted.contains_key(&here.column);
            if is_wanted && found.count as usize <= found.rows.len() && all.all(|v| v.as_ref() == Some(&first)) {
                values.insert(there.column.clone(), first);
            }
        }
        values
    }

    async fn rows(&self, table: &KnownTable, wanted: Values) -> Result<Found> {
        let mut found = Found {
            table: table.name.clone(),
            node: Some(table.node.clone()),
            wanted,
            count: 0,
            rows: Vec::new(),
            loads: Vec::new(),
            rejected: Vec::new(),
            note: None,
            next: Vec::new(),
        };
        found.rejected = self.refused(table, &found.wanted);
        let asked = if table.delivered.is_empty() { self.ask(table, &found.wanted).await } else { self.sent(table, &found.wanted).await };
        let rows = match asked {
            Ok(rows) => rows,
            Err(failure) => {
                found.note = failure.0.first().map(ToString::to_string);
                return Ok(found);
            }
        };
        found.count = rows.count;
        if found.count == 0 && !table.delivered.is_empty() {
            found.note = Some(if found.rejected.is_empty() { "no record of it was delivered" } else { "it is not delivered" }.to_owned());
        }
        let mut loads = BTreeSet::new();
        for row in rows.rows.into_iter().filter_map(|row| if let Value::Object(row) = row { Some(row) } else { None }) {
            loads.extend(row.get(system::LOAD_ID).and_then(Value::as_str).map(str::to_owned));
            let kept = [system::VALID_FROM, system::VALID_TO, system::DELETED_AT];
            let shown = |name: &String| !name.starts_with(system::PREFIX) || kept.contains(&name.as_str());
            found.rows.push(
                row.into_iter().filter(|(name, value)| shown(name) && (!value.is_null() || !kept.contains(&name.as_str()))).collect(),
            );
        }
        found.loads = self.published(table, &loads).await?;
        Ok(found)
    }

    /// What is known of the loads. One of another environment has come by a promotion, which follows it.
    async fn published(&self, table: &KnownTable, loads: &BTreeSet<String>) -> Result<Vec<Published>> {
        let store = self.session.store().await?;
        let mut published = Vec::new();
        for load in loads {
            published.extend(store.published(load).await?);
        }
        if published.len() < loads.len() || published.iter().any(|load| load.environment != store.environment()) {
            published.extend(store.promoted(&identity(self.session.project()?, &table.node, "")).await?);
        }
        Ok(published)
    }

    /// The records of an object, as the lake has noted them.
    async fn sent(&self, table: &KnownTable, wanted: &Values) -> Result<Failing> {
        let wanted: Vec<(&str, &str)> = wanted.iter().map(|(column, value)| (column.as_str(), value.as_str())).collect();
        let mut all: Option<Failing> = None;
        for delivered in &table.delivered {
            if let Some(found) = delivered.records(self.session, &wanted, ROWS).await? {
                let all = all.get_or_insert_default();
                all.count += found.count;
                all.rows.extend(found.rows);
            }
        }
        Ok(all.ok_or_else(|| Error::new(Code::Unsupported, "of a record that was delivered only its key is noted"))?)
    }

    async fn ask(&self, table: &KnownTable, wanted: &Values) -> Result<Failing> {
        let equal = |(column, value): (&String, &String)| format!("cast({} as text) = '{}'", ident(column), value.replace('\'', "''"));
        let condition = wanted.iter().map(equal).collect::<Vec<_>>().join(" and ");
        let rows = match self.session.queries(&table.connection).await? {
            Some(queries) => queries.rows(&format!("select * from {} where {condition}", quoted(&table.logical))).await?.1,
            None => {
                let destination = self.session.destination(&table.connection)?;
                let engine = destination.sql().ok_or_else(|| {
                    Error::new(Code::Unsupported, "rows of this connection cannot be looked at").connection(&table.connection)
                })?;
                let name = engine.table(&self.session.project()?.environment.physical(&table.logical));
                engine.query(&format!("select * from {name} where {condition}")).await?
            }
        };
        Ok(count(rows, ROWS).await?)
    }

    fn refused(&self, table: &KnownTable, wanted: &Values) -> Vec<String> {
        let of_node = |sync: &str| sync.split(':').nth(2).is_some_and(|node| table.is_made_by(node));
        let meant = |row: &Map<String, Value>| wanted.iter().all(|(column, value)| row.get(column).and_then(text).as_ref() == Some(value));
        let rows = self.rejected.iter().filter(|(sync, _, row)| of_node(sync) && !wanted.is_empty() && meant(row));
        rows.map(|(_, reason, _)| reason.clone()).take(ROWS).collect()
    }
}

/// Where the way ends: at a source, or where no value of the row says which rows are meant.
fn end(name: &str, known: Option<&KnownTable>, wanted: Values, up: bool) -> Found {
    let note = match (known, up) {
        (Some(_), true) => "no value of the row stands there as it is, so which of its rows went in cannot be told",
        (Some(_), false) => "no value of the row stands there as it is, so which of its rows came from it cannot be told",
        (None, _) => "the source",
    };
    Found {
        table: name.to_owned(),
        node: known.map(|k| k.node.clone()),
        wanted,
        count: 0,
        rows: Vec::new(),
        loads: Vec::new(),
        rejected: Vec::new(),
        note: Some(note.to_owned()),
        next: Vec::new(),
    }
}

/// Types whose values look the same in a row that is shown and as text in SQL.
fn compares(data_type: &DataType) -> bool {
    data_type.is_integer() || matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Date32)
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

async fn rejected(store: &Store) -> Result<Vec<(String, String, Map<String, Value>)>> {
    let rows = table(store, "rejected").await?;
    let one = |row: &Map<String, Value>| {
        let word = |key: &str| row.get(key).and_then(Value::as_str);
        Some((word("sync")?.to_owned(), word("reason")?.to_owned(), serde_json::from_str(word("row_json")?).ok()?))
    };
    Ok(rows.iter().filter_map(one).collect())
}

/// A table of the control database as objects.
async fn table(store: &Store, name: &str) -> Result<Vec<Map<String, Value>>> {
    let rows = store.rows(name).await?;
    let names: Vec<&str> = rows.columns.iter().map(|c| c.name).collect();
    Ok(rows.rows.into_iter().map(|row| names.iter().map(|n| (*n).to_owned()).zip(row).collect()).collect())
}
