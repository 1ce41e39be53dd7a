//! What a vendor was called for: evidence that each thing that a manifest can do was done.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Variables;
use super::fill::{fill, text};
use crate::stand_in::{Answer, Asked};

/// Exchanges that are kept of one method and path.
const MOST_OF_ONE: usize = 12;

/// Calls of the routes that do the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deed {
    pub calls: u64,
    /// Records that were taken, and that were refused.
    pub taken: u64,
    pub refused: u64,
    /// Records of the largest call that was taken.
    pub most: u64,
    /// Calls with several records of which some were refused, or because of which all were.
    pub partly: u64,
    /// Answers that named another page.
    pub more: u64,
}

impl Deed {
    #[must_use]
    pub fn plus(self, other: &Self) -> Self {
        Self {
            calls: self.calls + other.calls,
            taken: self.taken + other.taken,
            refused: self.refused + other.refused,
            most: self.most.max(other.most),
            partly: self.partly + other.partly,
            more: self.more + other.more,
        }
    }
}

/// A request and its answer.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub asked: Asked,
    pub answer: Answer,
}

#[derive(Default)]
pub(super) struct Seen {
    pub(super) deeds: BTreeMap<String, Deed>,
    pub(super) exchanges: Vec<Exchange>,
}

impl Seen {
    /// After a call of a route: what became of it stands in the variables.
    pub(super) fn note(&mut self, route: &Value, variables: &Variables, was_taken: bool) {
        if route["does"].is_null() {
            return;
        }
        let deed = self.deeds.entry(text(&fill(&route["does"], variables))).or_default();
        let count = |name: &str| variables.get(name).and_then(Value::as_u64).unwrap_or(0);
        let (taken, refused) = (count("taken_count"), count("refused_count"));
        deed.calls += 1;
        deed.refused += refused;
        deed.partly += u64::from(refused > 0 && taken + refused > 1);
        deed.more += u64::from(variables.get("more") == Some(&Value::Bool(true)));
        if was_taken {
            deed.taken += taken;
            deed.most = deed.most.max(taken + refused);
        }
    }

    pub(super) fn exchange(&mut self, asked: &Asked, answer: &Answer) {
        let same = |e: &&Exchange| (&e.asked.method, &e.asked.path, e.answer.status) == (&asked.method, &asked.path, answer.status);
        if self.exchanges.iter().filter(same).count() < MOST_OF_ONE {
            self.exchanges.push(Exchange { asked: asked.clone(), answer: answer.clone() });
        }
    }
}
