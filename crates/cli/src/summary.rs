//! How a run went, stream by stream.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use trib_core::{Code, Error, Read, RejectedRow, TableName, WriteMode};
use trib_runtime::{Refresh, StreamTask, SyncReport};
use trib_store::{Counts, Status, Tested};

use crate::conduct::Ran;
use crate::exit::Exit;
use crate::testing;

/// One stream that ran.
pub struct StreamSummary {
    pub sync: String,
    pub stream: String,
    pub table: TableName,
    pub read: &'static str,
    pub write: &'static str,
    pub counts: Counts,
    /// Schema changes, one line each.
    pub changes: Vec<String>,
    pub took: Duration,
    pub error: Option<Arc<Error>>,
}

#[derive(Default)]
pub struct Summary {
    pub streams: Vec<StreamSummary>,
    /// What kept whole syncs, or streams that never began, from running.
    pub errors: Vec<Arc<Error>>,
    /// Views whose query is right.
    pub views: Vec<String>,
    /// Commands that have ended well.
    pub commands: Vec<String>,
    pub tests: Vec<Tested>,
    /// Nodes that were left out, with the reason.
    pub skipped: Vec<(String, String)>,
    /// The first rows that were rejected, where no project lists them.
    pub rejected: Vec<RejectedRow>,
    pub took: Duration,
}

impl Summary {
    /// Takes over how a node went.
    pub fn take(&mut self, node: &str, ran: Ran) {
        if ran.view && ran.errors.is_empty() {
            self.views.push(node.to_owned());
        }
        if ran.command {
            self.commands.push(node.to_owned());
        }
        self.add_errors(ran.errors);
        // What was not published has failed its load already.
        self.add_errors(ran.tests.iter().filter(|t| t.published).filter_map(testing::failure));
        self.tests.extend(ran.tests);
        for (asked, report) in ran.reports {
            self.add(&asked, report);
        }
    }

    /// Takes over how a sync went. `task` is what was asked for.
    pub fn add(&mut self, asked: &[StreamTask], report: SyncReport) {
        for stream in report.streams {
            let task = asked.iter().find(|t| t.spec.stream == stream.stream);
            self.streams.push(StreamSummary {
                sync: report.sync.clone(),
                read: task.map_or("", read_mode),
                write: task.map_or("", write_mode),
                stream: stream.stream,
                table: stream.table,
                counts: stream.outcome.counts,
                changes: stream.outcome.changes,
                took: stream.took,
                error: stream.error,
            });
        }
    }

    pub fn add_errors(&mut self, errors: impl IntoIterator<Item = Error>) {
        self.errors.extend(errors.into_iter().map(Arc::new));
    }

    /// All that went wrong.
    pub fn failures(&self) -> impl Iterator<Item = &Arc<Error>> {
        self.errors.iter().chain(self.streams.iter().filter_map(|s| s.error.as_ref()))
    }

    pub fn succeeded(&self) -> usize {
        self.views.len() + self.commands.len() + self.streams.iter().filter(|s| s.error.is_none()).count()
    }

    pub fn exit(&self) -> Exit {
        let codes: Vec<Code> = self.failures().map(|e| e.code()).collect();
        Exit::of_run(self.succeeded(), &codes)
    }

    pub fn status(&self) -> Status {
        match self.exit() {
            Exit::Success => Status::Succeeded,
            Exit::Partial => Status::Partial,
            Exit::TestsFailed => Status::TestsFailed,
            Exit::Held => Status::Held,
            Exit::Interrupted => Status::Cancelled,
            Exit::Failed | Exit::Invalid => Status::Failed,
        }
    }

    pub fn to_json(&self, run: &str) -> Value {
        let streams: Vec<Value> = self
            .streams
            .iter()
            .map(|s| {
                json!({
                    "sync": s.sync, "stream": s.stream, "table": s.table.to_string(), "read": s.read, "write": s.write,
                    "rows_read": s.counts.read, "inserted": s.counts.written, "updated": s.counts.updated, "deleted": s.counts.deleted,
                    "rejected": s.counts.rejected, "bytes": s.counts.bytes, "schema_changes": s.changes,
                    "seconds": s.took.as_secs_f64(), "error": s.error.as_ref().map(|e| e.to_json()),
                })
            })
            .collect();
        let skipped: Vec<Value> = self.skipped.iter().map(|(node, reason)| json!({"node": node, "reason": reason})).collect();
        let rejected: Vec<Value> = self.rejected.iter().map(|r| json!({"place": r.place, "reason": r.reason})).collect();
        let errors: Vec<Value> = self.errors.iter().map(|e| e.to_json()).collect();
        let mut value = json!({
            "event": "summary", "run": run, "status": self.status(), "exit": self.exit() as u8, "streams": streams,
            "views": self.views, "commands": self.commands, "tests": self.tests, "errors": errors, "skipped": skipped, "seconds": self.took.as_secs_f64(),
        });
        if !rejected.is_empty() {
            value["rejected"] = rejected.into();
        }
        value
    }
}

/// How a stream was read, for people.
pub fn read_mode(task: &StreamTask) -> &'static str {
    match (&task.read, task.refresh) {
        (Read::Keys, _) if task.spec.write == WriteMode::Update => "columns",
        (Read::Range { .. }, _) => "range",
        (_, Refresh::Full) | (Read::Full, _) => "full",
        (Read::Incremental(_), _) => "incremental",
        (Read::Cdc, _) => "cdc",
        (Read::Keys, _) => "keys",
    }
}

fn write_mode(task: &StreamTask) -> &'static str {
    match (task.refresh, task.spec.write) {
        (Refresh::Full, write) if write != WriteMode::History => WriteMode::Replace.as_str(),
        (_, write) => write.as_str(),
    }
}
