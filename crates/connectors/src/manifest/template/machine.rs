//! Runs a template: statements and expressions, with Python's meaning and a bound on work.

use serde_json::Value;

use super::arguments::{Argument, Arguments, Call};
use super::ast::{Binary, Expr, Stmt, Target};
use super::error::{Fault, Outcome};
use super::scope::Scope;
use super::value::{Id, Object, Text, Val};
use super::{functions, methods};

/// What one evaluation may cost: a step each, a piece of text by its length, an item of a new list eight.
const FUEL: usize = 8_000_000;
/// How many of the caller's containers a template may change.
const MAX_CHANGED: usize = 1_000;
/// How deep values may nest when they are compared or written.
pub(super) const MAX_NEST: usize = 150;

pub(super) struct Machine<'a> {
    pub(super) scope: &'a Scope<'a>,
    heap: Vec<Object<'a>>,
    frames: Vec<Vec<(&'a str, Val<'a>)>>,
    /// The caller's containers that the template changed, and the copy that stands for each from then on.
    changed: Vec<(&'a Value, Id)>,
    captured: Vec<Val<'a>>,
    fuel: usize,
}

impl<'a> Machine<'a> {
    pub(super) fn new(scope: &'a Scope<'a>) -> Self {
        Self { scope, heap: Vec::new(), frames: vec![Vec::new()], changed: Vec::new(), captured: Vec::new(), fuel: FUEL }
    }

    pub(super) fn spend(&mut self, amount: usize) -> Outcome<()> {
        match self.fuel.checked_sub(amount) {
            Some(left) => {
                self.fuel = left;
                Ok(())
            }
            None => Err(Fault::Limit("it took too many steps or made too much text")),
        }
    }

    /// Before `length` bytes of text are made.
    pub(super) fn spend_text(&mut self, length: usize) -> Outcome<()> {
        self.spend(length / 8 + 1)
    }

    fn push(&mut self, object: Object<'a>, size: usize) -> Outcome<Id> {
        self.spend(size.saturating_mul(8).saturating_add(1))?;
        let id = u32::try_from(self.heap.len()).map_err(|_| Fault::Limit("it made too many lists"))?;
        self.heap.push(object);
        Ok(Id(id))
    }

    pub(super) fn items_object(&mut self, items: Vec<Val<'a>>) -> Outcome<Id> {
        let size = items.len();
        self.push(Object::Items(items), size)
    }

    pub(super) fn list(&mut self, items: Vec<Val<'a>>) -> Outcome<Val<'a>> {
        self.items_object(items).map(Val::List)
    }

    pub(super) fn tuple(&mut self, items: Vec<Val<'a>>) -> Outcome<Val<'a>> {
        self.items_object(items).map(Val::Tuple)
    }

    pub(super) fn generator(&mut self, name: &'static str, items: Vec<Val<'a>>) -> Outcome<Val<'a>> {
        Ok(Val::Generator(self.items_object(items)?, name))
    }

    pub(super) fn entries_object(&mut self, entries: Vec<(Val<'a>, Val<'a>)>) -> Outcome<Id> {
        let size = entries.len();
        self.push(Object::Entries(entries), size)
    }

    pub(super) fn dict(&mut self, entries: Vec<(Val<'a>, Val<'a>)>) -> Outcome<Val<'a>> {
        self.entries_object(entries).map(Val::Dict)
    }

