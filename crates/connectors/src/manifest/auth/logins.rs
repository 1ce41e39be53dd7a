//! The logins of a connection: streams whose authenticators are the same share one, with its token or its quotas.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use trib_core::Result;

use super::super::env::Env;
use super::super::node::Node;
use super::super::parameters::PARAMETERS;
use super::oauth::OAuth;
use super::pool::TokenPool;

#[derive(Default)]
pub(in super::super) struct Logins {
    oauths: Shared<OAuth>,
    pools: Shared<TokenPool>,
}

impl Logins {
    pub(super) fn oauth(&self, env: &Env, node: &Node<'_>) -> Result<Arc<OAuth>> {
        self.oauths.get(node, || OAuth::build(env, node))
    }

    pub(super) fn pool(&self, env: &Env, node: &Node<'_>) -> Result<Arc<TokenPool>> {
        self.pools.get(node, || TokenPool::build(env, node))
    }
}

struct Shared<T>(Mutex<HashMap<String, Arc<T>>>);

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Shared<T> {
    fn get(&self, node: &Node<'_>, build: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        let Some(known_by) = identity(node.value) else { return Ok(Arc::new(build()?)) };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = all.get(&known_by) {
            return Ok(there.clone());
        }
        let new = Arc::new(build()?);
        all.insert(known_by, new.clone());
        Ok(new)
    }
}

/// What makes two of them one: all that they say. One that asks for parameters may mean something else in each stream.
fn identity(component: &Value) -> Option<String> {
    let mut said = component.clone();
    without_parameters(&mut said);
    let said = said.to_string();
    (!said.contains("parameters")).then_some(said)
}

fn without_parameters(value: &mut Value) {
    match value {
        Value::Object(map) => {
            // Parameters also stand as fields, where a component has none of their names.
            if let Some(Value::Object(handed_down)) = map.shift_remove(PARAMETERS) {
                map.retain(|name, value| handed_down.get(name) != Some(value));
            }
            map.values_mut().for_each(without_parameters);
        }
        Value::Array(items) => items.iter_mut().for_each(without_parameters),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn streams_share_what_does_not_depend_on_them() {
        let of = |stream: &str, secret: &str| {
            identity(
                &json!({"type": "OAuthAuthenticator", "client_secret": secret, "name": stream, "$parameters": {"name": stream}, "x": [{"$parameters": {"name": stream}}]}),
            )
        };
        assert!(of("a", "{{ config['s'] }}").is_some());
        assert_eq!(of("a", "{{ config['s'] }}"), of("b", "{{ config['s'] }}"));
        assert_ne!(of("a", "{{ config['s'] }}"), of("a", "{{ config['t'] }}"));
        assert_eq!(of("a", "{{ parameters['name'] }}"), None);
    }
}
