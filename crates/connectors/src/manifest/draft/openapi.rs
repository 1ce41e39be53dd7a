//! A draft from an OpenAPI document (3.x in JSON or YAML): one stream for each operation that gives a list and needs nothing but the base URL.

use serde_json::{Map, Value, json};
use trib_core::{Code, Error, Result};
use url::Url;

use super::pages::Pages;
use super::{Draft, Setting, StreamDraft, sample};
use crate::manifest::yaml;

/// References in references end here.
const DEEPEST: usize = 12;

/// What a document has, and what of it became streams.
pub struct Operations {
    pub draft: Draft,
    /// Operations that were left out, each with the reason.
    pub left_out: Vec<(String, String)>,
}

/// `from` is where the document stands, which relative server URLs start at; `only` names the paths that are wanted, all when empty.
pub fn from_openapi(file: &str, text: &str, from: Option<&Url>, only: &[String]) -> Result<Operations> {
    let document = yaml::parse(file, text)?;
    let wrong = |what: &'static str| Error::new(Code::DataInvalid, what).file(file.to_owned(), None, None);
    let Some(version) = document.get("openapi").map(super::super::template::python_str) else {
        return Err(wrong("the file is no OpenAPI document").hint("it begins with `openapi: 3.…`; Swagger 2 is not understood"));
    };
    let paths = document.get("paths").and_then(Value::as_object).ok_or_else(|| wrong("the document has no `paths`"))?;
    let reader = Reader { document: &document };
    let server = document.pointer("/servers/0/url").and_then(Value::as_str).unwrap_or("/");
    let base = match (Url::parse(server), from) {
        (Ok(url), _) => url,
        (Err(_), Some(from)) => from.join(server).map_err(|_| wrong("the document's server is no URL"))?,
        (Err(_), None) => {
            return Err(wrong("the document names no server").detail(server.to_owned()).hint("give the API's base with --url"));
        }
    };
    let mut draft = Draft { url_base: format!("{}/", base.as_str().trim_end_matches('/')), ..Draft::default() };
    draft.notes.push(format!("from an OpenAPI {version} document: keys and pages are guessed from names, cursors are not"));
    reader.security(&mut draft);
    let mut left_out = Vec::new();
    for (path, item) in paths.iter().filter(|(path, _)| only.is_empty() || only.contains(path)) {
        let Some(operation) = item.get("get") else { continue };
        match reader.stream(path, item, operation) {
            Ok(stream) => {
                let taken = draft.streams.iter().any(|s| s.name == stream.name);
                let name = if taken { stream.name.clone() + &format!("_{}", draft.streams.len()) } else { stream.name.clone() };
                draft.streams.push(StreamDraft { name, ..stream });
            }
            Err(why) => left_out.push((path.clone(), why)),
        }
    }
    if draft.streams.is_empty() {
        let reasons: Vec<String> = left_out.iter().take(5).map(|(path, why)| format!("{path}: {why}")).collect();
        return Err(wrong("no operation of the document gives a list that can be read as it is").detail(reasons.join("; ")));
    }
    Ok(Operations { draft, left_out })
}

struct Reader<'a> {
    document: &'a Value,
}

