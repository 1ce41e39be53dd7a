//! Which names a template uses without setting them: they must be given, wherever in the template they stand, or it is an error.
//!
//! As the reference has it, a name that is set only inside an `if` counts as not set.

use std::collections::HashSet;

use super::arguments::{Argument, Call};
use super::ast::{Expr, Stmt, Target};
use super::functions;

/// The names that `statements` need from outside, each once, in order of appearance.
pub(super) fn needed(statements: &[Stmt]) -> Vec<String> {
    let mut names = Names { frames: vec![HashSet::new()], needed: Vec::new(), seen: HashSet::new() };
    names.block(statements);
    names.needed.into_iter().map(str::to_owned).collect()
}

struct Names<'a> {
    frames: Vec<HashSet<&'a str>>,
    needed: Vec<&'a str>,
    seen: HashSet<&'a str>,
}

impl<'a> Names<'a> {
    fn block(&mut self, statements: &'a [Stmt]) {
        for statement in statements {
            self.statement(statement);
        }
    }

    fn scoped(&mut self, walk: impl FnOnce(&mut Self)) -> HashSet<&'a str> {
        self.frames.push(HashSet::new());
        walk(self);
        self.frames.pop().unwrap_or_default()
    }

    fn declare(&mut self, name: &'a str) {
        if let Some(frame) = self.frames.last_mut() {
            frame.insert(name);
        }
    }

    fn need(&mut self, name: &'a str) {
        let declared = self.frames.iter().any(|frame| frame.contains(name));
        if !declared && functions::find(name).is_none() && self.seen.insert(name) {
            self.needed.push(name);
        }
    }

    fn statement(&mut self, statement: &'a Stmt) {
        match statement {
            Stmt::Text(_) => {}
            Stmt::Emit(expr) => self.expr(expr),
            Stmt::If { test, then, otherwise } => {
                self.expr(test);
                let mut set = self.scoped(|names| names.block(then));
                set.extend(self.scoped(|names| names.block(otherwise)));
                for name in set {
                    self.need(name);
                    self.declare(name);
                }
            }
            Stmt::For { target, over, filter, body, otherwise } => {
                self.expr(over);
                self.scoped(|names| {
                    names.target(target);
                    filter.iter().for_each(|filter| names.expr(filter));
                    names.declare("loop");
                    names.block(body);
                });
                self.scoped(|names| names.block(otherwise));
            }
            Stmt::With { bindings, body } => {
                bindings.iter().for_each(|(_, value)| self.expr(value));
                self.scoped(|names| {
                    bindings.iter().for_each(|(target, _)| names.target(target));
                    names.block(body);
                });
            }
            Stmt::Set { target, value } => {
                self.expr(value);
                self.target(target);
            }
            Stmt::Capture { target, filter, body } => {
                self.scoped(|names| names.block(body));
                filter.iter().for_each(|filter| self.expr(filter));
                target.iter().for_each(|target| self.target(target));
            }
        }
    }

    fn target(&mut self, target: &'a Target) {
        match target {
            Target::Name(name) => self.declare(name),
            Target::Attribute(name, _) => self.need(name),
            Target::Unpack(targets) => targets.iter().for_each(|target| self.target(target)),
        }
    }

    fn expr(&mut self, expr: &'a Expr) {
        match expr {
            Expr::None | Expr::Bool(_) | Expr::Int(_) | Expr::Float(_) | Expr::Str(_) | Expr::Captured => {}
            Expr::Name(name) => self.need(name),
            Expr::List(items) | Expr::Tuple(items) => items.iter().for_each(|item| self.expr(item)),
            Expr::Dict(entries) => entries.iter().for_each(|(key, value)| {
                self.expr(key);
                self.expr(value);
            }),
            Expr::Attribute(subject, _) | Expr::Not(subject) | Expr::Negate(subject) => self.expr(subject),
            Expr::Item(left, right) | Expr::And(left, right) | Expr::Or(left, right) | Expr::Binary(_, left, right) => {
                self.expr(left);
                self.expr(right);
            }
            Expr::Slice(subject, parts) => {
                self.expr(subject);
                parts.iter().flatten().for_each(|part| self.expr(part));
            }
            Expr::Call(subject, call) | Expr::Filter(subject, _, call) | Expr::Test(subject, _, call) => {
                self.expr(subject);
                self.call(call);
            }
            Expr::Compare(first, rest) => {
                self.expr(first);
                rest.iter().for_each(|(_, operand)| self.expr(operand));
            }
            Expr::If { test, then, otherwise } => {
                self.expr(test);
                self.expr(then);
                otherwise.iter().for_each(|otherwise| self.expr(otherwise));
            }
        }
    }

    fn call(&mut self, call: &'a Call) {
        for argument in &call.arguments {
            match argument {
                Argument::Positional(value) | Argument::Named(_, value) | Argument::Splat(value) | Argument::NamedSplat(value) => {
                    self.expr(value);
                }
            }
        }
    }
}
