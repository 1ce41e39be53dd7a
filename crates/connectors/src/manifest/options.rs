//! What a request carries, and who puts it there: the requester, the paginator, the slice and the authenticator each give their part.

use serde_json::{Map, Value};
use trib_core::{Code, Error, Result};

use super::env::Env;
use super::node::{Expr, Node};

/// Query, headers and body in the making.
#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    pub(super) params: Map<String, Value>,
    pub(super) headers: Map<String, Value>,
    pub(super) data: Map<String, Value>,
    pub(super) data_text: Option<String>,
    pub(super) json: Map<String, Value>,
    /// JSON text that stands where the body has the name instead. It may hold numbers of more digits than a [`Value`] can.
    pub(super) verbatim: Vec<(String, String)>,
}

impl Options {
    /// Adds what another part gives. Two parts may not give one key; within a JSON body they may if they agree.
    pub(super) fn merge(&mut self, other: Options) -> Result<()> {
        merge(&mut self.params, other.params, false)?;
        merge(&mut self.headers, other.headers, false)?;
        merge(&mut self.data, other.data, false)?;
        merge(&mut self.json, other.json, true)?;
        if other.data_text.is_some() {
            self.data_text = other.data_text;
        }
        self.verbatim.extend(other.verbatim);
        if self.data_text.is_some() && !self.data.is_empty() {
            return Err(Error::new(Code::ConfigInvalid, "a request's body is a text, and something else puts fields into it"));
        }
        Ok(())
    }
}

impl Options {
    /// Puts verbatim text into its places: the body is a text from then on.
    pub(super) fn compose(&mut self) -> Result<()> {
        if self.verbatim.is_empty() {
            return Ok(());
        }
        let mut text = match &self.data_text {
            Some(text) => text.clone(),
            None => serde_json::to_string(&std::mem::take(&mut self.json))?,
        };
        for (name, value) in self.verbatim.drain(..) {
            text = text.replace(&format!("\"{name}\""), &value);
        }
        self.data_text = Some(text);
        if !self.headers.keys().any(|k| k.eq_ignore_ascii_case("content-type")) {
            self.headers.insert("Content-Type".to_owned(), Value::from("application/json"));
        }
        Ok(())
    }
}

fn merge(target: &mut Map<String, Value>, source: Map<String, Value>, may_agree: bool) -> Result<()> {
    for (key, value) in source {
        let collision = || {
            Error::new(Code::ConfigInvalid, "two parts of the manifest put the same key into a request")
                .detail(key.clone())
                .hint("each key of a request must come from one place: the requester, the paginator, the cursor or the authenticator")
        };
        match (target.get_mut(&key), value) {
            (None, value) => {
                target.insert(key, value);
            }
            (Some(Value::Object(known)), Value::Object(value)) if may_agree => merge(known, value, true)?,
            (Some(known), value) if may_agree && *known == value => {}
            (Some(_), _) => return Err(collision()),
        }
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Parameter,
    Header,
    BodyData,
    BodyJson,
}

/// Where a token, a time or a partition's value is put.
#[derive(Clone)]
pub(super) struct RequestOption {
    place: Place,
    path: Vec<Expr>,
}

impl RequestOption {
    pub(super) fn build(node: &Node<'_>) -> Result<Self> {
        let place = match node.text("inject_into") {
            Some("request_parameter") => Place::Parameter,
            Some("header") => Place::Header,
            Some("body_data") => Place::BodyData,
            Some("body_json") => Place::BodyJson,
            _ => return Err(node.wrong("the request option does not say where it goes")),
        };
        let names = match (node.get("field_name"), node.items("field_path")) {
            (Some(name), path) if path.is_empty() => vec![name],
            (None, path) if !path.is_empty() && place == Place::BodyJson => path,
            _ => return Err(node.wrong("a request option has a `field_name`, or within a JSON body a `field_path`")),
        };
        // The reference gives these templates no parameters.
        let none = std::sync::Arc::new(Value::Object(Map::new()));
        let expr = |n: &Node<'_>| Expr::new(n.value.as_str().unwrap_or_default(), none.clone()).map_err(|e| e.setting(n.path.clone()));
        Ok(Self { place, path: names.iter().map(expr).collect::<Result<_>>()? })
    }

    pub(super) fn optional(node: &Node<'_>, name: &str) -> Result<Option<Self>> {
        node.get(name).map(|n| Self::build(&n)).transpose()
    }

    pub(super) fn inject(&self, env: &Env, options: &mut Options, value: Value) -> Result<()> {
        let scope = env.scope();
        let names = self.path.iter().map(|p| p.text(&scope)).collect::<Result<Vec<_>>>()?;
        let map = match self.place {
            Place::Parameter => &mut options.params,
            Place::Header => &mut options.headers,
            Place::BodyData => &mut options.data,
            Place::BodyJson => &mut options.json,
        };
        let Some((last, parents)) = names.split_last() else { return Ok(()) };
        let mut at = map;
        for name in parents {
            let child = at.entry(name.clone()).or_insert_with(|| Value::Object(Map::new()));
            if !child.is_object() {
                *child = Value::Object(Map::new());
            }
            let Value::Object(inner) = child else { return Ok(()) };
            at = inner;
        }
        at.insert(last.clone(), value);
        Ok(())
    }

    /// The header that it fills, if it fills one.
    pub(super) fn header(&self, env: &Env) -> Result<Option<String>> {
        match (self.place, self.path.first()) {
            (Place::Header, Some(name)) => name.text(&env.scope()).map(Some),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn one_key_comes_from_one_place() {
        let mut params = map(json!({"a": 1}));
        assert!(merge(&mut params, map(json!({"a": 1})), false).is_err());
        let mut body = map(json!({"q": {"x": 1}, "same": 5}));
        merge(&mut body, map(json!({"q": {"y": 2}, "same": 5})), true).unwrap();
        assert_eq!(Value::Object(body.clone()), json!({"q": {"x": 1, "y": 2}, "same": 5}));
        assert!(merge(&mut body, map(json!({"q": {"x": 2}})), true).is_err());
    }
}
