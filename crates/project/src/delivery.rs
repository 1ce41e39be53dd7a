//! What a sync delivers to an API: pure decisions over its settings.

use trib_core::delivery::{LookUps, Object, Operation, Parent};
use trib_core::error::closest;
use trib_core::{Code, Error, Result, TableName};

use crate::config::delivery::{Apply, Empty, GuardSpec, Key, Log, Mapping, Send, Set, Write};
use crate::config::stream::StreamSpec;
use crate::place::At;
use crate::sync::Sync;

/// One table or model that goes to one object.
#[derive(Clone, Debug)]
pub struct DeliveryPlan {
    pub sync: String,
    pub stream: String,
    pub table: TableName,
    pub object: String,
    /// Fields with the SQL of their value.
    pub key: Vec<(String, String)>,
    /// `None`: each column of the table is a field of its name.
    pub map: Option<Vec<(String, String)>>,
    /// What is asked of the API for the mapped fields.
    pub look_ups: LookUps,
    pub write: Write,
    pub deletes: Apply,
    pub send: Send,
    pub empty: Empty,
    /// Requests are kept with their answers.
    pub log_requests: bool,
    pub guard: GuardSpec,
    pub full_refresh: bool,
    pub allow_empty: bool,
    pub at: At,
}

/// What is asked of the API for each kind of change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub created: Option<Operation>,
    pub updated: Option<Operation>,
    pub deleted: Option<Operation>,
    /// Each row names what is to be deleted.
    pub rows_delete: bool,
}

impl Asked {
    /// Nothing is matched with what is there, but by a look-up.
    fn only_inserts(self) -> bool {
        self == Self { created: Some(Operation::Insert), ..Self::default() }
    }

    /// Records may be made that were not there.
    pub fn creates(self) -> bool {
        matches!(self.created, Some(Operation::Insert | Operation::Upsert))
    }
}

impl Sync {
    /// The streams as deliveries. Tables are named one by one: a glob would send whatever comes to lie in the lake.
    pub fn deliveries(&self) -> (Vec<DeliveryPlan>, Vec<Error>) {
        let (mut plans, mut errors) = (Vec::new(), Vec::new());
        if self.spec.streams.is_none() {
            let error = Error::new(Code::ConfigInvalid, "a delivery names the tables or models that it sends")
                .setting("streams")
                .hint("write `streams: {model: {into: Object, key: {Field: column}}}`");
            return (plans, vec![self.at.mark(error)]);
        }
        for pattern in self.patterns() {
            let name = pattern.text();
            match self.delivery(name, pattern.is_glob()) {
                Ok(plan) => plans.extend(plan),
                Err(e) => errors.push(self.pattern_place(name).mark(e.stream(name))),
            }
        }
        (plans, errors)
    }

    fn delivery(&self, name: &str, is_glob: bool) -> Result<Option<DeliveryPlan>> {
        if is_glob {
            return Err(Error::new(Code::ConfigInvalid, "a delivery names its tables one by one")
                .detail(format!("`{name}`"))
                .hint("a glob would send whatever comes to have such a name"));
        }
        let (spec, _) = self.stream_settings(name)?;
        if spec.enabled == Some(false) {
            return Ok(None);
        }
        refuse_unused(&spec)?;
        let needs =
            |what: &'static str, setting: &str, hint: &str| Error::new(Code::ConfigInvalid, what).setting(setting).hint(hint.to_owned());
        let object = spec.into.clone().ok_or_else(|| needs("a delivery needs an object to go to", "into", "write `into: Contact`"))?;
        let key = match &spec.key {
            None => return Err(needs("a delivery needs a key", "key", "write `key: {Email: email}`: field and column")),
            Some(Key::Fields(fields)) => fields.clone(),
            Some(Key::Columns(columns)) => columns.iter().map(|c| (c.clone(), format!("\"{}\"", c.replace('"', "\"\"")))).collect(),
        };
        let map: Option<Vec<(String, Mapping)>> = spec
            .map
            .clone()
            .map(|map| map.into_iter().filter(|(field, _)| key.iter().all(|(k, _)| k != field)).map(|(field, m)| (field, m.0)).collect());
        let look_ups = look_ups(map.iter().flatten());
        let map = map.map(|map| map.into_iter().map(|(field, mapping)| (field, mapping.value)).collect());
        let write = spec.write.unwrap_or(Write::Upsert);
        let usual = if write == Write::Mirror { Apply::Delete } else { Apply::Ignore };
        Ok(Some(DeliveryPlan {
            sync: self.name.clone(),
            stream: name.to_owned(),
            table: TableName::parse(name),
            object,
            key,
            map,
            look_ups,
            write,
            deletes: match spec.deletes.apply.unwrap_or(usual) {
                Apply::Hard => Apply::Delete,
                Apply::Soft => Apply::Archive,
                other => other,
            },
            send: spec.send.unwrap_or_default(),
            empty: spec.empty.unwrap_or_default(),
            log_requests: spec.log == Some(Log::Requests),
            guard: spec.guard.clone(),
            full_refresh: spec.full_refresh.unwrap_or(true),
            allow_empty: self.spec.allow_empty,
            at: self.pattern_place(name),
        }))
    }
}

