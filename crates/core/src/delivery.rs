//! Destinations that hand rows to an API, where each row has a fate of its own.
//!
//! Such a destination is loaded like any other: `stage` keeps the rows, `commit` sends them. What differs is that a table there is an *object* of
//! the API, that rows are changes ([`column`]), and that after the commit somebody has to note what became of each row, so that the next run
//! sends only what is different by then.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::BatchStream;
use crate::error::Result;
use crate::load::{LoadId, RejectedRow};

/// What a delivery's rows carry besides the object's fields. None of it is sent as a field.
pub mod column {
    /// The [`super::Operation`] to call for the row.
    pub const OPERATION: &str = "_op";
    /// The [`super::Change`] that the row is.
    pub const CHANGE: &str = "_change";
    /// Fields that differ from what was delivered, separated by commas; NULL for a new record.
    pub const CHANGED: &str = "_changed";
    /// What the API calls the record, where it was told.
    pub const REMOTE_ID: &str = "_remote_id";
    /// The [`super::LookUps`] of the delivery as JSON, where there are some.
    pub const LOOK_UPS: &str = "_look_ups";
    /// Only in [`super::Delivers::fates`]: `delivered`, `rejected` or `unknown`.
    pub const FATE: &str = "_fate";

    pub const ALL: [&str; 6] = [OPERATION, CHANGE, CHANGED, REMOTE_ID, LOOK_UPS, FATE];
}

/// What an API can be asked to do with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    Insert,
    Update,
    Upsert,
    Delete,
    /// The record stays, and the mapped fields are emptied.
    Clear,
    /// The record is put away in the API's own sense.
    Archive,
}

impl Operation {
    pub const ALL: [Operation; 6] =
        [Operation::Insert, Operation::Update, Operation::Upsert, Operation::Delete, Operation::Clear, Operation::Archive];

    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Insert => "insert",
            Operation::Update => "update",
            Operation::Upsert => "upsert",
            Operation::Delete => "delete",
            Operation::Clear => "clear",
            Operation::Archive => "archive",
        }
    }

    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|o| o.as_str() == name)
    }
}

/// How a row differs from what was delivered last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Created,
    Updated,
    Deleted,
}

impl Change {
    pub const ALL: [Change; 3] = [Change::Created, Change::Updated, Change::Deleted];

    pub fn as_str(self) -> &'static str {
        match self {
            Change::Created => "created",
            Change::Updated => "updated",
            Change::Deleted => "deleted",
        }
    }
}

/// Rows of a delivery by what they change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Changes {
    pub created: u64,
    pub updated: u64,
    pub deleted: u64,
}

impl Changes {
    pub fn total(self) -> u64 {
        self.created + self.updated + self.deleted
    }

    /// Adds rows under the name of their change; a name that is none counts nothing.
    pub fn count(&mut self, change: &str, rows: u64) {
        match Change::ALL.into_iter().find(|c| c.as_str() == change) {
            Some(Change::Created) => self.created += rows,
            Some(Change::Updated) => self.updated += rows,
            Some(Change::Deleted) => self.deleted += rows,
            None => {}
        }
    }

    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { created: self.created + other.created, updated: self.updated + other.updated, deleted: self.deleted + other.deleted }
    }
}

/// What became of a row that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// The API has taken it, and calls it this where it says so.
    Delivered(Option<String>),
    /// The API refuses it, with its reason.
    Rejected(String),
    /// It was sent, and nobody knows whether it arrived.
    Unknown(String),
}

/// What has to be asked of the API before a delivery's rows are sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LookUps {
    /// Fields whose value is the key of another record, and that get what the API calls it.
    pub parents: BTreeMap<String, Parent>,
    /// Fields that are sent only where the API has no value.
    pub if_empty: Vec<String>,
}

impl LookUps {
    pub fn is_empty(&self) -> bool {
        self.parents.is_empty() && self.if_empty.is_empty()
    }
}

/// The record that a field points to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    pub object: String,
    pub on_miss: OnMiss,
}

/// What becomes of a record whose parent the API does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnMiss {
    /// It is sent without the field.
    Skip,
    /// It is rejected, and sent again by the next run.
    #[default]
    Fail,
}

