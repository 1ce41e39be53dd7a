//! `tributary.lock`: the connectors that a project has taken from elsewhere, each with its version, origin, checksum and licence.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use trib_core::{Code, Error, Result};

use crate::decode::decode;
use crate::{files, yaml};

/// The file's name in the project's folder.
pub const FILE: &str = "tributary.lock";
/// Where manifests stand.
pub const FOLDER: &str = "connectors";

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    #[serde(default)]
    pub connectors: BTreeMap<String, Pin>,
}

/// One connector as it was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    pub version: String,
    /// `bundled`, `registry:REPOSITORY`, a URL, or a path.
    pub origin: String,
    /// See [`checksum`].
    pub sha256: String,
    pub licence: String,
}

/// SHA-256 of a manifest in hex. Line ends count as `\n`, since version control may change them.
pub fn checksum(text: &str) -> String {
    hex::encode(Sha256::digest(text.replace("\r\n", "\n").as_bytes()))
}

/// The file of a connector in a project.
pub fn manifest_file(dir: &Path, name: &str) -> PathBuf {
    let file = |extension: &str| dir.join(FOLDER).join(format!("{name}.{extension}"));
    Some(file("yml")).filter(|f| f.exists()).unwrap_or_else(|| file("yaml"))
}

impl Lock {
    /// A project without the file has taken nothing.
    pub fn read(dir: &Path) -> Result<Self> {
        let Some(file) = files::read(dir, FILE)? else { return Ok(Self::default()) };
        let mut errors = Vec::new();
        let lock = decode(&yaml::parse(&file.name, &file.text, 1)?, &[], &mut errors);
        match (lock, errors.into_iter().next()) {
            (Some(lock), None) => Ok(lock),
            (_, Some(error)) => Err(error.hint("the file is written by `trib connectors add` and `update`")),
            (None, None) => Err(Error::internal("the lock file could not be read, and nobody says why")),
        }
    }

    /// Replaces the file in one step.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let new = dir.join(format!(".{FILE}.new"));
        std::fs::write(&new, self.to_text())?;
        Ok(std::fs::rename(new, dir.join(FILE))?)
    }

    fn to_text(&self) -> String {
        // A text in JSON is the same text in YAML.
        let quoted = |text: &str| Value::from(text).to_string();
        let mut out = String::from("# Written by `trib connectors add` and `update`. Keep it in version control.\nconnectors:");
        if self.connectors.is_empty() {
            out.push_str(" {}");
        }
        out.push('\n');
        for (name, pin) in &self.connectors {
            let _ = writeln!(out, "  {}:", quoted(name));
            let entries = [("version", &pin.version), ("origin", &pin.origin), ("sha256", &pin.sha256), ("licence", &pin.licence)];
            for (key, value) in entries {
                let _ = writeln!(out, "    {key}: {}", quoted(value));
            }
        }
        out
    }

    /// What stands in the project and is not what was taken.
    pub fn breaches(&self, dir: &Path) -> Vec<Error> {
        self.connectors.iter().filter_map(|(name, pin)| breach(dir, name, pin)).collect()
    }
}

fn breach(dir: &Path, name: &str, pin: &Pin) -> Option<Error> {
    let file = manifest_file(dir, name);
    let shown = file.strip_prefix(dir).unwrap_or(&file).display().to_string();
    let error = match std::fs::read_to_string(&file) {
        Ok(text) if checksum(&text) == pin.sha256 => return None,
        Ok(_) => Error::new(Code::ConfigInvalid, "the connector's file is not what was pinned")
            .detail(format!("{name} {}, from {}", pin.version, pin.origin))
            .hint(format!(
                "`trib connectors add {name}@{} --force` brings the pinned one back; `trib connectors add {name} --from {shown}` pins yours",
                pin.version
            )),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Error::new(Code::NotFound, "a pinned connector's file is not there")
            .detail(format!("{name} {}, from {}", pin.version, pin.origin))
            .hint(format!("`trib connectors add {name}@{} --force` brings it back", pin.version)),
        Err(e) => Error::from(e),
    };
    Some(error.file(shown, None, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(text: &str) -> Pin {
        Pin { version: "1.0".into(), origin: "registry:a/source-b".into(), sha256: checksum(text), licence: "MIT \"or\" so".into() }
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Lock::read(dir.path()).unwrap(), Lock::default());
        let lock = Lock { connectors: BTreeMap::from([("b".into(), pin("x")), ("on".into(), pin("y"))]) };
        for lock in [lock, Lock::default()] {
            lock.write(dir.path()).unwrap();
            assert_eq!(Lock::read(dir.path()).unwrap(), lock);
        }
        std::fs::write(dir.path().join(FILE), "connectors:\n  b: {version: '1'}\n").unwrap();
        assert_eq!(Lock::read(dir.path()).unwrap_err().place().line, Some(2));
    }

    #[test]
    fn a_change_is_a_breach() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(FOLDER)).unwrap();
        let lock = Lock { connectors: BTreeMap::from([("b".into(), pin("a: 1\n"))]) };
        let codes = || lock.breaches(dir.path()).iter().map(Error::code).collect::<Vec<_>>();
        assert_eq!(codes(), [Code::NotFound]);
        for (text, expected) in [("a: 1\n", vec![]), ("a: 1\r\n", vec![]), ("a: 2\n", vec![Code::ConfigInvalid])] {
            std::fs::write(manifest_file(dir.path(), "b"), text).unwrap();
            assert_eq!(codes(), expected, "{text:?}");
        }
    }
}
