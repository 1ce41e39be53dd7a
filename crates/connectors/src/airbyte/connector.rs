//! Asking a connector. Its specification comes first: which of its settings are secret has to be known before it says anything.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::OnceCell;
use trib_core::{Code, Context, Error, Result};
use trib_kit::lines::Lines;

use super::config::AirbyteConfig;
use super::input::{Answer, answer, clean};
use super::program::Call;
use super::settings::CurrentSettings;

pub struct Connector {
    pub config: AirbyteConfig,
    pub dir: PathBuf,
    pub settings: Arc<CurrentSettings>,
    /// What it has said about itself, asked for once.
    specification: OnceCell<Value>,
}

impl Connector {
    pub fn new(config: AirbyteConfig, context: &Context) -> Self {
        let settings = CurrentSettings::new(&config, context).into();
        Self { config, dir: context.project_dir.clone(), settings, specification: OnceCell::new() }
    }

    /// What it says about itself; NULL where it says nothing.
    pub async fn specification(&self) -> Result<&Value> {
        self.specification.get_or_try_init(|| self.specify()).await
    }

    pub async fn call(&self, verb: &str, files: &[(&str, Value)]) -> Result<(Call, Lines)> {
        self.specification().await?;
        Call::start(&self.config, &self.dir, verb, files).await
    }

    async fn specify(&self) -> Result<Value> {
        let (call, lines) = Call::start(&self.config, &self.dir, "spec", &[]).await?;
        let specification = self.heard(call, lines).await?.specification;
        match &specification {
            Some(specification) => self.settings.mind(specification),
            None => {
                tracing::warn!("the connector does not say which settings it takes; those whose names sound secret are taken for secret");
            }
        }
        Ok(specification.unwrap_or_default())
    }

    /// Asks for one answer, and waits for the end.
    pub async fn asked(&self, verb: &str) -> Result<Answer> {
        let (call, lines) = self.call(verb, &[("config", self.settings.now())]).await?;
        self.heard(call, lines).await
    }

    async fn heard(&self, call: Call, mut lines: Lines) -> Result<Answer> {
        let settings = self.settings.clone();
        let heard = tokio::task::spawn_blocking(move || answer(&mut lines, &settings)).await;
        let heard = heard.map_err(|_| Error::internal("reading the connector has panicked"))??;
        let ended = call.finish().await;
        if let Some(error) = heard.failed {
            return Err(error);
        }
        // One that has answered and then fails has answered.
        if heard.status.is_none() && heard.catalog.is_none() && heard.specification.is_none() {
            ended.map_err(|e| clean(&e, &self.settings.scrub))?;
        }
        Ok(heard)
    }

    pub async fn check(&self) -> Result<()> {
        match self.asked("check").await?.status {
            Some((true, _)) => Ok(()),
            Some((false, why)) => Err(Error::new(Code::ConfigInvalid, "the connector says that the connection cannot be used").detail(why)),
            None => Err(no_answer("CONNECTION_STATUS")),
        }
    }
}

pub fn no_answer(what: &str) -> Error {
    Error::new(Code::SystemError, "the connector has ended without an answer")
        .detail(format!("no {what} message came"))
        .hint("does the command speak the Airbyte protocol? `trib connectors show airbyte` lists the settings")
}
