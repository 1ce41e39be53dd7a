//! A cursor for each partition, and one for all of them together.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Map, Value, json};
use trib_core::Result;

use super::super::slice::Slice;
use super::super::span::Span;
use super::{Bounds, Point, Window, WindowRule};

/// With more partitions than this only the common cursor is kept.
const GLOBAL_BEYOND: usize = 10_000;
/// More cursors than this are not held in memory.
const MOST_HELD: usize = 25_000;

pub(in super::super) struct PartitionCursor {
    rule: Arc<WindowRule>,
    /// In the order in which they became known.
    order: Vec<String>,
    known: HashMap<String, Held>,
    /// Slices that were given out and are not closed, by partition; an entry stands as long as there are some.
    open: HashMap<String, usize>,
    use_global: bool,
    /// The common cursor at the last state, and as it is by now.
    global: Option<Value>,
    new_global: Option<Value>,
    /// Seconds that the last sync took: what came in meanwhile may be behind the common cursor.
    lookback: i64,
    parent_state: Option<Value>,
    partitions: usize,
    saw_records: bool,
    began: Instant,
    failed: bool,
}

struct Held {
    partition: Map<String, Value>,
    window: Window,
}

/// Partitions are the same when their JSON is, whatever the order of its keys.
fn key(partition: &Map<String, Value>) -> String {
    sorted(&Value::Object(partition.clone())).to_string()
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_by_key(|(k, _)| *k);
            Value::Object(entries.into_iter().map(|(k, v)| (k.clone(), sorted(v))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

impl PartitionCursor {
    pub(in super::super) fn new(rule: Arc<WindowRule>, state: &Map<String, Value>, use_global: bool) -> Result<Self> {
        let mut cursor = Self {
            rule,
            order: Vec::new(),
            known: HashMap::new(),
            open: HashMap::new(),
            use_global,
            global: None,
            new_global: None,
            lookback: 0,
            parent_state: None,
            partitions: 0,
            saw_records: false,
            began: Instant::now(),
            failed: false,
        };
        if state.is_empty() {
            return Ok(cursor);
        }
        if !state.contains_key("states") && !state.contains_key("state") {
            cursor.set_global(state);
        } else {
            cursor.use_global = state.get("use_global_cursor").and_then(Value::as_bool).unwrap_or(false);
            cursor.lookback = state.get("lookback_window").and_then(Value::as_f64).unwrap_or(0.0) as i64;
            for entry in state.get("states").and_then(Value::as_array).into_iter().flatten() {
                let (Some(partition), Some(own)) =
                    (entry.get("partition").and_then(Value::as_object), entry.get("cursor").and_then(Value::as_object))
                else {
                    continue;
                };
                let window = Window::new(cursor.rule.clone(), own)?;
                cursor.hold(key(partition), partition.clone(), window);
            }
            if let Some(global) = state.get("state").and_then(Value::as_object) {
                cursor.set_global(global);
            }
        }
        cursor.parent_state = state.get("parent_state").filter(|p| super::super::parameters::truthy(p)).cloned();
        Ok(cursor)
    }

    fn set_global(&mut self, state: &Map<String, Value>) {
        if let Some(point) = state.get(&self.rule.field).and_then(|v| self.rule.parse(v)) {
            let value = self.rule.write(&point);
            self.global = Some(value.clone());
            self.new_global = Some(value);
        }
    }

    fn hold(&mut self, key: String, partition: Map<String, Value>, window: Window) {
        self.partitions += 1;
        self.order.push(key.clone());
        self.known.insert(key, Held { partition, window });
    }

    /// Where a partition begins that nobody has read before.
    fn fresh(&self) -> Result<Window> {
        let mut state = Map::new();
        if let Some(point) = self.global.as_ref().and_then(|g| self.rule.parse(g)) {
            state.insert(self.rule.field.clone(), self.rule.write(&point.before(Span::seconds(self.lookback))));
        }
        Window::new(self.rule.clone(), &state)
    }

    /// The slices of a partition; none when it was given out before.
    pub(in super::super) fn open(&mut self, partition: &Slice) -> Result<Vec<(Slice, Bounds)>> {
        if !self.use_global && self.partitions > GLOBAL_BEYOND {
            tracing::info!("the stream has so many partitions that only one cursor for all is kept");
            self.use_global = true;
        }
        self.make_room();
        let key = key(partition.partition());
        if !self.known.contains_key(&key) {
            let fresh = self.fresh()?;
            self.hold(key.clone(), partition.partition().clone(), fresh);
        }
        if self.open.contains_key(&key) {
            tracing::warn!("a partition comes twice and is read once");
            return Ok(Vec::new());
        }
        let Some(held) = self.known.get_mut(&key) else { return Ok(Vec::new()) };
        let windows = held.window.windows()?;
        let bounds = if self.use_global { self.fresh()?.bounds() } else { held.window.bounds() };
        // A partition with nothing to read still counts as given out.
        self.open.insert(key, windows.len());
        Ok(windows.into_iter().map(|w| (partition.within(w), bounds.clone())).collect())
    }

    fn make_room(&mut self) {
        while self.known.len() >= MOST_HELD {
            let idle = self.order.iter().position(|k| self.open.get(k).is_none_or(|open| *open == 0));
            let Some(at) = idle else { return };
            let key = self.order.remove(at);
            self.known.remove(&key);
        }
    }

    pub(in super::super) fn close(&mut self, slice: &Slice, most: Option<Point>) {
        if let Some(most) = &most {
            self.saw_records = true;
            self.raise(self.rule.write(most));
        }
        let key = key(slice.partition());
        let left = self.open.get_mut(&key).map(|open| {
            *open = open.saturating_sub(1);
            *open
        });
        if let Some(held) = self.known.get_mut(&key).filter(|_| !self.use_global) {
            held.window.close(slice, most);
            if left == Some(0) {
                let reached = self.rule.write(&held.window.reached());
                self.raise(reached);
            }
        }
    }

    /// The common cursor compares texts, as the reference does.
    fn raise(&mut self, value: Value) {
        let greater = match (&self.new_global, &value) {
            (None, _) => true,
            (Some(Value::String(known)), Value::String(new)) => known < new,
            _ => false,
        };
        if greater {
            self.new_global = Some(value);
        }
    }

    /// Some slice could not be read: the common cursor may not move past it.
    pub(in super::super) fn fail(&mut self) {
        self.failed = true;
    }

    /// All partitions were given out and closed.
    pub(in super::super) fn finish(&mut self, parent_state: Option<Value>) {
        if self.failed || self.open.values().any(|open| *open > 0) {
            return;
        }
        if self.saw_records {
            self.global = self.new_global.clone();
            self.lookback = self.began.elapsed().as_secs_f64().ceil().max(1.0) as i64;
        }
        self.parent_state = parent_state;
    }

    pub(in super::super) fn state(&self) -> Value {
        let mut state = json!({"use_global_cursor": self.use_global});
        let Value::Object(map) = &mut state else { return state };
        if !self.use_global {
            let entry = |held: &Held| json!({"partition": held.partition, "cursor": held.window.state()});
            let states = self.order.iter().filter_map(|k| self.known.get(k)).map(entry).collect();
            map.insert("states".to_owned(), Value::Array(states));
        }
        if let Some(global) = &self.global {
            let field = self.rule.field.clone();
            map.insert("state".to_owned(), Value::Object(Map::from_iter([(field, global.clone())])));
        }
        map.insert("lookback_window".to_owned(), self.lookback.into());
        if let Some(parent) = &self.parent_state {
            map.insert("parent_state".to_owned(), parent.clone());
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use super::super::window::Values;
    use super::*;
    use crate::manifest::time;

    fn rule() -> Arc<WindowRule> {
        let format = "%Y-%m-%d".to_owned();
        let point = |text: &str| Point::Time(time::parse(&text.into(), "%Y-%m-%d").unwrap());
        let end = point("2026-01-10");
        Arc::new(WindowRule {
            field: "at".into(),
            values: Values::Times { inputs: vec![format.clone()], format },
            start: point("2026-01-01"),
            end: Box::new(move || end.clone()),
            lookback: None,
            step: None,
            granularity: None,
            clamp: None,
            strict: false,
            boundaries: Some(("from".into(), "to".into())),
        })
    }

    fn partition(id: &str) -> Slice {
        Slice::of_partition(Map::from_iter([("id".to_owned(), id.into())]))
    }

    fn read(cursor: &mut PartitionCursor, id: &str, most: Option<&str>) -> Vec<String> {
        let slices = cursor.open(&partition(id)).unwrap();
        let rule = cursor.rule.clone();
        slices
            .iter()
            .map(|(slice, _)| {
                cursor.close(slice, most.and_then(|m| rule.parse(&m.into())));
                slice.get("from").and_then(Value::as_str).unwrap().to_owned()
            })
            .collect()
    }

    #[test]
    fn each_partition_goes_on_from_its_own() {
        let mut cursor = PartitionCursor::new(rule(), &Map::new(), false).unwrap();
        assert_eq!(read(&mut cursor, "a", Some("2026-01-04")), ["2026-01-01"]);
        assert_eq!(read(&mut cursor, "b", None), ["2026-01-01"]);
        assert_eq!(read(&mut cursor, "a", None), Vec::<String>::new(), "the same partition once more");
        cursor.finish(Some(json!({})));
        let state = cursor.state();
        assert_eq!(
            state,
            json!({"use_global_cursor": false, "state": {"at": "2026-01-04"}, "lookback_window": 1, "parent_state": {}, "states": [
                {"partition": {"id": "a"}, "cursor": {"at": "2026-01-04"}}, {"partition": {"id": "b"}, "cursor": {"at": "2026-01-01"}}]})
        );
        let mut next = PartitionCursor::new(rule(), state.as_object().unwrap(), false).unwrap();
        assert_eq!(read(&mut next, "a", None), ["2026-01-04"]);
        // Nobody knows it: it goes on from all others, less the time that the last sync took.
        assert_eq!(read(&mut next, "new", None), ["2026-01-03"]);
    }

    #[test]
    fn with_a_common_cursor_there_is_no_other() {
        let mut cursor = PartitionCursor::new(rule(), &Map::new(), true).unwrap();
        read(&mut cursor, "a", Some("2026-01-04"));
        read(&mut cursor, "b", Some("2026-01-07"));
        cursor.finish(None);
        assert_eq!(cursor.state(), json!({"use_global_cursor": true, "state": {"at": "2026-01-07"}, "lookback_window": 1}));
    }

    #[test]
    fn a_failure_holds_the_common_cursor_back() {
        let mut cursor = PartitionCursor::new(rule(), &Map::new(), false).unwrap();
        read(&mut cursor, "a", Some("2026-01-04"));
        cursor.fail();
        cursor.finish(None);
        assert_eq!(cursor.state().get("state"), None);
    }
}
