//! Jinja's tests: `x is defined`, `x is divisibleby 3`.

use super::arguments::Arguments;
use super::ast::Compare;
use super::error::{Fault, Outcome};
use super::filters;
use super::machine::Machine;
use super::value::Val;

type Run = for<'a> fn(&mut Machine<'a>, &Val<'a>, Arguments<'a>) -> Outcome<bool>;

#[derive(Clone, Copy, Debug)]
pub(super) struct Predicate(Run);

impl Predicate {
    pub(super) fn apply<'a>(&self, machine: &mut Machine<'a>, subject: &Val<'a>, arguments: Arguments<'a>) -> Outcome<bool> {
        (self.0)(machine, subject, arguments)
    }
}

/// A test of the value alone.
macro_rules! alone {
    ($machine:ident, $subject:ident => $test:expr) => {
        |$machine, $subject, arguments| {
            arguments.bind("test", [], 0)?;
            let _ = &$machine;
            Ok($test)
        }
    };
}

pub(super) fn find(name: &str) -> Option<Predicate> {
    let run: Run = match name {
        "defined" => alone!(m, subject => !subject.is_undefined()),
        "undefined" => alone!(m, subject => subject.is_undefined()),
        "none" => alone!(m, subject => matches!(subject, Val::None)),
        "true" => alone!(m, subject => matches!(subject, Val::Bool(true))),
        "false" => alone!(m, subject => matches!(subject, Val::Bool(false))),
        "boolean" => alone!(m, subject => matches!(subject, Val::Bool(_))),
        "integer" => alone!(m, subject => matches!(subject, Val::Int(_))),
        "float" => alone!(m, subject => matches!(subject, Val::Float(_))),
        "number" => alone!(m, subject => subject.as_float().is_some()),
        "string" => alone!(m, subject => subject.as_str().is_some()),
        "mapping" => alone!(m, subject => subject.kind() == "dict"),
        "sequence" => alone!(m, subject => m.length(subject).is_some() && !matches!(subject, Val::View(..))),
        "iterable" => alone!(m, subject => m.length(subject).is_some() || matches!(subject, Val::Generator(..))),
        "callable" => alone!(m, subject => matches!(subject, Val::Method(..) | Val::Function(_))),
        "odd" => alone!(m, subject => integer(subject)?.rem_euclid(2) == 1),
        "even" => alone!(m, subject => integer(subject)?.rem_euclid(2) == 0),
        "lower" => alone!(m, subject => {
            let text = m.to_text(subject)?;
            text == text.to_lowercase() && text != text.to_uppercase()
        }),
        "upper" => alone!(m, subject => {
            let text = m.to_text(subject)?;
            text == text.to_uppercase() && text != text.to_lowercase()
        }),
        "filter" => alone!(m, subject => subject.as_str().is_some_and(|name| filters::find(name).is_some())),
        "test" => alone!(m, subject => subject.as_str().is_some_and(|name| find(name).is_some())),
        "divisibleby" => |_, subject, arguments| {
            let [divisor] = arguments.bind("divisibleby", ["num"], 1)?;
            match integer(&divisor.unwrap_or(Val::None))? {
                0 => Fault::failed("division by zero"),
                divisor => Ok(integer(subject)?.checked_rem(divisor).unwrap_or(0) == 0),
            }
        },
        "sameas" => |machine, subject, arguments| {
            let [other] = arguments.bind("sameas", ["other"], 1)?;
            let other = other.unwrap_or(Val::None);
            Ok(subject.kind() == other.kind() && machine.equal(subject, &other)?)
        },
        "in" => |machine, subject, arguments| {
            let [container] = arguments.bind("in", ["seq"], 1)?;
            machine.contains(&container.unwrap_or(Val::None), subject)
        },
        "eq" | "==" | "equalto" => |machine, subject, arguments| compare(machine, Compare::Equal, subject, arguments),
        "ne" | "!=" => |machine, subject, arguments| compare(machine, Compare::NotEqual, subject, arguments),
        "lt" | "<" | "lessthan" => |machine, subject, arguments| compare(machine, Compare::Less, subject, arguments),
        "le" | "<=" => |machine, subject, arguments| compare(machine, Compare::LessOrEqual, subject, arguments),
        "gt" | ">" | "greaterthan" => |machine, subject, arguments| compare(machine, Compare::Greater, subject, arguments),
        "ge" | ">=" => |machine, subject, arguments| compare(machine, Compare::GreaterOrEqual, subject, arguments),
        _ => return None,
    };
    Some(Predicate(run))
}

fn integer(value: &Val<'_>) -> Outcome<i128> {
    match (value.as_int(), value) {
        (Some(int), _) => Ok(int),
        (None, Val::Undefined { name, .. }) => Err(Fault::Undefined(format!("`{}`", &**name))),
        // A fraction is neither odd nor even; it is refused.
        (None, Val::Float(float)) if float.fract() == 0.0 && float.abs() < 1e30 => Ok(*float as i128),
        _ => Fault::wrong_type(format!("an integer is expected, not {}", value.kind())),
    }
}

fn compare<'a>(machine: &mut Machine<'a>, op: Compare, subject: &Val<'a>, arguments: Arguments<'a>) -> Outcome<bool> {
    let [other] = arguments.bind("test", ["other"], 1)?;
    machine.compare(op, subject, &other.unwrap_or(Val::None))
}
