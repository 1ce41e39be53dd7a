//! How far the handing over of a load has come: what the destination has given back of our STATE messages. It stands in a file, so that a load that has
//! to be handed over again goes on from there.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use trib_core::{LoadId, Result, TableName};

/// By table, how many of its staged rows are safe at the destination.
#[derive(Debug)]
pub struct Confirmed {
    load: LoadId,
    file: PathBuf,
    rows: BTreeMap<String, u64>,
}

/// What our states say.
#[derive(Debug, Serialize, Deserialize)]
struct Place {
    load: LoadId,
    table: String,
    /// Staged rows of the table up to here.
    rows: u64,
}

/// A state that says: this many of the table's staged rows came before it.
pub fn place(load: &LoadId, table: &TableName, rows: u64) -> Value {
    json!({"load": load, "table": table.to_string(), "rows": rows})
}

impl Confirmed {
    /// What is known of a load in its folder.
    pub fn of(load: &LoadId, folder: &Path) -> Result<Self> {
        let file = folder.join("confirmed.json");
        let rows = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(e) => return Err(e.into()),
        };
        Ok(Self { load: load.clone(), file, rows })
    }

    pub fn rows(&self, table: &TableName) -> u64 {
        self.rows.get(&table.to_string()).copied().unwrap_or_default()
    }

    /// Whether it has said anything about the table.
    pub fn knows(&self, table: &TableName) -> bool {
        self.rows.contains_key(&table.to_string())
    }

    /// All that was safe is not: the table is begun anew.
    pub fn forget(&mut self, table: &TableName) -> Result<()> {
        self.rows.remove(&table.to_string()).map_or(Ok(()), |_| self.keep())
    }

    /// Takes a STATE of the destination. One that is not of this load says nothing.
    pub fn take(&mut self, state: &Value) -> Result<()> {
        let ours = state.pointer("/stream/stream_state").and_then(|s| Place::deserialize(s).ok());
        match ours.filter(|place| place.load == self.load) {
            Some(place) => {
                let known = self.rows.entry(place.table).or_default();
                *known = place.rows.max(*known);
                self.keep()
            }
            None => Ok(()),
        }
    }

    /// In one step, and on the disk when it returns.
    fn keep(&self) -> Result<()> {
        let fresh = self.file.with_extension("new");
        let mut file = std::fs::File::create(&fresh)?;
        file.write_all(&serde_json::to_vec(&self.rows)?)?;
        file.sync_all()?;
        Ok(std::fs::rename(fresh, &self.file)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_back_is_known_later() {
        let folder = tempfile::tempdir().unwrap();
        let (load, other) = (LoadId("l1".into()), LoadId("l2".into()));
        let [orders, users] = ["orders", "users"].map(|name| TableName { schema: Some("raw".into()), name: name.into() });
        let state = |load: &LoadId, rows| json!({"type": "STREAM", "stream": {"stream_descriptor": {"name": "orders"}, "stream_state": place(load, &orders, rows)}});
        let mut confirmed = Confirmed::of(&load, folder.path()).unwrap();
        for state in [state(&load, 5), state(&load, 3), state(&other, 9), json!({"data": {"cursor": 1}})] {
            confirmed.take(&state).unwrap();
        }
        let mut again = Confirmed::of(&load, folder.path()).unwrap();
        assert_eq!((again.rows(&orders), again.rows(&users)), (5, 0));
        again.forget(&orders).unwrap();
        assert_eq!(Confirmed::of(&load, folder.path()).unwrap().rows(&orders), 0);
    }
}
