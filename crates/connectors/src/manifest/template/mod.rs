//! Templates of declarative connectors: Jinja's syntax with Python's meaning, as the reference evaluates them.
//!
//! A template's text becomes a value by Python's literal syntax: `"5"` is the number 5, `"[1, 2]"` a list, `"007"` and `"true"` stay text.
//! What else is particular about it stands in the guide's page on declarative connectors and in the decision on template semantics.
//!
//! ```text
//! text ─ parse ─▶ ast ─ names ─▶ needed names          once
//! ast + Scope ─ machine ─▶ value or text ─ literal ─▶ JSON   per record, per request
//! ```

mod access;
mod arguments;
mod ast;
mod containers;
pub(crate) mod datetime;
mod encoding;
mod error;
mod filters;
mod formatting;
mod functions;
mod literal;
mod machine;
mod methods;
mod names;
mod operators;
mod parse;
mod predicates;
mod protocol;
mod repr;
mod scope;
mod sequences;
#[cfg(test)]
mod tests;
mod text_methods;
mod value;

use std::borrow::Cow;

use serde_json::{Map, Value};

pub(crate) use error::TemplateError;
pub use protocol::interpolate;
pub(crate) use repr::python_str;
pub(crate) use scope::Scope;

use ast::Stmt;
use error::{Fault, Outcome};
use literal::{Literal, literal};
use machine::{MAX_NEST, Machine};
use value::Val;

/// The types that a template's text may be evaluated to, where a place allows only some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LiteralType {
    Null,
    Boolean,
    Integer,
    Float,
    String,
    List,
    /// `(1, 2)`: a list in JSON, but not one where a list is asked for.
    Tuple,
    Mapping,
}

/// A template, read once and evaluated many times.
#[derive(Debug)]
pub(crate) struct Template {
    source: Box<str>,
    body: Body,
    /// The reference refuses this name wherever it stands.
    names_state: bool,
}

#[derive(Debug)]
enum Body {
    /// No braces: the text, line ends as Jinja leaves them.
    Constant(Box<str>),
    Code {
        statements: Vec<Stmt>,
        needed: Vec<String>,
    },
}

/// What a value is where the reference decides about a condition.
pub(crate) fn is_falsy(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => matches!(&**text, "" | "False" | "false" | "{}" | "[]" | "()" | "0" | "0.0"),
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
    }
}

impl Template {
    /// Reads a template. Text without braces is kept as it is.
    pub(crate) fn compile(source: &str) -> Result<Self, TemplateError> {
        let text: Cow<'_, str> =
            if source.contains('\r') { source.replace("\r\n", "\n").replace('\r', "\n").into() } else { source.into() };
        let body = if ["{{", "{%", "{#"].iter().any(|brace| text.contains(brace)) {
            let statements = parse::parse(&text)?;
            let needed = names::needed(&statements);
            Body::Code { statements, needed }
        } else {
            Body::Constant(text.strip_suffix('\n').unwrap_or(&text).into())
        };
        Ok(Self { source: source.into(), body, names_state: source.contains("stream_state") })
    }

    /// Whether it has nothing to evaluate.
    pub(crate) fn is_constant(&self) -> bool {
        matches!(self.body, Body::Constant(_))
    }

    /// The value that the text evaluates to, kept as text where that is of none of the `valid` types. Nothing gives empty text; to use
    /// what is not there is an error.
    pub(crate) fn eval(&self, scope: &Scope<'_>, valid: Option<&[LiteralType]>) -> Result<Value, TemplateError> {
        let value = self.produce(scope, valid)??;
        Ok(value.unwrap_or_else(|| Value::String(String::new())))
    }

    /// The same as an entry of a map: nothing, or the use of what is not there, gives null.
    pub(crate) fn eval_or_null(&self, scope: &Scope<'_>, valid: Option<&[LiteralType]>) -> Result<Value, TemplateError> {
        match self.produce(scope, valid)? {
            Ok(value) => Ok(value.unwrap_or(Value::Null)),
            Err(TemplateError::Undefined(_)) => Ok(Value::Null),
            Err(error) => Err(error),
        }
    }

    /// As a condition: nothing and the use of what is not there are false, and so is what [`is_falsy`] says.
    pub(crate) fn truthy(&self, scope: &Scope<'_>) -> Result<bool, TemplateError> {
        Ok(!is_falsy(&self.eval_or_null(scope, None)?))
    }

