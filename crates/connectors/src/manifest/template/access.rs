//! Attributes, items, slices and iteration, with the fallbacks that Jinja adds to Python's.

use std::rc::Rc;

use chrono::{Datelike, Timelike};
use serde_json::Value;

use super::error::{Fault, Outcome};
use super::machine::Machine;
use super::methods;
use super::value::{Id, Object, Text, Val};

impl<'a> Machine<'a> {
    /// `subject.name`: Python's attribute, else the item of that name, else undefined. A name that the template spells out is borrowed.
    pub(super) fn attribute(&mut self, subject: Val<'a>, name: Text<'a>) -> Outcome<Val<'a>> {
        if subject.is_undefined() {
            return Err(self.undefined(&subject));
        }
        if let Some(value) = self.own_attribute(&subject, &name) {
            return Ok(value);
        }
        if methods::has(&subject, &name) {
            return Ok(Val::Method(Rc::new(subject), name));
        }
        let forbidden = name.starts_with("__") && name.ends_with("__");
        if !forbidden && let Some(value) = self.lookup(&subject, &Val::Str(name.clone()))? {
            return Ok(self.current(value));
        }
        // A name that was computed may hold a value, which no message shows.
        let name = if matches!(name, Text::Borrowed(_)) { name } else { Text::Borrowed("an attribute") };
        Ok(Val::Undefined { name, forbidden })
    }

    fn own_attribute(&self, subject: &Val<'a>, name: &str) -> Option<Val<'a>> {
        let int = |number: i64| Some(Val::Int(number.into()));
        match subject {
            Val::Slice(_, attributes) => attributes.get(name).map(Val::from_json),
            Val::Namespace(id) => self.entries(*id).iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value.clone()),
            Val::Date(date) => match name {
                "year" => int(date.year().into()),
                "month" => int(date.month().into()),
                "day" => int(date.day().into()),
                _ => None,
            },
            Val::Moment(moment) => match name {
                "year" => int(moment.local.year().into()),
                "month" => int(moment.local.month().into()),
                "day" => int(moment.local.day().into()),
                "hour" => int(moment.local.hour().into()),
                "minute" => int(moment.local.minute().into()),
                "second" => int(moment.local.second().into()),
                "microsecond" => int((moment.local.nanosecond() / 1_000).into()),
                "tzinfo" => Some(moment.offset.map_or(Val::None, |_| Val::str(moment.zone_name()))),
                _ => None,
            },
            Val::Delta(delta) => match name {
                "days" => int(delta.days()),
                "seconds" => int(delta.seconds()),
                "microseconds" => int(delta.microseconds()),
                _ => None,
            },
            Val::Duration(duration) => match name {
                "years" => int(duration.years),
                "months" => int(duration.months),
                "days" => int(duration.rest.days()),
                "seconds" => int(duration.rest.seconds()),
                _ => None,
            },
            Val::Loop(id) => self.loop_attribute(*id, name),
            _ => None,
        }
    }

    fn loop_attribute(&self, id: Id, name: &str) -> Option<Val<'a>> {
        let Object::Loop { index, items } = *self.object(id) else { return None };
        let items = self.items(items);
        let count = |number: usize| Some(Val::Int(number as i128));
        let neighbour = |at: Option<usize>| {
            Some(at.and_then(|at| items.get(at)).cloned().unwrap_or(Val::undefined(Text::Borrowed("the neighbour of an outermost item"))))
        };
        match name {
            "index" => count(index + 1),
            "index0" => count(index),
            "revindex" => count(items.len() - index),
            "revindex0" => count(items.len() - index - 1),
            "length" => count(items.len()),
            "first" => Some(Val::Bool(index == 0)),
            "last" => Some(Val::Bool(index + 1 == items.len())),
            "previtem" => neighbour(index.checked_sub(1)),
            "nextitem" => neighbour(Some(index + 1)),
            "depth" => count(1),
            "depth0" => count(0),
            _ => None,
        }
    }

    /// `subject[key]`: the item, else (for text keys) the method of that name, else undefined.
    pub(super) fn item(&mut self, subject: &Val<'a>, key: &Val<'a>) -> Outcome<Val<'a>> {
        if subject.is_undefined() {
            return Err(self.undefined(subject));
        }
        if let Some(value) = self.lookup(subject, key)? {
            return Ok(self.current(value));
        }
        match key {
            Val::Str(name) => match self.own_attribute(subject, name) {
                Some(value) => Ok(value),
                None if methods::has(subject, name) => Ok(Val::Method(Rc::new(subject.clone()), name.clone())),
                None => Ok(Val::undefined(Text::Borrowed("an item"))),
            },
            _ => Ok(Val::undefined(Text::Borrowed("an item"))),
        }
    }

    /// The item, if it is there; never an error about the types.
    pub(super) fn lookup(&mut self, subject: &Val<'a>, key: &Val<'a>) -> Outcome<Option<Val<'a>>> {
        Ok(match subject {
            Val::Headers(Value::Object(headers)) => key.as_str().and_then(|key| {
                let exact = headers.get(key);
                exact
                    .or_else(|| headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value))
                    .map(Val::from_json)
            }),
            Val::Json(Value::Object(entries)) | Val::Slice(Value::Object(entries), _) => {
                key.as_str().and_then(|key| entries.get(key)).map(Val::from_json)
            }
            Val::Json(Value::Array(items)) => position(key, items.len()).map(|at| Val::from_json(&items[at])),
            Val::List(id) | Val::Tuple(id) => {
                let items = self.items(*id);
                position(key, items.len()).map(|at| items[at].clone())
            }
            Val::Dict(id) => self.find(*id, key)?.map(|at| self.entries(*id)[at].1.clone()),
            Val::Str(text) => {
                self.spend_text(text.len())?;
                let length = text.chars().count();
                position(key, length).and_then(|at| text.chars().nth(at)).map(|char| Val::str(char.to_string()))
            }
            _ => None,
        })
    }

    /// Where `key` stands in a dict.
    pub(super) fn find(&mut self, id: Id, key: &Val<'a>) -> Outcome<Option<usize>> {
        let count = self.entries(id).len();
        self.spend(count / 4)?;
        for at in 0..count {
            let known = self.entries(id)[at].0.clone();
            if self.equal(&known, key)? {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    pub(super) fn insert(&mut self, id: Id, key: Val<'a>, value: Val<'a>) -> Outcome<()> {
        hashable(&key)?;
        self.spend(8)?;
        let found = self.find(id, &key)?;
        if let Some(entries) = self.entries_mut(id) {
            match found {
                Some(at) => entries[at].1 = value,
                None => entries.push((key, value)),
            }
        }
        Ok(())
    }

    pub(super) fn slice(&mut self, subject: &Val<'a>, bounds: [Option<Val<'a>>; 3]) -> Outcome<Val<'a>> {
        let items = match subject {
            Val::Undefined { .. } => return Err(self.undefined(subject)),
            Val::Str(_) | Val::List(_) | Val::Tuple(_) | Val::Json(Value::Array(_)) => self.iterate(subject)?,
            _ => return Ok(Val::undefined(Text::Borrowed("a slice"))),
        };
        let [start, stop, step] = bounds.map(|bound| bound.map(|bound| bound.as_int()));
        let (Some(start), Some(stop), Some(step)) = (whole(start), whole(stop), whole(step)) else {
            return Ok(Val::undefined(Text::Borrowed("a slice")));
        };
        let picked = positions(items.len(), start, stop, step)?;
        let mut kept = Vec::with_capacity(picked.len());
        for at in picked {
            kept.push(items[at].clone());
        }
        match subject {
            Val::Str(_) => Ok(Val::str(kept.iter().filter_map(Val::as_str).collect::<String>())),
            Val::Tuple(_) => self.tuple(kept),
            _ => self.list(kept),
        }
    }

    /// The values that a `for` meets.
    pub(super) fn iterate(&mut self, subject: &Val<'a>) -> Outcome<Vec<Val<'a>>> {
        let items: Vec<Val<'a>> = match subject {
            Val::Undefined { forbidden: false, .. } => Vec::new(),
            Val::Undefined { .. } => return Err(self.undefined(subject)),
            Val::Str(text) => {
                self.spend(text.len().saturating_mul(8))?;
                text.chars().map(|char| Val::str(char.encode_utf8(&mut [0; 4]) as &str)).collect()
            }
            Val::Json(Value::Array(items)) => {
                self.spend(items.len())?;
                items.iter().map(Val::from_json).collect()
            }
            Val::Json(Value::Object(entries)) | Val::Headers(Value::Object(entries)) | Val::Slice(Value::Object(entries), _) => {
                self.spend(entries.len())?;
                entries.keys().map(|key| Val::borrowed(key)).collect()
            }
            Val::List(id) | Val::Tuple(id) | Val::View(id, _) | Val::Generator(id, _) => {
                self.spend(self.items(*id).len())?;
                self.items(*id).to_vec()
            }
            Val::Dict(id) => {
                self.spend(self.entries(*id).len())?;
                self.entries(*id).iter().map(|(key, _)| key.clone()).collect()
            }
            _ => return Fault::wrong_type(format!("'{}' object is not iterable", subject.kind())),
        };
        Ok(items)
    }

    /// A dict's keys and values.
    pub(super) fn pairs(&mut self, subject: &Val<'a>) -> Outcome<Vec<(Val<'a>, Val<'a>)>> {
        if let Some(entries) = subject.as_object() {
            self.spend(entries.len())?;
            return Ok(entries.iter().map(|(key, value)| (Val::borrowed(key), Val::from_json(value))).collect());
        }
        match subject {
            Val::Dict(id) | Val::Namespace(id) => {
                self.spend(self.entries(*id).len())?;
                Ok(self.entries(*id).to_vec())
            }
            Val::Undefined { .. } => Err(self.undefined(subject)),
            _ => Fault::wrong_type(format!("'{}' object is not a mapping", subject.kind())),
        }
    }

    /// `len(subject)`, where Python has it.
    pub(super) fn length(&self, subject: &Val<'a>) -> Option<usize> {
        match subject {
            Val::Undefined { .. } => Some(0),
            Val::Str(text) => Some(text.chars().count()),
            Val::Json(Value::Array(items)) => Some(items.len()),
            Val::List(id) | Val::Tuple(id) | Val::View(id, _) => Some(self.items(*id).len()),
            Val::Dict(id) => Some(self.entries(*id).len()),
            _ => subject.as_object().map(serde_json::Map::len),
        }
    }
}

