//! What all tests of the process that run at the same time share, and the last of them ends.

use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// At most one at a time, started when somebody needs it.
pub struct Shared<T>(Mutex<Weak<T>>);

impl<T> Shared<T> {
    pub const fn new() -> Self {
        Self(Mutex::new(Weak::new()))
    }

    /// The one that runs, or a new one.
    pub fn get(&self, start: impl FnOnce() -> io::Result<T>) -> io::Result<Arc<T>> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = shared.upgrade() {
            return Ok(there);
        }
        let new = Arc::new(start()?);
        *shared = Arc::downgrade(&new);
        Ok(new)
    }
}
