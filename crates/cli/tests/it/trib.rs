//! Starting `trib` in a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A project in a temporary folder.
pub struct Folder {
    dir: TempDir,
    env: Vec<(String, String)>,
}

/// What a command has said.
pub struct Said {
    pub status: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Said {
    pub fn all(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

impl Folder {
    pub fn new() -> Self {
        Self { dir: TempDir::new().unwrap(), env: Vec::new() }
    }

    /// With these files in it.
    pub fn with(files: &[(&str, &str)]) -> Self {
        let folder = Self::new();
        for (name, text) in files {
            folder.write(name, text);
        }
        folder
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Nothing of the machine's own environment that could matter gets in.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trib"));
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        for name in ["TRIB_ENV", "TRIB_PROJECT_DIR", "TRIB_FAULT", "TRIB_STATE"] {
            command.env_remove(name);
        }
        command.env("XDG_DATA_HOME", self.dir.path().join("data-home")).env("RUST_BACKTRACE", "0");
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        command
    }

    pub fn trib(&self, args: &[&str]) -> Said {
        said(self.command(args).output().unwrap())
    }

    /// The rows of a query against a connection as CSV, with `;` between them.
    pub fn query(&self, connection: &str, sql: &str) -> String {
        let result = self.trib(&["query", "-c", connection, "--format", "csv", sql]);
        assert_eq!(result.status, Some(0), "{sql}: {}", result.all());
        result.out.lines().skip(1).collect::<Vec<_>>().join(";")
    }

    /// The same, of a command that goes well.
    pub fn ok(&self, args: &[&str]) -> Said {
        let said = self.trib(args);
        assert_eq!(said.status, Some(0), "trib {}: {}", args.join(" "), said.all());
        said
    }

    /// Every file below the folder.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut all = Vec::new();
        list(self.dir.path(), &mut all);
        all
    }
}

pub fn ok(said: &Said) {
    assert_eq!(said.status, Some(0), "{}", said.all());
}

pub fn said(output: Output) -> Said {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Said { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn list(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { list(&path, all) } else { all.push(path) }
    }
}
