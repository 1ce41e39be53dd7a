//! A stream's JSON schema: written in the manifest, in a file beside it, or asked of the API.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value, json};
use trib_core::{Code, Error, Result};

use super::dpath;
use super::env::Env;
use super::node::{Expr, Node};
use super::records::Record;
use super::retriever::{PageState, Place, Retriever};
use super::slice::Slice;
use super::transform::Transform;

pub(super) enum SchemaLoader {
    Inline(Value),
    /// Without the file there is no schema, unless the manifest names it.
    File {
        path: PathBuf,
        named: bool,
    },
    Dynamic(Box<Dynamic>),
    /// What several say, merged.
    Composite(Vec<SchemaLoader>),
}

pub(super) struct Dynamic {
    retriever: Retriever,
    schema_pointer: Vec<Expr>,
    key_pointer: Vec<Expr>,
    type_pointer: Vec<Expr>,
    types: Vec<TypesMap>,
    filter: Option<Expr>,
    transforms: Vec<Transform>,
}

struct TypesMap {
    current: Value,
    target: Value,
    condition: Option<Expr>,
}

impl SchemaLoader {
    /// `stream` is the component that the loader stands in.
    pub(super) fn build(env: &Arc<Env>, stream: &Node<'_>, dir: &Path) -> Result<Self> {
        match stream.get("schema_loader") {
            None => {
                let name = stream.text("name").unwrap_or_default();
                Ok(SchemaLoader::File { path: dir.join("schemas").join(format!("{name}.json")), named: false })
            }
            Some(list) if list.value.is_array() => {
                let loaders = stream.items("schema_loader");
                Ok(SchemaLoader::Composite(loaders.iter().map(|l| Self::one(env, l, dir)).collect::<Result<_>>()?))
            }
            Some(loader) => Self::one(env, &loader, dir),
        }
    }

    fn one(env: &Arc<Env>, node: &Node<'_>, dir: &Path) -> Result<Self> {
        match node.kind() {
            "InlineSchemaLoader" => Ok(SchemaLoader::Inline(node.value.get("schema").cloned().unwrap_or_else(|| json!({})))),
            "JsonFileSchemaLoader" => {
                let usual =
                    format!("./schemas/{}.json", node.value.pointer("/$parameters/name").and_then(Value::as_str).unwrap_or_default());
                let named = node.get("file_path").is_some();
                let path = node.expr("file_path")?.map_or(Ok(usual), |p| p.text(&env.scope()))?;
                Ok(SchemaLoader::File { path: beside(dir, &path), named })
            }
            "DynamicSchemaLoader" => Ok(SchemaLoader::Dynamic(Box::new(Dynamic::build(env, node)?))),
            _ => Err(node.unsupported()),
        }
    }

    pub(super) async fn load(&self, env: &Env) -> Result<Value> {
        match self {
            SchemaLoader::Inline(schema) => Ok(schema.clone()),
            SchemaLoader::File { path, named } => match std::fs::read_to_string(path) {
                Ok(text) => serde_json::from_str(&text).map_err(|e| {
                    Error::new(Code::ConfigInvalid, "the stream's schema is not JSON")
                        .file(path.display().to_string(), None, None)
                        .source(e)
                }),
                Err(_) if !named => Ok(json!({})),
                Err(e) => Err(Error::new(Code::NotFound, "the file with the stream's schema cannot be read")
                    .file(path.display().to_string(), None, None)
                    .source(e)),
            },
            SchemaLoader::Dynamic(dynamic) => dynamic.load(env).await,
            SchemaLoader::Composite(loaders) => {
                let mut properties = Map::new();
                for loader in loaders {
                    let schema = Box::pin(loader.load(env)).await?;
                    properties.extend(schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default());
                }
                Ok(json!({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "properties": properties}))
            }
        }
    }
}

/// A path as manifests write it, which begins with the connector's package; files stand beside the manifest.
fn beside(dir: &Path, path: &str) -> PathBuf {
    let parts: Vec<&str> = path.split('/').filter(|p| !matches!(*p, "" | "." | "..")).collect();
    let whole: PathBuf = parts.iter().collect();
    if dir.join(&whole).exists() || parts.len() < 2 {
        return dir.join(whole);
    }
    dir.join(parts[1..].iter().collect::<PathBuf>())
}

