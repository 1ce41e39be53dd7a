//! Python's operators: truth, equality, order, membership, arithmetic.

use std::cmp::Ordering;
use std::rc::Rc;

use serde_json::Value;

use super::access::hashable;
use super::ast::{Binary, Compare};
use super::datetime::{Delta, Duration};
use super::error::{Fault, Outcome};
use super::machine::{MAX_NEST, Machine};
use super::value::Val;

/// The longest text or list that `*` and padding may make.
pub(super) const MAX_LENGTH: usize = 4 << 20;

impl<'a> Machine<'a> {
    pub(super) fn truthy(&self, value: &Val<'a>) -> bool {
        match value {
            Val::Undefined { .. } | Val::None => false,
            Val::Bool(flag) => *flag,
            Val::Int(int) => *int != 0,
            Val::Float(float) => *float != 0.0,
            Val::Str(text) => !text.is_empty(),
            Val::Delta(delta) => *delta != Delta::ZERO,
            _ => self.length(value).is_none_or(|length| length > 0),
        }
    }

    pub(super) fn equal(&mut self, left: &Val<'a>, right: &Val<'a>) -> Outcome<bool> {
        self.equal_at(left, right, 0)
    }

    fn equal_at(&mut self, left: &Val<'a>, right: &Val<'a>, depth: usize) -> Outcome<bool> {
        self.spend(1)?;
        if depth > MAX_NEST {
            return Err(Fault::Limit("it nests values too deeply"));
        }
        if let (Some(left), Some(right)) = (left.as_int(), right.as_int()) {
            return Ok(left == right);
        }
        if let (Some(left), Some(right)) = (left.as_float(), right.as_float()) {
            return Ok(left == right);
        }
        Ok(match (left, right) {
            (Val::Undefined { .. }, Val::Undefined { .. }) | (Val::None, Val::None) => true,
            (Val::Str(left), Val::Str(right)) => {
                self.spend_text(left.len())?;
                **left == **right
            }
            (Val::Date(left), Val::Date(right)) => left == right,
            (Val::Moment(left), Val::Moment(right)) => left == right,
            (Val::Delta(left), Val::Delta(right)) => left == right,
            (Val::Duration(left), Val::Duration(right)) => left == right,
            (Val::Json(left), Val::Json(right)) if std::ptr::eq(*left, *right) => true,
            _ if left.kind() != right.kind() => false,
            (Val::Json(Value::Array(_)) | Val::List(_) | Val::Tuple(_), _) => {
                let (left, right) = (self.iterate(left)?, self.iterate(right)?);
                if left.len() != right.len() {
                    return Ok(false);
                }
                for (left, right) in left.iter().zip(&right) {
                    if !self.equal_at(left, right, depth + 1)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Val::Json(_) | Val::Headers(_) | Val::Slice(..) | Val::Dict(_), _) => {
                let entries = self.pairs(left)?;
                if self.length(right) != Some(entries.len()) {
                    return Ok(false);
                }
                for (key, value) in entries {
                    match self.lookup(right, &key)? {
                        Some(other) if self.equal_at(&value, &other, depth + 1)? => {}
                        _ => return Ok(false),
                    }
                }
                true
            }
            _ => false,
        })
    }

    pub(super) fn compare(&mut self, op: Compare, left: &Val<'a>, right: &Val<'a>) -> Outcome<bool> {
        let ordered = |machine: &mut Self, accepted: &[Ordering]| {
            Ok(machine.order(left, right)?.is_some_and(|ordering| accepted.contains(&ordering)))
        };
        match op {
            Compare::Equal => self.equal(left, right),
            Compare::NotEqual => self.equal(left, right).map(|equal| !equal),
            Compare::Less => ordered(self, &[Ordering::Less]),
            Compare::LessOrEqual => ordered(self, &[Ordering::Less, Ordering::Equal]),
            Compare::Greater => ordered(self, &[Ordering::Greater]),
            Compare::GreaterOrEqual => ordered(self, &[Ordering::Greater, Ordering::Equal]),
            Compare::In => self.contains(right, left),
            Compare::NotIn => self.contains(right, left).map(|contains| !contains),
        }
    }

    /// Python's order; `None` where a NaN is in play, `TypeError` between types that have none.
    pub(super) fn order(&mut self, left: &Val<'a>, right: &Val<'a>) -> Outcome<Option<Ordering>> {
        self.order_at(left, right, 0)
    }

    fn order_at(&mut self, left: &Val<'a>, right: &Val<'a>, depth: usize) -> Outcome<Option<Ordering>> {
        self.spend(1)?;
        for side in [left, right] {
            if side.is_undefined() {
                return Err(self.undefined(side));
            }
        }
        if let (Some(left), Some(right)) = (left.as_int(), right.as_int()) {
            return Ok(Some(left.cmp(&right)));
        }
        if let (Some(left), Some(right)) = (left.as_float(), right.as_float()) {
            return Ok(left.partial_cmp(&right));
        }
        match (left, right) {
            (Val::Str(left), Val::Str(right)) => {
                self.spend_text(left.len())?;
                return Ok(Some((**left).cmp(&**right)));
            }
            (Val::Date(left), Val::Date(right)) => return Ok(Some(left.cmp(right))),
            (Val::Delta(left), Val::Delta(right)) => return Ok(Some(left.cmp(right))),
            (Val::Moment(left), Val::Moment(right)) if left.offset.is_some() == right.offset.is_some() => {
                return Ok(Some(left.utc().cmp(&right.utc())));
            }
            _ => {}
        }
        if matches!(left.kind(), "list" | "tuple") && left.kind() == right.kind() && depth < MAX_NEST {
            let (left, right) = (self.iterate(left)?, self.iterate(right)?);
            for (left, right) in left.iter().zip(&right) {
                if !self.equal_at(left, right, depth + 1)? {
                    return self.order_at(left, right, depth + 1);
                }
            }
            return Ok(Some(left.len().cmp(&right.len())));
        }
        Fault::wrong_type(format!("'{}' and '{}' cannot be compared", left.kind(), right.kind()))
    }

    pub(super) fn contains(&mut self, container: &Val<'a>, item: &Val<'a>) -> Outcome<bool> {
        match container {
            Val::Str(text) => match item {
                Val::Str(part) => {
                    self.spend_text(text.len())?;
                    Ok(text.contains(&**part))
                }
                _ => Fault::wrong_type(format!("'in <string>' requires string as left operand, not {}", item.kind())),
            },
            Val::Dict(_) | Val::Headers(_) | Val::Slice(..) | Val::Json(Value::Object(_)) => {
                hashable(item)?;
                Ok(self.lookup(container, item)?.is_some())
            }
            _ => {
                for candidate in self.iterate(container)? {
                    if self.equal(&candidate, item)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }

    pub(super) fn negate(&mut self, value: Val<'a>) -> Outcome<Val<'a>> {
        match &value {
            Val::Float(float) => Ok(Val::Float(-float)),
            Val::Delta(delta) => Ok(Val::Delta(delta.negated())),
            Val::Duration(duration) => Ok(Val::Duration(Rc::new(duration.negated()))),
            Val::Undefined { .. } => Err(self.undefined(&value)),
            _ => match value.as_int() {
                Some(int) => Ok(Val::Int(-int)),
                None => Fault::wrong_type(format!("bad operand type for unary -: '{}'", value.kind())),
            },
        }
    }

    pub(super) fn binary(&mut self, op: Binary, left: Val<'a>, right: Val<'a>) -> Outcome<Val<'a>> {
        if op == Binary::Concat {
            let mut text = String::new();
            self.write_str(&left, &mut text)?;
            self.write_str(&right, &mut text)?;
            return Ok(Val::str(text));
        }
        if op == Binary::Remainder
            && let Val::Str(format) = &left
        {
            return self.percent(format, &right);
        }
        for side in [&left, &right] {
            if side.is_undefined() {
                return Err(self.undefined(side));
            }
        }
        if let (Some(left), Some(right)) = (left.as_int(), right.as_int()) {
            return integers(op, left, right);
        }
        if let (Some(left), Some(right)) = (left.as_float(), right.as_float()) {
            return floats(op, left, right);
        }
        match op {
            Binary::Add => self.add(&left, &right),
            Binary::Subtract => subtract(&left, &right),
            Binary::Multiply => match (&left, &right) {
                (sequence, times) | (times, sequence) if times.as_int().is_some() => self.repeat(sequence, times.as_int().unwrap_or(0)),
                _ => unsupported("*", &left, &right),
            },
            _ => unsupported("this operator", &left, &right),
        }
    }

    fn add(&mut self, left: &Val<'a>, right: &Val<'a>) -> Outcome<Val<'a>> {
        match (left, right) {
            (Val::Str(first), Val::Str(second)) => {
                self.spend_text(first.len() + second.len())?;
                Ok(Val::str([&**first, &**second].concat()))
            }
            (Val::Moment(moment), Val::Delta(delta)) | (Val::Delta(delta), Val::Moment(moment)) => Ok(Val::Moment(moment.plus(*delta)?)),
            (Val::Date(date), Val::Delta(delta)) | (Val::Delta(delta), Val::Date(date)) => Ok(Val::Date(delta.after(*date)?)),
            (Val::Delta(first), Val::Delta(second)) => Ok(Val::Delta(first.plus(*second)?)),
            (Val::Duration(first), Val::Duration(second)) => Ok(Val::Duration(Rc::new(first.plus(second)?))),
            (Val::Duration(duration), Val::Delta(delta)) | (Val::Delta(delta), Val::Duration(duration)) => {
                Ok(Val::Duration(Rc::new(duration.plus(&Duration::of(*delta))?)))
            }
            (Val::Moment(moment), Val::Duration(duration)) | (Val::Duration(duration), Val::Moment(moment)) => {
                Ok(Val::Moment(duration.after_moment(*moment)?))
            }
            (Val::Date(date), Val::Duration(duration)) | (Val::Duration(duration), Val::Date(date)) => {
                Ok(Val::Date(duration.after_date(*date)?))
            }
            _ if left.kind() == right.kind() && matches!(left.kind(), "list" | "tuple") => {
                let mut items = self.iterate(left)?;
                items.extend(self.iterate(right)?);
                if left.kind() == "list" { self.list(items) } else { self.tuple(items) }
            }
            _ => unsupported("+", left, right),
        }
    }

    fn repeat(&mut self, sequence: &Val<'a>, times: i128) -> Outcome<Val<'a>> {
        let length = match sequence {
            Val::Str(text) => text.len(),
            Val::List(_) | Val::Tuple(_) | Val::Json(Value::Array(_)) => self.length(sequence).unwrap_or(0),
            Val::Delta(delta) => return Ok(Val::Delta(delta.times(times)?)),
            Val::Duration(duration) => return Ok(Val::Duration(Rc::new(duration.times(times)?))),
            _ => return unsupported("*", sequence, &Val::Int(times)),
        };
        let times = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
        let total = length.saturating_mul(times);
        if total > MAX_LENGTH {
            return Err(Fault::Limit("it repeats a text or list too often"));
        }
        self.spend_text(total)?;
        match sequence {
            Val::Str(text) => Ok(Val::str(text.repeat(times))),
            _ => {
                let items = self.iterate(sequence)?;
                let items: Vec<_> = std::iter::repeat_n(&items, if items.is_empty() { 0 } else { times }).flatten().cloned().collect();
                if sequence.kind() == "list" { self.list(items) } else { self.tuple(items) }
            }
        }
    }
}

fn unsupported<'a>(op: &str, left: &Val<'a>, right: &Val<'a>) -> Outcome<Val<'a>> {
    Fault::wrong_type(format!("unsupported operand types for {op}: '{}' and '{}'", left.kind(), right.kind()))
}

fn subtract<'a>(left: &Val<'a>, right: &Val<'a>) -> Outcome<Val<'a>> {
    match (left, right) {
        (Val::Moment(left), Val::Moment(right)) if left.offset.is_some() == right.offset.is_some() => {
            Ok(Val::Delta(Delta::between(right.utc(), left.utc())))
        }
        (Val::Moment(moment), Val::Delta(delta)) => Ok(Val::Moment(moment.plus(delta.negated())?)),
        (Val::Date(left), Val::Date(right)) => Ok(Val::Delta(Delta::from_days(left.signed_duration_since(*right).num_days()))),
        (Val::Date(date), Val::Delta(delta)) => Ok(Val::Date(delta.before(*date)?)),
        (Val::Delta(left), Val::Delta(right)) => Ok(Val::Delta(left.plus(right.negated())?)),
        (Val::Duration(left), Val::Duration(right)) => Ok(Val::Duration(Rc::new(left.plus(&right.negated())?))),
        (Val::Duration(left), Val::Delta(right)) => Ok(Val::Duration(Rc::new(left.plus(&Duration::of(right.negated()))?))),
        (Val::Delta(left), Val::Duration(right)) => Ok(Val::Duration(Rc::new(right.negated().plus(&Duration::of(*left))?))),
        (Val::Moment(moment), Val::Duration(duration)) => Ok(Val::Moment(duration.negated().after_moment(*moment)?)),
        (Val::Date(date), Val::Duration(duration)) => Ok(Val::Date(duration.before_date(*date)?)),
        _ => unsupported("-", left, right),
    }
}

fn integers<'a>(op: Binary, left: i128, right: i128) -> Outcome<Val<'a>> {
    let result = match op {
        Binary::Add => left.checked_add(right),
        Binary::Subtract => left.checked_sub(right),
        Binary::Multiply => left.checked_mul(right),
        Binary::Divide => return floats(op, left as f64, right as f64),
        Binary::FloorDivide | Binary::Remainder if right == 0 => return Fault::failed("division by zero"),
        Binary::FloorDivide => {
            left.checked_div(right).map(|quotient| if left % right != 0 && (left < 0) != (right < 0) { quotient - 1 } else { quotient })
        }
        Binary::Remainder => left.checked_rem(right).map(|rest| if rest != 0 && (rest < 0) != (right < 0) { rest + right } else { rest }),
        Binary::Power if right < 0 => return floats(op, left as f64, right as f64),
        Binary::Power => u32::try_from(right).ok().and_then(|right| left.checked_pow(right)),
        Binary::Concat => None,
    };
    result.map_or_else(|| Fault::failed("a number grew too large"), |int| Ok(Val::Int(int)))
}

fn floats<'a>(op: Binary, left: f64, right: f64) -> Outcome<Val<'a>> {
    if right == 0.0 && matches!(op, Binary::Divide | Binary::FloorDivide | Binary::Remainder) {
        return Fault::failed("division by zero");
    }
    Ok(Val::Float(match op {
        Binary::Add => left + right,
        Binary::Subtract => left - right,
        Binary::Multiply => left * right,
        Binary::Divide => left / right,
        Binary::FloorDivide => (left / right).floor(),
        Binary::Remainder => {
            let rest = left % right;
            if rest != 0.0 && (rest < 0.0) != (right < 0.0) { rest + right } else { rest }
        }
        Binary::Power if left == 0.0 && right < 0.0 => return Fault::failed("0.0 cannot be raised to a negative power"),
        Binary::Power if left < 0.0 && right.fract() != 0.0 => return Fault::failed("the root of a negative number"),
        Binary::Power => left.powf(right),
        Binary::Concat => f64::NAN,
    }))
}
