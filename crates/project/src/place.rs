//! Where a value stands in the project's files.

use std::sync::Arc;

use trib_core::Error;

/// A file relative to the project, and a place in it. Cheap to clone: every node of a file shares its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    pub file: Arc<str>,
    /// One-based.
    pub line: usize,
    /// One-based, in characters.
    pub column: usize,
}

impl At {
    pub fn start_of(file: &str) -> Self {
        Self { file: file.into(), line: 1, column: 1 }
    }

    /// The error, with this place unless it has one in a file already.
    pub fn mark(&self, error: Error) -> Error {
        error.within(&*self.file, |_, _| (Some(self.line), Some(self.column)))
    }
}

/// A dotted path of settings as it is shown: `streams.public.orders.cursor`.
pub fn dotted<S: AsRef<str>>(path: &[S]) -> String {
    path.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(".")
}
