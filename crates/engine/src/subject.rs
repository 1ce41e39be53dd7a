//! Whose records a ledger is about: where they are, which object they are of, and what identifies them.
//!
//! What was noted under one of them says nothing about another: records would be sent that are there, or taken for gone that never were.

use serde::{Deserialize, Serialize};
use trib_core::{Code, Error, Marker, Result};

use crate::changes::{Delivery, HASH};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Subject {
    connection: String,
    object: String,
    key: Vec<String>,
}

impl Subject {
    pub(crate) fn of(delivery: &Delivery) -> Self {
        Self {
            connection: delivery.connection.clone(),
            object: delivery.object.clone(),
            key: delivery.key.iter().map(|(name, _)| name.clone()).collect(),
        }
    }

    /// What the ledger's marker says. A ledger of before says only by its `columns` what its key is.
    pub(crate) fn noted(marker: Option<&Marker>, delivery: &Delivery, columns: Option<Vec<String>>) -> Self {
        let said = marker.and_then(|m| m.state.stream(&delivery.stream)).and_then(|said| serde_json::from_value(said.clone()).ok());
        said.unwrap_or_else(|| {
            let now = Self::of(delivery);
            match columns {
                Some(columns) if !now.key.iter().all(|name| columns.contains(name)) => {
                    let is_key = |name: &String| !name.starts_with(HASH) && !name.starts_with('_');
                    Self { key: columns.into_iter().filter(is_key).collect(), ..now }
                }
                _ => now,
            }
        })
    }

    /// An error when the delivery is about other records by now.
    pub(crate) fn is_the_same(&self, delivery: &Delivery) -> Result<()> {
        let now = Self::of(delivery);
        let (what, setting, before, after) = if self.connection != now.connection {
            ("the stream was delivered to another connection", "to", &self.connection, &now.connection)
        } else if self.object != now.object {
            ("the stream was delivered to another object", "into", &self.object, &now.object)
        } else if self.key != now.key {
            ("the stream was delivered by another key", "key", &self.key.join(" + "), &now.key.join(" + "))
        } else {
            return Ok(());
        };
        let error = Error::new(Code::ConfigInvalid, what).detail(format!("`{before}` before, `{after}` now")).setting(setting);
        Err(error.hint(how_to_go_on(delivery)))
    }
}

/// The error for a field of the key that rows of a load do not have.
pub(crate) fn not_the_key(delivery: &Delivery, field: &str) -> Error {
    Error::new(Code::ConfigInvalid, "the stream was delivered by another key")
        .detail(format!("`{field}` is no field of what was delivered"))
        .setting("key")
        .hint(how_to_go_on(delivery))
}

fn how_to_go_on(delivery: &Delivery) -> String {
    format!(
        "what was delivered there says nothing of this: give the sync another name, or forget it with `trib state reset {}`, which sends all rows anew and \
         leaves the records alone that are there",
        delivery.node
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changes::Operations;
    use trib_core::TableName;
    use trib_core::delivery::LookUps;

    #[test]
    fn a_ledger_of_before_tells_its_key_by_its_columns() {
        let delivery = Delivery {
            node: "crm/people".to_owned(),
            stream: "people".to_owned(),
            connection: "crm".to_owned(),
            object: "Person".to_owned(),
            table: TableName::new(None, "people"),
            key: vec![("id".to_owned(), "id".to_owned())],
            map: Vec::new(),
            operations: Operations::default(),
            resend: false,
            skip_empty: false,
            look_ups: LookUps::default(),
            ledger: TableName::new(None, "ledger"),
        };
        let noted = |columns: &[&str]| Subject::noted(None, &delivery, Some(columns.iter().map(|c| (*c).to_owned()).collect()));
        assert!(noted(&["id", "h_email", "_gone"]).is_the_same(&delivery).is_ok());
        let error = noted(&["email", "h_id", "_gone"]).is_the_same(&delivery).unwrap_err().to_string();
        assert!(error.contains("`email` before, `id` now"), "{error}");
    }
}
