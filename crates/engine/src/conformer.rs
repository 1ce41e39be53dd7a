//! One stream's way from its batches to the stages of its tables, in order.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::RecordBatch;
use futures::StreamExt;
use tokio::sync::mpsc;
use trib_core::{RejectedRow, Result, wire};

use crate::conform::{Conformed, Stamp, conform};
use crate::execute::{Progress, stopped};
use crate::plan::SharedPlan;

pub(crate) type Batches = mpsc::Sender<Result<RecordBatch>>;
pub(crate) type Rejects = mpsc::Sender<(String, Vec<RejectedRow>)>;

/// Turns a stream's batches into staged ones.
pub(crate) struct Conformer {
    pub stream: String,
    pub plan: SharedPlan,
    pub stamp: Stamp,
    /// The next row's place in the load's order.
    pub position: i64,
    /// One for each table of the plan.
    pub stages: Vec<Batches>,
    pub rejects: Rejects,
    pub progress: Arc<Progress>,
}

impl Conformer {
    /// Until the batches end, or until the stream's query needs no more of them.
    pub async fn run(mut self, receiver: mpsc::Receiver<Result<RecordBatch>>) -> Result<()> {
        let mut rows = self.plan.steps.begin(receiver)?;
        while let Some(batch) = rows.next().await {
            let result = match batch {
                Ok(batch) => self.one(batch).await,
                Err(e) => Err(e),
            };
            if let Err(e) = result {
                for stage in &self.stages {
                    // A stage that is gone has its own error.
                    let _ = stage.send(Err(stopped())).await;
                }
                return Err(e.stream(&self.stream));
            }
        }
        Ok(())
    }

    async fn one(&mut self, batch: RecordBatch) -> Result<()> {
        let rows = batch.num_rows();
        let Conformed { batches, rejected } = match wire::rows(&batch) {
            // Taken as they are: the stream has one table.
            Some(_) => Conformed { batches: vec![batch], rejected: Vec::new() },
            None => conform(&self.plan, self.plan.steps.apply(batch)?, &self.stamp, self.position)?,
        };
        self.position += rows as i64;
        self.progress.rows_staged.fetch_add((rows - rejected.len()) as u64, Ordering::Relaxed);
        if !rejected.is_empty() {
            self.progress.rows_rejected.fetch_add(rejected.len() as u64, Ordering::Relaxed);
            send_rejects(&self.rejects, &self.stream, rejected).await?;
        }
        for (stage, batch) in self.stages.iter().zip(batches) {
            if batch.num_rows() > 0 {
                stage.send(Ok(batch)).await.map_err(|_| stopped())?;
            }
        }
        Ok(())
    }
}

pub(crate) async fn send_rejects(rejects: &Rejects, stream: &str, rows: Vec<RejectedRow>) -> Result<()> {
    rejects.send((stream.to_owned(), rows)).await.map_err(|_| stopped())
}
