//! Signs of life: which of the processes that wrote into the database are gone.
//!
//! A process holds a file lock as long as it lives, and writes the file's name beside what it holds. The operating system
//! drops the lock at the very moment the process dies, `kill -9` included, so the next run need not wait for a lease to expire. The
//! proof works on one machine only; elsewhere the file is not there, which proves nothing, and the expiry decides.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use trib_core::Result;

/// Files of processes that died are kept as proof for this long; leases expire much earlier.
const KEPT: Duration = Duration::from_hours(24);

pub(crate) struct Live {
    folder: PathBuf,
    own: Mutex<Option<Own>>,
}

struct Own {
    name: String,
    /// Locked until it is closed.
    _file: File,
    /// Leases and runs that end with this process unless they are ended properly.
    vouches: BTreeSet<String>,
}

impl Live {
    /// Does nothing yet: most commands only read, and need no sign of life.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, own: Mutex::new(None) }
    }

    /// Makes the sign of life where there is none yet, and returns its name.
    pub(crate) fn vouch(&self, what: String) -> Result<String> {
        let mut own = self.lock();
        if own.is_none() {
            std::fs::create_dir_all(&self.folder)?;
            sweep(&self.folder);
            let name = uuid::Uuid::now_v7().to_string();
            let file = File::create_new(self.folder.join(&name))?;
            file.lock()?;
            *own = Some(Own { name, _file: file, vouches: BTreeSet::new() });
        }
        Ok(own.as_mut().map_or_else(String::new, |own| {
            own.vouches.insert(what);
            own.name.clone()
        }))
    }

    /// What was vouched for has come to its proper end.
    pub(crate) fn ended(&self, what: &str) {
        if let Some(own) = self.lock().as_mut() {
            own.vouches.remove(what);
        }
    }

    /// Whether the process of this name is surely gone. False when there is no telling.
    pub(crate) fn is_gone(&self, name: &str) -> bool {
        unlocked(&self.folder.join(name))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Own>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // What is still vouched for was given up without a word: the file stays, as the proof of it.
        if let Some(own) = self.lock().take_if(|own| own.vouches.is_empty()) {
            let _ = std::fs::remove_file(self.folder.join(own.name));
        }
    }
}

fn unlocked(path: &Path) -> bool {
    OpenOptions::new().write(true).open(path).is_ok_and(|file| file.try_lock().is_ok())
}

fn sweep(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|at| at.elapsed().ok());
        if age.is_some_and(|age| age > KEPT) && unlocked(&entry.path()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
