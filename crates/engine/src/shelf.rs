//! The plans of a load's streams, each compiled when its first row comes.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::Mutex;
use trib_core::{Destination, Result};

use crate::plan::{SharedPlan, StreamPlan, StreamSpec};
use crate::session::Engine;

/// Compiling asks the destination for its tables, so a split over hundreds of streams plans only those that have rows.
pub struct Shelf {
    engine: Engine,
    destination: Arc<dyn Destination>,
    specs: HashMap<String, StreamSpec>,
    /// In the order in which they were compiled.
    compiled: Mutex<Vec<SharedPlan>>,
}

impl Shelf {
    pub fn new(engine: Engine, destination: Arc<dyn Destination>, specs: impl IntoIterator<Item = StreamSpec>) -> Self {
        let specs = specs.into_iter().map(|spec| (spec.stream.clone(), spec)).collect();
        Self { engine, destination, specs, compiled: Mutex::default() }
    }

    /// The stream's plan; `None` when the load leaves the stream out.
    pub async fn plan(&self, stream: &str) -> Result<Option<SharedPlan>> {
        let Some(spec) = self.specs.get(stream) else {
            return Ok(None);
        };
        let mut compiled = self.compiled.lock().await;
        if let Some(plan) = compiled.iter().find(|p| p.spec.stream == stream) {
            return Ok(Some(plan.clone()));
        }
        let plan = Arc::new(StreamPlan::compile(&self.engine, spec.clone(), self.destination.as_ref()).await?);
        compiled.push(plan.clone());
        Ok(Some(plan))
    }

    /// Whether a query looks at a stream as a whole: then all its rows have to come through one task.
    pub fn in_one_piece(&self) -> bool {
        self.specs.values().any(|spec| spec.transform.sql.is_some())
    }

    /// Where rows wait for a free stage.
    pub(crate) fn spill(&self) -> &Path {
        self.engine.spill()
    }

    /// What was planned so far.
    pub async fn plans(&self) -> Vec<SharedPlan> {
        self.compiled.lock().await.clone()
    }
}
