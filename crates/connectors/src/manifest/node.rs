//! A manifest's component as its builder sees it: fields by name, each knowing its path, and texts that are templates.

use std::sync::Arc;

use serde_json::{Map, Value};
use trib_core::{Code, Error, Result};

use super::parameters::PARAMETERS;
use super::template::{LiteralType, Scope, Template, TemplateError, python_str};

/// A part of a manifest, and where it stands.
#[derive(Clone)]
pub(super) struct Node<'a> {
    pub(super) value: &'a Value,
    pub(super) path: String,
    parameters: Arc<Value>,
}

impl<'a> Node<'a> {
    pub(super) fn new(value: &'a Value, path: impl Into<String>) -> Self {
        let node = Self { value, path: path.into(), parameters: Arc::new(Value::Object(Map::new())) };
        let parameters = node.own_parameters();
        Self { parameters, ..node }
    }

    /// A component's parameters: its own, or those of what it stands in.
    fn own_parameters(&self) -> Arc<Value> {
        self.value.get(PARAMETERS).map_or_else(|| self.parameters.clone(), |p| Arc::new(p.clone()))
    }

    fn child(&self, value: &'a Value, path: String) -> Self {
        let child = Self { value, path, parameters: Arc::new(Value::Object(Map::new())) };
        let parameters = child.own_parameters();
        Self { parameters, ..child }
    }

    /// The component's type.
    pub(super) fn kind(&self) -> &'a str {
        self.value.get("type").and_then(Value::as_str).unwrap_or_default()
    }

    /// A field that is there and not null.
    pub(super) fn get(&self, name: &str) -> Option<Node<'a>> {
        let value = self.value.get(name).filter(|v| !v.is_null())?;
        Some(self.child(value, if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }))
    }

    pub(super) fn need(&self, name: &str) -> Result<Node<'a>> {
        self.get(name).ok_or_else(|| self.wrong("a field that is needed is not there").detail(format!("{} needs `{name}`", self.kind())))
    }

    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.value.get(name).and_then(Value::as_str)
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.value.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    pub(super) fn integer(&self, name: &str) -> Option<i64> {
        let value = self.value.get(name)?;
        value.as_i64().or_else(|| value.as_f64().map(|f| f as i64))
    }

    pub(super) fn number(&self, name: &str) -> Option<f64> {
        self.value.get(name).and_then(Value::as_f64)
    }

    /// The items of a list; of anything else that is there, itself.
    pub(super) fn items(&self, name: &str) -> Vec<Node<'a>> {
        let Some(node) = self.get(name) else { return Vec::new() };
        match node.value {
            Value::Array(items) => items.iter().enumerate().map(|(i, item)| node.child(item, format!("{}[{i}]", node.path))).collect(),
            _ => vec![node],
        }
    }

    pub(super) fn entries(&self) -> Vec<(&'a String, Node<'a>)> {
        let map = self.value.as_object();
        map.into_iter().flatten().map(|(key, value)| (key, self.child(value, format!("{}.{key}", self.path)))).collect()
    }

    /// A field as a template of this component; numbers and truth values stand for their texts.
    pub(super) fn expr(&self, name: &str) -> Result<Option<Expr>> {
        match self.get(name) {
            None => Ok(None),
            Some(field) => self.compile(field.value).map(Some).map_err(|e| e.setting(field.path)),
        }
    }

    pub(super) fn need_expr(&self, name: &str) -> Result<Expr> {
        self.need(name)?;
        self.expr(name)?.ok_or_else(|| self.wrong("a field that is needed is not there"))
    }

    /// A list of texts as templates of this component.
    pub(super) fn exprs(&self, name: &str) -> Result<Vec<Expr>> {
        self.items(name).iter().map(|item| self.compile(item.value).map_err(|e| e.setting(item.path.clone()))).collect()
    }

    /// A text that stands somewhere within this component.
    pub(super) fn compile(&self, value: &Value) -> Result<Expr> {
        let source = match value {
            Value::String(text) => text.clone(),
            other => python_str(other),
        };
        Expr::new(&source, self.parameters.clone()).map_err(|e| e.setting(self.path.clone()))
    }

    pub(super) fn wrong(&self, what: &'static str) -> Error {
        Error::new(Code::ConfigInvalid, what).setting(self.path.clone())
    }

    /// Refuses what this build cannot do, and says what the component wants.
    pub(super) fn unsupported(&self) -> Error {
        let error = Error::new(Code::Unsupported, "the stream needs a component that is not available").setting(self.path.clone());
        match self.text("class_name") {
            Some(class) => {
                error.detail(format!("{} is the Python class {class}", self.kind())).hint("streams of the manifest that do not need it run")
            }
            None => error.detail(self.kind().to_owned()),
        }
    }
}

/// A template with the parameters of the component that it stands in.
#[derive(Clone)]
pub(super) struct Expr {
    template: Arc<Template>,
    source: Arc<str>,
    parameters: Arc<Value>,
    /// What it always gives.
    constant: Option<Arc<Value>>,
}

impl Expr {
    pub(super) fn new(source: &str, parameters: Arc<Value>) -> Result<Self> {
        let template = Template::compile(source).map_err(|e| unusable(&e, source))?;
        let constant = if template.is_constant() { template.eval(&Scope::new(), None).ok().map(Arc::new) } else { None };
        Ok(Self { template: Arc::new(template), source: source.into(), parameters, constant })
    }

    pub(super) fn source(&self) -> &str {
        &self.source
    }

    pub(super) fn constant(&self) -> Option<&Value> {
        self.constant.as_deref()
    }

    /// The value that the text evaluates to.
    pub(super) fn eval(&self, scope: &Scope<'_>) -> Result<Value> {
        match &self.constant {
            Some(value) => Ok((**value).clone()),
            None => self.eval_as(scope, None),
        }
    }

    /// The same, with text kept where the value is of none of these types.
    pub(super) fn eval_as(&self, scope: &Scope<'_>, valid: Option<&[LiteralType]>) -> Result<Value> {
        let scope = scope.clone().with("parameters", &self.parameters);
        self.template.eval(&scope, valid).map_err(|e| self.failed(&e))
    }

    /// As an entry of a map: what renders to nothing is null.
    pub(super) fn entry(&self, scope: &Scope<'_>, valid: Option<&[LiteralType]>) -> Result<Value> {
        let scope = scope.clone().with("parameters", &self.parameters);
        self.template.eval_or_null(&scope, valid).map_err(|e| self.failed(&e))
    }

    /// The value as Python writes it.
    pub(super) fn text(&self, scope: &Scope<'_>) -> Result<String> {
        match self.eval(scope)? {
            Value::String(text) => Ok(text),
            other => Ok(python_str(&other)),
        }
    }

    /// The text of a setting that may be left out.
    pub(super) fn text_or(expr: Option<&Self>, usual: &str, scope: &Scope<'_>) -> Result<String> {
        expr.map_or_else(|| Ok(usual.to_owned()), |e| e.text(scope))
    }

    pub(super) fn truthy(&self, scope: &Scope<'_>) -> Result<bool> {
        let scope = scope.clone().with("parameters", &self.parameters);
        self.template.truthy(&scope).map_err(|e| self.failed(&e))
    }

    fn failed(&self, e: &TemplateError) -> Error {
        unusable(e, &self.source)
    }
}

/// A template's failure holds no values, so its text may be shown.
fn unusable(e: &TemplateError, source: &str) -> Error {
    Error::new(Code::ConfigInvalid, "a template of the manifest cannot be evaluated")
        .detail(e.to_string())
        .hint(format!("the template is {source}"))
}