/// Whether a value may be a dict's key, as far as its own type tells.
pub(super) fn hashable(key: &Val<'_>) -> Outcome<()> {
    match key {
        Val::Json(_) | Val::Headers(_) | Val::Slice(..) | Val::List(_) | Val::Dict(_) => {
            Fault::wrong_type(format!("unhashable type: '{}'", key.kind()))
        }
        _ => Ok(()),
    }
}

/// A bound that is absent, or an integer. The outer `None` is a bound of another type.
#[allow(clippy::option_option)]
fn whole(bound: Option<Option<i128>>) -> Option<Option<i128>> {
    match bound {
        None => Some(None),
        Some(Some(int)) => Some(Some(int)),
        Some(None) => None,
    }
}

fn position(key: &Val<'_>, length: usize) -> Option<usize> {
    let at = key.as_int()?;
    let at = if at < 0 { at.checked_add(length as i128)? } else { at };
    usize::try_from(at).ok().filter(|at| *at < length)
}

/// The positions that Python's `[start:stop:step]` picks.
fn positions(length: usize, start: Option<i128>, stop: Option<i128>, step: Option<i128>) -> Outcome<Vec<usize>> {
    let (length, step) = (length as i128, step.unwrap_or(1));
    if step == 0 {
        return Fault::failed("slice step cannot be zero");
    }
    let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let clamp = |bound: i128| if bound < 0 { bound.saturating_add(length).max(low) } else { bound.min(high) };
    let (from, to) = if step > 0 {
        (start.map_or(0, clamp), stop.map_or(length, clamp))
    } else {
        (start.map_or(length - 1, clamp), stop.map_or(-1, clamp))
    };
    let mut picked = Vec::new();
    let mut at = from;
    while if step > 0 { at < to } else { at > to } {
        picked.push(at as usize);
        at = at.saturating_add(step);
    }
    Ok(picked)
}
