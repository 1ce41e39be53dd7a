//! What becomes of records before they are sent: what the API alone knows is asked of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use trib_core::delivery::{Fate, OnMiss, Operation, Parent};
use trib_core::{Error, Result};

use super::super::env::Env;
use super::log::Known;
use super::look_up::{LookUp, Match};
use super::object::{self, ApiObject};
use super::record::{Names, Record};

/// Parents that are remembered at most; beyond that they are looked up again.
const MOST_PARENTS: usize = 200_000;

/// Parents that this process has found, by object and key.
pub(super) type Parents = Mutex<HashMap<(String, String), String>>;

pub(super) struct Resolver<'a> {
    pub(super) env: &'a Arc<Env>,
    pub(super) object: &'a ApiObject,
    pub(super) objects: &'a BTreeMap<String, ApiObject>,
    pub(super) names: &'a Names,
    pub(super) known: &'a Known,
    pub(super) parents: &'a Parents,
}

/// Records that are to be sent, and those whose fate is known without.
#[derive(Default)]
pub(super) struct Resolved {
    pub(super) send: Vec<Record>,
    pub(super) settled: Vec<(Record, Fate)>,
}

/// What is to be done with a record.
#[derive(Debug, PartialEq)]
enum Next {
    Send(Operation, Option<String>),
    Settle(Fate),
}

