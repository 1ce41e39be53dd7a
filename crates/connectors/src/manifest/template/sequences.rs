//! Jinja's filters on sequences.

use std::cmp::Ordering;

use super::arguments::Arguments;
use super::error::{Fault, Outcome};
use super::filters;
use super::machine::Machine;
use super::predicates::{self, Predicate};
use super::value::{Text, Val};

type Run = for<'a> fn(&mut Machine<'a>, Val<'a>, Arguments<'a>) -> Outcome<Val<'a>>;

pub(super) fn find(name: &str) -> Option<Run> {
    let run: Run = match name {
        "length" | "count" => length,
        "list" => |m, subject, arguments| {
            arguments.bind("list", [], 0)?;
            let items = m.iterate(&subject)?;
            m.list(items)
        },
        "first" => |m, subject, arguments| end(m, &subject, arguments, true),
        "last" => |m, subject, arguments| end(m, &subject, arguments, false),
        "join" => join,
        "sum" => sum,
        "max" => |m, subject, arguments| extreme(m, &subject, arguments, Ordering::Greater),
        "min" => |m, subject, arguments| extreme(m, &subject, arguments, Ordering::Less),
        "sort" => sort,
        "unique" => unique,
        "reverse" => reverse,
        "batch" => batch,
        "slice" => slice,
        "groupby" => groupby,
        "dictsort" => dictsort,
        "items" => items,
        "map" => map,
        "select" => |m, subject, arguments| select(m, &subject, arguments, false, true),
        "reject" => |m, subject, arguments| select(m, &subject, arguments, false, false),
        "selectattr" => |m, subject, arguments| select(m, &subject, arguments, true, true),
        "rejectattr" => |m, subject, arguments| select(m, &subject, arguments, true, false),
        _ => return None,
    };
    Some(run)
}

impl<'a> Machine<'a> {
    /// A path like `a.b.0`, through items first.
    fn path(&mut self, value: &Val<'a>, path: &str) -> Outcome<Val<'a>> {
        let mut value = value.clone();
        for part in path.split('.') {
            let key = part.parse().map_or_else(|_| Val::str(part), Val::Int);
            value = self.item(&value, &key)?;
        }
        Ok(value)
    }

    /// An item, or what stands at `attribute` in it.
    fn keyed(&mut self, item: &Val<'a>, attribute: Option<&Val<'a>>) -> Outcome<Val<'a>> {
        match attribute {
            None | Some(Val::None) => Ok(item.clone()),
            Some(Val::Str(path)) => self.path(item, path),
            Some(key) => self.item(item, key),
        }
    }

    /// The same for comparing: text without regard to case, unless asked for.
    fn sort_key(&mut self, item: &Val<'a>, attribute: Option<&Val<'a>>, case_sensitive: bool) -> Outcome<Val<'a>> {
        let key = self.keyed(item, attribute)?;
        Ok(match &key {
            Val::Str(text) if !case_sensitive => Val::str(text.to_lowercase()),
            _ => key,
        })
    }

    /// In Python's order, stable.
    pub(super) fn sorted(&mut self, items: Vec<Val<'a>>) -> Outcome<Vec<Val<'a>>> {
        let keyed = items.iter().map(|item| (item.clone(), item.clone())).collect();
        self.sorted_by_key(keyed)
    }

    fn sorted_by_key(&mut self, mut keyed: Vec<(Val<'a>, Val<'a>)>) -> Outcome<Vec<Val<'a>>> {
        self.spend(keyed.len().saturating_mul(keyed.len().checked_ilog2().unwrap_or(0) as usize + 1))?;
        let mut fault = None;
        // An order that is none (after a fault) would make the sort panic: equal is always one.
        keyed.sort_by(|(left, _), (right, _)| {
            if fault.is_some() {
                return Ordering::Equal;
            }
            match self.order(left, right) {
                Ok(order) => order.unwrap_or(Ordering::Equal),
                Err(error) => {
                    fault = Some(error);
                    Ordering::Equal
                }
            }
        });
        match fault {
            Some(fault) => Err(fault),
            None => Ok(keyed.into_iter().map(|(_, item)| item).collect()),
        }
    }

    fn flag(&self, value: Option<Val<'a>>) -> bool {
        value.is_some_and(|value| self.truthy(&value))
    }
}

