//! What an object of an API has been sent: its fields as columns that come from a table, and the records that the lake has noted.

use trib_core::name::system;
use trib_core::{Result, TableName};
use trib_engine::Queries;
use trib_engine::catalog::Over;
use trib_engine::changes::{LEDGER, table};
use trib_engine::check::{Failing, count};
use trib_engine::ledger::ledger_name;
use trib_project::DeliveryPlan;
use trib_project::data_test::ident;

use crate::app::Session;
use crate::exit;

/// A table or model that goes to an object.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// The connection that it lies in.
    pub from: String,
    pub plan: DeliveryPlan,
    /// Every field with the SQL of its value, those of the key first.
    pub fields: Vec<(String, String)>,
}

/// Records of an object by what became of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fates {
    pub delivered: u64,
    /// Sent, and no answer came.
    pub unknown: u64,
    /// Deleted, emptied or put away since.
    pub gone: u64,
}

/// The fields beside the key, each with the SQL of its value. Without a map each column of the table is a field of its name, but those that are ours.
pub async fn mapped(queries: &Queries, plan: &DeliveryPlan) -> Result<Vec<(String, String)>> {
    if let Some(map) = &plan.map {
        return Ok(map.clone());
    }
    let schema = queries.schema(&format!("select * from {}", table(&plan.table))).await?;
    let own = |name: &str| name.starts_with(system::PREFIX) || plan.key.iter().any(|(field, _)| field == name);
    let names = schema.fields().iter().map(|f| f.name()).filter(|name| !own(name));
    Ok(names.map(|name| (name.clone(), ident(name))).collect())
}

impl Delivered {
    pub async fn of(queries: &Queries, from: &str, plan: DeliveryPlan) -> Result<Self> {
        let fields = plan.key.iter().cloned().chain(mapped(queries, &plan).await?).collect();
        Ok(Self { from: from.to_owned(), plan, fields })
    }

    /// The rows of the table under the object's names.
    pub fn sql(&self) -> String {
        let fields: Vec<String> = self.fields.iter().map(|(name, sql)| format!("{sql} as {}", ident(name))).collect();
        format!("select {} from {}", fields.join(", "), table(&self.plan.table))
    }

    fn is_key(&self, field: &str) -> bool {
        self.plan.key.iter().any(|(name, _)| name == field)
    }

    /// The records with these values of the key, as many as `keep`, with what became of them. `None`: none of the values is the key's.
    pub async fn records(&self, session: &Session, wanted: &[(&str, &str)], keep: usize) -> exit::Result<Option<Failing>> {
        let equal = |(column, value): &&(&str, &str)| {
            self.is_key(column).then(|| format!("cast({} as text) = '{}'", ident(column), value.replace('\'', "''")))
        };
        let conditions: Vec<String> = wanted.iter().filter_map(|one| equal(&one)).collect();
        if conditions.is_empty() {
            return Ok(None);
        }
        let Some(ledger) = self.ledger(session).await? else { return Ok(Some(Failing::default())) };
        let key: Vec<String> = self.plan.key.iter().map(|(name, _)| ident(name)).collect();
        let sql = format!(
            "select {}, case when \"_gone\" then 'gone' else \"_fate\" end as \"_fate\", \"_remote_id\", \"_delivered_at\", \"_load\" as \"{}\" \
             from \"{LEDGER}\" where {}",
            key.join(", "),
            system::LOAD_ID,
            conditions.join(" and ")
        );
        Ok(Some(count(ledger.rows(&sql).await?.1, keep).await?))
    }

    /// All of them by what became of them.
    pub async fn fates(&self, session: &Session) -> exit::Result<Fates> {
        let Some(ledger) = self.ledger(session).await? else { return Ok(Fates::default()) };
        let sql =
            format!("select case when \"_gone\" then 'gone' else \"_fate\" end as fate, count(*) as records from \"{LEDGER}\" group by 1");
        let mut fates = Fates::default();
        for row in count(ledger.rows(&sql).await?.1, usize::MAX).await?.rows {
            let records = row["records"].as_u64().unwrap_or_default();
            match row["fate"].as_str() {
                Some("gone") => fates.gone += records,
                Some("unknown") => fates.unknown += records,
                _ => fates.delivered += records,
            }
        }
        Ok(fates)
    }

    /// Queries in which [`LEDGER`] is what was delivered.
    async fn ledger(&self, session: &Session) -> exit::Result<Option<Queries>> {
        let (Some(tables), Some(queries)) = (session.native(&self.from)?, session.queries(&self.from).await?) else { return Ok(None) };
        let name = ledger_name(&session.project()?.environment.schema_prefix, &self.plan.sync, &self.plan.stream);
        let Some(provider) = tables.provider(&name, None).await? else { return Ok(None) };
        // What was delivered by another key says nothing of these records.
        if self.plan.key.iter().any(|(field, _)| provider.schema().field_with_name(field).is_err()) {
            return Ok(None);
        }
        Ok(Some(queries.with(vec![(TableName::new(None, LEDGER), Over::Table(provider))])))
    }
}
