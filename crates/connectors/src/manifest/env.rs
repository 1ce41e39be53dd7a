//! What all parts of one running connector share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Semaphore;
use trib_core::Result;
use trib_kit::http::Client;
use trib_kit::scrub;

use super::auth::Logins;
use super::budget::Budget;
use super::cache::ResponseCache;
use super::dpath;
use super::keepsake::{Keepsake, Replaced};
use super::pace::Pace;
use super::template::Scope;

/// The connector's configuration and its ways to the outside.
pub(super) struct Env {
    /// As the spec's migrations and transformations have left it.
    pub(super) config: Arc<Value>,
    pub(super) client: Client,
    pub(super) budget: Option<Budget>,
    pub(super) pace: Pace,
    /// Of asynchronous jobs, a permit each while the API works on them.
    pub(super) jobs: Semaphore,
    pub(super) cache: ResponseCache,
    pub(super) keepsake: Option<Keepsake>,
    /// One renewal of credentials at a time: a refresh token may be good for one use.
    pub(super) renewal: tokio::sync::Mutex<()>,
    /// Streams that log in in the same way share their tokens.
    pub(super) logins: Logins,
    /// Clients that give up connecting after another time, by that time.
    clients: Mutex<HashMap<Duration, Client>>,
    secrets: Mutex<Vec<String>>,
    changes: Mutex<Changes>,
}

/// Changes that authenticators have made to the configuration.
#[derive(Default)]
struct Changes {
    current: Option<Value>,
    /// Somebody has yet to be told.
    untold: bool,
}

impl Env {
    /// `secrets` are values of the configuration that nobody may see.
    pub(super) fn new(
        config: Value,
        client: Client,
        budget: Option<Budget>,
        pace: Pace,
        jobs: usize,
        secrets: Vec<String>,
        keepsake: Option<Keepsake>,
    ) -> Self {
        let parts: Vec<String> = secrets.iter().flat_map(|secret| scrub::parts_of_address(secret)).collect();
        let env = Self {
            config: Arc::new(config),
            client,
            budget,
            pace,
            jobs: Semaphore::new(jobs),
            cache: ResponseCache::default(),
            keepsake,
            renewal: tokio::sync::Mutex::default(),
            logins: Logins::default(),
            clients: Mutex::default(),
            secrets: Mutex::new(secrets),
            changes: Mutex::default(),
        };
        parts.iter().for_each(|part| env.hide(part));
        env
    }

    pub(super) fn scope(&self) -> Scope<'_> {
        Scope::new().with("config", &self.config)
    }

    /// The client, giving up after so long where a connection cannot be made.
    pub(super) fn client_within(&self, limit: Duration) -> Result<Client> {
        let mut clients = lock(&self.clients);
        if let Some(client) = clients.get(&limit) {
            return Ok(client.clone());
        }
        let client = self.client.connecting_within(limit)?;
        clients.insert(limit, client.clone());
        Ok(client)
    }

    /// A text for people, with secrets taken out of it.
    pub(super) fn without_secrets(&self, text: &str) -> String {
        scrub::without(text, self.secrets())
    }

    /// One more value that nobody may see.
    pub(super) fn hide(&self, secret: &str) {
        let mut secrets = lock(&self.secrets);
        // Short ones would take ordinary words apart.
        if secret.len() >= 6 && !secrets.iter().any(|s| s == secret) {
            secrets.push(secret.to_owned());
            secrets.sort_by_key(|s| std::cmp::Reverse(s.len()));
        }
    }

    pub(super) fn secrets(&self) -> Vec<String> {
        lock(&self.secrets).clone()
    }

    /// The configuration with changes made to it since it was written.
    pub(super) fn current_config(&self) -> Value {
        let mut changes = lock(&self.changes);
        let fresh = || self.keepsake.as_ref().map_or_else(|| (*self.config).clone(), |k| k.over(&self.config));
        changes.current.get_or_insert_with(fresh).clone()
    }

    /// Replaces credentials: for the rest of this run, and for the next one where there is a place to keep them. `at` is what cannot be used again.
    pub(super) fn replace(&self, at: &[String], values: Vec<(Vec<String>, Value)>) -> Result<()> {
        let mut config = self.current_config();
        for (path, value) in &values {
            dpath::set(&mut config, path, value.clone());
        }
        *lock(&self.changes) = Changes { current: Some(config), untold: true };
        match &self.keepsake {
            Some(keepsake) => keepsake.keep(Replaced::new(&self.config, at, values)),
            None => Ok(()),
        }
    }

    /// The configuration, if it was changed since this was asked last.
    pub(super) fn take_changes(&self) -> Option<Value> {
        let mut changes = lock(&self.changes);
        std::mem::take(&mut changes.untold).then(|| changes.current.clone()).flatten()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
