//! Makes a project folder of a few files.

use std::fmt::Write;

use tempfile::TempDir;
use trib_core::Error;
use trib_project::{Project, Variables};

pub struct Folder(pub TempDir);

/// Files as `(path, contents)`; a `tributary.yaml` is added when there is none.
pub fn folder(files: &[(&str, &str)]) -> Folder {
    let dir = tempfile::tempdir().unwrap();
    let main = [("tributary.yaml", "name: test\n")];
    let given = |name: &str| files.iter().any(|(path, _)| *path == name);
    for (path, contents) in main.iter().filter(|(name, _)| !given(name)).chain(files) {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, contents).unwrap();
    }
    Folder(dir)
}

impl Folder {
    pub fn load(&self) -> Result<Project, Vec<Error>> {
        self.load_in(None, &[])
    }

    pub fn load_in(&self, environment: Option<&str>, variables: &[(&str, &str)]) -> Result<Project, Vec<Error>> {
        let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Project::load(self.0.path(), environment, Variables::given(variables))
    }
}

/// Errors as a person reads them.
pub fn shown<'a>(errors: impl IntoIterator<Item = &'a Error>) -> String {
    let mut text = String::new();
    for error in errors {
        writeln!(text, "error: {error}").unwrap();
        if !error.place().to_string().is_empty() {
            writeln!(text, "  at {}", error.place()).unwrap();
        }
        if let Some(hint) = error.hint_text() {
            writeln!(text, "  hint: {hint}").unwrap();
        }
    }
    text
}
