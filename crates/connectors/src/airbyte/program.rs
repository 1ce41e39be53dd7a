//! Calling the connector: its command line, and the files that it is given.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tokio::sync::mpsc;
use trib_core::{Error, Result};
use trib_kit::environment::Recipe;
use trib_kit::feed::{Pulse, feed};
use trib_kit::lines::Lines;
use trib_kit::process::{PrivateFolder, Process, Program, Said};

use super::config::AirbyteConfig;

/// The one call that is given something to read.
pub const WRITE: &str = "write";

/// A call that runs. What is dropped first stands first.
pub struct Call {
    process: Process,
    container: Option<Container>,
    _files: PrivateFolder,
}

impl Call {
    /// Starts the connector. `files` are arguments with the content of the files that they name.
    pub async fn start(config: &AirbyteConfig, dir: &Path, verb: &str, files: &[(&str, Value)]) -> Result<(Self, Lines)> {
        let folder = PrivateFolder::new()?;
        let mut args = vec![verb.to_owned()];
        for (name, content) in files {
            let path = folder.write(&format!("{name}.json"), &serde_json::to_vec(content)?)?;
            args.extend([format!("--{name}"), path.to_string_lossy().into_owned()]);
        }
        let container = config.image.as_ref().map(|_| Container(format!("trib-{}", uuid::Uuid::new_v4().simple())));
        let (program, mut all) = match (&config.image, &container) {
            (Some(image), Some(Container(name))) => ("docker".into(), docker(image, name, folder.path(), config.env.keys(), verb == WRITE)),
            _ => program(config, dir).await?,
        };
        all.extend(args);
        let env = config.env.iter().map(|(k, v)| (k.clone(), v.expose().to_owned())).collect();
        let mut process = Process::start(&Program { program, args: all, env, dir: dir.to_owned() }, config.name())?;
        if verb != WRITE {
            drop(process.stdin());
        }
        let stdout = process.stdout().ok_or_else(|| Error::internal("a program was started without its output"))?;
        Ok((Self { process, container, _files: folder }, Lines::of_async(stdout)))
    }

    /// What it says on standard error.
    pub fn said(&self) -> Said {
        self.process.said.clone()
    }

    /// Hands it messages, and waits for its end; see [`feed`].
    pub async fn fed(mut self, messages: mpsc::Receiver<Result<Vec<u8>>>, pulse: &Pulse) -> Result<()> {
        feed(&mut self.process, messages, pulse).await?;
        self.gone();
        Ok(())
    }

    /// Waits for its end.
    pub async fn finish(mut self) -> Result<()> {
        let ended = self.process.finish().await;
        self.gone();
        ended
    }

    /// Docker has removed its container.
    fn gone(&mut self) {
        if let Some(container) = self.container.take() {
            std::mem::forget(container);
        }
    }
}

/// A container does not end with the program that has started it.
struct Container(String);

impl Drop for Container {
    fn drop(&mut self) {
        let null = std::process::Stdio::null;
        let remove = Command::new("docker").args(["rm", "--force", &self.0]).stdin(null()).stdout(null()).stderr(null()).spawn();
        if let Ok(mut remove) = remove {
            std::thread::spawn(move || remove.wait());
        }
    }
}

async fn program(config: &AirbyteConfig, dir: &Path) -> Result<(PathBuf, Vec<String>)> {
    let recipe = Recipe {
        name: config.program.clone().unwrap_or_default(),
        pip: config.pip.clone(),
        python: config.python.clone(),
        command: config.command.clone(),
        dir: dir.to_owned(),
    };
    recipe.made().await
}

/// The files are this user's and nobody else's, so the container is this user too.
fn docker<'a>(image: &str, name: &str, folder: &Path, env: impl Iterator<Item = &'a String>, input: bool) -> Vec<String> {
    let folder = folder.display();
    let mut args = ["run", "--rm", "--init", "--name", name, "--user"].map(str::to_owned).to_vec();
    if input {
        args.insert(1, "--interactive".to_owned());
    }
    args.extend([user(), "--volume".to_owned(), format!("{folder}:{folder}:ro")]);
    // By name alone, the value is taken from our own environment and stands on no command line.
    args.extend(env.flat_map(|name| ["--env".to_owned(), name.clone()]));
    args.push(image.to_owned());
    args
}

fn user() -> String {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").map_or_else(|_| "0:0".to_owned(), |own| format!("{}:{}", own.uid(), own.gid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_given_the_files_and_no_secrets() {
        let args = docker("a/source-x:1", "trib-1", Path::new("/tmp/x"), ["KEY".to_owned()].iter(), true);
        let joined = args.join(" ");
        assert!(joined.starts_with("run --interactive --rm"), "{joined}");
        assert!(joined.ends_with("--volume /tmp/x:/tmp/x:ro --env KEY a/source-x:1"), "{joined}");
    }
}
