//! What can go wrong in a template, seen from inside (`Fault`, Python's exceptions) and from outside (`TemplateError`).
//! No message holds a value: values come from settings and records, and may be secret.

use std::fmt;

/// Why a template gave no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    /// The text is no template: a brace that does not close, a filter that does not exist.
    #[error("the template cannot be read: {0}")]
    Syntax(String),
    /// Names that are neither given where the template stands nor set in it.
    #[error("the template uses names that do not exist here: {}", .0.join(", "))]
    Undeclared(Vec<String>),
    /// Something was done with an attribute or item that is not there.
    #[error("the template uses something that is not there: {0}")]
    Undefined(String),
    /// An operation, filter or function failed on its arguments.
    #[error("the template failed: {0}")]
    Failed(String),
    /// The template took too many steps or made too much text.
    #[error("the template was stopped: {0}")]
    Limit(&'static str),
}

/// A Python exception, as far as the reference tells them apart.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// `TypeError`: the template's own text becomes its value.
    Type(String),
    /// `UndefinedError`: the default becomes its value.
    Undefined(String),
    /// Every other exception.
    Failed(String),
    /// Not Python's: our own bound on work and output.
    Limit(&'static str),
}

pub(super) type Outcome<T> = Result<T, Fault>;

impl Fault {
    pub(super) fn wrong_type<T>(message: impl fmt::Display) -> Outcome<T> {
        Err(Fault::Type(message.to_string()))
    }

    pub(super) fn failed<T>(message: impl fmt::Display) -> Outcome<T> {
        Err(Fault::Failed(message.to_string()))
    }
}

impl From<Fault> for TemplateError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Undefined(what) => TemplateError::Undefined(what),
            Fault::Type(message) | Fault::Failed(message) => TemplateError::Failed(message),
            Fault::Limit(which) => TemplateError::Limit(which),
        }
    }
}
