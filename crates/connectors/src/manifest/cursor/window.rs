//! One cursor's windows: which are left to read, and what state their reading leads to.

use std::sync::Arc;

use serde_json::{Map, Value};
use trib_core::{Code, Error, Result};

use super::super::slice::Slice;
use super::super::span::Span;
use super::super::time;
use super::clamp::Clamp;
use super::{Bounds, Observed, Point};

/// A step smaller than this would make more windows than anybody can read.
const MOST_WINDOWS: usize = 1_000_000;

/// What a manifest says about a cursor, with its templates evaluated.
pub(in super::super) struct WindowRule {
    pub(super) field: String,
    pub(super) values: Values,
    pub(super) start: Point,
    pub(super) end: Box<dyn Fn() -> Point + Send + Sync>,
    pub(super) lookback: Option<Span>,
    pub(super) step: Option<Span>,
    pub(super) granularity: Option<Span>,
    pub(super) clamp: Option<Clamp>,
    pub(super) strict: bool,
    /// The names under which a slice carries its window; a cursor without them reads all in one.
    pub(super) boundaries: Option<(String, String)>,
}

/// How a cursor's values are written.
pub(super) enum Values {
    /// Read by the first format that fits, written in `format`.
    Times {
        inputs: Vec<String>,
        format: String,
    },
    Counts,
}

#[derive(Clone, Debug)]
struct Interval {
    start: Point,
    end: Point,
    /// The greatest cursor that was seen in it.
    most: Option<Point>,
}

/// A cursor's state during a read.
#[derive(Clone)]
pub(in super::super) struct Window {
    rule: Arc<WindowRule>,
    /// Everything before this was read earlier.
    start: Point,
    done: Vec<Interval>,
    /// What else stood in the state that was given.
    legacy: Map<String, Value>,
}

impl WindowRule {
    pub(in super::super) fn point_of(&self, record: &Value) -> Option<Point> {
        record.get(&self.field).filter(|v| !v.is_null()).and_then(|v| self.parse(v))
    }

    pub(in super::super) fn parse(&self, value: &Value) -> Option<Point> {
        match &self.values {
            Values::Times { inputs, .. } => inputs.iter().find_map(|f| time::parse(value, f)).map(Point::Time),
            Values::Counts => value.is_number().then(|| Point::Count(value.clone())),
        }
    }

    /// How far a state says that everything was read: of one cursor, or of all partitions together.
    pub(in super::super) fn reached_in(&self, state: &Map<String, Value>) -> Option<Point> {
        let global = state.get("state").and_then(Value::as_object);
        let of = |name: &str| state.get("slices")?.get(0)?.get(name).filter(|v| !v.is_null());
        let value = state.get(&self.field).or_else(|| global?.get(&self.field));
        self.parse(value.or_else(|| of("most_recent_cursor_value")).or_else(|| of("end"))?)
    }

    pub(in super::super) fn write(&self, point: &Point) -> Value {
        match (point, &self.values) {
            (Point::Time(time), Values::Times { format, .. }) => Value::String(time::format(*time, format)),
            (Point::Count(value), _) => value.clone(),
            _ => Value::Null,
        }
    }

    fn window_of(&self, slice: &Slice) -> Option<(Point, Point)> {
        let (start, end) = self.boundaries.as_ref()?;
        let point = |name: &str| slice.get(name).and_then(|v| self.parse(v));
        Some((point(start)?, point(end)?))
    }

    fn named(&self, from: &Point, to: &Point) -> Map<String, Value> {
        let names = self.boundaries.as_ref().map_or(("start", "end"), |(a, b)| (a.as_str(), b.as_str()));
        Map::from_iter([(names.0.to_owned(), self.write(from)), (names.1.to_owned(), self.write(to))])
    }

    /// The slice's window in two halves, a granule apart. `None` where it is one granule, or no longer than `least`.
    pub(in super::super) fn halves(&self, slice: &Slice, least: Option<Span>) -> Option<[Slice; 2]> {
        let granule = i64::try_from(self.granularity?.to_std()?.as_micros()).ok().filter(|g| *g > 0)?;
        let (Point::Time(start), Point::Time(end)) = self.window_of(slice)? else { return None };
        let length = (end - start).num_microseconds().filter(|l| *l > 0)?;
        if least.and_then(Span::to_std).is_some_and(|least| length as u128 <= least.as_micros()) {
            return None;
        }
        let half = (length / granule + 1) / 2 * granule;
        if half == 0 {
            return None;
        }
        let second = start + chrono::TimeDelta::microseconds(half);
        let first_end = second - chrono::TimeDelta::microseconds(granule);
        let part = |from, to| slice.moved(self.named(&Point::Time(from), &Point::Time(to)));
        (start <= first_end && second <= end).then(|| [part(start, first_end), part(second, end)])
    }

