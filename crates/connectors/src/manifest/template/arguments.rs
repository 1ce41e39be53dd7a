//! Arguments of filters, tests, methods and functions: as written, and as passed.

use super::ast::Expr;
use super::error::{Fault, Outcome};
use super::value::{Text, Val};

/// Arguments as written.
#[derive(Debug, Default)]
pub(super) struct Call {
    pub(super) arguments: Vec<Argument>,
}

#[derive(Debug)]
pub(super) enum Argument {
    Positional(Expr),
    Named(Box<str>, Expr),
    Splat(Expr),
    NamedSplat(Expr),
}

/// Arguments as passed.
#[derive(Debug, Default)]
pub(super) struct Arguments<'a> {
    pub(super) positional: Vec<Val<'a>>,
    pub(super) named: Vec<(Text<'a>, Val<'a>)>,
}

impl<'a> Arguments<'a> {
    pub(super) fn none() -> Self {
        Self::default()
    }

    /// The arguments in the order of `names`, the first `required` of which must be there. Python's `TypeError` otherwise.
    pub(super) fn bind<const N: usize>(self, callee: &str, names: [&str; N], required: usize) -> Outcome<[Option<Val<'a>>; N]> {
        if self.positional.len() > N {
            return Fault::wrong_type(format!("{callee}() takes at most {N} arguments"));
        }
        let mut bound = [const { None }; N];
        for (slot, value) in bound.iter_mut().zip(self.positional) {
            *slot = Some(value);
        }
        for (name, value) in self.named {
            match names.iter().position(|known| *known == &*name) {
                Some(at) if bound[at].is_none() => bound[at] = Some(value),
                _ => return Fault::wrong_type(format!("{callee}() got an unexpected argument '{}'", &*name)),
            }
        }
        if bound.iter().take(required).any(Option::is_none) {
            return Fault::wrong_type(format!("{callee}() misses an argument"));
        }
        Ok(bound)
    }
}