impl<'a> Reader<'a> {
    /// What a reference points to.
    fn resolved(&self, mut value: &'a Value) -> &'a Value {
        for _ in 0..DEEPEST {
            let target = value.get("$ref").and_then(Value::as_str).and_then(|r| self.document.pointer(r.strip_prefix('#')?));
            match target {
                Some(next) => value = next,
                None => break,
            }
        }
        value
    }

    fn security(&self, draft: &mut Draft) {
        let schemes = self.document.pointer("/components/securitySchemes").and_then(Value::as_object);
        for (name, scheme) in schemes.into_iter().flatten() {
            let scheme = self.resolved(scheme);
            let text = |key: &str| scheme.get(key).and_then(Value::as_str).unwrap_or_default().to_lowercase();
            let mut setting = |name: &str, secret| {
                let description = scheme.get("description").and_then(Value::as_str).unwrap_or("A credential").to_owned();
                draft.settings.push(Setting { name: name.to_owned(), secret, required: true, description });
                format!("{{{{ config['{name}'] }}}}")
            };
            draft.authenticator = Some(match (text("type").as_str(), text("scheme").as_str(), text("in").as_str()) {
                ("http", "basic", _) => {
                    let user = setting("username", false);
                    json!({"type": "BasicHttpAuthenticator", "username": user, "password": setting("password", true)})
                }
                ("http", "bearer", _) => json!({"type": "BearerAuthenticator", "api_token": setting("api_token", true)}),
                ("apikey", _, place @ ("header" | "query")) => {
                    let into = if place == "header" { "header" } else { "request_parameter" };
                    let field = scheme.get("name").cloned().unwrap_or_default();
                    json!({"type": "ApiKeyAuthenticator", "api_token": setting("api_key", true),
                           "inject_into": {"type": "RequestOption", "inject_into": into, "field_name": field}})
                }
                (kind, ..) => {
                    draft.notes.push(format!("the security scheme {name} ({kind}) is left out: write its authenticator by hand"));
                    continue;
                }
            });
            // There is one authenticator.
            return;
        }
    }

    /// The stream of an operation, or why there is none.
    fn stream(&self, path: &str, item: &'a Value, operation: &'a Value) -> Result<StreamDraft, String> {
        if path.contains('{') {
            return Err("its path needs a value, such as another stream's key".to_owned());
        }
        let lists = [item.get("parameters"), operation.get("parameters")];
        let parameters: Vec<&Value> = lists.into_iter().flatten().filter_map(Value::as_array).flatten().map(|p| self.resolved(p)).collect();
        let said = |p: &Value, key: &str| p.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let example =
            |p: &Value| p.pointer("/schema/default").or_else(|| p.get("example")).or_else(|| p.pointer("/schema/example")).cloned();
        let mut params = Map::new();
        for parameter in parameters.iter().filter(|p| p.get("required") == Some(&Value::Bool(true))) {
            match (said(parameter, "in").as_str(), example(parameter)) {
                ("query", Some(value)) => drop(params.insert(said(parameter, "name"), value)),
                (place, _) => return Err(format!("it needs the {place} parameter `{}`", said(parameter, "name"))),
            }
        }
        let answers = operation.get("responses").and_then(Value::as_object).ok_or("it has no answers")?;
        let good = ["200", "2XX", "default"].iter().find_map(|code| answers.get(*code)).ok_or("it has no answer 200")?;
        let content = self.resolved(good).get("content").and_then(Value::as_object).ok_or("its answer has no content")?;
        let json =
            content.iter().find(|(kind, _)| kind.contains("json")).and_then(|(_, c)| c.get("schema")).ok_or("its answer is not JSON")?;
        let (records, item) = self.list(json, 0).ok_or("its answer is no list")?;
        let schema = self.schema(item, 0);
        let properties = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
        let name =
            path.trim_matches('/').rsplit('/').next().unwrap_or(path).replace(|c: char| !c.is_ascii_alphanumeric(), "_").to_lowercase();
        let like = Value::Object(properties.keys().map(|k| (k.clone(), Value::from(1))).collect());
        let query: Vec<String> = parameters.iter().filter(|p| said(p, "in") == "query").map(|p| said(p, "name")).collect();
        let pages = Pages::by_parameters(&query);
        params.retain(|name, _| !pages.asks_by(name));
        Ok(StreamDraft {
            key: sample::key(std::slice::from_ref(&like), &name),
            name,
            path: path.trim_start_matches('/').to_owned(),
            params,
            headers: Map::new(),
            records,
            cursor: None,
            pages,
            schema,
        })
    }

    /// Where an answer has its list, and what is in it.
    fn list(&self, schema: &'a Value, depth: usize) -> Option<(Vec<String>, &'a Value)> {
        let schema = self.resolved(schema);
        if let Some(items) = schema.get("items") {
            let items = self.resolved(items);
            let is_object =
                items.get("properties").is_some() || items.get("allOf").is_some() || items.get("type").is_some_and(|t| t == "object");
            return is_object.then_some((Vec::new(), items));
        }
        let parts = schema.get("allOf").and_then(Value::as_array).into_iter().flatten().map(|p| self.resolved(p));
        for schema in std::iter::once(schema).chain(parts).filter(|_| depth < 3) {
            for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
                if let Some((mut path, items)) = self.list(property, depth + 1) {
                    path.insert(0, name.clone());
                    return Some((path, items));
                }
            }
        }
        None
    }

    /// The schema without references, in the older form of JSON Schema that manifests use.
    fn schema(&self, schema: &'a Value, depth: usize) -> Value {
        let schema = self.resolved(schema);
        if depth > DEEPEST {
            return json!({});
        }
        let mut out = Map::new();
        if depth == 0 {
            out.insert("$schema".to_owned(), "http://json-schema.org/draft-07/schema#".into());
        }
        let mut properties = Map::new();
        let parts = schema.get("allOf").and_then(Value::as_array).into_iter().flatten().map(|p| self.resolved(p));
        for part in std::iter::once(schema).chain(parts) {
            for (name, property) in part.get("properties").and_then(Value::as_object).into_iter().flatten() {
                properties.insert(name.clone(), self.schema(property, depth + 1));
            }
        }
        let kind = match schema.get("type") {
            Some(kind) => kind.clone(),
            None if !properties.is_empty() => "object".into(),
            None => return json!({}),
        };
        let mut kinds = kind.as_array().cloned().unwrap_or_else(|| vec![kind]);
        if depth > 0 && !kinds.contains(&"null".into()) {
            kinds.push("null".into());
        }
        out.insert("type".to_owned(), if kinds.len() == 1 { kinds.remove(0) } else { Value::Array(kinds) });
        if let Some(format) = schema.get("format").and_then(Value::as_str).filter(|f| matches!(*f, "date" | "date-time")) {
            out.insert("format".to_owned(), format.into());
        }
        if !properties.is_empty() {
            out.insert("additionalProperties".to_owned(), true.into());
            out.insert("properties".to_owned(), Value::Object(properties));
        }
        if let Some(items) = schema.get("items") {
            out.insert("items".to_owned(), self.schema(items, depth + 1));
        }
        Value::Object(out)
    }
}