/// What the API has to be asked for these fields.
fn look_ups<'a>(map: impl Iterator<Item = &'a (String, Mapping)>) -> LookUps {
    let mut look_ups = LookUps::default();
    for (field, mapping) in map {
        if let Some(object) = &mapping.lookup {
            look_ups.parents.insert(field.clone(), Parent { object: object.clone(), on_miss: mapping.on_miss });
        }
        if mapping.set == Set::IfEmpty {
            look_ups.if_empty.push(field.clone());
        }
    }
    look_ups
}

/// Settings that mean something for tables only.
fn refuse_unused(spec: &StreamSpec) -> Result<()> {
    let set = [
        ("read", spec.read.is_some()),
        ("cursor", spec.cursor.is_some()),
        ("lookback", spec.lookback.is_some()),
        ("select", spec.select.is_some()),
        ("sql", spec.sql.is_some()),
        ("where", spec.filter.is_some()),
        ("columns", !spec.columns.is_empty()),
        ("add", !spec.add.is_empty()),
        ("split_by", spec.split_by.is_some()),
        ("partition_by", spec.partition_by.is_some()),
        ("nested", spec.nested.is_some()),
        ("deletes.detect", spec.deletes.detect.is_some()),
    ];
    match set.iter().find(|(_, set)| *set) {
        None => Ok(()),
        Some((setting, _)) => Err(Error::new(Code::Unsupported, "the setting has no meaning for a delivery")
            .setting(*setting)
            .hint("compute what is to be sent in a model, or in the expressions of `map:`")),
    }
}

impl DeliveryPlan {
    /// Which operations the object is asked for, or why it cannot be.
    pub fn asked(&self, object: &Object) -> Result<Asked> {
        let can = |operation: Operation| object.operations.contains_key(&operation);
        let need = |operation: Operation, setting: &str| {
            if can(operation) {
                return Ok(Some(operation));
            }
            let there: Vec<&str> = object.operations.keys().map(|o| o.as_str()).collect();
            Err(Error::new(Code::Unsupported, "the object cannot be written in this way")
                .detail(format!("{} has no `{}`", object.name, operation.as_str()))
                .setting(setting.to_owned())
                .hint(format!("it knows {}", there.join(", "))))
        };
        let deleted = match self.deletes {
            Apply::Ignore => None,
            Apply::Clear => need(Operation::Clear, "deletes.apply")?,
            Apply::Archive | Apply::Soft => need(Operation::Archive, "deletes.apply")?,
            Apply::Delete | Apply::Hard => need(Operation::Delete, "deletes.apply")?,
        };
        Ok(match self.write {
            Write::Upsert | Write::Mirror if can(Operation::Upsert) => {
                Asked { created: Some(Operation::Upsert), updated: Some(Operation::Upsert), deleted, rows_delete: false }
            }
            // Without an upsert, what was created is known from what was delivered.
            Write::Upsert | Write::Mirror => Asked {
                created: need(Operation::Insert, "write")?,
                updated: need(Operation::Update, "write")?,
                deleted,
                rows_delete: false,
            },
            Write::Insert => Asked { created: need(Operation::Insert, "write")?, updated: None, deleted, rows_delete: false },
            Write::Update => {
                let update = need(Operation::Update, "write")?;
                Asked { created: update, updated: update, deleted, rows_delete: false }
            }
            Write::Delete => Asked { deleted: need(Operation::Delete, "write")?, rows_delete: true, ..Asked::default() },
            Write::Replace | Write::Append | Write::History => {
                return Err(Error::new(Code::Unsupported, "an API cannot be written in this way")
                    .detail(format!("`write: {}`", self.write.as_str()))
                    .setting("write")
                    .hint("use insert, update, upsert, mirror or delete"));
            }
        })
    }

