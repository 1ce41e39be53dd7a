//! `tests/*.yaml`: unit tests of models.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::connection::yes;

/// Tests by name.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct UnitTestsSpec(pub BTreeMap<String, UnitTestSpec>);

/// Given these rows, the node gives those.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnitTestSpec {
    pub description: Option<String>,
    #[serde(default)]
    pub tags: Vec<String>,
    #[serde(default = "yes")]
    pub enabled: bool,
    /// The model that is tested, or the stream of a sync: `shop/public.orders`.
    pub node: String,
    /// What `now()` and its kin give: a time with its zone, such as `2024-03-01T00:00:00Z`.
    #[schemars(with = "Option<String>")]
    pub now: Option<DateTime<Utc>>,
    /// SQL types of given columns, by table. Others are those of the real table where it is there, or guessed from the values.
    #[serde(default)]
    pub types: BTreeMap<String, BTreeMap<String, String>>,
    /// Rows by table: what the node reads. A row is a map of columns.
    pub given: BTreeMap<String, Vec<BTreeMap<String, Value>>>,
    /// The rows must come in this order.
    #[serde(default)]
    pub ordered: bool,
    /// The rows that must come out; of a delivery the requests, one for each record: `method`, `url`, `headers`, `body`, or `invalid` with the reason. Columns
    /// that a row does not name are not looked at.
    pub expect: Vec<BTreeMap<String, Value>>,
}
