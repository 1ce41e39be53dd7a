//! Methods of `list`, `tuple` and `dict`.

use super::arguments::Arguments;
use super::error::{Fault, Outcome};
use super::machine::Machine;
use super::value::Val;

pub(super) const TUPLE: &[&str] = &["count", "index"];
pub(super) const LIST: &[&str] = &["append", "clear", "copy", "count", "extend", "index", "insert", "pop", "remove", "reverse", "sort"];
pub(super) const DICT: &[&str] = &["clear", "copy", "get", "items", "keys", "pop", "setdefault", "update", "values"];

impl<'a> Machine<'a> {
    pub(super) fn list_method(&mut self, subject: Val<'a>, name: &str, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
        match name {
            "count" | "index" => {
                let [wanted] = arguments.bind(name, ["value"], 1)?;
                let wanted = wanted.unwrap_or(Val::None);
                let mut count = 0;
                for (at, item) in self.iterate(&subject)?.into_iter().enumerate() {
                    if self.equal(&item, &wanted)? {
                        if name == "index" {
                            return Ok(Val::Int(at as i128));
                        }
                        count += 1;
                    }
                }
                if name == "index" { Fault::failed("the value is not in the list") } else { Ok(Val::Int(count)) }
            }
            "copy" => {
                arguments.bind(name, [], 0)?;
                let items = self.iterate(&subject)?;
                self.list(items)
            }
            _ => self.change_list(subject, name, arguments),
        }
    }

    fn change_list(&mut self, subject: Val<'a>, name: &str, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
        let Val::List(id) = self.changeable(subject)? else { return Fault::failed("only a list can be changed") };
        let length = self.items(id).len();
        // Items may have to move.
        self.spend(length / 16 + 1)?;
        let (position, items) = match name {
            "append" => {
                let [item] = arguments.bind(name, ["object"], 1)?;
                (None, vec![item.unwrap_or(Val::None)])
            }
            "extend" => {
                let [more] = arguments.bind(name, ["iterable"], 1)?;
                (None, self.iterate(&more.unwrap_or(Val::None))?)
            }
            "insert" => {
                let [at, item] = arguments.bind(name, ["index", "object"], 2)?;
                let at = self.int_argument(at, 0)?;
                let at = if at < 0 { at + length as i128 } else { at };
                (Some(at.clamp(0, length as i128) as usize), vec![item.unwrap_or(Val::None)])
            }
            "pop" => {
                let [at] = arguments.bind(name, ["index"], 0)?;
                let at = self.int_argument(at, -1)?;
                let at = usize::try_from(if at < 0 { at + length as i128 } else { at }).ok().filter(|at| *at < length);
                let (Some(at), Some(items)) = (at, self.items_mut(id)) else { return Fault::failed("pop index out of range") };
                return Ok(items.remove(at));
            }
            "remove" => {
                let [item] = arguments.bind(name, ["value"], 1)?;
                let item = item.unwrap_or(Val::None);
                for at in 0..length {
                    let candidate = self.items(id)[at].clone();
                    if self.equal(&candidate, &item)? {
                        if let Some(items) = self.items_mut(id) {
                            items.remove(at);
                        }
                        return Ok(Val::None);
                    }
                }
                return Fault::failed("the value is not in the list");
            }
            "sort" => {
                let [reverse] = arguments.bind(name, ["reverse"], 0)?;
                let items = self.iterate(&Val::List(id))?;
                let mut sorted = self.sorted(items)?;
                if reverse.is_some_and(|reverse| self.truthy(&reverse)) {
                    sorted.reverse();
                }
                if let Some(items) = self.items_mut(id) {
                    *items = sorted;
                }
                return Ok(Val::None);
            }
            _ => {
                arguments.bind(name, [], 0)?;
                if let Some(items) = self.items_mut(id) {
                    if name == "clear" { items.clear() } else { items.reverse() }
                }
                return Ok(Val::None);
            }
        };
        self.spend(items.len() * 8 + 8)?;
        if let Some(list) = self.items_mut(id) {
            let position = position.unwrap_or(list.len());
            drop(list.splice(position..position, items));
        }
        Ok(Val::None)
    }

