//! What a request is made of: its address, parameters, headers and body, each from templates.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value};
use trib_core::{Code, Error, Result};
use trib_kit::http::Request;
use url::Url;

use super::node::{Expr, Node};
use super::options::Options;
use super::slice::Slice;
use super::template::{LiteralType, Scope, python_str};

/// Each exchange, where the manifest says nothing.
const TIMEOUT: Duration = Duration::from_mins(5);
const METHODS_WITH_BODY: [&str; 3] = ["POST", "PUT", "PATCH"];

pub(super) struct RequestParts {
    method: String,
    url: Option<Expr>,
    url_base: Option<Expr>,
    path: Option<Expr>,
    params: Input,
    headers: Input,
    data: Input,
    json: Body,
    /// The query's key whose value is a list of properties; see [`super::properties`].
    properties_key: Option<String>,
    timeout: Duration,
}

/// Templates by key, or one template that gives all.
enum Input {
    Map(Vec<(Expr, Entry)>),
    Whole(Expr),
}

enum Entry {
    Template(Expr),
    Value(Value),
}

/// A JSON body: templates at its leaves.
pub(super) enum Body {
    Object(Vec<(Expr, Body)>),
    List(Vec<Body>),
    Template(Expr),
    Value(Value),
}

impl RequestParts {
    pub(super) fn build(node: &Node<'_>) -> Result<Self> {
        let (data, json) = match node.get("request_body") {
            None => (Input::build(node, "request_body_data", &[])?, Body::build(node, "request_body_json")?),
            Some(body) => match body.kind() {
                "RequestBodyUrlEncodedForm" | "RequestBodyPlainText" => (Input::build(&body, "value", &[])?, Body::none()),
                "RequestBodyGraphQL" | "RequestBodyJsonObject" => (Input::Map(Vec::new()), Body::build(&body, "value")?),
                _ => return Err(body.unsupported()),
            },
        };
        let properties_key = super::properties::key_in_parameters(node);
        let skip: Vec<&str> = properties_key.as_deref().into_iter().collect();
        Ok(Self {
            method: node.text("http_method").unwrap_or("GET").to_owned(),
            url: node.expr("url")?,
            url_base: node.expr("url_base")?,
            path: node.expr("path")?,
            params: Input::build(node, "request_parameters", &skip)?,
            headers: Input::build(node, "request_headers", &[])?,
            data,
            json,
            properties_key,
            timeout: seconds(node, "read_timeout_in_seconds").unwrap_or(TIMEOUT),
        })
    }

    /// The address, from the requester's templates and the path of a call.
    pub(super) fn url_of(&self, scope: &Scope<'_>, path: Option<&str>) -> Result<Url> {
        let text = |expr: &Option<Expr>| Expr::text_or(expr.as_ref(), "", scope);
        let (url, base) = (text(&self.url)?, text(&self.url_base)?);
        let path = match path.filter(|p| !p.is_empty()) {
            Some(path) => path.to_owned(),
            None => text(&self.path)?.trim_start_matches('/').to_owned(),
        };
        join(if base.is_empty() { &url } else { &base }, &path)
    }

    /// What the requester itself puts into the request.
    pub(super) fn own_options(&self, scope: &Scope<'_>, slice: &Slice) -> Result<Options> {
        let lists = Some([LiteralType::String, LiteralType::List].as_slice());
        let mut options = Options {
            params: object(self.params.eval(scope, lists)?),
            headers: object(self.headers.eval(scope, None)?),
            ..Options::default()
        };
        match self.data.eval(scope, lists)? {
            Value::Object(map) => options.data = map,
            Value::Null => {}
            other => options.data_text = Some(python_str(&other)).filter(|t| !t.is_empty()),
        }
        match self.json.eval(scope)? {
            Value::Object(map) => options.json = map,
            Value::Null => {}
            Value::String(text) if text.is_empty() => {}
            _ => return Err(Error::new(Code::ConfigInvalid, "a JSON body must be an object")),
        }
        if let Some(key) = &self.properties_key {
            let list = slice.extra.get(super::properties::EXTRA).and_then(Value::as_array);
            let names: Vec<&str> = list.into_iter().flatten().filter_map(Value::as_str).collect();
            options.params.insert(key.clone(), Value::String(names.join(",")));
        }
        if let Some((key, _)) = options.params.iter().find(|(_, v)| v.is_object()) {
            return Err(Error::new(Code::ConfigInvalid, "a request parameter cannot be an object").detail(key.clone()));
        }
        Ok(options)
    }

