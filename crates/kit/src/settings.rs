//! Settings that only the program that gets them understands, and what of them must never be shown.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use trib_core::Secret;

/// Settings of which nobody knows here which ones are secret, so that none is ever shown.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Settings(pub Map<String, Value>);

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

/// Texts that must not appear in what a program says: everything long enough among its settings and its environment that does not look harmless.
pub fn secrets<'a>(settings: &Settings, env: impl IntoIterator<Item = &'a Secret>) -> Vec<String> {
    let mut found: Vec<String> = env.into_iter().map(|v| v.expose().to_owned()).collect();
    settings.0.iter().for_each(|(name, value)| collect(value, sounds_secret(name), &mut found));
    found.retain(|text| text.len() >= 4);
    // Longer ones first, since they may hold shorter ones.
    found.sort_by_key(|text| std::cmp::Reverse(text.len()));
    found
}

fn sounds_secret(name: &str) -> bool {
    const SECRET: [&str; 9] = ["pass", "secret", "token", "key", "credential", "auth", "private", "pwd", "cert"];
    let name = name.to_lowercase();
    SECRET.iter().any(|part| name.contains(part))
}

/// Values under names that sound secret, and the passwords of URLs; with `secret`, every text.
pub fn collect(value: &Value, secret: bool, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => object.iter().for_each(|(name, value)| collect(value, secret || sounds_secret(name), found)),
        Value::Array(values) => values.iter().for_each(|v| collect(v, secret, found)),
        Value::String(text) if secret => {
            found.push(text.clone());
            found.extend(text.lines().map(str::to_owned));
        }
        Value::String(text) => {
            if let Ok(url) = url::Url::parse(text)
                && let Some(password) = url.password()
            {
                found.extend([text.clone(), password.to_owned()]);
            }
        }
        _ => {}
    }
}
