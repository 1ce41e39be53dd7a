//! Streams that share something at the API, and so are never read at the same time.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::node::Node;
use super::router::parent_names;

/// The manifest's `stream_groups`.
pub(super) struct Groups {
    members: BTreeMap<String, (HashSet<String>, Arc<Mutex<()>>)>,
}

/// The groups that one read has to have for itself, always in the same order.
pub(super) struct Waits(Vec<Arc<Mutex<()>>>);

impl Groups {
    pub(super) fn build(manifest: &Node<'_>) -> Self {
        let of_group = |group: &Node<'_>| -> HashSet<String> {
            group.items("streams").iter().filter_map(|stream| stream.text("name").map(str::to_owned)).collect()
        };
        let groups = manifest.get("stream_groups").map(|g| g.entries()).unwrap_or_default();
        Self { members: groups.into_iter().map(|(name, group)| (name.clone(), (of_group(&group), Arc::default()))).collect() }
    }

    /// Those of a stream and of all streams that are read for it. `documents` are all streams.
    pub(super) fn of(&self, documents: &[Value], stream: &str) -> Waits {
        if self.members.is_empty() {
            return Waits(Vec::new());
        }
        let (mut known, mut next) = (HashSet::new(), vec![stream.to_owned()]);
        while let Some(name) = next.pop() {
            let document = documents.iter().find(|d| d.get("name").and_then(Value::as_str) == Some(&name));
            if known.insert(name)
                && let Some(router) = document.and_then(|d| d.pointer("/retriever/partition_router"))
            {
                let mut parents = HashSet::new();
                parent_names(router, &mut parents);
                next.extend(parents);
            }
        }
        Waits(self.members.values().filter(|(members, _)| !members.is_disjoint(&known)).map(|(_, lock)| lock.clone()).collect())
    }
}

impl Waits {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) async fn enter(self) -> Vec<OwnedMutexGuard<()>> {
        let mut held = Vec::new();
        for group in self.0 {
            held.push(group.lock_owned().await);
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_stream_waits_for_its_parents_groups_too() {
        let stream = |name: &str, parent: Option<&str>| {
            let config = parent.map(|p| json!({"stream": {"name": p}}));
            json!({"name": name, "retriever": {"partition_router": {"parent_stream_configs": config.into_iter().collect::<Vec<_>>()}}})
        };
        let documents = [stream("a", None), stream("b", Some("a")), stream("c", Some("b")), stream("d", None)];
        let manifest = json!({"stream_groups": {"one": {"streams": [{"name": "a"}]}, "two": {"streams": [{"name": "c"}, {"name": "a"}]}}});
        let groups = Groups::build(&Node::new(&manifest, ""));
        let counts = ["a", "b", "c", "d"].map(|name| groups.of(&documents, name).0.len());
        assert_eq!(counts, [2, 2, 2, 0]);
        let held = groups.of(&documents, "c").enter().await;
        assert!(groups.members.values().all(|(_, lock)| lock.try_lock().is_err()));
        drop(held);
        assert!(groups.members.values().all(|(_, lock)| lock.try_lock().is_ok()));
        assert!(Groups::build(&Node::new(&json!({}), "")).of(&documents, "a").is_empty());
    }
}