fn length<'a>(machine: &mut Machine<'a>, subject: Val<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    arguments.bind("length", [], 0)?;
    match machine.length(&subject) {
        Some(length) => Ok(Val::Int(length as i128)),
        None => Fault::wrong_type(format!("object of type '{}' has no len()", subject.kind())),
    }
}

fn end<'a>(machine: &mut Machine<'a>, subject: &Val<'a>, arguments: Arguments<'a>, first: bool) -> Outcome<Val<'a>> {
    arguments.bind("first", [], 0)?;
    let items = machine.iterate(subject)?;
    let item = if first { items.first() } else { items.last() };
    Ok(item.cloned().unwrap_or(Val::undefined(Text::Borrowed("an item of an empty sequence"))))
}

fn join<'a>(machine: &mut Machine<'a>, subject: Val<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let [separator, attribute] = arguments.bind("join", ["d", "attribute"], 0)?;
    let separator = machine.to_text(&separator.unwrap_or(Val::borrowed("")))?;
    let mut out = String::new();
    for (at, item) in machine.iterate(&subject)?.into_iter().enumerate() {
        let item = machine.keyed(&item, attribute.as_ref())?;
        if at > 0 {
            machine.spend_text(separator.len())?;
            out.push_str(&separator);
        }
        machine.write_str(&item, &mut out)?;
    }
    Ok(Val::str(out))
}

fn sum<'a>(machine: &mut Machine<'a>, subject: Val<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let [attribute, start] = arguments.bind("sum", ["attribute", "start"], 0)?;
    let mut total = start.unwrap_or(Val::Int(0));
    if matches!(total, Val::Str(_)) {
        return Fault::wrong_type("sum() can't sum strings");
    }
    for item in machine.iterate(&subject)? {
        let item = machine.keyed(&item, attribute.as_ref())?;
        total = machine.binary(super::ast::Binary::Add, total, item)?;
    }
    Ok(total)
}

fn extreme<'a>(machine: &mut Machine<'a>, subject: &Val<'a>, arguments: Arguments<'a>, wanted: Ordering) -> Outcome<Val<'a>> {
    let [case_sensitive, attribute] = arguments.bind("max", ["case_sensitive", "attribute"], 0)?;
    let case_sensitive = machine.flag(case_sensitive);
    let mut best: Option<(Val<'a>, Val<'a>)> = None;
    for item in machine.iterate(subject)? {
        let key = machine.sort_key(&item, attribute.as_ref(), case_sensitive)?;
        let better = match &best {
            Some((known, _)) => machine.order(&key, known)? == Some(wanted),
            None => true,
        };
        if better {
            best = Some((key, item));
        }
    }
    Ok(best.map_or(Val::undefined(Text::Borrowed("an item of an empty sequence")), |(_, item)| item))
}

fn sort<'a>(machine: &mut Machine<'a>, subject: Val<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let [reverse, case_sensitive, attribute] = arguments.bind("sort", ["reverse", "case_sensitive", "attribute"], 0)?;
    let (reverse, case_sensitive) = (machine.flag(reverse), machine.flag(case_sensitive));
    let mut keyed = Vec::new();
    for item in machine.iterate(&subject)? {
        // Several attributes stand between commas.
        let key = match &attribute {
            Some(Val::Str(paths)) if paths.contains(',') => {
                let mut keys = Vec::new();
                for path in paths.split(',') {
                    keys.push(machine.sort_key(&item, Some(&Val::str(path)), case_sensitive)?);
                }
                machine.list(keys)?
            }
            attribute => machine.sort_key(&item, attribute.as_ref(), case_sensitive)?,
        };
        keyed.push((key, item));
    }
    // Equal items keep their order in either direction.
    if reverse {
        keyed.reverse();
    }
    let mut sorted = machine.sorted_by_key(keyed)?;
    if reverse {
        sorted.reverse();
    }
    machine.list(sorted)
}