    /// The slice's window from what was seen in it on; `None` when nothing was.
    pub(in super::super) fn from_seen(&self, slice: &Slice, seen: &Observed) -> Option<Slice> {
        let (_, end) = self.window_of(slice)?;
        Some(slice.moved(self.named(seen.0.as_ref()?, &end)))
    }

    pub(super) fn end_now(&self) -> Point {
        (self.end)()
    }

    /// Windows that touch are one: a step further than the end of the first.
    fn next(&self, point: &Point) -> Point {
        match point {
            Point::Count(value) => {
                Point::Count(value.as_i64().map_or_else(|| Value::from(value.as_f64().unwrap_or(0.0) + 1.0), |n| (n + 1).into()))
            }
            other => other.after(self.granularity.unwrap_or(Span::micros(1000))),
        }
    }

    fn merged(&self, mut intervals: Vec<Interval>) -> Vec<Interval> {
        let order = |a: &Point, b: &Point| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal);
        intervals.sort_by(|a, b| order(&a.start, &b.start).then(order(&a.end, &b.end)));
        let mut merged: Vec<Interval> = Vec::new();
        for interval in intervals {
            match merged.last_mut() {
                Some(last) if self.next(&last.end) >= interval.start => {
                    last.end = last.end.clone().max(interval.end);
                    last.most = match (last.most.take(), interval.most) {
                        (Some(a), Some(b)) => Some(a.max(b)),
                        (a, b) => a.or(b),
                    };
                }
                _ => merged.push(interval),
            }
        }
        merged
    }
}

impl Window {
    /// Goes on from a state: the cursor's value alone, or the windows that were read.
    pub(in super::super) fn new(rule: Arc<WindowRule>, state: &Map<String, Value>) -> Result<Self> {
        let unreadable = || {
            Error::new(Code::DataInvalid, "the stored state does not fit the stream's cursor")
                .detail(format!("the field {}", rule.field))
                .hint("`trib state get` shows it; `trib state reset` starts the stream again")
        };
        let typed = state.get("state_type").and_then(Value::as_str);
        if matches!(typed, Some("date-range" | "integer")) {
            let mut done = Vec::new();
            for slice in state.get("slices").and_then(Value::as_array).into_iter().flatten() {
                let point = |key: &str| slice.get(key).filter(|v| !v.is_null()).map(|v| rule.parse(v).ok_or_else(unreadable)).transpose();
                let (start, end) = (point("start")?.ok_or_else(unreadable)?, point("end")?.ok_or_else(unreadable)?);
                done.push(Interval { start, end, most: point("most_recent_cursor_value")? });
            }
            if let Some(first) = done.first() {
                let start = first.most.clone().unwrap_or_else(|| first.end.clone());
                return Ok(Self { rule, start, done, legacy: Map::new() });
            }
        }
        let before = match state.get(&rule.field).filter(|v| !v.is_null()) {
            Some(value) => Some(rule.parse(value).ok_or_else(unreadable)?),
            None => None,
        };
        let start = before.filter(|b| *b >= rule.start).unwrap_or_else(|| rule.start.clone());
        let done = vec![Interval { start: rule.start.clone(), end: start.clone(), most: Some(start.clone()) }];
        Ok(Self { rule, start, done, legacy: state.clone() })
    }

    pub(in super::super) fn bounds(&self) -> Bounds {
        let lowest = match self.rule.lookback {
            None => self.start.clone(),
            Some(lookback) => self.start.before(lookback).max(self.start.clone().min(self.rule.start.clone())),
        };
        Bounds { rule: self.rule.clone(), lowest }
    }

