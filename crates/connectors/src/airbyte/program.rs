//! Calling the connector: its command line, and the files that it is given.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::sync::mpsc;
use trib_core::{Error, Result};
use trib_kit::environment::Recipe;
use trib_kit::feed::{Pulse, feed};
use trib_kit::lines::Lines;
use trib_kit::process::{PrivateFolder, Process, Program, Said};

use super::config::AirbyteConfig;
use super::container::{self, Container};

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
        let container = config.image.as_ref().map(|_| Container::new());
        let (program, mut all) = match (&config.image, &container) {
            (Some(image), Some(Container(name))) => {
                container::sweep().await;
                ("docker".into(), container::run(image, name, folder.path(), config.env.keys(), verb == WRITE))
            }
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

    fn gone(&mut self) {
        if let Some(container) = self.container.take() {
            container.gone();
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