    pub(super) fn dict_method(&mut self, subject: Val<'a>, name: &str, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
        match name {
            "get" => {
                let [key, default] = arguments.bind(name, ["key", "default"], 1)?;
                let key = key.unwrap_or(Val::None);
                super::access::hashable(&key)?;
                Ok(match self.lookup(&subject, &key)? {
                    Some(value) => self.current(value),
                    None => default.unwrap_or(Val::None),
                })
            }
            "keys" | "values" | "items" => {
                arguments.bind(name, [], 0)?;
                let pairs = self.pairs(&subject)?;
                self.view(name, pairs)
            }
            "copy" => {
                arguments.bind(name, [], 0)?;
                let pairs = self.pairs(&subject)?;
                self.dict(pairs)
            }
            _ => self.change_dict(subject, name, arguments),
        }
    }

    fn view(&mut self, name: &str, pairs: Vec<(Val<'a>, Val<'a>)>) -> Outcome<Val<'a>> {
        let mut items = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            items.push(match name {
                "keys" => key,
                "values" => value,
                _ => self.tuple(vec![key, value])?,
            });
        }
        let id = self.items_object(items)?;
        Ok(Val::View(
            id,
            match name {
                "keys" => "dict_keys",
                "values" => "dict_values",
                _ => "dict_items",
            },
        ))
    }

    fn change_dict(&mut self, subject: Val<'a>, name: &str, mut arguments: Arguments<'a>) -> Outcome<Val<'a>> {
        let Val::Dict(id) = self.changeable(subject)? else { return Fault::failed("only a dict can be changed") };
        match name {
            "update" => {
                let named = std::mem::take(&mut arguments.named);
                let [other] = arguments.bind(name, ["other"], 0)?;
                let mut pairs = match other {
                    Some(other) => self.entries_of(&other)?,
                    None => Vec::new(),
                };
                pairs.extend(named.into_iter().map(|(name, value)| (Val::Str(name), value)));
                for (key, value) in pairs {
                    self.insert(id, key, value)?;
                }
                Ok(Val::None)
            }
            "setdefault" => {
                let [key, default] = arguments.bind(name, ["key", "default"], 1)?;
                let (key, default) = (key.unwrap_or(Val::None), default.unwrap_or(Val::None));
                if let Some(value) = self.lookup(&Val::Dict(id), &key)? {
                    return Ok(value);
                }
                self.insert(id, key, default.clone())?;
                Ok(default)
            }
            "pop" => {
                let [key, default] = arguments.bind(name, ["key", "default"], 1)?;
                match (self.find(id, &key.unwrap_or(Val::None))?, default) {
                    (Some(at), _) => Ok(self.entries_mut(id).map_or(Val::None, |entries| entries.remove(at).1)),
                    (None, Some(default)) => Ok(default),
                    (None, None) => Fault::failed("the key is not in the dict"),
                }
            }
            _ => {
                arguments.bind(name, [], 0)?;
                if let Some(entries) = self.entries_mut(id) {
                    entries.clear();
                }
                Ok(Val::None)
            }
        }
    }

    /// What `dict(x)` and `update(x)` take: a mapping, or pairs.
    pub(super) fn entries_of(&mut self, value: &Val<'a>) -> Outcome<Vec<(Val<'a>, Val<'a>)>> {
        if value.kind() == "dict" {
            return self.pairs(value);
        }
        let mut pairs = Vec::new();
        for pair in self.iterate(value)? {
            match <[Val<'a>; 2]>::try_from(self.iterate(&pair)?) {
                Ok([key, value]) => pairs.push((key, value)),
                Err(_) => return Fault::failed("a pair of key and value is expected"),
            }
        }
        Ok(pairs)
    }
}