    /// What is left to read: gaps first, then what came since.
    pub(in super::super) fn windows(&mut self) -> Result<Vec<Map<String, Value>>> {
        self.done = self.rule.merged(std::mem::take(&mut self.done));
        let mut found = Vec::new();
        let Some(first) = self.done.first() else { return Ok(Vec::new()) };
        if self.rule.start < first.start {
            self.split(self.rule.start.clone(), first.start.clone(), false, &mut found)?;
        }
        for pair in self.done.windows(2) {
            let from = self.rule.granularity.map_or_else(|| pair[0].end.clone(), |g| pair[0].end.after(g));
            self.split(from, pair[1].start.clone(), false, &mut found)?;
        }
        if let Some(last) = self.done.last() {
            let from = self.rule.lookback.map_or_else(|| last.end.clone(), |l| last.end.before(l));
            self.split(from, self.rule.end_now(), true, &mut found)?;
        }
        Ok(found.iter().map(|(from, to)| self.rule.named(from, to)).collect())
    }

    /// Cuts a range into steps. All but the last window of a read end one granule before the next begins.
    fn split(&self, lower: Point, upper: Point, to_the_end: bool, found: &mut Vec<(Point, Point)>) -> Result<()> {
        let rule = &*self.rule;
        if lower > upper || (lower == upper && rule.granularity.is_none()) || upper < rule.start {
            return Ok(());
        }
        let clamp = |point: &Point| rule.clamp.map_or_else(|| point.clone(), |c| c.clamp(point, true));
        let lower = clamp(&lower.max(rule.start.clone()));
        if lower > upper || (lower == upper && (rule.strict || !to_the_end)) {
            return Ok(());
        }
        let granule_before = |point: Point, last: bool| match rule.granularity {
            Some(granularity) if !last => point.before(granularity),
            _ => point,
        };
        let step = rule.step.map_or(Point::Never, |s| lower.after(s));
        if step >= upper {
            let end = if to_the_end && rule.granularity.is_some() { upper } else { clamp(&upper) };
            found.push((lower, granule_before(end, to_the_end)));
            return Ok(());
        }
        let mut from = lower;
        loop {
            let to = rule.step.map_or(Point::Never, |s| from.after(s)).min(upper.clone());
            let clamped = if to == upper { to.clone() } else { clamp(&to) };
            let reached = to >= upper || clamped == upper;
            from = clamp(&from);
            if from >= clamped {
                return Ok(());
            }
            found.push((from, granule_before(clamped.clone(), to_the_end && reached)));
            if found.len() > MOST_WINDOWS {
                return Err(Error::new(Code::ConfigInvalid, "the cursor's step cuts its range into too many windows"));
            }
            if reached {
                return Ok(());
            }
            from = clamped;
        }
    }

    /// A slice was read to its end.
    pub(in super::super) fn close(&mut self, slice: &Slice, most: Option<Point>) {
        let interval = match &self.rule.boundaries {
            Some(_) => self.rule.window_of(slice).map(|(start, end)| Interval { start, end, most }),
            None => most.map(|most| Interval { start: self.start.clone(), end: most.clone(), most: Some(most) }),
        };
        if let Some(interval) = interval {
            self.done.push(interval);
            self.done = self.rule.merged(std::mem::take(&mut self.done));
        }
    }

    /// How far everything was read: what the next read goes on from.
    pub(in super::super) fn reached(&self) -> Point {
        let merged = self.rule.merged(self.done.clone());
        merged.first().map_or_else(|| self.start.clone(), |first| first.most.clone().unwrap_or_else(|| first.start.clone()))
    }

