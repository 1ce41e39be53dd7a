//! What all parts of one running connector share.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use trib_kit::http::Client;

use super::budget::Budget;
use super::cache::ResponseCache;
use super::pace::Pace;
use super::template::Scope;

/// The connector's configuration and its ways to the outside.
pub(super) struct Env {
    /// As the spec's migrations and transformations have left it.
    pub(super) config: Arc<Value>,
    pub(super) client: Client,
    pub(super) budget: Option<Budget>,
    pub(super) pace: Pace,
    pub(super) cache: ResponseCache,
    /// Values of the configuration that nobody may see, longest first.
    pub(super) secrets: Vec<String>,
    /// Changes that an authenticator has made to the configuration (a refresh token that is good for one use), to be kept by the user.
    pub(super) changed_config: Mutex<Option<Value>>,
}

impl Env {
    pub(super) fn scope(&self) -> Scope<'_> {
        Scope::new().with("config", &self.config)
    }

    /// A text for people, with secrets taken out of it.
    pub(super) fn without_secrets(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
    }

    /// The configuration with changes made to it since the start.
    pub(super) fn current_config(&self) -> Value {
        let changed = self.changed_config.lock().unwrap_or_else(PoisonError::into_inner);
        changed.clone().unwrap_or_else(|| (*self.config).clone())
    }

    pub(super) fn change_config(&self, config: Value) {
        *self.changed_config.lock().unwrap_or_else(PoisonError::into_inner) = Some(config);
    }
}