/// An object of an API: what a table is elsewhere.
#[derive(Clone, Debug, Serialize)]
pub struct Object {
    pub name: String,
    /// For people.
    pub description: Option<String>,
    pub fields: Vec<ObjectField>,
    /// Other fields are taken too.
    pub open: bool,
    /// Fields that identify a record: any of these lists. Empty when the API matches nothing.
    pub keys: Vec<Vec<String>>,
    /// What can be done with records, and how many of them one call takes.
    pub operations: BTreeMap<Operation, u64>,
    /// Records can be found by their key.
    pub can_be_looked_up: bool,
    /// They can be by any field, whatever `keys` says: who only inserts is free to choose one.
    #[serde(skip)]
    pub found_by_any: bool,
}

impl Object {
    /// The field of this name, the one that `address.city` is within, or the one that `Account.Number` points with.
    pub fn field(&self, name: &str) -> Option<&ObjectField> {
        let within = |of: &str| name.strip_prefix(of).is_some_and(|rest| rest.starts_with('.'));
        let named = self.fields.iter().find(|f| f.name == name);
        named.or_else(|| self.fields.iter().find(|f| within(&f.name) || f.relationship.as_deref().is_some_and(within)))
    }

    /// The one field that names a record of it, where another record points to it.
    pub fn own_key(&self) -> Option<&str> {
        self.keys.iter().find_map(|key| match key.as_slice() {
            [field] => Some(field.as_str()),
            _ => None,
        })
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct ObjectField {
    pub name: String,
    /// In the API's own words.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// A new record must have a value in it.
    pub required: bool,
    /// Somebody other than the API itself may set it.
    pub writable: bool,
    /// Characters that a text in it may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u64>,
    /// Of a field that holds another record's identifier: the name under which that record is told by a field of its own, `Account.Number`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relationship: Option<String>,
}

/// The part of a destination that knows about objects and fates.
#[async_trait]
pub trait Delivers: Send + Sync {
    /// An error names the objects that there are.
    fn object(&self, name: &str) -> Result<Object>;

    /// All that are known by name.
    fn objects(&self) -> Vec<Object>;

    /// The object with the fields that the API itself says it has, where it can be asked; otherwise as [`Self::object`] knows it. Each is asked after once.
    async fn describe(&self, name: &str) -> Result<Object>;

    /// [`Self::objects`], and those that the API itself lists, with a description each; their fields are for [`Self::describe`].
    async fn list(&self) -> Result<Vec<Object>>;

    /// The least time that so many calls of these operations take by the limits that the API declares; `None`: none that would matter.
    fn least_time(&self, object: &str, calls: &[(Operation, u64)]) -> Option<Duration>;

    /// The requests that rows with this key would make, without secrets, one JSON object each: method, URL, headers and body. Sends nothing.
    async fn requests(&self, object: &str, key: &[String], rows: BatchStream) -> Result<Vec<serde_json::Value>>;

    /// The delivery of a sync that is under way ends: no further call goes out, and those that are waiting give up.
    fn stop(&self, sync: &str);

    /// Why calls of a sync's delivery have to wait, if that has changed since the last time that somebody asked.
    fn trouble(&self, sync: &str) -> Option<String>;

    /// From now on requests of a sync's stream are kept with their answers, without secrets.
    fn keep_requests(&self, sync: &str, scope: &str);

    /// What was asked of the API for a record of a load and what it answered, as far as it was kept; oldest first.
    async fn kept_requests(&self, sync: &str, load: &LoadId, place: &str) -> Result<Vec<serde_json::Value>>;

    /// Loads of a scope that were committed and whose fates nobody has noted yet, oldest first.
    async fn settled(&self, sync: &str, scope: &str) -> Result<Vec<LoadId>>;

    /// The rows of a settled load in the order in which they were staged, with [`column::FATE`] and the [`column::REMOTE_ID`] that is known now.
    async fn fates(&self, sync: &str, load: &LoadId) -> Result<BatchStream>;

    /// The rows of a committed load that were not delivered, with the API's reason. They are pending: the next run sends them again.
    async fn undelivered(&self, sync: &str, load: &LoadId) -> Result<Vec<RejectedRow>>;

    /// The fates of a load are kept elsewhere now.
    async fn noted(&self, sync: &str, load: &LoadId) -> Result<()>;
}
