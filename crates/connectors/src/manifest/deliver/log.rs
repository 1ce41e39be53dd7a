//! What was sent and what came of it, written down call by call.
//!
//! One JSON object a line: `{"sent": [rows]}` before a call, `{"fates": [[row, fate]]}` after it, or `{"undone": [rows]}` where it had no effect, `{"job": {rows, operation, created}}` before a bulk job is closed.
//! Rows are named by their place in the load.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use trib_core::delivery::{Fate, Operation};
use trib_core::{Error, Result};

const NAME: &str = "calls.jsonl";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Entry {
    Sent(Vec<u64>),
    Fates(Vec<(u64, Fate)>),
    Undone(Vec<u64>),
    Job(Started),
}

/// A bulk job that has its data, and may have been closed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Started {
    pub(super) rows: Vec<u64>,
    pub(super) operation: Operation,
    /// What the API has answered when it was made.
    pub(super) created: Value,
}

/// What a log says.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) fates: HashMap<u64, Fate>,
    /// Sent, and nothing was heard.
    pub(super) in_doubt: HashSet<u64>,
    /// In their order.
    pub(super) jobs: Vec<Started>,
}

#[derive(Clone)]
pub(super) struct Log {
    file: Arc<Mutex<File>>,
}

impl Log {
    /// Opens the log of a load's folder for more entries; what it says already comes along.
    pub(super) fn open(folder: &Path) -> Result<(Self, Known)> {
        std::fs::create_dir_all(folder)?;
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(folder.join(NAME))?;
        let known = read(&file)?;
        // A line that was cut off by a crash must not take the next one with it.
        if file.seek(SeekFrom::End(0))? > 0 {
            file.write_all(b"\n")?;
        }
        Ok((Self { file: Arc::new(Mutex::new(file)) }, known))
    }

    /// Before a call. `durably`: even the machine may fail before the answer comes.
    pub(super) async fn sent(&self, rows: Vec<u64>, durably: bool) -> Result<()> {
        self.write(Entry::Sent(rows), durably).await
    }

    pub(super) async fn answered(&self, fates: Vec<(u64, Fate)>) -> Result<()> {
        self.write(Entry::Fates(fates), false).await
    }

    /// After a call that had no effect.
    pub(super) async fn undone(&self, rows: Vec<u64>) -> Result<()> {
        self.write(Entry::Undone(rows), false).await
    }

    /// Before a job is closed.
    pub(super) async fn started(&self, job: Started) -> Result<()> {
        self.write(Entry::Job(job), true).await
    }

    async fn write(&self, entry: Entry, durably: bool) -> Result<()> {
        let mut line = serde_json::to_vec(&entry)?;
        line.push(b'\n');
        let file = self.file.clone();
        let write = move || {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            file.write_all(&line)?;
            if durably { file.sync_data() } else { Ok(()) }
        };
        let written = tokio::task::spawn_blocking(write).await.map_err(|_| Error::internal("writing the log of calls has panicked"))?;
        Ok(written?)
    }

    /// Everything is on the disk when this returns.
    pub(super) fn close(&self) -> Result<()> {
        Ok(self.file.lock().unwrap_or_else(PoisonError::into_inner).sync_all()?)
    }
}

/// What the log of a load's folder says. Blocks.
pub(super) fn known(folder: &Path) -> Result<Known> {
    match File::open(folder.join(NAME)) {
        Ok(file) => read(&file),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Known::default()),
        Err(e) => Err(e.into()),
    }
}

fn read(file: &File) -> Result<Known> {
    let mut known = Known::default();
    for line in BufReader::new(file).lines() {
        // A line that a crash has cut off says nothing: what it was about is in doubt already, or was never sent.
        match serde_json::from_str(&line?) {
            Ok(Entry::Sent(rows)) => known.in_doubt.extend(rows),
            Ok(Entry::Fates(fates)) => {
                for (row, fate) in fates {
                    known.in_doubt.remove(&row);
                    known.fates.insert(row, fate);
                }
            }
            Ok(Entry::Undone(rows)) => {
                for row in rows {
                    known.in_doubt.remove(&row);
                }
            }
            Ok(Entry::Job(job)) => known.jobs.push(job),
            Err(_) => {}
        }
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_torn_line_takes_nothing_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let (log, _) = Log::open(folder.path()).unwrap();
        log.sent(vec![0, 1], true).await.unwrap();
        log.answered(vec![(0, Fate::Delivered(Some("x".into())))]).await.unwrap();
        let path = folder.path().join(NAME);
        let mut torn = std::fs::read(&path).unwrap();
        torn.extend_from_slice(b"{\"fates\":[[1,{\"deliv");
        std::fs::write(&path, torn).unwrap();
        let (log, known) = Log::open(folder.path()).unwrap();
        assert_eq!(known.fates.get(&0), Some(&Fate::Delivered(Some("x".into()))));
        assert_eq!(known.in_doubt.into_iter().collect::<Vec<_>>(), [1]);
        log.answered(vec![(1, Fate::Rejected("no".into()))]).await.unwrap();
        let known = super::known(folder.path()).unwrap();
        assert_eq!((known.fates.len(), known.in_doubt.len()), (2, 0));
    }
}