fn unique<'a>(machine: &mut Machine<'a>, subject: Val<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let [case_sensitive, attribute] = arguments.bind("unique", ["case_sensitive", "attribute"], 0)?;
    let case_sensitive = machine.flag(case_sensitive);
    let (mut seen, mut kept): (Vec<Val<'a>>, Vec<Val<'a>>) = (Vec::new(), Vec::new());
    for item in machine.iterate(&subject)? {
        let key = machine.sort_key(&item, attribute.as_ref(), case_sensitive)?;
        super::access::hashable(&key)?;
        let mut known = false;
        for other in &seen {
            known = known || machine.equal(other, &key)?;
        }
        if !known {
            seen.push(key);
            kept.push(item);
        }
    }
    machine.generator("do_unique", kept)
}

fn reverse<'a>(machine: &mut Machine<'a>, subject: Val<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    arguments.bind("reverse", [], 0)?;
    if let Val::Str(text) = &subject {
        machine.spend_text(text.len())?;
        return Ok(Val::str(text.chars().rev().collect::<String>()));
    }
    let mut items = machine.iterate(&subject)?;
    items.reverse();
    machine.generator("do_reverse", items)
}

fn batch<'a>(machine: &mut Machine<'a>, subject: Val<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let [count, fill] = arguments.bind("batch", ["linecount", "fill_with"], 1)?;
    let count = usize::try_from(machine.int_argument(count, 1)?).unwrap_or(0).max(1);
    let items = machine.iterate(&subject)?;
    let mut rows = Vec::new();
    for chunk in items.chunks(count) {
        let mut row = chunk.to_vec();
        if let Some(fill) = fill.as_ref().filter(|fill| !matches!(fill, Val::None)) {
            machine.spend(count.saturating_sub(row.len()))?;
            row.resize(row.len().max(count), fill.clone());
        }
        rows.push(machine.list(row)?);
    }
    machine.generator("do_batch", rows)
}

fn slice<'a>(machine: &mut Machine<'a>, subject: Val<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let [count, fill] = arguments.bind("slice", ["slices", "fill_with"], 1)?;
    let items = machine.iterate(&subject)?;
    let count = usize::try_from(machine.int_argument(count, 1)?).unwrap_or(0);
    if count == 0 {
        return Fault::failed("division by zero");
    }
    machine.spend(count)?;
    let (each, longer) = (items.len() / count, items.len() % count);
    let mut rest = items.into_iter();
    let mut columns = Vec::new();
    for at in 0..count {
        let mut column: Vec<_> = rest.by_ref().take(each + usize::from(at < longer)).collect();
        if let Some(fill) = fill.as_ref().filter(|fill| !matches!(fill, Val::None) && at >= longer && longer > 0) {
            column.push(fill.clone());
        }
        columns.push(machine.list(column)?);
    }
    machine.generator("sync_do_slice", columns)
}

fn groupby<'a>(machine: &mut Machine<'a>, subject: Val<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let [attribute, default, case_sensitive] = arguments.bind("groupby", ["attribute", "default", "case_sensitive"], 1)?;
    let case_sensitive = machine.flag(case_sensitive);
    let mut keyed = Vec::new();
    for item in machine.iterate(&subject)? {
        let key = match (machine.keyed(&item, attribute.as_ref())?, &default) {
            (Val::Undefined { .. }, Some(default)) => default.clone(),
            (key, _) => key,
        };
        let key = if case_sensitive { key } else { machine.sort_key(&key, None, false)? };
        let pair = machine.list(vec![key.clone(), item])?;
        keyed.push((key, pair));
    }
    let mut groups: Vec<(Val<'a>, Vec<Val<'a>>)> = Vec::new();
    for pair in machine.sorted_by_key(keyed)? {
        let Ok([key, item]) = <[Val<'a>; 2]>::try_from(machine.iterate(&pair)?) else { continue };
        match groups.last_mut() {
            Some((known, items)) if machine.equal(known, &key)? => items.push(item),
            _ => {
                // The group's name is the first item's own, in its own case.
                let name = machine.keyed(&item, attribute.as_ref())?;
                groups.push((if name.is_undefined() { key } else { name }, vec![item]));
            }
        }
    }
    let mut rows = Vec::new();
    for (key, items) in groups {
        let items = machine.list(items)?;
        rows.push(machine.tuple(vec![key, items])?);
    }
    machine.list(rows)
}