impl Dynamic {
    fn build(env: &Arc<Env>, node: &Node<'_>) -> Result<Self> {
        let identifier = node.need("schema_type_identifier")?;
        let types = |t: &Node<'_>| -> Result<TypesMap> {
            let part = |name: &str| t.value.get(name).cloned().unwrap_or_default();
            Ok(TypesMap { current: part("current_type"), target: part("target_type"), condition: t.expr("condition")? })
        };
        let filter = match node.get("schema_filter") {
            None => None,
            Some(filter) if filter.kind() == "RecordFilter" => filter.expr("condition")?,
            Some(filter) => return Err(filter.unsupported()),
        };
        Ok(Self {
            retriever: Retriever::build(env, &node.need("retriever")?, &[], Place::default())?,
            schema_pointer: identifier.exprs("schema_pointer")?,
            key_pointer: identifier.exprs("key_pointer")?,
            type_pointer: identifier.exprs("type_pointer")?,
            types: identifier.items("types_mapping").iter().map(types).collect::<Result<_>>()?,
            filter,
            transforms: node.items("schema_transformations").iter().map(Transform::build).collect::<Result<_>>()?,
        })
    }

    async fn load(&self, env: &Env) -> Result<Value> {
        let mut pages = PageState::new(Slice::default(), &self.retriever);
        let mut first = None;
        while first.is_none() {
            match Box::pin(self.retriever.next_page(env, &mut pages, None, None)).await? {
                None => break,
                Some(records) => first = records.get(0).map(Record::value),
            }
        }
        let path = |exprs: &[Expr]| exprs.iter().map(|e| e.text(&env.scope())).collect::<Result<Vec<_>>>();
        let (schema_path, key_path, type_path) = (path(&self.schema_pointer)?, path(&self.key_pointer)?, path(&self.type_pointer)?);
        let mut properties = Map::new();
        let fields = first.as_ref().and_then(|record| dpath::get(record, &schema_path)).and_then(Value::as_array);
        for field in fields.into_iter().flatten() {
            let key = dpath::get(field, &key_path).and_then(Value::as_str);
            let key = key.ok_or_else(|| wrong("a field's name is no text"))?;
            let usual = Value::from("string");
            let own = if type_path.is_empty() { &usual } else { dpath::get(field, &type_path).unwrap_or(&usual) };
            properties.insert(key.to_owned(), schema_of(&self.mapped(env, own, field)?)?);
        }
        if let Some(filter) = &self.filter {
            let mut kept = Map::new();
            for (key, value) in properties {
                let record = json!({&key: &value});
                if filter.truthy(&env.scope().with("record", &record))? {
                    kept.insert(key, value);
                }
            }
            properties = kept;
        }
        let mut properties = Value::Object(properties);
        let slice = Slice::default();
        self.transforms.iter().try_for_each(|t| t.apply(env, &slice, &mut properties))?;
        Ok(json!({
            "$schema": "https://json-schema.org/draft-07/schema#", "type": "object", "additionalProperties": true, "properties": properties,
        }))
    }

    fn mapped(&self, env: &Env, own: &Value, field: &Value) -> Result<Value> {
        for map in self.types.iter().filter(|m| m.current == *own) {
            let holds = match &map.condition {
                None => true,
                Some(condition) => condition.truthy(&env.scope().with("raw_schema", field))?,
            };
            if holds {
                return Ok(map.target.clone());
            }
        }
        Ok(own.clone())
    }
}

fn wrong(what: &'static str) -> Error {
    Error::new(Code::SystemError, what)
}

/// The JSON schema of a type by the protocol's names for types.
fn schema_of(kind: &Value) -> Result<Value> {
    let unknown = || wrong("the API names a type that the manifest does not map").detail(kind.to_string());
    match kind {
        Value::String(name) => Ok(match name.as_str() {
            "string" | "boolean" | "integer" | "number" | "array" | "object" => json!({"type": ["null", name]}),
            "date" => json!({"type": ["null", "string"], "format": "date"}),
            "timestamp_with_timezone" => json!({"type": ["null", "string"], "format": "date-time"}),
            "time_with_timezone" => json!({"type": ["null", "string"], "format": "time", "airbyte_type": name}),
            "timestamp_without_timezone" => json!({"type": ["null", "string"], "format": "date-time", "airbyte_type": name}),
            "time_without_timezone" => json!({"type": ["null", "string"], "format": "time", "airbyte_type": name}),
            _ => return Err(unknown()),
        }),
        Value::Array(pair) if pair.len() == 2 => Ok(json!({"oneOf": [schema_of(&pair[0])?, schema_of(&pair[1])?]})),
        Value::Object(complex) => {
            let mut schema = schema_of(complex.get("field_type").unwrap_or(&Value::Null))?;
            if let Some(items) = complex.get("items").filter(|i| !i.is_null()) {
                schema["items"] = schema_of(items)?;
            }
            Ok(schema)
        }
        _ => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_by_name() {
        assert_eq!(schema_of(&json!("date")).unwrap(), json!({"type": ["null", "string"], "format": "date"}));
        assert_eq!(
            schema_of(&json!({"field_type": "array", "items": "integer"})).unwrap(),
            json!({"type": ["null", "array"], "items": {"type": ["null", "integer"]}})
        );
        assert!(schema_of(&json!("picklist")).is_err());
    }
}