    /// The outer error is the template's own; the inner one comes from evaluating it. `None` is empty text.
    fn produce(&self, scope: &Scope<'_>, valid: Option<&[LiteralType]>) -> Result<Result<Option<Value>, TemplateError>, TemplateError> {
        if self.names_state {
            return Err(TemplateError::Failed("`stream_state` is no longer available; `stream_interval` is".into()));
        }
        let (statements, needed) = match &self.body {
            Body::Constant(text) => return Ok(Ok(evaluated(Cow::Borrowed(text), valid))),
            Body::Code { statements, needed } => (statements, needed),
        };
        let undeclared: Vec<String> = needed.iter().filter(|name| scope.get(name).is_none()).cloned().collect();
        if !undeclared.is_empty() {
            return Err(TemplateError::Undeclared(undeclared));
        }
        match run(statements, scope, valid) {
            Ok(value) => Ok(Ok(value)),
            Err(Fault::Type(_)) => Ok(Ok(evaluated(Cow::Borrowed(&self.source), valid))),
            Err(fault) => Ok(Err(fault.into())),
        }
    }
}

fn run<'a>(statements: &'a [Stmt], scope: &'a Scope<'a>, valid: Option<&[LiteralType]>) -> Outcome<Option<Value>> {
    let mut machine = Machine::new(scope);
    let mut text = String::new();
    if let [Stmt::Emit(expr)] = statements {
        let value = machine.expr(expr)?;
        // Writing a value and reading it again would give the same value: spared, where that is certain.
        if let Some(literal_type) = literal_type(&value)
            && accepts(valid, literal_type)
            && let Some(json) = machine.to_json(&value, 0)?
        {
            return Ok(Some(json));
        }
        machine.write_str(&value, &mut text)?;
    } else {
        machine.run(statements, &mut text)?;
    }
    Ok(evaluated(Cow::Owned(text), valid))
}

fn evaluated(text: Cow<'_, str>, valid: Option<&[LiteralType]>) -> Option<Value> {
    if text.is_empty() {
        return None;
    }
    let value = literal(&text).filter(|literal| accepts(valid, literal.literal_type())).and_then(Literal::into_json);
    Some(value.unwrap_or_else(|| Value::String(text.into_owned())))
}

fn accepts(valid: Option<&[LiteralType]>, literal_type: LiteralType) -> bool {
    valid.is_none_or(|valid| {
        // In Python a bool is an int.
        valid.contains(&literal_type) || (literal_type == LiteralType::Boolean && valid.contains(&LiteralType::Integer))
    })
}

impl Literal {
    fn literal_type(&self) -> LiteralType {
        match self {
            Literal::None => LiteralType::Null,
            Literal::Bool(_) => LiteralType::Boolean,
            Literal::Int(_) => LiteralType::Integer,
            Literal::Float(_) => LiteralType::Float,
            Literal::Str(_) => LiteralType::String,
            Literal::List(_) => LiteralType::List,
            Literal::Tuple(_) => LiteralType::Tuple,
            Literal::Dict(_) => LiteralType::Mapping,
        }
    }
}

/// The literal type of a value whose text reads back as the value itself.
fn literal_type(value: &Val<'_>) -> Option<LiteralType> {
    Some(match value {
        Val::None => LiteralType::Null,
        Val::Bool(_) => LiteralType::Boolean,
        Val::Int(_) => LiteralType::Integer,
        Val::Float(_) => LiteralType::Float,
        Val::Json(Value::Array(_)) | Val::List(_) => LiteralType::List,
        Val::Tuple(_) => LiteralType::Tuple,
        Val::Json(_) | Val::Headers(_) | Val::Slice(..) | Val::Dict(_) => LiteralType::Mapping,
        _ => return None,
    })
}

impl<'a> Machine<'a> {
    /// The value in JSON, unless something in it has no literal.
    fn to_json(&mut self, value: &Val<'a>, depth: usize) -> Outcome<Option<Value>> {
        self.spend(1)?;
        if depth > MAX_NEST {
            return Ok(None);
        }
        Ok(match value {
            Val::None => Some(Value::Null),
            Val::Bool(flag) => Some(Value::Bool(*flag)),
            Val::Int(int) => literal::integer(*int).map(Value::Number),
            Val::Float(float) => serde_json::Number::from_f64(*float).map(Value::Number),
            Val::Str(text) => {
                self.spend_text(text.len())?;
                Some(Value::String((**text).to_owned()))
            }
            Val::Json(json) | Val::Headers(json) | Val::Slice(json, _) => Some((*json).clone()),
            Val::List(id) | Val::Tuple(id) => {
                let items = self.items(*id).to_vec();
                let mut array = Vec::with_capacity(items.len());
                for item in &items {
                    match self.to_json(item, depth + 1)? {
                        Some(json) => array.push(json),
                        None => return Ok(None),
                    }
                }
                Some(Value::Array(array))
            }
            Val::Dict(id) => {
                let mut map = Map::new();
                for (key, value) in self.entries(*id).to_vec() {
                    match (key, self.to_json(&value, depth + 1)?) {
                        (Val::Str(key), Some(json)) => _ = map.insert((*key).to_owned(), json),
                        _ => return Ok(None),
                    }
                }
                Some(Value::Object(map))
            }
            _ => None,
        })
    }
}
