//! The names that a template may use, and the clock.

use chrono::{DateTime, Utc};
use serde_json::Value;

/// A name's value, and what is special about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Variable<'a> {
    pub(super) name: &'a str,
    pub(super) value: &'a Value,
    /// Keys are compared without regard to ASCII case (HTTP headers).
    pub(super) caseless: bool,
    /// An object whose entries answer to `.name` before the value's own (a stream slice's `extra_fields`, `partition`, `cursor_slice`).
    pub(super) attributes: Option<&'a Value>,
}

/// What a template sees: borrowed values under names, and the time that `now_utc()` tells.
#[derive(Clone, Debug)]
pub(crate) struct Scope<'a> {
    variables: Vec<Variable<'a>>,
    now: DateTime<Utc>,
}

/// The reference's second and third name of a stream slice.
const SLICE_ALIASES: [&str; 2] = ["stream_interval", "stream_partition"];

impl<'a> Scope<'a> {
    /// No names, and the system's time.
    pub(crate) fn new() -> Self {
        Self { variables: Vec::with_capacity(8), now: Utc::now() }
    }

    #[cfg(test)]
    /// A fixed time for `now_utc`, `today_utc` and `day_delta`.
    pub(crate) fn at(mut self, now: DateTime<Utc>) -> Self {
        self.now = now;
        self
    }

    /// A variable; a later one of the same name wins. `stream_slice` is also known as `stream_interval` and `stream_partition`.
    pub(crate) fn with(self, name: &'a str, value: &'a Value) -> Self {
        self.push(Variable { name, value, caseless: false, attributes: None })
    }

    /// A variable whose keys are HTTP header names: `headers['x-next']` finds `X-Next`.
    pub(crate) fn with_headers(self, name: &'a str, value: &'a Value) -> Self {
        self.push(Variable { name, value, caseless: true, attributes: None })
    }

    /// A variable whose `attributes` (an object) answer to `.name`, while its keys are those of `value`.
    pub(crate) fn with_attributes(self, name: &'a str, value: &'a Value, attributes: &'a Value) -> Self {
        self.push(Variable { name, value, caseless: false, attributes: Some(attributes) })
    }

    fn push(mut self, variable: Variable<'a>) -> Self {
        self.variables.push(variable);
        self
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        self.now
    }

    pub(super) fn get(&self, name: &str) -> Option<Variable<'a>> {
        let name = if SLICE_ALIASES.contains(&name) { "stream_slice" } else { name };
        self.variables.iter().rev().find(|variable| variable.name == name).copied()
    }
}

impl Default for Scope<'_> {
    fn default() -> Self {
        Self::new()
    }
}