impl Resolver<'_> {
    pub(super) async fn resolve(&self, records: Vec<Record>) -> Result<Resolved> {
        let mut resolved = Resolved::default();
        let records = self.with_parents(records, &mut resolved).await?;
        let mut asked = Vec::new();
        for mut record in records {
            record.id.take_if(|_| self.object.look_up.as_ref().is_some_and(|l| l.moves));
            let operation = self.object.carried_out(record.operation, record.id.is_some());
            let own = self.object.operation(operation)?;
            if self.object.look_up.is_some() && self.must_ask(&record, own.needs_id) {
                asked.push(record);
            } else if self.known.in_doubt.contains(&record.row) && !own.idempotent {
                let why = "it was sent, and the run ended before an answer came".to_owned();
                resolved.settled.push((record, Fate::Unknown(why)));
            } else if record.id.is_none() && own.needs_id {
                resolved.settled.push((record, Fate::Rejected("it is not known what the API calls the record".to_owned())));
            } else {
                resolved.send.push(Record { operation, ..record });
            }
        }
        if let Some(look_up) = &self.object.look_up {
            self.match_with(look_up, asked, &mut resolved).await?;
        }
        Ok(resolved)
    }

    /// Whether the API has to be asked for the record before it can be sent.
    fn must_ask(&self, record: &Record, needs_id: bool) -> bool {
        let writes = matches!(record.operation, Operation::Update | Operation::Upsert);
        let by_name = record.operation == Operation::Insert || self.object.upserts_by_looking_up(record.operation) || needs_id;
        by_name && record.id.is_none() || writes && record.look_ups.as_ref().is_some_and(|l| !l.if_empty.is_empty())
    }

    /// Records that may be there already: what is found is not made again.
    async fn match_with(&self, look_up: &LookUp, records: Vec<Record>, resolved: &mut Resolved) -> Result<()> {
        let if_empty = records.iter().find_map(|r| r.look_ups.as_ref().map(|l| l.if_empty.clone())).unwrap_or_default();
        let values: Vec<Value> = records.iter().map(Record::value).collect();
        let matches = look_up.ask(self.env, self.names, &values, &if_empty).await?;
        for (mut record, found) in records.into_iter().zip(matches) {
            if let Match::One(found) = &found {
                let before = record.fields.len();
                record.fields.retain(|(name, _)| !(if_empty.contains(name) && found.has(name)));
                let is_key = |name: &str| self.names.key.as_array().is_some_and(|key| key.iter().any(|k| k == name));
                let differs = |name: &String| record.changed.as_ref().is_none_or(|changed| changed.contains(name));
                if record.fields.len() < before && !record.fields.iter().any(|(name, _)| !is_key(name) && differs(name)) {
                    // The API has a value in all that would be set.
                    resolved.settled.push((record, Fate::Delivered(Some(found.id.clone()))));
                    continue;
                }
            }
            let made = self.object.operation(self.object.carried_out(record.operation, record.id.is_some()))?;
            let in_doubt = self.known.in_doubt.contains(&record.row) && look_up.lags && !made.idempotent;
            match self.next(record.operation, record.id.take(), &found, in_doubt) {
                Next::Send(operation, id) => resolved.send.push(Record { operation, id, ..record }),
                Next::Settle(fate) => resolved.settled.push((record, fate)),
            }
        }
        Ok(())
    }

    /// `in_doubt`: the record may have been made already without being found.
    fn next(&self, operation: Operation, id: Option<String>, found: &Match, in_doubt: bool) -> Next {
        let by_looking_up = self.object.upserts_by_looking_up(operation);
        match found {
            Match::Several(n) => {
                Next::Settle(Fate::Rejected(format!("the API has {n} records with this key, and nobody can tell which is meant")))
            }
            // Insert keeps what is there.
            Match::One(found) if operation == Operation::Insert => Next::Settle(Fate::Delivered(Some(found.id.clone()))),
            Match::One(found) if by_looking_up => Next::Send(Operation::Update, Some(found.id.clone())),
            Match::One(found) => Next::Send(operation, id.or_else(|| Some(found.id.clone()))),
            Match::None if in_doubt => {
                Next::Settle(Fate::Unknown("it was sent, no answer came, and a look-up does not find it yet".to_owned()))
            }
            Match::None if by_looking_up => match id {
                Some(id) => Next::Send(Operation::Update, Some(id)),
                None => Next::Send(Operation::Insert, None),
            },
            Match::None if matches!(operation, Operation::Insert | Operation::Upsert) || id.is_some() => Next::Send(operation, id),
            Match::None if operation == Operation::Delete => Next::Settle(Fate::Delivered(None)),
            Match::None => Next::Settle(Fate::Rejected("the API has no record with this key".to_owned())),
        }
    }

    /// Fields that name another record by its key get what the API calls it.
    async fn with_parents(&self, records: Vec<Record>, resolved: &mut Resolved) -> Result<Vec<Record>> {
        let Some(look_ups) = records.first().and_then(|r| r.look_ups.clone()) else { return Ok(records) };
        let mut records = records;
        for (field, parent) in &look_ups.parents {
            let missed = self.find_parents(field, parent, &records).await?;
            let mut kept = Vec::with_capacity(records.len());
            for mut record in records {
                let Some(at) = record.fields.iter().position(|(name, raw)| name == field && raw.get() != "null") else {
                    kept.push(record);
                    continue;
                };
                let key = record.fields[at].1.get().to_owned();
                let found = self.parents().get(&(parent.object.clone(), key.clone())).cloned();
                match (found, parent.on_miss) {
                    (Some(id), _) => {
                        record.fields[at].1 = self.object.identifier(field, &id)?;
                        kept.push(record);
                    }
                    (None, OnMiss::Skip) => {
                        record.fields.remove(at);
                        kept.push(record);
                    }
                    (None, OnMiss::Fail) => {
                        let several = missed.get(&key).copied().unwrap_or(0);
                        let how_many = if several == 0 { "no".to_owned() } else { several.to_string() };
                        let why = format!("{field}: the API has {how_many} {} with the key {}", parent.object, key.trim_matches('"'));
                        resolved.settled.push((record, Fate::Rejected(why)));
                    }
                }
            }
            records = kept;
        }
        Ok(records)
    }

    /// Looks up what is not known yet. Gives what was not found, with how many there are.
    async fn find_parents(&self, field: &str, parent: &Parent, records: &[Record]) -> Result<HashMap<String, usize>> {
        let object = object::find(self.objects, &parent.object)?;
        let (Some(look_up), Some(key_field)) = (&object.look_up, object.described.own_key()) else {
            return Err(Error::internal("a parent's object cannot be looked up"));
        };
        if self.parents().len() > MOST_PARENTS {
            self.parents().clear();
        }
        let mut wanted: BTreeMap<String, Value> = BTreeMap::new();
        for (_, raw) in records.iter().flat_map(|r| &r.fields).filter(|(name, raw)| name == field && raw.get() != "null") {
            let known = |key: &str| self.parents().contains_key(&(parent.object.clone(), key.to_owned()));
            if !wanted.contains_key(raw.get()) && !known(raw.get()) {
                wanted.insert(raw.get().to_owned(), json!({key_field: serde_json::from_str::<Value>(raw.get())?}));
            }
        }
        let names = Names { object: parent.object.clone().into(), key: json!([key_field]) };
        let values: Vec<Value> = wanted.values().cloned().collect();
        let matches = look_up.ask(self.env, &names, &values, &[]).await?;
        let mut missed = HashMap::new();
        let mut parents = self.parents();
        for (key, found) in wanted.into_keys().zip(matches) {
            match found {
                Match::One(found) => drop(parents.insert((parent.object.clone(), key), found.id)),
                Match::None => drop(missed.insert(key, 0)),
                Match::Several(n) => drop(missed.insert(key, n)),
            }
        }
        Ok(missed)
    }

    fn parents(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), String>> {
        self.parents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
