//! A value of a cursor: a point in time, or a number that only grows.

use std::cmp::Ordering;

use serde_json::Value;

use super::super::span::Span;
use super::super::time::Time;

#[derive(Clone, Debug, PartialEq)]
pub(in super::super) enum Point {
    Time(Time),
    /// Compared as a number, kept as it came.
    Count(Value),
    /// After everything.
    Never,
}

impl PartialOrd for Point {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Point::Time(a), Point::Time(b)) => a.partial_cmp(b),
            (Point::Count(a), Point::Count(b)) => match (a.as_i64(), b.as_i64()) {
                (Some(a), Some(b)) => a.partial_cmp(&b),
                _ => a.as_f64().partial_cmp(&b.as_f64()),
            },
            (Point::Never, Point::Never) => Some(Ordering::Equal),
            (Point::Never, _) => Some(Ordering::Greater),
            (_, Point::Never) => Some(Ordering::Less),
            _ => None,
        }
    }
}

impl Point {
    /// The point that much later; `Never` beyond the calendar's end. Numbers do not move by spans.
    pub(super) fn after(&self, span: Span) -> Point {
        match self {
            Point::Time(time) => span.after(*time).map_or(Point::Never, Point::Time),
            other => other.clone(),
        }
    }

    /// The point that much earlier; itself before the calendar's begin.
    pub(in super::super) fn before(&self, span: Span) -> Point {
        match self {
            Point::Time(time) => Point::Time(span.before(*time).unwrap_or(*time)),
            other => other.clone(),
        }
    }

    pub(super) fn max(self, other: Point) -> Point {
        if self < other { other } else { self }
    }

    pub(super) fn min(self, other: Point) -> Point {
        if other < self { other } else { self }
    }
}
