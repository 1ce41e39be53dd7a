//! What a delivery has to send: the rows of a table or model that differ from what was delivered last.
//!
//! What was delivered is a table of the lake, the *ledger*: for each key a fingerprint of every mapped field. A delivery reads the full outer
//! join of both, sorted by key, so that it spills instead of growing with the tables. Its rows carry [`column`]s that say what they change.

use std::fmt::Write;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use trib_core::TableName;
use trib_core::delivery::{Change, LookUps, Operation, column};

use crate::field_hash;

/// Fingerprints are columns of the ledger under this prefix and the field's name.
pub const HASH: &str = "h_";
/// The record is gone at the API, or emptied, or put away.
pub const GONE: &str = "_gone";
/// Rows that cannot be sent: a second row of one key, and a row without a key.
const DUPLICATE: &str = "duplicate";
const KEYLESS: &str = "keyless";
/// The ledger's name in the query.
pub const LEDGER: &str = "_trib_ledger";

/// One table or model going to one object.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// As people call it: `sync/stream`.
    pub node: String,
    pub stream: String,
    /// The connection that it goes to, and the object there.
    pub connection: String,
    pub object: String,
    /// As queries name it.
    pub table: TableName,
    /// Fields that identify a record, each with the SQL expression of its value.
    pub key: Vec<(String, String)>,
    /// The other fields.
    pub map: Vec<(String, String)>,
    pub operations: Operations,
    /// Rows are sent whether they differ or not.
    pub resend: bool,
    /// NULL is not sent, so it is no difference.
    pub skip_empty: bool,
    /// What has to be asked of the API for each row.
    pub look_ups: LookUps,
    /// Where it is noted what was delivered.
    pub ledger: TableName,
}

/// What is asked of the API for each kind of change; `None`: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    pub created: Option<Operation>,
    pub updated: Option<Operation>,
    /// For records whose row is gone.
    pub deleted: Option<Operation>,
    /// The rows name what is to be deleted: a row is a delete, and a row that is gone is nothing.
    pub rows_delete: bool,
}

impl Delivery {
    /// All fields, those of the key first.
    pub fn fields(&self) -> impl Iterator<Item = &(String, String)> {
        self.key.iter().chain(&self.map)
    }

    /// The rows of the table under the object's names.
    pub fn model_sql(&self) -> String {
        let fields = self.fields().map(|(name, sql)| format!("{sql} as {}", ident(name))).collect::<Vec<_>>().join(", ");
        format!("select {fields} from {}", table(&self.table))
    }

    /// The query that gives the delivery's rows. `ledger` are the ledger's columns, where there is one.
    pub fn changes_sql(&self, ledger: Option<&Schema>) -> String {
        let keys: Vec<String> = self.key.iter().map(|(name, _)| ident(name)).collect();
        let numbered = format!("select *, row_number() over (partition by {}) as \"_n\" from \"_rows\"", keys.join(", "));
        let change = self.change(ledger);
        let mut columns: Vec<String> = Vec::new();
        for (i, (name, _)) in self.fields().enumerate() {
            let name = ident(name);
            let is_key = i < keys.len() && ledger.is_some();
            columns.push(if is_key { format!("coalesce(m.{name}, l.{name}) as {name}") } else { format!("m.{name} as {name}") });
        }
        columns.push(format!("{change} as {}", ident(column::CHANGE)));
        columns.push(format!("{} as {}", self.changed(ledger), ident(column::CHANGED)));
        let remote = if ledger.is_some() { "l.\"_remote_id\"" } else { "cast(null as varchar)" };
        columns.push(format!("{remote} as {}", ident(column::REMOTE_ID)));
        let from = match ledger {
            None => "\"_model\" as m".to_owned(),
            Some(_) => {
                let same = keys.iter().map(|k| format!("m.{k} = l.{k}")).collect::<Vec<_>>().join(" and ");
                format!("\"_model\" as m full outer join {} as l on {same}", ident(LEDGER))
            }
        };
        let mut operation = format!("case {}", ident(column::CHANGE));
        let mut wanted = vec![DUPLICATE, KEYLESS];
        for (change, asked) in [
            (Change::Created, self.operations.created),
            (Change::Updated, self.operations.updated),
            (Change::Deleted, self.operations.deleted),
        ] {
            if let Some(asked) = asked {
                wanted.push(change.as_str());
                let _ = write!(operation, " when '{}' then '{}'", change.as_str(), asked.as_str());
            }
        }
        operation.push_str(if wanted.len() > 2 { " end" } else { " when '' then '' end" });
        let wanted = wanted.iter().map(|w| format!("'{w}'")).collect::<Vec<_>>().join(", ");
        let names = self.fields().map(|(name, _)| ident(name)).collect::<Vec<_>>().join(", ");
        let look_ups = match serde_json::to_string(&self.look_ups) {
            Ok(json) if !self.look_ups.is_empty() => format!("'{}' as {}, ", json.replace('\'', "''"), ident(column::LOOK_UPS)),
            _ => String::new(),
        };
        format!(
            "with \"_rows\" as ({}), \"_model\" as ({numbered}), \"_changes\" as (select {} from {from}) \
             select {names}, {look_ups}{operation} as {}, {}, {}, {} from \"_changes\" where {} in ({wanted})",
            self.model_sql(),
            columns.join(", "),
            ident(column::OPERATION),
            ident(column::CHANGE),
            ident(column::CHANGED),
            ident(column::REMOTE_ID),
            ident(column::CHANGE),
        )
    }

