//! Python's values as far as templates meet them.
//!
//! Records and settings are borrowed, never copied: `Json` points into the caller's value. Lists and dicts that the template makes itself
//! live in the machine's heap and are named by index, so a cycle cannot leak and a deep nest cannot overflow the stack when dropped.

use std::ops::Deref;
use std::rc::Rc;

use chrono::NaiveDate;
use serde_json::Value;

use super::datetime::{Delta, Duration, Moment};
use super::functions::Function;

/// An index into the machine's heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id(pub(super) u32);

#[derive(Clone, Debug)]
pub(super) enum Text<'a> {
    Borrowed(&'a str),
    Shared(Rc<str>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Shared(text) => text,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) enum Val<'a> {
    /// An attribute or item that is not there; `forbidden` when the sandbox hides it.
    Undefined {
        name: Text<'a>,
        forbidden: bool,
    },
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Text<'a>),
    /// The caller's array or object.
    Json(&'a Value),
    /// The caller's object with keys that ignore case.
    Headers(&'a Value),
    /// The caller's object, and the attributes beside its keys.
    Slice(&'a Value, &'a Value),
    List(Id),
    Tuple(Id),
    Dict(Id),
    Namespace(Id),
    /// What `dict.items()` and its like, or a lazy filter, give: the items, Python's name for the type.
    View(Id, &'static str),
    Generator(Id, &'static str),
    Loop(Id),
    Date(NaiveDate),
    Moment(Moment),
    Delta(Delta),
    Duration(Rc<Duration>),
    /// A method that was looked up and not called.
    Method(Rc<Val<'a>>, Text<'a>),
    Function(Function),
}

/// What an `Id` names.
#[derive(Debug)]
pub(super) enum Object<'a> {
    Items(Vec<Val<'a>>),
    Entries(Vec<(Val<'a>, Val<'a>)>),
    Loop { index: usize, items: Id },
}

impl<'a> Val<'a> {
    pub(super) fn str(text: impl Into<Rc<str>>) -> Self {
        Val::Str(Text::Shared(text.into()))
    }

    pub(super) fn borrowed(text: &'a str) -> Self {
        Val::Str(Text::Borrowed(text))
    }

    pub(super) fn undefined(name: Text<'a>) -> Self {
        Val::Undefined { name, forbidden: false }
    }

    pub(super) fn from_json(value: &'a Value) -> Self {
        match value {
            Value::Null => Val::None,
            Value::Bool(flag) => Val::Bool(*flag),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(int), _) => Val::Int(int.into()),
                (None, Some(int)) => Val::Int(int.into()),
                (None, None) => Val::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => Val::borrowed(text),
            Value::Array(_) | Value::Object(_) => Val::Json(value),
        }
    }

    /// Python's name of the type, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Val::Undefined { .. } => "Undefined",
            Val::None => "NoneType",
            Val::Bool(_) => "bool",
            Val::Int(_) => "int",
            Val::Float(_) => "float",
            Val::Str(_) => "str",
            Val::Json(Value::Array(_)) | Val::List(_) => "list",
            Val::Json(_) | Val::Headers(_) | Val::Slice(..) | Val::Dict(_) => "dict",
            Val::Tuple(_) => "tuple",
            Val::Namespace(_) => "Namespace",
            Val::View(_, name) => name,
            Val::Generator(..) => "generator",
            Val::Loop(_) => "LoopContext",
            Val::Date(_) => "datetime.date",
            Val::Moment(_) => "datetime.datetime",
            Val::Delta(_) => "datetime.timedelta",
            Val::Duration(_) => "Duration",
            Val::Method(..) => "builtin_function_or_method",
            Val::Function(_) => "function",
        }
    }

    pub(super) fn is_undefined(&self) -> bool {
        matches!(self, Val::Undefined { .. })
    }

    /// As Python's numbers go: a bool is an int.
    pub(super) fn as_int(&self) -> Option<i128> {
        match self {
            Val::Bool(flag) => Some(i128::from(*flag)),
            Val::Int(int) => Some(*int),
            _ => None,
        }
    }

    pub(super) fn as_float(&self) -> Option<f64> {
        match self {
            Val::Float(float) => Some(*float),
            _ => self.as_int().map(|int| int as f64),
        }
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Val::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The caller's object, if this is one.
    pub(super) fn as_object(&self) -> Option<&'a serde_json::Map<String, Value>> {
        match self {
            Val::Json(value) | Val::Headers(value) | Val::Slice(value, _) => value.as_object(),
            _ => None,
        }
    }
}
