//! Objects of an API as a manifest declares them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use trib_core::delivery::{Object, ObjectField, Operation};
use trib_core::error::closest;
use trib_core::{Code, Error, Result};

use super::super::env::Env;
use super::super::json_schema;
use super::super::node::{Expr, Node};
use super::super::parameters::PARAMETERS;
use super::super::request_parts::Body;
use super::super::requester::Requester;
use super::answers::Answers;
use super::describe::{FieldDiscovery, ObjectDiscovery};
use super::job::Job;
use super::look_up::LookUp;
use super::record::Record;

/// Bytes of records that one call carries, where the manifest says nothing.
const USUAL_BYTES: usize = 1 << 20;

pub(super) struct ApiObject {
    pub(super) described: Object,
    /// JSON Schema of a record.
    schema: Value,
    operations: BTreeMap<Operation, ApiOperation>,
    pub(super) look_up: Option<LookUp>,
    pub(super) discover_fields: Option<FieldDiscovery>,
    pub(super) discover_objects: Option<ObjectDiscovery>,
}

/// How the API is asked to do something with records.
pub(super) struct ApiOperation {
    pub(super) requester: Requester,
    /// Which fields are sent.
    pub(super) fields: Fields,
    /// Where within the record they stand; empty: the record is its fields.
    pub(super) fields_into: Vec<String>,
    pub(super) forms: Forms,
    /// Only records can be sent that the API has named before.
    pub(super) needs_id: bool,
    /// What a record says besides its fields.
    pub(super) with: Body,
    /// Where the record, or the list of records, stands within the body; empty: it is the body.
    pub(super) into: Vec<String>,
    pub(super) form: bool,
    /// More than one record a call, and how many.
    pub(super) batch: Option<Batch>,
    pub(super) answers: Answers,
    /// Many records go in a bulk job.
    pub(super) job: Option<Job>,
    /// Headers that are made of the body.
    pub(super) signed: Vec<(String, Expr)>,
    /// Sending a record twice is as good as once.
    pub(super) idempotent: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fields {
    All,
    /// Those that differ from what was delivered.
    Changed,
    /// NULL in all that are mapped.
    Emptied,
    /// Those that identify the record.
    Key,
    None,
}

/// How fields are written.
#[derive(Default)]
pub(super) struct Forms {
    /// A field `a.b` is `b` within `a`.
    pub(super) nested: bool,
    /// Numbers and truth values are texts.
    pub(super) texts: bool,
    /// The JSON text in place of NULL.
    pub(super) emptied: Option<String>,
}

#[derive(Clone, Copy)]
pub(super) struct Batch {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

impl ApiObject {
    pub(super) fn build(env: &Arc<Env>, node: &Node<'_>) -> Result<Self> {
        let name = node.text("name").unwrap_or_default().to_owned();
        let properties = node.get("fields").and_then(|f| f.value.as_object().cloned()).unwrap_or_default();
        let required: Vec<&str> = node.items("required").iter().filter_map(|r| r.value.as_str()).collect();
        if let Some(unknown) = required.iter().find(|r| !properties.contains_key(**r) && !node.flag("open")) {
            return Err(node.wrong("a field is required that the object does not have").detail((*unknown).to_owned()));
        }
        let keys = node.items("keys").iter().map(|key| texts(key)).collect::<Vec<_>>();
        let mut operations: BTreeMap<Operation, ApiOperation> = BTreeMap::new();
        for operation in node.items("operations") {
            let kind = operation.text("operation").and_then(Operation::of);
            let kind = kind.ok_or_else(|| operation.wrong("the operation is none that is known"))?;
            if operations.insert(kind, ApiOperation::build(env, &operation, kind)?).is_some() {
                return Err(operation.wrong("the object has this operation already").detail(kind.as_str()));
            }
        }
        let look_up = node.get("look_up").map(|l| LookUp::build(env, &l)).transpose()?;
        let mut most: BTreeMap<Operation, u64> = operations.iter().map(|(kind, o)| (*kind, o.most_records() as u64)).collect();
        if let (true, Some(insert), Some(update)) = (look_up.is_some(), most.get(&Operation::Insert), most.get(&Operation::Update)) {
            let both = *insert.min(update);
            most.entry(Operation::Upsert).or_insert(both);
        }
        let field = |(name, schema): (&String, &Value)| ObjectField {
            name: name.clone(),
            kind: kind(schema),
            required: required.contains(&name.as_str()),
            writable: true,
            max_length: None,
            relationship: None,
        };
        let discover_objects = node.get("discover_objects").map(|d| ObjectDiscovery::build(env, &d)).transpose()?;
        if discover_objects.is_some() && name != ANY {
            return Err(node.wrong("only the object named `*` can stand for objects that the API lists"));
        }
        let discover_fields = node.get("discover_fields").map(|d| FieldDiscovery::build(env, &d)).transpose()?;
        let described = Object {
            name,
            description: node.text("description").map(str::to_owned),
            fields: properties.iter().filter(|(k, _)| !k.starts_with('$')).map(field).collect(),
            // Until the API is asked, it may have any field.
            open: node.flag("open") || discover_fields.is_some(),
            found_by_any: look_up.is_some() && keys.is_empty(),
            keys,
            operations: most,
            can_be_looked_up: look_up.is_some(),
        };
        let schema = json!({"type": "object", "properties": properties, "required": required});
        Ok(Self { described, schema, operations, look_up, discover_fields, discover_objects })
    }