    pub(super) fn object(&self, id: Id) -> &Object<'a> {
        &self.heap[id.0 as usize]
    }

    pub(super) fn items(&self, id: Id) -> &[Val<'a>] {
        match self.object(id) {
            Object::Items(items) => items,
            _ => &[],
        }
    }

    pub(super) fn items_mut(&mut self, id: Id) -> Option<&mut Vec<Val<'a>>> {
        match &mut self.heap[id.0 as usize] {
            Object::Items(items) => Some(items),
            _ => None,
        }
    }

    pub(super) fn entries(&self, id: Id) -> &[(Val<'a>, Val<'a>)] {
        match self.object(id) {
            Object::Entries(entries) => entries,
            _ => &[],
        }
    }

    pub(super) fn entries_mut(&mut self, id: Id) -> Option<&mut Vec<(Val<'a>, Val<'a>)>> {
        match &mut self.heap[id.0 as usize] {
            Object::Entries(entries) => Some(entries),
            _ => None,
        }
    }

    /// The copy that stands for a caller's container, if the template changed it.
    pub(super) fn current(&self, value: Val<'a>) -> Val<'a> {
        let (Val::Json(json) | Val::Headers(json) | Val::Slice(json, _)) = &value else { return value };
        match self.changed.iter().find(|(changed, _)| std::ptr::eq(*changed, *json)) {
            Some((Value::Array(_), id)) => Val::List(*id),
            Some((_, id)) => Val::Dict(*id),
            None => value,
        }
    }

    /// A container that may be changed: the caller's own is copied first, for this evaluation only.
    pub(super) fn changeable(&mut self, value: Val<'a>) -> Outcome<Val<'a>> {
        let (Val::Json(json) | Val::Headers(json) | Val::Slice(json, _)) = value else { return Ok(value) };
        let copy = match json {
            Value::Array(items) => {
                self.spend(items.len())?;
                self.list(items.iter().map(Val::from_json).collect())?
            }
            Value::Object(entries) => {
                self.spend(entries.len())?;
                self.dict(entries.iter().map(|(key, value)| (Val::borrowed(key), Val::from_json(value))).collect())?
            }
            _ => return Ok(value),
        };
        if let Val::List(id) | Val::Dict(id) = copy {
            if self.changed.len() == MAX_CHANGED {
                return Err(Fault::Limit("it changes too many values"));
            }
            self.changed.push((json, id));
        }
        Ok(copy)
    }

    pub(super) fn run(&mut self, statements: &'a [Stmt], out: &mut String) -> Outcome<()> {
        for statement in statements {
            self.statement(statement, out)?;
        }
        Ok(())
    }

    fn statement(&mut self, statement: &'a Stmt, out: &mut String) -> Outcome<()> {
        self.spend(1)?;
        match statement {
            Stmt::Text(text) => {
                self.spend_text(text.len())?;
                out.push_str(text);
            }
            Stmt::Emit(expr) => {
                let value = self.expr(expr)?;
                self.write_str(&value, out)?;
            }
            Stmt::If { test, then, otherwise } => {
                let test = self.expr(test)?;
                return self.run(if self.truthy(&test) { then } else { otherwise }, out);
            }
            Stmt::For { target, over, filter, body, otherwise } => {
                let over = self.expr(over)?;
                let items = self.iterate(&over)?;
                let items = self.filtered(target, items, filter.as_ref())?;
                return self.each(target, items, body, otherwise, out);
            }
            Stmt::With { bindings, body } => {
                let values = bindings.iter().map(|(_, value)| self.expr(value)).collect::<Outcome<Vec<_>>>()?;
                self.frames.push(Vec::new());
                for ((target, _), value) in bindings.iter().zip(values) {
                    self.assign(target, value)?;
                }
                self.run(body, out)?;
                self.frames.pop();
            }
            Stmt::Set { target, value } => {
                let value = self.expr(value)?;
                self.assign(target, value)?;
            }
            Stmt::Capture { target, filter, body } => {
                self.frames.push(Vec::new());
                let mut text = String::new();
                self.run(body, &mut text)?;
                self.frames.pop();
                let mut value = Val::str(text);
                if let Some(filter) = filter {
                    self.captured.push(value);
                    value = self.expr(filter)?;
                    self.captured.pop();
                }
                match target {
                    Some(target) => self.assign(target, value)?,
                    None => self.write_str(&value, out)?,
                }
            }
        }
        Ok(())
    }

    fn filtered(&mut self, target: &'a Target, items: Vec<Val<'a>>, filter: Option<&'a Expr>) -> Outcome<Vec<Val<'a>>> {
        let Some(filter) = filter else { return Ok(items) };
        let mut kept = Vec::new();
        self.frames.push(Vec::new());
        for item in items {
            self.assign(target, item.clone())?;
            let test = self.expr(filter)?;
            if self.truthy(&test) {
                kept.push(item);
            }
        }
        self.frames.pop();
        Ok(kept)
    }

    fn each(&mut self, target: &'a Target, items: Vec<Val<'a>>, body: &'a [Stmt], otherwise: &'a [Stmt], out: &mut String) -> Outcome<()> {
        let length = items.len();
        if length == 0 {
            return self.run(otherwise, out);
        }
        let items = self.items_object(items)?;
        let state = self.push(Object::Loop { index: 0, items }, 0)?;
        for at in 0..length {
            self.heap[state.0 as usize] = Object::Loop { index: at, items };
            self.frames.push(vec![("loop", Val::Loop(state))]);
            let item = self.items(items)[at].clone();
            let item = self.current(item);
            self.assign(target, item)?;
            self.run(body, out)?;
            self.frames.pop();
        }
        Ok(())
    }

    fn assign(&mut self, target: &'a Target, value: Val<'a>) -> Outcome<()> {
        match target {
            Target::Name(name) => {
                let Some(frame) = self.frames.last_mut() else { return Ok(()) };
                match frame.iter_mut().find(|(known, _)| *known == &**name) {
                    Some((_, slot)) => *slot = value,
                    None => frame.push((name, value)),
                }
                Ok(())
            }
            Target::Attribute(name, attribute) => match self.name(name) {
                Val::Namespace(id) => self.insert(id, Val::borrowed(attribute), value),
                _ => Fault::failed("only an attribute of a namespace can be set"),
            },
            Target::Unpack(targets) => {
                let items = self.iterate(&value)?;
                if items.len() != targets.len() {
                    return Fault::failed(format!("{} names cannot take {} values", targets.len(), items.len()));
                }
                targets.iter().zip(items).try_for_each(|(target, item)| self.assign(target, item))
            }
        }
    }

    fn name(&self, name: &'a str) -> Val<'a> {
        if let Some((_, value)) = self.frames.iter().rev().flatten().find(|(known, _)| *known == name) {
            return value.clone();
        }
        let value = match self.scope.get(name) {
            Some(variable) => match (variable.value, variable.attributes) {
                (Value::Object(_), Some(attributes)) => Val::Slice(variable.value, attributes),
                (Value::Object(_), None) if variable.caseless => Val::Headers(variable.value),
                (value, _) => Val::from_json(value),
            },
            None => match functions::find(name) {
                Some(function) => Val::Function(function),
                None => Val::undefined(Text::Borrowed(name)),
            },
        };
        self.current(value)
    }

    pub(super) fn expr(&mut self, expr: &'a Expr) -> Outcome<Val<'a>> {
        self.spend(1)?;
        match expr {
            Expr::None => Ok(Val::None),
            Expr::Bool(flag) => Ok(Val::Bool(*flag)),
            Expr::Int(int) => Ok(Val::Int(*int)),
            Expr::Float(float) => Ok(Val::Float(*float)),
            Expr::Str(text) => Ok(Val::borrowed(text)),
            Expr::Captured => Ok(self.captured.last().cloned().unwrap_or(Val::None)),
            Expr::Name(name) => {
                self.spend(self.frames.iter().map(Vec::len).sum::<usize>() / 8)?;
                Ok(self.name(name))
            }
            Expr::List(items) => {
                let items = self.exprs(items)?;
                self.list(items)
            }
            Expr::Tuple(items) => {
                let items = self.exprs(items)?;
                self.tuple(items)
            }
            Expr::Dict(entries) => self.dict_literal(entries),
            Expr::Attribute(subject, name) => {
                let subject = self.expr(subject)?;
                self.attribute(subject, Text::Borrowed(name))
            }
            Expr::Item(subject, key) => {
                let subject = self.expr(subject)?;
                let at = self.expr(key)?;
                match (self.item(&subject, &at)?, &**key) {
                    (Val::Undefined { forbidden: false, .. }, Expr::Str(name)) => Ok(Val::undefined(Text::Borrowed(name))),
                    (value, _) => Ok(value),
                }
            }
            Expr::Slice(subject, parts) => self.slice_expr(subject, parts),
            Expr::Call(callee, call) => self.call_expr(callee, call),
            Expr::Filter(subject, filter, call) => {
                let subject = self.expr(subject)?;
                let arguments = self.arguments(call)?;
                filter.apply(self, subject, arguments)
            }
            Expr::Test(subject, test, call) => {
                let subject = self.expr(subject)?;
                let arguments = self.arguments(call)?;
                test.apply(self, &subject, arguments).map(Val::Bool)
            }
            Expr::Not(subject) => {
                let subject = self.expr(subject)?;
                Ok(Val::Bool(!self.truthy(&subject)))
            }
            Expr::Negate(subject) => {
                let subject = self.expr(subject)?;
                self.negate(subject)
            }
            Expr::And(left, right) | Expr::Or(left, right) => {
                let value = self.expr(left)?;
                let stop = self.truthy(&value) == matches!(expr, Expr::Or(..));
                if stop { Ok(value) } else { self.expr(right) }
            }
            Expr::Binary(op, left, right) => self.binary_expr(*op, left, right),
            Expr::Compare(first, rest) => {
                let mut left = self.expr(first)?;
                for (op, right) in rest {
                    let right = self.expr(right)?;
                    if !self.compare(*op, &left, &right)? {
                        return Ok(Val::Bool(false));
                    }
                    left = right;
                }
                Ok(Val::Bool(true))
            }
            Expr::If { test, then, otherwise } => {
                let test = self.expr(test)?;
                match (self.truthy(&test), otherwise) {
                    (true, _) => self.expr(then),
                    (false, Some(otherwise)) => self.expr(otherwise),
                    (false, None) => Ok(Val::undefined(Text::Borrowed("the branch without an else"))),
                }
            }
        }
    }

    fn exprs(&mut self, exprs: &'a [Expr]) -> Outcome<Vec<Val<'a>>> {
        exprs.iter().map(|expr| self.expr(expr)).collect()
    }

    fn dict_literal(&mut self, entries: &'a [(Expr, Expr)]) -> Outcome<Val<'a>> {
        let id = self.entries_object(Vec::new())?;
        for (key, value) in entries {
            let key = self.expr(key)?;
            let value = self.expr(value)?;
            self.insert(id, key, value)?;
        }
        Ok(Val::Dict(id))
    }

    fn slice_expr(&mut self, subject: &'a Expr, parts: &'a [Option<Expr>; 3]) -> Outcome<Val<'a>> {
        let subject = self.expr(subject)?;
        let mut bounds = [const { None }; 3];
        for (bound, part) in bounds.iter_mut().zip(parts) {
            if let Some(part) = part {
                *bound = match self.expr(part)? {
                    Val::None => None,
                    value => Some(value),
                };
            }
        }
        self.slice(&subject, bounds)
    }

    fn binary_expr(&mut self, op: Binary, left: &'a Expr, right: &'a Expr) -> Outcome<Val<'a>> {
        let left = self.expr(left)?;
        let right = self.expr(right)?;
        self.binary(op, left, right)
    }

    fn call_expr(&mut self, callee: &'a Expr, call: &'a Call) -> Outcome<Val<'a>> {
        if let Expr::Attribute(subject, name) = callee {
            let subject = self.expr(subject)?;
            if methods::has(&subject, name) {
                let arguments = self.arguments(call)?;
                return self.call_method(subject, name, arguments);
            }
            let callee = self.attribute(subject, Text::Borrowed(name))?;
            let arguments = self.arguments(call)?;
            return self.call(callee, arguments);
        }
        let callee = self.expr(callee)?;
        let arguments = self.arguments(call)?;
        self.call(callee, arguments)
    }

    fn call(&mut self, callee: Val<'a>, arguments: Arguments<'a>) -> Outcome<Val<'a>> {
        match callee {
            Val::Function(function) => function.call(self, arguments),
            Val::Method(subject, name) => self.call_method((*subject).clone(), &name, arguments),
            Val::Undefined { .. } => Err(self.undefined(&callee)),
            _ => Fault::wrong_type(format!("'{}' object is not callable", callee.kind())),
        }
    }

    fn arguments(&mut self, call: &'a Call) -> Outcome<Arguments<'a>> {
        let mut arguments = Arguments::none();
        for argument in &call.arguments {
            match argument {
                Argument::Positional(value) => arguments.positional.push(self.expr(value)?),
                Argument::Named(name, value) => arguments.named.push((Text::Borrowed(name), self.expr(value)?)),
                Argument::Splat(value) => {
                    let value = self.expr(value)?;
                    arguments.positional.extend(self.iterate(&value)?);
                }
                Argument::NamedSplat(value) => {
                    let value = self.expr(value)?;
                    for (key, value) in self.pairs(&value)? {
                        match key {
                            Val::Str(name) => arguments.named.push((name, value)),
                            _ => return Fault::wrong_type("keywords must be strings"),
                        }
                    }
                }
            }
        }
        Ok(arguments)
    }

    /// The error of using what is not there.
    pub(super) fn undefined(&self, value: &Val<'a>) -> Fault {
        match value {
            Val::Undefined { name, forbidden: false } => Fault::Undefined(format!("`{}`", &**name)),
            Val::Undefined { name, .. } => Fault::Failed(format!("access to `{}` is not allowed", &**name)),
            other => Fault::Type(format!("'{}' object cannot be used like this", other.kind())),
        }
    }
}
