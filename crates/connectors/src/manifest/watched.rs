//! A connector whose exchanges go through somebody: who watches them, keeps them, or gives the answers.

use std::sync::Arc;

use trib_core::{Error, Result};
use trib_kit::exchange::Exchange;

use super::opened::Opened;

impl Opened {
    /// Before the first request only.
    pub fn through(mut self, exchange: Arc<dyn Exchange>) -> Result<Self> {
        let env = Arc::get_mut(&mut self.env).ok_or_else(|| Error::internal("a connector that runs cannot be watched any more"))?;
        env.client = env.client.clone().through(exchange);
        Ok(self)
    }

    /// The values of the configuration that the specification calls secret.
    pub fn secrets(&self) -> Vec<String> {
        self.env.secrets()
    }
}
