//! Where a program that works for a connector comes from: the PATH, a command, or a Python environment that is made for it once.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};
use trib_core::secret::redact_url;
use trib_core::{Code, Error, Result};

/// What a program is made of.
#[derive(Clone, Debug)]
pub struct Recipe {
    pub name: String,
    pub pip: Option<String>,
    pub python: Option<String>,
    pub command: Vec<String>,
    /// Relative commands start here.
    pub dir: PathBuf,
}

impl Recipe {
    /// The program and its first arguments. Blocks; makes the environment when it is not there.
    fn program(&self) -> Result<(PathBuf, Vec<String>)> {
        if let Some((program, args)) = self.command.split_first() {
            // A path, as opposed to a name, is taken from the project's folder.
            let program = if program.contains('/') { self.dir.join(program) } else { program.into() };
            return Ok((program, args.to_vec()));
        }
        let Some(pip) = &self.pip else {
            return Ok((self.name.clone().into(), Vec::new()));
        };
        let packages: Vec<&str> = pip.split_whitespace().collect();
        let bin = self.environment(&packages)?;
        let program = bin.join(&self.name);
        if !program.exists() {
            return Err(Error::new(Code::NotFound, "the packages have no program of this name")
                .detail(format!("{} in {}; there are: {}", self.name, without_passwords(pip), programs(&bin).join(", ")))
                .setting("pip")
                .hint("the program's name stands in the package's documentation, and is what the connection must say"));
        }
        Ok((program, Vec::new()))
    }

    /// The same, without holding up what else runs.
    pub async fn made(self) -> Result<(PathBuf, Vec<String>)> {
        let made = tokio::task::spawn_blocking(move || self.program()).await;
        made.map_err(|_| Error::internal("making a program's environment has panicked"))?
    }

    /// The `bin` folder of an environment with these packages. Several processes that want it at the same time make it once.
    fn environment(&self, packages: &[&str]) -> Result<PathBuf> {
        let packages: Vec<String> = packages.iter().map(|p| located(p, &self.dir)).collect();
        let wanted = format!("{} {}", packages.join(" "), interpreter(self.python.as_deref()));
        let print = hex::encode(&Sha256::digest(wanted.as_bytes())[..6]);
        let folder = cache(&self.dir).join(format!("{}-{print}", self.name));
        let (bin, ready) = (folder.join("bin"), folder.join("ready"));
        let python = bin.join("python");
        // The link to an interpreter that was removed leads nowhere.
        let made = || ready.exists() && python.exists();
        if made() {
            return Ok(bin);
        }
        fs::create_dir_all(&folder)?;
        // Not `with_extension`: the last part of the name may have a dot.
        let lock = File::create(folder.with_file_name(format!("{}-{print}.lock", self.name)))?;
        lock.lock()?;
        if made() {
            return Ok(bin);
        }
        match fs::remove_file(&ready) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
            _ => tracing::debug!(name = self.name, "making a Python environment"),
        }
        if on_path("uv") {
            let mut make = Command::new("uv");
            make.args(["venv", "--quiet", "--clear"]).arg(&folder);
            if let Some(version) = &self.python {
                make.args(["--python", version]);
            }
            run(&mut make, &self.dir)?;
            run(Command::new("uv").args(["pip", "install", "--quiet", "--python"]).arg(&python).args(&packages), &self.dir)?;
        } else {
            let python3 = self.python.as_deref().unwrap_or("python3");
            run(Command::new(python3).args(["-m", "venv", "--clear"]).arg(&folder), &self.dir)?;
            run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(&packages), &self.dir)?;
        }
        File::create(ready)?;
        Ok(bin)
    }
}

/// The user's folder for what can be made again.
fn cache(project: &Path) -> PathBuf {
    let given = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let home = given.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
    home.map_or_else(|| project.join(".tributary/programs"), |cache| cache.join("tributary/programs"))
}

/// A path starts at the project's folder, and is another package than the same path of another project.
fn located(package: &str, dir: &Path) -> String {
    let is_path = package.starts_with('.') || dir.join(package).exists();
    if is_path { dir.join(package).to_string_lossy().into_owned() } else { package.to_owned() }
}

/// The setting, and the version of what it leads to: an interpreter that was replaced by another version cannot use what was made for the old one. A version that only
/// `uv` can find is taken by its name.
fn interpreter(python: Option<&str>) -> String {
    let mut ask = Command::new(python.unwrap_or("python3"));
    let said = ask.args(["-c", "import sys; print(sys.version)"]).output().map(|said| said.stdout).unwrap_or_default();
    format!("{} {}", python.unwrap_or_default(), String::from_utf8_lossy(&said))
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// What is in an environment besides Python itself.
fn programs(bin: &Path) -> Vec<String> {
    let names = fs::read_dir(bin).into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let of_python = |name: &String| ["python", "pip", "activate", "Activate", "normalizer"].iter().any(|own| name.starts_with(own));
    let mut names: Vec<String> = names.filter(|name| !of_python(name)).collect();
    names.sort();
    names
}

fn run(command: &mut Command, dir: &Path) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = Error::new(Code::SystemError, "the Python environment could not be made").setting("pip");
    let output = command.current_dir(dir).output().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::new(Code::NotFound, "there is no Python to make an environment with")
            .detail(program)
            .hint("install Python 3 with its venv module, or uv"),
        _ => Error::from(e),
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last: Vec<String> = said.trim().lines().rev().take(6).map(without_passwords).collect();
    let last: Vec<&str> = last.iter().rev().map(String::as_str).collect();
    Err(failed.detail(last.join("\n")).hint("try the same by hand: `pip install …` in a new environment"))
}

/// Package indexes are URLs, which may hold a password.
fn without_passwords(line: &str) -> String {
    line.split(' ').map(|word| if word.contains("://") { redact_url(word) } else { word.to_owned() }).collect::<Vec<_>>().join(" ")
}