    pub(in super::super) fn state(&self) -> Map<String, Value> {
        let mut state = self.legacy.clone();
        state.insert(self.rule.field.clone(), self.rule.write(&self.reached()));
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rule(step: Option<&str>, granularity: Option<&str>, lookback: Option<&str>) -> WindowRule {
        let format = "%Y-%m-%d".to_owned();
        let time = |text: &str| Point::Time(time::parse(&text.into(), "%Y-%m-%d").unwrap());
        let end = time("2026-01-10");
        let span = |text: &str| Span::parse(text).unwrap();
        WindowRule {
            field: "at".into(),
            values: Values::Times { inputs: vec![format.clone()], format },
            start: time("2026-01-01"),
            end: Box::new(move || end.clone()),
            lookback: lookback.map(span),
            step: step.map(span),
            granularity: granularity.map(span),
            clamp: None,
            strict: false,
            boundaries: Some(("from".into(), "to".into())),
        }
    }

    fn windows(rule: WindowRule, state: Value) -> Vec<String> {
        let mut window = Window::new(Arc::new(rule), state.as_object().unwrap()).unwrap();
        let text = |w: &Map<String, Value>| format!("{}..{}", &w["from"].as_str().unwrap()[8..], &w["to"].as_str().unwrap()[8..]);
        window.windows().unwrap().iter().map(text).collect()
    }

    #[test]
    fn windows_of_a_read() {
        let (step, day) = (Some("P4D"), Some("P1D"));
        assert_eq!(windows(rule(None, None, None), json!({})), ["01..10"]);
        assert_eq!(windows(rule(step, day, None), json!({})), ["01..04", "05..08", "09..10"]);
        assert_eq!(windows(rule(step, day, None), json!({"at": "2026-01-06"})), ["06..10"]);
        assert_eq!(windows(rule(None, None, Some("P2D")), json!({"at": "2026-01-08"})), ["06..10"]);
        assert_eq!(windows(rule(None, None, Some("P30D")), json!({"at": "2026-01-03"})), ["01..10"]);
        assert_eq!(windows(rule(None, None, None), json!({"at": "2026-01-10"})), Vec::<String>::new());
        assert_eq!(windows(rule(step, day, None), json!({"at": "2026-01-10"})), ["10..10"]);
        assert_eq!(windows(rule(None, None, None), json!({"at": "2026-02-01"})), Vec::<String>::new());
        let gaps = json!({"state_type": "date-range", "slices": [
            {"start": "2026-01-01", "end": "2026-01-02"}, {"start": "2026-01-06", "end": "2026-01-08"}]});
        assert_eq!(windows(rule(None, day, None), gaps), ["03..05", "08..10"]);
    }

    #[test]
    fn the_state_is_the_end_of_what_was_read_without_a_gap() {
        let mut window = Window::new(Arc::new(rule(Some("P4D"), Some("P1D"), None)), &Map::new()).unwrap();
        let slices: Vec<Slice> = window.windows().unwrap().into_iter().map(|w| Slice::default().within(w)).collect();
        let most = |day: &str| window.rule.parse(&format!("2026-01-{day}").into());
        let (second, first) = (most("07"), most("03"));
        window.close(&slices[1], second);
        assert_eq!(window.state()["at"], "2026-01-01", "the first window is missing");
        window.close(&slices[0], first);
        assert_eq!(window.state()["at"], "2026-01-07");
        window.close(&slices[2], None);
        assert_eq!(window.state()["at"], "2026-01-07", "a window without records does not move it");
    }

    #[test]
    fn a_window_is_halved_down_to_its_granule() {
        let rule = rule(None, Some("P1D"), None);
        let slice = |from: &str, to: &str| {
            let point = |day: &str| rule.parse(&format!("2026-01-{day}").into()).unwrap();
            Slice::default().within(rule.named(&point(from), &point(to)))
        };
        let halves =
            |from: &str, to: &str, least: Option<&str>| {
                let found = rule.halves(&slice(from, to), least.and_then(Span::parse))?;
                Some(found.map(|s| {
                    format!("{}..{}", &s.get("from").unwrap().as_str().unwrap()[8..], &s.get("to").unwrap().as_str().unwrap()[8..])
                }))
            };
        assert_eq!(halves("01", "10", None), Some(["01..05".to_owned(), "06..10".to_owned()]));
        assert_eq!(halves("01", "03", None), Some(["01..01".to_owned(), "02..03".to_owned()]));
        assert_eq!(halves("01", "01", None), None);
        assert_eq!(halves("01", "03", Some("P2D")), None);
        let seen = Observed(rule.parse(&"2026-01-04".into()));
        assert_eq!(rule.from_seen(&slice("01", "10"), &seen).unwrap().get("from").unwrap(), "2026-01-04");
    }

    #[test]
    fn what_else_stood_in_the_state_stays() {
        let state = json!({"at": "2026-01-05", "other": 1});
        let window = Window::new(Arc::new(rule(None, None, None)), state.as_object().unwrap()).unwrap();
        assert_eq!(Value::Object(window.state()), state);
        assert!(Window::new(Arc::new(rule(None, None, None)), json!({"at": "soon"}).as_object().unwrap()).is_err());
    }
}