    /// The request of all that was put together.
    pub(super) fn request(&self, url: &Url, options: Options, secret_headers: Vec<String>) -> Result<Request> {
        let mut url = url.clone();
        // What the URL says already is not said twice.
        let known: Vec<(String, String)> = url.query_pairs().map(|(k, v)| (k.into_owned(), v.into_owned())).collect();
        let said = |key: &str, value: &Value| known.iter().find(|(k, _)| k == key).is_some_and(|(_, v)| *v == python_str(value));
        let pairs: Vec<(String, String)> = pairs(options.params.into_iter().filter(|(k, v)| !said(k, v)));
        if !pairs.is_empty() {
            url.query_pairs_mut().extend_pairs(pairs);
        }
        let mut headers: Vec<(String, String)> = options.headers.into_iter().map(|(k, v)| (k, python_str(&v))).collect();
        let mut body = None;
        if METHODS_WITH_BODY.contains(&self.method.as_str()) {
            let has_data = !options.data.is_empty() || options.data_text.is_some();
            let content_type = if !options.json.is_empty() {
                if has_data {
                    return Err(Error::new(Code::ConfigInvalid, "a request has either a JSON body or another, not both"));
                }
                body = Some(Bytes::from(serde_json::to_vec(&options.json)?));
                Some("application/json")
            } else if let Some(text) = options.data_text {
                body = Some(Bytes::from(text));
                None
            } else if has_data {
                let form: String = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(self::pairs(options.data)).finish();
                body = Some(Bytes::from(form));
                Some("application/x-www-form-urlencoded")
            } else {
                None
            };
            if let Some(content_type) = content_type.filter(|_| !headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("content-type"))) {
                headers.push(("Content-Type".to_owned(), content_type.to_owned()));
            }
        }
        Ok(Request { method: self.method.clone(), url, headers, secret_headers, body, timeout: Some(self.timeout) })
    }
}

/// A length of time that the manifest gives, if it makes sense.
pub(super) fn seconds(node: &Node<'_>, name: &str) -> Option<Duration> {
    node.number(name).filter(|s| *s > 0.0 && *s < 86_400.0).map(Duration::from_secs_f64)
}

/// Keys and values as a query or a form has them: a list repeats its key.
pub(super) fn pairs(map: impl IntoIterator<Item = (String, Value)>) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for (key, value) in map {
        match value {
            Value::Null => {}
            Value::Array(items) => pairs.extend(items.iter().filter(|i| !i.is_null()).map(|item| (key.clone(), python_str(item)))),
            other => pairs.push((key, python_str(&other))),
        }
    }
    pairs
}

