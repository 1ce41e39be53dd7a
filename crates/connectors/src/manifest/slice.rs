//! A piece of a stream's read: what its routers and its cursor say about the requests that it takes.

use std::sync::Arc;

use serde_json::{Map, Value};
use trib_kit::http::Response;

use super::cursor::Bounds;
use super::template::Scope;

/// Part of a read. Templates see partition and cursor as one object, `stream_slice`.
#[derive(Clone)]
pub(super) struct Slice {
    /// From routers: which parent, which of a list.
    partition: Map<String, Value>,
    /// Only for templates and requests: never part of the state.
    pub(super) extra: Map<String, Value>,
    merged: Value,
    attributes: Value,
    /// Which of its records the cursor has not seen before.
    bounds: Option<Bounds>,
    /// The answer to its first request, where a parent's record has brought it along.
    given: Option<Arc<Response>>,
}

impl Default for Slice {
    fn default() -> Self {
        Self::new(Map::new(), Map::new(), Map::new())
    }
}

impl Slice {
    pub(super) fn new(partition: Map<String, Value>, cursor: Map<String, Value>, extra: Map<String, Value>) -> Self {
        let mut merged = partition.clone();
        merged.extend(cursor.clone());
        let attributes = [("partition", partition.clone()), ("cursor_slice", cursor), ("extra_fields", extra.clone())];
        let attributes = attributes.into_iter().map(|(name, map)| (name.to_owned(), Value::Object(map))).collect();
        Self { partition, extra, merged: Value::Object(merged), attributes: Value::Object(attributes), bounds: None, given: None }
    }

    pub(super) fn of_partition(partition: Map<String, Value>) -> Self {
        Self::new(partition, Map::new(), Map::new())
    }

    pub(super) fn partition(&self) -> &Map<String, Value> {
        &self.partition
    }

    /// This partition within a window of the cursor.
    pub(super) fn within(&self, cursor: Map<String, Value>) -> Self {
        let given = self.given.clone();
        Self { given, ..Self::new(self.partition.clone(), cursor, self.extra.clone()) }
    }

    /// Another window of the same, with the same bounds.
    pub(super) fn moved(&self, cursor: Map<String, Value>) -> Self {
        self.within(cursor).with_bounds(self.bounds.clone())
    }

    pub(super) fn with_given(mut self, given: Response) -> Self {
        self.given = Some(Arc::new(given));
        self
    }

    pub(super) fn given(&self) -> Option<&Response> {
        self.given.as_deref()
    }

    pub(super) fn with_extra(&self, name: &str, value: Value) -> Self {
        let mut extra = self.extra.clone();
        extra.insert(name.to_owned(), value);
        let cursor = self.attributes.get("cursor_slice").and_then(Value::as_object).cloned().unwrap_or_default();
        Self::new(self.partition.clone(), cursor, extra)
    }

    pub(super) fn with_bounds(mut self, bounds: Option<Bounds>) -> Self {
        self.bounds = bounds;
        self
    }

    pub(super) fn bounds(&self) -> Option<&Bounds> {
        self.bounds.as_ref()
    }

    /// Whether it asks for the same.
    pub(super) fn is(&self, other: &Slice) -> bool {
        self.merged == other.merged
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.merged.get(key)
    }

    /// The slice as requests' templates see it, its extra fields among the names.
    pub(super) fn scope<'a>(&'a self, mut scope: Scope<'a>) -> Scope<'a> {
        scope = scope.with_attributes("stream_slice", &self.merged, &self.attributes);
        for (name, value) in &self.extra {
            scope = scope.with(name, value);
        }
        scope
    }

    /// The slice as records' templates see it.
    pub(super) fn record_scope<'a>(&'a self, scope: Scope<'a>) -> Scope<'a> {
        scope.with_attributes("stream_slice", &self.merged, &self.attributes)
    }
}