    /// Without an upsert of the API's own, a look-up tells what is an update and what an insert.
    pub(super) fn upserts_by_looking_up(&self, operation: Operation) -> bool {
        operation == Operation::Upsert && !self.operations.contains_key(&operation) && self.described.operations.contains_key(&operation)
    }

    /// The operation that does it for a record that the API has named before, or has not.
    pub(super) fn carried_out(&self, operation: Operation, has_id: bool) -> Operation {
        match operation {
            _ if !self.upserts_by_looking_up(operation) => operation,
            _ if has_id => Operation::Update,
            _ => Operation::Insert,
        }
    }

    /// An identifier as a field's JSON: a number where the field is one.
    pub(super) fn identifier(&self, field: &str, id: &str) -> Result<Box<RawValue>> {
        let kind = self.schema["properties"][field]["type"].as_str();
        let is_number = matches!(kind, Some("integer" | "number")) && !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit());
        Ok(RawValue::from_string(if is_number { id.to_owned() } else { Value::from(id).to_string() })?)
    }

    pub(super) fn operation(&self, operation: Operation) -> Result<&ApiOperation> {
        self.operations.get(&operation).ok_or_else(|| {
            let there: Vec<&str> = self.operations.keys().map(|o| o.as_str()).collect();
            Error::new(Code::Unsupported, "the object cannot be written in this way")
                .detail(format!("{}: {}", self.described.name, operation.as_str()))
                .hint(format!("it knows {}", there.join(", ")))
        })
    }

    /// Why a record would not be taken, as far as its declared fields tell, and those that the API has `described`.
    pub(super) fn invalid(&self, record: &Record, described: Option<&Object>) -> Option<String> {
        let (value, operation) = (record.value(), record.operation);
        if matches!(operation, Operation::Delete | Operation::Clear | Operation::Archive) {
            return None;
        }
        // What is NULL is not there.
        let present = value.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
        let present: Map<String, Value> = present.map(|(name, value)| (name.clone(), value.clone())).collect();
        let present = Value::Object(present);
        let problems = json_schema::problems(&self.schema, &present);
        // A changed record need not say what the API knows already.
        let counts = |p: &&json_schema::Problem| operation != Operation::Update || !p.path.is_empty();
        // What stands for a parent is not yet what is sent.
        let is_parent = |name: &str| record.look_ups.as_ref().is_some_and(|l| l.parents.contains_key(name));
        if let Some(problem) = problems.iter().filter(counts).find(|p| !is_parent(&p.path)) {
            return Some(problem.to_string());
        }
        let mut own = present.as_object().into_iter().flatten().filter(|(name, _)| !is_parent(name));
        own.find_map(|(name, value)| too_long(name, value.as_str()?, described?))
    }
}

impl ApiOperation {
    fn build(env: &Arc<Env>, node: &Node<'_>, operation: Operation) -> Result<Self> {
        let usual = match operation {
            Operation::Delete | Operation::Archive => Fields::None,
            Operation::Clear => Fields::Emptied,
            _ => Fields::All,
        };
        let fields = match node.text("fields") {
            Some("all") => Fields::All,
            Some("changed") => Fields::Changed,
            Some("key") => Fields::Key,
            Some("none") => Fields::None,
            _ => usual,
        };
        let batch = node.get("batch").map(|batch| {
            let number = |name: &str| batch.integer(name).and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
            Batch { records: number("max_records").unwrap_or(1), bytes: number("max_bytes").unwrap_or(USUAL_BYTES) }
        });
        let form = node.text("encoding") == Some("form");
        if form && batch.is_some() {
            return Err(node.wrong("a form carries one record: `encoding: form` and `batch` exclude each other"));
        }
        Ok(Self {
            requester: Requester::build(env, &node.need("requester")?, false)?,
            fields,
            fields_into: node.get("fields_into").map(|f| texts(&f)).unwrap_or_default(),
            forms: Forms {
                nested: node.flag("nested"),
                texts: node.flag("texts"),
                emptied: node.get("emptied").map(|e| e.value.to_string()),
            },
            needs_id: node.flag("needs_id"),
            with: Body::build(node, "with")?,
            into: node.get("into").map(|f| texts(&f)).unwrap_or_default(),
            form,
            batch,
            answers: node.get("answers").map_or_else(|| Ok(Answers::default()), |a| Answers::build(&a))?,
            job: node.get("job").map(|j| Job::build(env, &j)).transpose()?,
            signed: signed(node)?,
            idempotent: node.get("idempotent").map_or(operation != Operation::Insert, |i| i.value.as_bool().unwrap_or(false)),
        })
    }

