//! Credentials that a provider replaces while we use them: a refresh token that is good for one use. They are kept beside the project, sealed, so that the next
//! run goes on with them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use trib_core::{Code, Context, Error, Result};
use trib_kit::vault::Vault;

use super::dpath;

/// Where one connection's replaced credentials are kept.
#[derive(Clone)]
pub(super) struct Keepsake {
    vault: Arc<Vault>,
    name: String,
}

/// What has taken the place of a credential of the settings.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Replaced {
    /// Where the settings hold the credential.
    at: Vec<String>,
    /// The hash of what they hold. When the user writes another one there, that one counts again.
    given: String,
    /// Everything that was renewed: where, and what.
    values: Vec<(Vec<String>, Value)>,
}

impl Replaced {
    pub(super) fn new(settings: &Value, at: &[String], values: Vec<(Vec<String>, Value)>) -> Self {
        Self { at: at.to_vec(), given: fingerprint(settings, at), values }
    }
}

impl Keepsake {
    pub(super) fn new(context: &Context) -> Self {
        Self { vault: Arc::new(Vault::of(&context.project_dir)), name: format!("replaced credentials of {}", context.connection) }
    }

    /// The settings with what has been replaced since they were written.
    pub(super) fn over(&self, settings: &Value) -> Value {
        let mut current = settings.clone();
        for replaced in self.load() {
            if replaced.given == fingerprint(settings, &replaced.at) {
                for (at, value) in replaced.values {
                    dpath::set(&mut current, &at, value);
                }
            }
        }
        current
    }

    /// Keeps it for good before anything else is done: the credential that it replaces is worth nothing any more.
    pub(super) fn keep(&self, replaced: Replaced) -> Result<()> {
        let mut all = self.load();
        all.retain(|known| known.at != replaced.at);
        all.push(replaced);
        self.write(&all).map_err(|e| {
            Error::new(Code::SystemError, "a replaced credential could not be kept")
                .detail(self.name.clone())
                .hint("make the project's folder writable, then log in again")
                .source(e)
        })
    }

    fn load(&self) -> Vec<Replaced> {
        let kept = self.vault.get(&self.name).and_then(|kept| match kept {
            Some(kept) => Ok(serde_json::from_slice(&kept)?),
            None => Ok(Vec::new()),
        });
        kept.unwrap_or_else(|error| {
            tracing::warn!(error = %error, "the kept credentials cannot be read; those of the settings are used");
            Vec::new()
        })
    }

    fn write(&self, all: &[Replaced]) -> Result<()> {
        self.vault.put(&self.name, &serde_json::to_vec(all)?)
    }
}

fn fingerprint(settings: &Value, at: &[String]) -> String {
    hash(dpath::get(settings, at).unwrap_or(&Value::Null).to_string().as_bytes())
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_replaced_holds_until_the_user_writes_another() {
        let folder = tempfile::tempdir().unwrap();
        let context = Context { connection: "a/b".into(), project_dir: folder.path().into(), threads: 1 };
        let (keepsake, at) = (Keepsake::new(&context), vec!["auth".to_owned(), "refresh".to_owned()]);
        let settings = json!({"auth": {"refresh": "r0"}, "start": 1});
        assert_eq!(keepsake.over(&settings), settings);
        for token in ["r1", "r2"] {
            keepsake.keep(Replaced::new(&settings, &at, vec![(at.clone(), token.into())])).unwrap();
        }
        assert_eq!(keepsake.over(&settings)["auth"]["refresh"], "r2");
        assert_eq!(keepsake.over(&json!({"auth": {"refresh": "r0"}, "start": 2}))["auth"]["refresh"], "r2", "other settings do not matter");
        assert_eq!(keepsake.over(&json!({"auth": {"refresh": "new"}}))["auth"]["refresh"], "new");
        keepsake.vault.put(&keepsake.name, b"{").unwrap();
        assert_eq!(keepsake.over(&settings), settings);
    }
}
