//! One request for one record or several.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use trib_core::Result;
use trib_kit::http::Request;

use super::super::dpath;
use super::super::env::Env;
use super::super::options::Options;
use super::super::requester::{Call, Reply, Witness};
use super::super::slice::Slice;
use super::object::ApiOperation;
use super::record::{Names, PLACE, Record, scope};

/// Records that go out together.
pub(super) struct Outgoing<'a> {
    pub(super) env: &'a Env,
    pub(super) operation: &'a ApiOperation,
    pub(super) records: &'a [Record],
    pub(super) names: &'a Names,
    /// Names the delivery: with the rows, the same for each attempt to send them.
    pub(super) load: &'a str,
}

impl Outgoing<'_> {
    pub(super) async fn send(&self, witness: &dyn Witness) -> Result<Reply> {
        let (about, extra) = self.compose()?;
        let slice = Slice::default();
        let call = Call { about: &about, signed: &self.operation.signed, witness: Some(witness), ..Call::plain(&slice) };
        self.operation.requester.change(self.env, call, extra, self.operation.idempotent).await
    }

    pub(super) fn preview(&self) -> Result<Request> {
        let (about, extra) = self.compose()?;
        let slice = Slice::default();
        self.operation.requester.preview(self.env, Call { about: &about, signed: &self.operation.signed, ..Call::plain(&slice) }, extra)
    }

    /// What templates see, and what the request carries.
    fn compose(&self) -> Result<(Vec<(&'static str, Value)>, Options)> {
        let operation = self.operation;
        let mut options = Options::default();
        let mut shaped = Vec::with_capacity(self.records.len());
        let (mut first, mut first_id) = (Value::Null, Value::Null);
        for (i, record) in self.records.iter().enumerate() {
            let (value, id, number) = (record.value(), record.id_value(), Value::from(i));
            let scope = scope(self.env, self.names, [&value, &id, &number]);
            if operation.form {
                options.data = form(record, self, &operation.with.eval(&scope)?);
            } else {
                shaped.push(record.shaped(operation, self.names, &scope)?);
            }
            if i == 0 {
                (first, first_id) = (value, id);
            }
        }
        let about = vec![
            ("object", self.names.object.clone()),
            ("key", self.names.key.clone()),
            ("record", first),
            ("id", first_id),
            ("delivery_id", Value::from(self.delivery_id())),
        ];
        if !operation.form {
            self.body(shaped, &mut options);
        }
        Ok((about, options))
    }

    /// Puts records where the body wants them.
    fn body(&self, mut shaped: Vec<String>, options: &mut Options) {
        let text = match self.operation.batch {
            Some(_) => format!("[{}]", shaped.join(",")),
            None => shaped.pop().unwrap_or_default(),
        };
        if self.operation.into.is_empty() {
            if text != "{}" {
                options.data_text = Some(format!("\"{}\"", *PLACE));
                options.verbatim.push((PLACE.clone(), text));
            }
            return;
        }
        let mut body = Value::Object(Map::new());
        dpath::set(&mut body, &self.operation.into, Value::from(PLACE.as_str()));
        if let Value::Object(body) = body {
            options.json = body;
        }
        options.verbatim.push((PLACE.clone(), text));
    }

    /// The same for the same rows of the same load, so that an API can tell a second attempt.
    fn delivery_id(&self) -> String {
        let mut digest = Sha256::new();
        digest.update(self.load);
        for record in self.records {
            digest.update(record.row.to_le_bytes());
        }
        hex::encode(&digest.finalize()[..16])
    }
}

/// Nested values as `a[b]`, as forms of APIs have them.
fn form(record: &Record, outgoing: &Outgoing<'_>, with: &Value) -> Map<String, Value> {
    let operation = outgoing.operation;
    let fields = record.sent_fields(operation, outgoing.names).into_iter();
    let parsed = fields.map(|(name, text)| (name, serde_json::from_str(&text).unwrap_or(Value::Null)));
    let own = with.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), value.clone()));
    let mut flat = Map::new();
    for (name, value) in own.chain(parsed) {
        let name = match operation.fields_into.split_first() {
            Some((first, rest)) => rest.iter().chain([&name]).fold(first.clone(), |path, key| format!("{path}[{key}]")),
            None => name,
        };
        flatten(name, value, &mut flat);
    }
    flat
}

fn flatten(name: String, value: Value, flat: &mut Map<String, Value>) {
    match value {
        Value::Object(map) => map.into_iter().for_each(|(key, value)| flatten(format!("{name}[{key}]"), value, flat)),
        Value::Array(items) => items.into_iter().enumerate().for_each(|(i, item)| flatten(format!("{name}[{i}]"), item, flat)),
        // A form empties a field with an empty text.
        Value::Null => drop(flat.insert(name, Value::from(""))),
        Value::Bool(yes) => drop(flat.insert(name, Value::from(yes.to_string()))),
        other => drop(flat.insert(name, other)),
    }
}