/// A base with its path: a whole URL as the path takes the base's place.
fn join(base: &str, path: &str) -> Result<Url> {
    let wrong = |text: &str| {
        let without_query = text.split(['?', '#']).next().unwrap_or_default().to_owned();
        Error::new(Code::ConfigInvalid, "the request's address is not a URL").detail(without_query)
    };
    if path.is_empty() {
        return Url::parse(base).map_err(|_| wrong(base));
    }
    if base.is_empty() {
        return Url::parse(path).map_err(|_| wrong(path));
    }
    let mut base = base.to_owned();
    if !base.ends_with('/') {
        base.push('/');
    }
    Url::parse(&base).and_then(|b| b.join(path)).map_err(|_| wrong(&base))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

impl Input {
    fn build(node: &Node<'_>, name: &str, skip: &[&str]) -> Result<Self> {
        let Some(field) = node.get(name) else { return Ok(Input::Map(Vec::new())) };
        let Some(map) = field.value.as_object() else { return Ok(Input::Whole(node.compile(field.value)?)) };
        let entry = |(key, value): (&String, &Value)| -> Result<(Expr, Entry)> {
            let key = node.compile(&Value::String(key.clone()))?;
            Ok((key, if value.is_string() { Entry::Template(node.compile(value)?) } else { Entry::Value(value.clone()) }))
        };
        let entries =
            map.iter().filter(|(key, _)| !skip.contains(&key.as_str()) && key.as_str() != super::parameters::PARAMETERS).map(entry);
        Ok(Input::Map(entries.collect::<Result<_>>().map_err(|e| e.setting(field.path))?))
    }

    /// An object without what rendered to nothing, or what the one template gives.
    fn eval(&self, scope: &Scope<'_>, valid: Option<&[LiteralType]>) -> Result<Value> {
        let entries = match self {
            Input::Whole(expr) => return expr.eval_as(scope, None),
            Input::Map(entries) => entries,
        };
        let mut map = Map::with_capacity(entries.len());
        for (key, entry) in entries {
            let value = match entry {
                Entry::Template(expr) => expr.entry(scope, valid)?,
                Entry::Value(value) => value.clone(),
            };
            if !value.is_null() {
                map.insert(python_str(&key.eval_as(scope, Some(&[LiteralType::String]))?), value);
            }
        }
        Ok(Value::Object(map))
    }
}

impl Body {
    fn none() -> Self {
        Body::Value(Value::Null)
    }

    pub(super) fn build(node: &Node<'_>, name: &str) -> Result<Self> {
        node.get(name).map_or(Ok(Body::none()), |field| Self::part(node, field.value).map_err(|e| e.setting(field.path)))
    }

    fn part(node: &Node<'_>, value: &Value) -> Result<Self> {
        Ok(match value {
            Value::String(_) => Body::Template(node.compile(value)?),
            Value::Array(items) => Body::List(items.iter().map(|i| Self::part(node, i)).collect::<Result<_>>()?),
            Value::Object(map) => {
                let own = map.iter().filter(|(k, _)| k.as_str() != super::parameters::PARAMETERS);
                let entry = |(k, v): (&String, &Value)| Ok((node.compile(&Value::String(k.clone()))?, Self::part(node, v)?));
                Body::Object(own.map(entry).collect::<Result<_>>()?)
            }
            other => Body::Value(other.clone()),
        })
    }

    pub(super) fn eval(&self, scope: &Scope<'_>) -> Result<Value> {
        Ok(match self {
            Body::Template(expr) => expr.entry(scope, None)?,
            Body::Value(value) => value.clone(),
            Body::List(items) => Value::Array(items.iter().map(|i| i.eval(scope)).collect::<Result<_>>()?),
            Body::Object(entries) => {
                let mut map = Map::with_capacity(entries.len());
                for (key, part) in entries {
                    let value = part.eval(scope)?;
                    if !value.is_null() {
                        map.insert(key.text(scope)?, value);
                    }
                }
                Value::Object(map)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn addresses_are_joined() {
        let cases = [
            ("https://a.example/v1", "items", "https://a.example/v1/items"),
            ("https://a.example/v1/", "items?x=1", "https://a.example/v1/items?x=1"),
            ("https://a.example/v1/x?y=1", "", "https://a.example/v1/x?y=1"),
            ("https://a.example/v1", "https://b.example/next", "https://b.example/next"),
            ("https://a.example/v1", "/next", "https://a.example/next"),
        ];
        for (base, path, expected) in cases {
            assert_eq!(join(base, path).unwrap().as_str(), expected);
        }
        assert_eq!(join("nowhere", "x?key=secret").unwrap_err().code(), Code::ConfigInvalid);
    }

    #[test]
    fn lists_repeat_their_key() {
        let Value::Object(map) = json!({"a": [1, "b", null], "t": true, "n": null, "f": 1.0}) else { panic!() };
        let expected = [("a", "1"), ("a", "b"), ("t", "True"), ("f", "1.0")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(pairs(map), expected);
    }
}