    /// The kind of change that a joined row is; NULL when it is none.
    fn change(&self, ledger: Option<&Schema>) -> String {
        let (created, updated, deleted) = (Change::Created.as_str(), Change::Updated.as_str(), Change::Deleted.as_str());
        let first = self.key.first().map(|(name, _)| ident(name)).unwrap_or_default();
        let keyless = self.key.iter().map(|(name, _)| format!("m.{} is null", ident(name))).collect::<Vec<_>>().join(" or ");
        let unfit = format!("when m.\"_n\" is not null and ({keyless}) then '{KEYLESS}' when m.\"_n\" > 1 then '{DUPLICATE}'");
        let row = if self.operations.rows_delete { deleted } else { created };
        let Some(ledger) = ledger else {
            return format!("case {unfit} else '{row}' end");
        };
        let fresh = format!("l.{first} is null or l.{}", ident(GONE));
        if self.operations.rows_delete {
            return format!("case {unfit} when m.\"_n\" is not null and (l.{first} is null or not l.{}) then '{row}' end", ident(GONE));
        }
        let differs = if self.resend {
            "true".to_owned()
        } else {
            let each = self.map.iter().map(|(name, _)| self.differs(name, ledger)).collect::<Vec<_>>().join(" or ");
            if each.is_empty() { "false".to_owned() } else { each }
        };
        format!(
            "case {unfit} when m.\"_n\" is null and l.{} then null when m.\"_n\" is null then '{deleted}' when {fresh} then '{row}' \
             when {differs} then '{updated}' end",
            ident(GONE)
        )
    }

    fn differs(&self, field: &str, ledger: &Schema) -> String {
        let (now, then) = (format!("m.{}", ident(field)), ident(&format!("{HASH}{field}")));
        let differs = match ledger.field_with_name(&format!("{HASH}{field}")) {
            Ok(_) => format!("{}({now}) is distinct from l.{then}", field_hash::NAME),
            // A field that was never sent.
            Err(_) => "true".to_owned(),
        };
        if self.skip_empty { format!("({now} is not null and {differs})") } else { format!("({differs})") }
    }

    /// The names of the fields that differ; NULL for a row that is new.
    fn changed(&self, ledger: Option<&Schema>) -> String {
        let Some(ledger) = ledger else { return "cast(null as varchar)".to_owned() };
        let names: Vec<String> = self
            .map
            .iter()
            .map(|(name, _)| format!("case when {} then '{}' end", self.differs(name, ledger), name.replace('\'', "''")))
            .collect();
        let first = self.key.first().map(|(name, _)| ident(name)).unwrap_or_default();
        if names.is_empty() {
            return "cast(null as varchar)".to_owned();
        }
        format!(
            "case when l.{first} is null or l.{} or m.\"_n\" is null then null else concat_ws(',', {}) end",
            ident(GONE),
            names.join(", ")
        )
    }
}

/// Why a row cannot be sent.
pub(crate) fn unfit(change: &str) -> Option<&'static str> {
    match change {
        DUPLICATE => Some("another row has the same key, so that nobody can tell which one counts"),
        KEYLESS => Some("the key is NULL"),
        _ => None,
    }
}

/// The ledger of a delivery whose rows have this schema.
pub(crate) fn ledger_schema(delivery: &Delivery, rows: &Schema) -> Result<SchemaRef, arrow::error::ArrowError> {
    use arrow::datatypes::{Field, TimeUnit};
    let mut fields: Vec<Field> = Vec::new();
    for (name, _) in &delivery.key {
        fields.push(rows.field_with_name(name)?.clone().with_nullable(false));
    }
    fields.extend(delivery.map.iter().map(|(name, _)| Field::new(format!("{HASH}{name}"), DataType::Int64, true)));
    fields.push(Field::new(column::REMOTE_ID, DataType::Utf8, true));
    fields.push(Field::new(GONE, DataType::Boolean, false));
    fields.push(Field::new(column::FATE, DataType::Utf8, false));
    fields.push(Field::new("_load", DataType::Utf8, false));
    fields.push(Field::new("_delivered_at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false));
    Ok(std::sync::Arc::new(Schema::new(fields)))
}

pub(crate) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table's name as it is written in a query.
pub fn table(name: &TableName) -> String {
    match &name.schema {
        Some(schema) => format!("{}.{}", ident(schema), ident(&name.name)),
        None => ident(&name.name),
    }
}
