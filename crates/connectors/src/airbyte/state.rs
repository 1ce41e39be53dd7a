//! A connector's state: the last message of each stream, or the last of all streams together, as it is handed back to it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::message::StreamName;

/// What STATE messages add up to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Folded(Vec<Value>);

impl Folded {
    pub fn of(state: Option<&Value>) -> Self {
        state.and_then(|s| serde_json::from_value(s.clone()).ok()).unwrap_or_default()
    }

    /// Takes a message. A stream's own replaces that stream's, one of all replaces everything. Gives the stream that it is about, when it is about one.
    pub fn add(&mut self, mut message: Value) -> Option<StreamName<'static>> {
        if let Value::Object(map) = &mut message {
            // Counts and ids are about one run.
            map.retain(|key, value| matches!(key.as_str(), "type" | "stream" | "global" | "data") && !value.is_null());
        }
        if kind(&message) != "STREAM" {
            self.0 = vec![message];
            return None;
        }
        let about = message.get("stream").and_then(described);
        let same = |other: &Value| kind(other) == "STREAM" && other.get("stream").and_then(described) == about;
        match self.0.iter().position(same) {
            Some(at) => self.0[at] = message,
            None => {
                self.0.retain(|m| kind(m) == "STREAM");
                self.0.push(message);
            }
        }
        about
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a connector's `--state` file holds: a list of messages, or the one object that older connectors keep.
    pub fn to_file(&self) -> Value {
        match self.0.as_slice() {
            [legacy] if kind(legacy) == "LEGACY" => legacy.get("data").cloned().unwrap_or_else(|| Value::Object(Map::new())),
            messages => Value::Array(messages.to_vec()),
        }
    }

    /// Forgets what is known of these streams.
    pub fn without(&mut self, stream: impl Fn(&StreamName<'_>) -> bool) {
        let is = |state: &Value| described(state).is_some_and(|name| stream(&name));
        self.0.retain(|m| !m.get("stream").is_some_and(is));
        for message in &mut self.0 {
            if let Some(Value::Array(states)) = message.pointer_mut("/global/stream_states") {
                states.retain(|s| !is(s));
            }
        }
    }
}

fn kind(message: &Value) -> &str {
    message.get("type").and_then(Value::as_str).unwrap_or("LEGACY")
}

/// The stream that a state is of.
fn described(state: &Value) -> Option<StreamName<'static>> {
    let descriptor = state.get("stream_descriptor")?;
    let text = |key: &str| descriptor.get(key).and_then(Value::as_str).map(|text| text.to_owned().into());
    Some(StreamName { namespace: text("namespace"), name: text("name")? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn stream(name: &str, at: i64) -> Value {
        json!({"type": "STREAM", "stream": {"stream_descriptor": {"name": name, "namespace": null}, "stream_state": {"at": at}}, "sourceStats": {"recordCount": 3}})
    }

    #[test]
    fn states_add_up() {
        let mut folded = Folded::default();
        [stream("a", 1), stream("b", 1), stream("a", 2)].into_iter().for_each(|m| drop(folded.add(m)));
        let at = |folded: &Folded| {
            folded.to_file().as_array().unwrap().iter().map(|m| m["stream"]["stream_state"]["at"].as_i64().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(at(&folded), [2, 1]);
        assert_eq!(Folded::of(Some(&serde_json::to_value(&folded).unwrap())), folded);
        assert!(folded.to_file()[0].get("sourceStats").is_none());
        folded.without(|stream| stream.name == "a");
        assert_eq!(at(&folded), [1]);
        let states =
            json!([{"stream_descriptor": {"name": "a"}, "stream_state": 1}, {"stream_descriptor": {"name": "b"}, "stream_state": 2}]);
        let mut global = json!({"type": "GLOBAL", "global": {"shared_state": {"lsn": 1}, "stream_states": states}});
        assert_eq!(folded.add(global.clone()), None);
        assert_eq!(folded.to_file(), json!([global]));
        folded.without(|stream| stream.name == "a");
        global["global"]["stream_states"].as_array_mut().unwrap().remove(0);
        assert_eq!(folded.to_file(), json!([global]));
        folded.add(json!({"data": {"cursor": 5}}));
        assert_eq!(folded.to_file(), json!({"cursor": 5}));
    }
}
