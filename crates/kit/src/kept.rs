//! Settings that have become others since the user wrote them: a refresh token that is good for one use, or one that a login has brought.

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use trib_core::{Context, Result};

use crate::vault::Vault;

/// A value follows another, which follows another, but not for ever.
const LONGEST_CHAIN: usize = 1000;

/// The changed settings of one connection. Whoever writes another value into the project's files is obeyed: a change holds for the value that it has replaced.
pub struct Kept {
    vault: Vault,
    name: String,
    /// Streams that are read side by side keep one after the other.
    turn: Mutex<()>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Change {
    path: Vec<String>,
    /// Hash of the value that it replaces.
    was: String,
    value: Value,
}

impl Kept {
    pub fn of(context: &Context) -> Self {
        Self { vault: Vault::of(&context.project_dir), name: context.connection.clone(), turn: Mutex::default() }
    }

    /// What has become other than it is written: the new values, in maps like the settings' own. `None` where nothing has.
    pub fn changed(&self, written: &Value) -> Result<Option<Value>> {
        let changes = self.changes()?;
        let (mut now, mut changed) = (written.clone(), None);
        for _ in 0..LONGEST_CHAIN {
            let next = changes.iter().find(|c| get(&now, &c.path) != &c.value && hash(get(&now, &c.path)) == c.was);
            let Some(change) = next else { break };
            set(&mut now, &change.path, change.value.clone());
            set(changed.get_or_insert(Value::Null), &change.path, change.value.clone());
        }
        Ok(changed)
    }

    /// Remembers what has changed from one to the other. What is gone in the other is left as it was.
    pub fn keep(&self, before: &Value, after: &Value) -> Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changes = self.changes()?;
        let mut found = Vec::new();
        differences(before, after, &mut Vec::new(), &mut found);
        for (path, old, new) in found {
            let was = hash(&old);
            let known = changes.iter_mut().find(|c| c.path == path && (c.was == was || c.value == old));
            match known {
                Some(change) => change.value = new,
                None => changes.push(Change { path, was, value: new }),
            }
        }
        self.vault.put(&self.name, &serde_json::to_vec(&changes)?)
    }

    fn changes(&self) -> Result<Vec<Change>> {
        Ok(self.vault.get(&self.name)?.map_or_else(|| Ok(Vec::new()), |bytes| serde_json::from_slice(&bytes))?)
    }
}

fn differences(before: &Value, after: &Value, path: &mut Vec<String>, found: &mut Vec<(Vec<String>, Value, Value)>) {
    match (before, after) {
        (_, Value::Object(new)) if before.is_object() || before.is_null() => {
            for (name, value) in new {
                path.push(name.clone());
                differences(before.get(name).unwrap_or(&Value::Null), value, path, found);
                path.pop();
            }
        }
        (old, new) if old != new => found.push((path.clone(), old.clone(), new.clone())),
        _ => {}
    }
}

fn get<'a>(value: &'a Value, path: &[String]) -> &'a Value {
    path.iter().try_fold(value, |at, name| at.get(name)).unwrap_or(&Value::Null)
}

fn set(value: &mut Value, path: &[String], new: Value) {
    let mut at = value;
    for name in path {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        at = &mut at[name.as_str()];
    }
    *at = new;
}

fn hash(value: &Value) -> String {
    hex::encode(Sha256::digest(value.to_string().as_bytes()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_follow_each_other_until_somebody_writes_a_new_value() {
        let dir = tempfile::tempdir().unwrap();
        let context = Context { connection: "shop".into(), project_dir: dir.path().to_owned(), threads: 1 };
        let kept = Kept::of(&context);
        let with = |token: &str, start: i64| json!({"credentials": {"token": token, "id": "me"}, "start": start});
        let only = |token: &str| Some(json!({"credentials": {"token": token}}));
        assert_eq!(kept.changed(&with("t0", 1)).unwrap(), None);
        kept.keep(&with("t0", 1), &with("t1", 1)).unwrap();
        // The same run, whose settings are still those that it began with, and then a later one.
        kept.keep(&with("t0", 1), &with("t2", 1)).unwrap();
        assert_eq!(kept.changed(&with("t0", 1)).unwrap(), only("t2"));
        kept.keep(&with("t2", 1), &with("t3", 1)).unwrap();
        assert_eq!(kept.changed(&with("t0", 1)).unwrap(), only("t3"));
        assert_eq!(kept.changed(&with("t0", 9)).unwrap(), only("t3"), "other settings are the user's own affair");
        assert_eq!(kept.changed(&with("new", 1)).unwrap(), None, "a new value in the file counts");
        // What was not there at all.
        kept.keep(&json!({}), &json!({"credentials": {"token": "from a login"}})).unwrap();
        assert_eq!(kept.changed(&json!({"x": 1})).unwrap(), only("from a login"));
        assert_eq!(Kept::of(&Context { connection: "other".into(), ..context }).changed(&json!({})).unwrap(), None);
    }
}
