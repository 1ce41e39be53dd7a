//! Secrets that a project keeps on this machine: files below `.tributary/secrets`, each sealed with the project's key.
//!
//! The key is what `TRIB_KEY` says, or else a file that is made when it is first needed and that only this user can read.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};
use trib_core::{Code, Error, Result};

/// The variable that holds the key.
const VARIABLE: &str = "TRIB_KEY";
/// A key that is shorter is no key.
const SHORTEST: usize = 16;

pub struct Vault {
    folder: PathBuf,
    key_file: PathBuf,
    /// What the environment says.
    given: Option<String>,
}

impl Vault {
    /// Of a project's folder.
    pub fn of(project: &Path) -> Self {
        let own = project.join(".tributary");
        Self { folder: own.join("secrets"), key_file: own.join("key"), given: std::env::var(VARIABLE).ok().filter(|k| !k.is_empty()) }
    }

    /// What is kept under a name. No key is needed where nothing is.
    pub fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let sealed = match fs::read(self.file(name)) {
            Ok(sealed) => sealed,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let locked = || {
            Error::new(Code::SecretMissing, "what was kept cannot be opened with this key")
                .detail(name.to_owned())
                .hint("TRIB_KEY, or .tributary/key, must be what it was; `trib login` keeps a new secret")
        };
        let key = self.key(false)?.ok_or_else(locked)?;
        let (nonce, rest) = sealed.split_at_checked(NONCE_LEN).ok_or_else(locked)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| locked())?;
        let mut rest = rest.to_vec();
        let opened = key.open_in_place(nonce, Aad::from(name.as_bytes()), &mut rest).map_err(|_| locked())?;
        Ok(Some(opened.to_vec()))
    }

    /// Replaces what is kept under a name, in one step.
    pub fn put(&self, name: &str, secret: &[u8]) -> Result<()> {
        let broken = || Error::internal("a secret could not be sealed");
        let key = self.key(true)?.ok_or_else(broken)?;
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| broken())?;
        let mut sealed = secret.to_vec();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(name.as_bytes()), &mut sealed).map_err(|_| broken())?;
        fs::create_dir_all(&self.folder)?;
        write_private(&self.file(name), &[&nonce[..], &sealed].concat())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(hex::encode(&Sha256::digest(name.as_bytes())[..16]))
    }

    /// The key; `None` when there is none and none is to be made.
    fn key(&self, make: bool) -> Result<Option<LessSafeKey>> {
        let text = match &self.given {
            Some(given) if given.len() < SHORTEST => {
                return Err(Error::new(Code::ConfigInvalid, "the key is too short")
                    .setting(VARIABLE)
                    .hint("`openssl rand -hex 32` makes a good one"));
            }
            Some(given) => given.clone(),
            None => match fs::read_to_string(&self.key_file) {
                Ok(text) => text,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound && make => self.new_key()?,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(e.into()),
            },
        };
        let digest = Sha256::digest(text.trim().as_bytes());
        let key = UnboundKey::new(&CHACHA20_POLY1305, &digest).map_err(|_| Error::internal("the key has the wrong length"))?;
        Ok(Some(LessSafeKey::new(key)))
    }

    fn new_key(&self) -> Result<String> {
        let mut random = [0; 32];
        SystemRandom::new().fill(&mut random).map_err(|_| Error::internal("there is no randomness"))?;
        let text = hex::encode(random);
        if let Some(folder) = self.key_file.parent() {
            fs::create_dir_all(folder)?;
        }
        write_private(&self.key_file, text.as_bytes())?;
        Ok(text)
    }
}

/// A file that only this user can read, replaced in one step.
fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    Ok(fs::rename(new, path)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn vault(dir: &Path, given: Option<&str>) -> Vault {
        Vault { given: given.map(str::to_owned), ..Vault::of(dir) }
    }

    #[test]
    fn what_is_kept_comes_back_and_is_not_readable() {
        let dir = tempfile::tempdir().unwrap();
        for given in [None, Some("a key of the environment")] {
            let vault = vault(dir.path(), given);
            assert_eq!(vault.get("nothing").unwrap(), None);
            vault.put("shop", b"hunter2").unwrap();
            vault.put("shop", b"hunter3").unwrap();
            assert_eq!(vault.get("shop").unwrap().unwrap(), b"hunter3");
        }
        for folder in [dir.path().join(".tributary"), dir.path().join(".tributary/secrets")] {
            for file in fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file()) {
                assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
                assert!(!fs::read(&file).unwrap().windows(6).any(|w| w == b"hunter"));
            }
        }
    }

    #[test]
    fn another_key_opens_nothing() {
        let dir = tempfile::tempdir().unwrap();
        vault(dir.path(), Some("the one and only key")).put("shop", b"x").unwrap();
        for other in [None, Some("quite another key of mine")] {
            assert_eq!(vault(dir.path(), other).get("shop").unwrap_err().code(), Code::SecretMissing);
        }
        assert_eq!(vault(dir.path(), Some("short")).put("shop", b"x").unwrap_err().code(), Code::ConfigInvalid);
        // A file that is moved under another name is another secret.
        let one = vault(dir.path(), Some("the one and only key"));
        fs::copy(one.file("shop"), one.file("other")).unwrap();
        assert_eq!(one.get("other").unwrap_err().code(), Code::SecretMissing);
    }
}
