//! The connector's settings as they are now: it may change them while it runs.

use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};
use trib_core::{Context, Result};
use trib_kit::kept::Kept;
use trib_kit::scrub::Scrub;
use trib_kit::settings::collect;

use super::config::AirbyteConfig;
use super::spec;

pub struct CurrentSettings {
    now: Mutex<Value>,
    specification: Mutex<Value>,
    kept: Kept,
    /// What nothing that the connector says may show.
    pub scrub: Scrub,
}

impl CurrentSettings {
    pub fn new(config: &AirbyteConfig, context: &Context) -> Self {
        let now = Mutex::new(Value::Object(config.config.0.clone()));
        Self { now, specification: Mutex::default(), kept: Kept::of(context), scrub: Scrub::new(config.secrets()) }
    }

    pub fn now(&self) -> Value {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the connector's word for what is secret.
    pub fn mind(&self, specification: &Value) {
        let mut known = self.specification.lock().unwrap_or_else(PoisonError::into_inner);
        spec::secrets(specification, &self.now()).iter().for_each(|secret| self.scrub.know(secret));
        *known = specification.clone();
    }

    /// Keeps what the connector has changed, such as a refresh token that is good for one use, for this run and for later ones.
    pub fn replace(&self, new: &Value) -> Result<()> {
        let mut secrets = spec::secrets(&self.specification.lock().unwrap_or_else(PoisonError::into_inner), new);
        collect(new, false, &mut secrets);
        secrets.iter().for_each(|secret| self.scrub.know(secret));
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        self.kept.keep(&json!({"config": *now}), &json!({"config": new}))?;
        *now = new.clone();
        Ok(())
    }
}
