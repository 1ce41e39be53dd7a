//! A program that stands between two loads: it has stopped in the middle of what it tells, and the next load may go on with it.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// At most one of them.
#[derive(Debug)]
pub struct Standing<T>(Mutex<Option<Stands<T>>>);

#[derive(Debug)]
struct Stands<T> {
    program: T,
    /// All that it has said up to here is safe at the destination.
    safe: bool,
}

impl<T> Default for Standing<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Standing<T> {
    /// Whether a load that is planned now may go on with it. One whose last load was lost has told things that nobody has: it is given up.
    pub fn goes_on(&self) -> bool {
        let mut standing = self.lock();
        if standing.as_ref().is_some_and(|s| !s.safe) {
            *standing = None;
        }
        standing.is_some()
    }

    pub fn take(&self) -> Option<T> {
        self.lock().take().map(|s| s.program)
    }

    /// Keeps it until [`Standing::acknowledge`] says that its load is safe.
    pub fn keep(&self, program: T) {
        *self.lock() = Some(Stands { program, safe: false });
    }

    pub fn acknowledge(&self) {
        if let Some(standing) = self.lock().as_mut() {
            standing.safe = true;
        }
    }

    /// Whether one stands there of which this is true.
    pub fn is_some_and(&self, f: impl FnOnce(&T) -> bool) -> bool {
        self.lock().as_ref().is_some_and(|s| f(&s.program))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Stands<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_safe_goes_on() {
        let standing = Standing::default();
        assert!(!standing.goes_on());
        standing.keep(1);
        standing.acknowledge();
        assert!(standing.goes_on() && standing.is_some_and(|n| *n == 1));
        assert_eq!(standing.take(), Some(1));
        standing.keep(2);
        assert!(!standing.goes_on());
        assert_eq!(standing.take(), None);
    }
}
