//! Incremental reads: windows over a cursor, and the state that they lead to, in the reference's own form.

mod clamp;
mod partition;
mod point;
mod rule;
mod window;

pub(super) use self::partition::PartitionCursor;
pub(super) use self::point::Point;
pub(super) use self::rule::build as build_rule;
pub(super) use self::window::{Window, WindowRule};

use std::sync::Arc;

use serde_json::Value;

use super::records::Record;

/// Which records a cursor has not seen before.
#[derive(Clone)]
pub(super) struct Bounds {
    pub(super) rule: Arc<WindowRule>,
    pub(super) lowest: Point,
}

impl Bounds {
    /// A record without a cursor that can be read is wanted.
    pub(super) fn wants(&self, record: &Value) -> bool {
        match self.rule.point_of(record) {
            None => true,
            Some(point) => self.lowest <= point && point <= self.rule.end_now(),
        }
    }
}

/// The greatest cursor among the records of a slice.
#[derive(Clone, Default)]
pub(super) struct Observed(pub(super) Option<Point>);

impl Observed {
    pub(super) fn see(&mut self, rule: &WindowRule, record: Record<'_>) {
        if let Some(point) = record.field(&rule.field).and_then(|value| rule.parse(&value.value()))
            && self.0.as_ref().is_none_or(|known| *known < point)
        {
            self.0 = Some(point);
        }
    }
}
