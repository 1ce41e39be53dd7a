//! The two ways to a slice's records: pages of answers, or the result of a job.

use std::sync::Arc;

use serde_json::Value;
use trib_core::Result;

use super::asynchronous::{JobState, Jobs};
use super::cursor::Bounds;
use super::env::Env;
use super::node::Node;
use super::records::Records;
use super::retriever::{PageState, Place, Retriever};
use super::slice::Slice;

pub(super) enum Fetch {
    Pages(Box<Retriever>),
    Jobs(Box<Jobs>),
}

/// How far a slice was read.
pub(super) enum FetchState {
    Pages(PageState),
    Job(Box<JobState>),
}

impl Fetch {
    pub(super) fn build(env: &Arc<Env>, node: &Node<'_>, transforms: &[Node<'_>], place: Place) -> Result<Self> {
        Ok(match node.kind() {
            "AsyncRetriever" => Fetch::Jobs(Box::new(Jobs::build(env, node, transforms, place.client_side)?)),
            _ => Fetch::Pages(Box::new(Retriever::build(env, node, transforms, place)?)),
        })
    }

    pub(super) fn start(&self, slice: &Slice) -> FetchState {
        match self {
            Fetch::Pages(retriever) => FetchState::Pages(PageState::new(slice.clone(), retriever)),
            Fetch::Jobs(_) => FetchState::Job(Box::new(JobState::new(slice.clone()))),
        }
    }

    pub(super) fn normalizes(&self) -> bool {
        match self {
            Fetch::Pages(retriever) => retriever.normalizes(),
            Fetch::Jobs(jobs) => jobs.normalizes(),
        }
    }

    /// The records of the next page, which may be none; `None` after the last page.
    pub(super) async fn next_page(
        &self,
        env: &Env,
        state: &mut FetchState,
        schema: Option<&Value>,
        bounds: Option<&Bounds>,
    ) -> Result<Option<Records>> {
        match (self, state) {
            (Fetch::Pages(retriever), FetchState::Pages(state)) => retriever.next_page(env, state, schema, bounds).await,
            (Fetch::Jobs(jobs), FetchState::Job(state)) => jobs.next_page(env, state, schema, bounds).await,
            _ => Ok(None),
        }
    }
}