    /// What is looked up, held against the objects that there are. `object` is the delivery's own.
    pub fn check_look_ups(&self, object: &Object, objects: impl Fn(&str) -> Result<Object>) -> Result<()> {
        let cannot = |object: &Object, detail: String| {
            Error::new(Code::Unsupported, "the object's records cannot be looked up")
                .detail(format!("{}: {detail}", object.name))
                .setting("map")
                .hint("its manifest says nothing under `look_up`")
        };
        for (field, parent) in &self.look_ups.parents {
            let of = objects(&parent.object)?;
            if !of.can_be_looked_up {
                return Err(cannot(&of, format!("`{field}` asks for one")));
            }
            if of.own_key().is_none() {
                return Err(cannot(&of, "none of its keys is one field".to_owned()));
            }
        }
        match self.look_ups.if_empty.first().filter(|_| !object.can_be_looked_up) {
            Some(field) => Err(cannot(object, format!("whether `{field}` is empty is not known"))),
            None => Ok(()),
        }
    }

    /// Fields that are sent, held against those that the object has. `map` are the mapped ones.
    pub fn check_fields(&self, object: &Object, map: &[(String, String)], asked: Asked) -> Result<()> {
        let known = |name: &str| object.open || object.field(name).is_some();
        if let Some((field, _)) = self.key.iter().chain(map).find(|(field, _)| !known(field)) {
            let error =
                Error::new(Code::NotFound, "the object has no such field").detail(format!("{}.{field}", object.name)).setting("map");
            return Err(match closest(field, object.fields.iter().map(|f| f.name.as_str())) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint(format!("`trib discover` lists the fields of {}", object.name)),
            });
        }
        if let Some((name, _)) = map.iter().find(|(name, _)| object.field(name).is_some_and(|f| !f.writable)) {
            return Err(Error::new(Code::ConfigInvalid, "the field can only be read")
                .detail(format!("{}.{name}", object.name))
                .setting("map")
                .hint("the API sets it by itself: leave it out of `map`"));
        }
        let keys: Vec<&str> = self.key.iter().map(|(field, _)| field.as_str()).collect();
        let free = object.keys.is_empty() || object.found_by_any && asked.only_inserts();
        if !free && !object.keys.iter().any(|key| *key == keys) {
            let there: Vec<String> = object.keys.iter().map(|key| key.join(" + ")).collect();
            return Err(Error::new(Code::ConfigInvalid, "the object's records are not matched by these fields")
                .detail(keys.join(" + "))
                .setting("key")
                .hint(format!("they are by {}", there.join(", or by "))));
        }
        let sent = |name: &str| self.key.iter().chain(map).any(|(field, _)| object.field(field).is_some_and(|f| f.name == name));
        let Some(missing) = object.fields.iter().find(|f| f.required && asked.creates() && !sent(&f.name)) else { return Ok(()) };
        let can_update = object.operations.contains_key(&Operation::Update);
        Err(Error::new(Code::ConfigInvalid, "a field that new records need is not mapped")
            .detail(format!("{}.{}", object.name, missing.name))
            .setting("map")
            .hint(if can_update { "map it, or use `write: update`" } else { "map it" }))
    }
}