fn dictsort<'a>(machine: &mut Machine<'a>, subject: Val<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let [case_sensitive, by, reverse] = arguments.bind("dictsort", ["case_sensitive", "by", "reverse"], 0)?;
    let (case_sensitive, reverse) = (machine.flag(case_sensitive), machine.flag(reverse));
    let by_value = by.is_some_and(|by| by.as_str() == Some("value"));
    let mut keyed = Vec::new();
    for (key, value) in machine.pairs(&subject)? {
        let order = machine.sort_key(if by_value { &value } else { &key }, None, case_sensitive)?;
        let pair = machine.tuple(vec![key, value])?;
        keyed.push((order, pair));
    }
    let mut sorted = machine.sorted_by_key(keyed)?;
    if reverse {
        sorted.reverse();
    }
    machine.list(sorted)
}

fn items<'a>(machine: &mut Machine<'a>, subject: Val<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    arguments.bind("items", [], 0)?;
    let mut rows = Vec::new();
    if !subject.is_undefined() {
        for (key, value) in machine.pairs(&subject)? {
            rows.push(machine.tuple(vec![key, value])?);
        }
    }
    machine.generator("do_items", rows)
}

fn map<'a>(machine: &mut Machine<'a>, subject: Val<'a>, mut arguments: Arguments<'a>) -> Outcome<Val<'a>> {
    let mut mapped = Vec::new();
    if arguments.positional.is_empty() {
        let [attribute, default] = arguments.bind("map", ["attribute", "default"], 1)?;
        for item in machine.iterate(&subject)? {
            mapped.push(match (machine.keyed(&item, attribute.as_ref())?, &default) {
                (Val::Undefined { .. }, Some(default)) => default.clone(),
                (value, _) => value,
            });
        }
        return machine.generator("sync_do_map", mapped);
    }
    let name = machine.text_argument(Some(arguments.positional.remove(0)))?;
    let Some(filter) = filters::find(&name) else { return Fault::failed("there is no filter of that name to map with") };
    for item in machine.iterate(&subject)? {
        let arguments = Arguments { positional: arguments.positional.clone(), named: arguments.named.clone() };
        mapped.push(filter.apply(machine, item, arguments)?);
    }
    machine.generator("sync_do_map", mapped)
}

fn select<'a>(
    machine: &mut Machine<'a>,
    subject: &Val<'a>,
    mut arguments: Arguments<'a>,
    by_attribute: bool,
    keep: bool,
) -> Outcome<Val<'a>> {
    let attribute = match by_attribute {
        true if arguments.positional.is_empty() => return Fault::failed("Missing parameter for attribute name"),
        true => Some(arguments.positional.remove(0)),
        false => None,
    };
    let test: Option<Predicate> = match arguments.positional.is_empty() {
        true => None,
        false => {
            let name = machine.text_argument(Some(arguments.positional.remove(0)))?;
            match predicates::find(&name) {
                Some(test) => Some(test),
                None => return Fault::failed("there is no test of that name to select with"),
            }
        }
    };
    let mut kept = Vec::new();
    for item in machine.iterate(subject)? {
        let value = machine.keyed(&item, attribute.as_ref())?;
        let passed = match &test {
            None => machine.truthy(&value),
            Some(test) => {
                let arguments = Arguments { positional: arguments.positional.clone(), named: arguments.named.clone() };
                test.apply(machine, &value, arguments)?
            }
        };
        if passed == keep {
            kept.push(item);
        }
    }
    machine.generator("select_or_reject", kept)
}
