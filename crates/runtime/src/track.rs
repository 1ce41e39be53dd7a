//! What a stream has moved in this run, and what was noticed on the way.

use std::sync::Arc;
use std::time::Instant;

use trib_core::load::TableOutcome;
use trib_core::{State, TableName};
use trib_engine::Progress;
use trib_engine::plan::SharedPlan;
use trib_store::Counts;

use crate::task::StreamTask;

/// A stream with what it has moved so far.
pub struct Track {
    pub stream: String,
    pub table: TableName,
    pub began: Instant,
    pub progress: Arc<Progress>,
    pub outcome: StreamOutcome,
    /// What its tables are like was told.
    noted: bool,
}

/// What a stream has done in this run.
#[derive(Clone, Debug, Default)]
pub struct StreamOutcome {
    pub counts: Counts,
    pub tables: Vec<TableOutcome>,
    /// Where it stood when it went on from there. A backfill does not.
    pub from_state: Option<State>,
    /// Where it stands after its last load, if that has moved it.
    pub to_state: Option<State>,
    pub changes: Vec<String>,
}

impl Track {
    pub fn new(stream: &StreamTask, progress: Arc<Progress>) -> Self {
        Self {
            stream: stream.spec.stream.clone(),
            table: stream.spec.table.clone(),
            began: Instant::now(),
            progress,
            outcome: StreamOutcome::default(),
            noted: false,
        }
    }

    /// What is to be told of a plan: all of it once, and again when something has changed.
    pub fn notice(&mut self, plan: &SharedPlan) -> Vec<String> {
        let told = std::mem::replace(&mut self.noted, true);
        if told && plan.tables.iter().all(|t| t.changes.is_empty()) {
            return Vec::new();
        }
        let mut notes = Vec::new();
        for table in &plan.tables {
            let name = &table.table().name;
            for change in table.changes.iter().map(|c| format!("{name}: {c}")) {
                if !self.outcome.changes.contains(&change) {
                    self.outcome.changes.push(change);
                }
            }
            notes.extend(table.notes.iter().chain(&table.lossy).map(|note| format!("{name}: {note}")));
        }
        notes
    }

    /// Counts what a commit did to one of its tables.
    pub fn count(&mut self, table: TableOutcome) {
        let counts = &mut self.outcome.counts;
        counts.written += table.inserted;
        counts.updated += table.updated;
        counts.deleted += table.deleted;
        self.outcome.tables.push(table);
    }
}
