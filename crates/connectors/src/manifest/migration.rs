//! States that older versions of a connector have written.

use serde_json::{Map, Value, json};
use trib_core::Result;

use super::env::Env;
use super::node::Node;

/// The state as the stream of today expects it.
pub(super) fn migrate(env: &Env, migration: &Node<'_>, stream: &Node<'_>, state: Map<String, Value>) -> Result<Map<String, Value>> {
    if migration.kind() != "LegacyToPerPartitionStateMigration" {
        return Err(migration.unsupported());
    }
    let router = stream.need("retriever")?.need("partition_router")?;
    let scope = env.scope();
    let field = if router.kind() == "UnionPartitionRouter" {
        router.need_expr("partition_field")?.text(&scope)?
    } else {
        let parents = router.items("parent_stream_configs");
        match parents.as_slice() {
            [parent] => parent.need_expr("partition_field")?.text(&scope)?,
            _ => return Ok(state),
        }
    };
    let cursor = stream.need("incremental_sync")?.need_expr("cursor_field")?.text(&scope)?;
    Ok(to_partitions(&field, &cursor, state))
}

/// `{parent: {cursor: value}}` becomes one state for each partition; anything else stays.
fn to_partitions(field: &str, cursor: &str, state: Map<String, Value>) -> Map<String, Value> {
    let legacy = |value: &Value| value.as_object().is_some_and(|m| m.len() == 1 && m.contains_key(cursor));
    if state.is_empty() || !state.values().all(legacy) {
        return state;
    }
    let states: Vec<Value> = state.into_iter().map(|(key, value)| json!({"partition": {field: key}, "cursor": value})).collect();
    Map::from_iter([("states".to_owned(), Value::Array(states))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legacy_states_are_recognised() {
        let map = |v: Value| v.as_object().cloned().unwrap();
        let migrated = to_partitions("id", "at", map(json!({"1": {"at": "x"}, "2": {"at": "y"}})));
        let states =
            json!({"states": [{"partition": {"id": "1"}, "cursor": {"at": "x"}}, {"partition": {"id": "2"}, "cursor": {"at": "y"}}]});
        assert_eq!(Value::Object(migrated), states);
        for other in [json!({"states": []}), json!({"at": "x"}), json!({"1": {"other": "x"}})] {
            assert_eq!(Value::Object(to_partitions("id", "at", map(other.clone()))), other);
        }
    }
}
