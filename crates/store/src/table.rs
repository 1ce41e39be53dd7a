//! The control database as tables to query: `_trib.runs` and its siblings.

use serde_json::Value;
use sqlx::AssertSqlSafe;
use trib_core::error::closest;
use trib_core::{Code, Error, Result};

use crate::Store;
use crate::database::{failed, maybe};

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Integer,
    /// RFC 3339 in UTC with microseconds.
    Timestamp,
    /// Text that is one JSON value.
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    pub kind: Kind,
}

/// A table's columns and rows. Values are JSON strings, numbers and nulls.
#[derive(Clone, Debug)]
pub struct Rows {
    pub columns: &'static [Column],
    pub rows: Vec<Vec<Value>>,
}

/// A table as users see it.
struct Shown {
    name: &'static str,
    /// The table behind it.
    from: &'static str,
    /// The first one orders the rows.
    columns: &'static [Column],
}

const fn text(name: &'static str) -> Column {
    Column { name, kind: Kind::Text }
}

const fn integer(name: &'static str) -> Column {
    Column { name, kind: Kind::Integer }
}

const fn time(name: &'static str) -> Column {
    Column { name, kind: Kind::Timestamp }
}

const fn json(name: &'static str) -> Column {
    Column { name, kind: Kind::Json }
}

const SHOWN: &[Shown] = &[
    Shown {
        name: "runs",
        from: "trib_runs",
        columns: &[
            text("id"),
            text("command"),
            json("selection"),
            text("project_version"),
            text("job"),
            text("holder"),
            text("status"),
            json("error"),
            time("started_at"),
            time("seen_at"),
            time("finished_at"),
            time("cancel_requested_at"),
            text("approved_by"),
            time("approved_at"),
        ],
    },
    Shown {
        name: "streams",
        from: "trib_run_streams",
        columns: &[
            text("run"),
            text("sync"),
            text("stream"),
            text("status"),
            integer("rows_read"),
            integer("rows_written"),
            integer("rows_updated"),
            integer("rows_deleted"),
            integer("rows_rejected"),
            integer("bytes"),
            json("from_state"),
            json("to_state"),
            json("schema_changes"),
            json("error"),
            time("started_at"),
            time("finished_at"),
        ],
    },
    Shown {
        name: "loads",
        from: "trib_loads",
        columns: &[
            text("load"),
            text("sync"),
            text("scope"),
            integer("number"),
            integer("generation"),
            text("run"),
            integer("rows"),
            json("outcome"),
            json("from_state"),
            json("to_state"),
            time("committed_at"),
        ],
    },
    Shown {
        name: "state",
        from: "trib_scopes",
        columns: &[
            text("sync"),
            text("scope"),
            integer("number"),
            text("load"),
            json("state"),
            time("staged_at"),
            time("pruned_at"),
            time("updated_at"),
        ],
    },
    Shown {
        name: "rejected",
        from: "trib_rejected",
        columns: &[
            integer("id"),
            text("run"),
            text("sync"),
            text("scope"),
            text("load"),
            text("place"),
            text("reason"),
            json("row_json"),
            text("status"),
            time("rejected_at"),
            text("retried_by"),
            time("retried_at"),
        ],
    },
    Shown {
        name: "schema_changes",
        from: "trib_schema_changes",
        columns: &[
            integer("id"),
            text("run"),
            text("sync"),
            text("scope"),
            text("load"),
            text("table_name"),
            json("change"),
            text("description"),
            time("changed_at"),
        ],
    },
    Shown {
        name: "logs",
        from: "trib_logs",
        columns: &[
            integer("id"),
            text("run"),
            time("logged_at"),
            text("level"),
            text("sync"),
            text("stream"),
            text("message"),
            json("fields"),
        ],
    },
    Shown {
        name: "leases",
        from: "trib_leases",
        columns: &[text("sync"), integer("generation"), text("holder"), time("since"), time("renewed_at"), time("expires_at")],
    },
    Shown {
        name: "tests",
        from: "trib_tests",
        columns: &[
            integer("id"),
            text("run"),
            text("node"),
            text("stream"),
            text("test"),
            text("severity"),
            text("status"),
            integer("failures"),
            json("failing_rows"),
            text("published"),
            json("measured"),
            json("error"),
            time("tested_at"),
        ],
    },
    Shown { name: "paused", from: "trib_paused", columns: &[text("node"), text("paused_by"), text("reason"), time("paused_at")] },
];

impl Store {
    /// The tables that [`Store::rows`] gives.
    pub fn tables() -> impl Iterator<Item = &'static str> {
        SHOWN.iter().map(|s| s.name)
    }

    /// A table's columns, without reading it.
    pub fn columns(table: &str) -> Result<&'static [Column]> {
        Ok(shown(table)?.columns)
    }

    /// A whole table as it is now, this environment's rows only. Rows that were rejected by loads not committed are left out.
    pub async fn rows(&self, table: &str) -> Result<Rows> {
        let Shown { from, columns, .. } = shown(table)?;
        // As text in both databases, so that one way of decoding serves all columns.
        let list: Vec<String> = columns.iter().map(|c| format!("cast({} as text)", c.name)).collect();
        let committed = if table == "rejected" { " and status <> 'staged'" } else { "" };
        let order = columns.first().map_or("environment", |c| c.name);
        let sql = format!("select {} from {from} where environment = $1{committed} order by {from}.{order}", list.join(", "));
        let found = sqlx::query(AssertSqlSafe(sql)).bind(self.environment.as_str()).fetch_all(&self.database.pool).await.map_err(failed)?;
        let mut rows = Vec::with_capacity(found.len());
        for row in &found {
            let mut values = Vec::with_capacity(columns.len());
            for (at, column) in columns.iter().enumerate() {
                values.push(match (maybe(row, at)?, column.kind) {
                    (None, _) => Value::Null,
                    (Some(text), Kind::Integer) => text.parse::<i64>().map_or(Value::Null, Value::from),
                    (Some(text), _) => Value::String(text),
                });
            }
            rows.push(values);
        }
        Ok(Rows { columns, rows })
    }
}

fn shown(table: &str) -> Result<&'static Shown> {
    SHOWN.iter().find(|s| s.name == table).ok_or_else(|| {
        let error = Error::new(Code::NotFound, "the control database has no such table").detail(format!("_trib.{table}"));
        match closest(table, Store::tables()) {
            Some(near) => error.hint(format!("did you mean _trib.{near}?")),
            None => error.hint(format!("it has {}", Store::tables().collect::<Vec<_>>().join(", "))),
        }
    })
}
