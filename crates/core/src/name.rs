//! Names of tables and columns, and how they become identifiers that a destination accepts.

use std::collections::HashMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Code, Error, Result};

/// A table at a destination. `schema` is what the destination groups tables by: a schema, a dataset, a folder.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct TableName {
    pub schema: Option<String>,
    pub name: String,
}

impl TableName {
    pub fn new(schema: Option<&str>, name: &str) -> Self {
        Self { schema: schema.filter(|s| !s.is_empty()).map(str::to_owned), name: name.to_owned() }
    }

    /// Reads `schema.name` or `name`. Only the first dot separates.
    pub fn parse(text: &str) -> Self {
        match text.split_once('.') {
            Some((schema, name)) => Self::new(Some(schema), name),
            None => Self::new(None, text),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// How a source's names become column and table names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Naming {
    /// `Order ID` and `OrderId` become `order_id`.
    #[default]
    SnakeCase,
    /// As the source has them.
    Keep,
}

impl Naming {
    pub fn apply(self, name: &str) -> String {
        match self {
            Naming::Keep => name.to_owned(),
            Naming::SnakeCase => snake_case(name),
        }
    }
}

/// Lower case with underscores: a boundary stands before a capital that follows a small letter or a
/// digit, and before the last capital of a run that a small letter follows (`HTTPServer`). Letters of
/// other scripts stay; everything else becomes one underscore. Leading underscores stay.
fn snake_case(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut out = String::with_capacity(name.len() + 4);
    out.extend(chars.iter().take_while(|c| **c == '_'));
    let lead = out.len();
    for (i, &c) in chars.iter().enumerate().skip(lead) {
        if !c.is_alphanumeric() {
            if out.len() > lead && !out.ends_with('_') {
                out.push('_');
            }
            continue;
        }
        let before = i.checked_sub(1).map(|j| chars[j]);
        let after = chars.get(i + 1);
        let boundary = c.is_uppercase()
            && before.is_some_and(|b| b.is_lowercase() || b.is_numeric() || (b.is_uppercase() && after.is_some_and(|a| a.is_lowercase())));
        if boundary && out.len() > lead && !out.ends_with('_') {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    while out.len() > lead && out.ends_with('_') {
        out.pop();
    }
    if out.is_empty() { "_".to_owned() } else { out }
}

/// Cuts a name to `max` bytes. A cut name ends in eight hex digits of the whole name's SHA-256, so that
/// two long names with one beginning stay two.
pub fn truncate(name: &str, max: usize) -> String {
    if name.len() <= max {
        return name.to_owned();
    }
    let digest = hex::encode(&Sha256::digest(name.as_bytes())[..4]);
    let mut end = max.saturating_sub(digest.len() + 1);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}_{digest}", &name[..end])
}

/// A name as its source has it, and what has been made of it.
#[derive(Clone, Debug)]
pub struct Named {
    pub original: String,
    pub name: String,
}

/// Cuts each of `names` to an identifier and refuses two that become one. The result has the same order.
pub fn identifiers(names: &[Named], max_bytes: usize, case_sensitive: bool) -> Result<Vec<String>> {
    let mut taken: HashMap<String, &str> = HashMap::new();
    let mut result = Vec::with_capacity(names.len());
    for Named { original, name } in names {
        let identifier = truncate(name, max_bytes);
        let folded = if case_sensitive { identifier.clone() } else { identifier.to_lowercase() };
        if let Some(other) = taken.insert(folded, original) {
            return Err(Error::new(Code::ContractBroken, "two names become one identifier")
                .detail(format!("{other:?} and {original:?} both become {identifier:?}"))
                .hint("rename one of them under `columns:`, or set `naming: keep`"));
        }
        result.push(identifier);
    }
    Ok(result)
}

/// Names of the columns that Tributary adds. A source's columns may not have them.
pub mod system {
    /// Which load brought the row.
    pub const LOAD_ID: &str = "_trib_load_id";
    /// When that load was made, in UTC.
    pub const LOADED_AT: &str = "_trib_loaded_at";
    /// Set when the row is gone at the source and `deletes: {apply: soft}` holds.
    pub const DELETED_AT: &str = "_trib_deleted_at";
    /// History: from when on this version held.
    pub const VALID_FROM: &str = "_trib_valid_from";
    /// History: until when it held; NULL for the current version.
    pub const VALID_TO: &str = "_trib_valid_to";
    /// Staging only: the order of rows within a load; the greatest wins per key.
    pub const SEQ: &str = "_trib_seq";
    /// Staging only, for change logs: `i`, `u`, `d` or `t` (truncate).
    pub const OP: &str = "_trib_op";
    /// Identity of a row that has children and no key of its own.
    pub const ROW_ID: &str = "_trib_row_id";
    /// Child tables: the [`ROW_ID`] of the parent that has no key.
    pub const PARENT_ID: &str = "_trib_parent_id";
    /// Child tables: place in the parent's list, from 0.
    pub const INDEX: &str = "_trib_index";

    /// Everything that begins like this is ours.
    pub const PREFIX: &str = "_trib_";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snake_case_cases() {
        let cases = [
            ("OrderId", "order_id"),
            ("order id", "order_id"),
            ("HTTPServer", "http_server"),
            ("userID2", "user_id2"),
            ("__v", "__v"),
            ("Größe (cm)", "größe_cm"),
            ("2nd", "2nd"),
            ("already_snake", "already_snake"),
            ("a--b", "a_b"),
            ("%", "_"),
        ];
        for (name, expected) in cases {
            assert_eq!(snake_case(name), expected, "{name}");
        }
    }

    #[test]
    fn long_names_stay_apart() {
        let (a, b) = (format!("{}a", "x".repeat(80)), format!("{}b", "x".repeat(80)));
        assert_eq!(truncate(&a, 63).len(), 63);
        assert_ne!(truncate(&a, 63), truncate(&b, 63));
    }

    #[test]
    fn collisions_are_refused() {
        let named = |original: &str| Named { original: original.to_owned(), name: Naming::SnakeCase.apply(original) };
        let error = identifiers(&["Order Id", "order_id"].map(named), 63, true).unwrap_err();
        assert!(error.to_string().contains("\"Order Id\" and \"order_id\""), "{error}");
    }
}