    pub(super) fn most_records(&self) -> usize {
        self.batch.map_or(1, |b| b.records)
    }

    pub(super) fn most_bytes(&self) -> usize {
        self.batch.map_or(usize::MAX, |b| b.bytes)
    }
}

/// What is wrong with a text that has more characters than the API takes. `Account.Number` is the other record's field.
fn too_long(name: &str, text: &str, described: &Object) -> Option<String> {
    let most = described.fields.iter().find(|f| f.name == name)?.max_length?;
    let length = text.chars().count() as u64;
    (length > most).then(|| format!("{name}: it has {length} characters, and the API takes {most}"))
}

/// The types that a JSON Schema allows, in words.
fn kind(schema: &Value) -> Option<String> {
    match schema.get("type")? {
        Value::String(one) => Some(one.clone()),
        Value::Array(many) => Some(many.iter().filter_map(Value::as_str).filter(|t| *t != "null").collect::<Vec<_>>().join(" or ")),
        _ => None,
    }
}

fn signed(node: &Node<'_>) -> Result<Vec<(String, Expr)>> {
    let headers = node.get("signed_headers");
    let entries = headers.iter().flat_map(Node::entries).filter(|(name, _)| name.as_str() != PARAMETERS);
    entries.map(|(name, template)| Ok((name.clone(), node.compile(template.value)?))).collect()
}

fn texts(node: &Node<'_>) -> Vec<String> {
    match node.value {
        Value::Array(items) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Value::String(text) => vec![text.clone()],
        _ => Vec::new(),
    }
}

/// All objects of a manifest, by name.
pub(super) fn objects(env: &Arc<Env>, root: &Node<'_>) -> Result<BTreeMap<String, ApiObject>> {
    let mut objects = BTreeMap::new();
    for node in root.items("objects") {
        let object = ApiObject::build(env, &node)?;
        if let Some(twice) = objects.insert(object.described.name.clone(), object) {
            return Err(node.wrong("two objects have one name").detail(twice.described.name));
        }
    }
    Ok(objects)
}

/// Stands for every object that the API has and the manifest does not name.
pub(super) const ANY: &str = "*";

/// The object of this name among those that there are.
pub(super) fn find<'a>(objects: &'a BTreeMap<String, ApiObject>, name: &str) -> Result<&'a ApiObject> {
    objects.get(name).or_else(|| objects.get(ANY)).ok_or_else(|| unknown(name, objects.keys().map(String::as_str)))
}

/// The error for a name that no object has.
pub(super) fn unknown<'a>(name: &str, there: impl Iterator<Item = &'a str> + Clone) -> Error {
    let error = Error::new(Code::NotFound, "the API has no such object").detail(format!("`{name}`")).setting("into");
    match closest(name, there.clone()) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint(format!("there are {}", there.take(20).collect::<Vec<_>>().join(", "))),
    }
}
