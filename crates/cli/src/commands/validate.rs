//! `trib validate`

use std::path::{Path, PathBuf};

use serde_json::json;
use trib_core::Error;
use trib_project::Lock;

use crate::app::Session;
use crate::exit::{Exit, Result};

/// Whether the whole project is right, as far as that can be said offline
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib validate")]
pub struct Args {
    /// Write the JSON Schema of each kind of file, manifests included, and of each connector's settings, into this folder
    #[arg(long, value_name = "DIR")]
    schemas: Option<PathBuf>,
}

pub fn run(args: &Args, session: &Session) -> Result<Exit> {
    if let Some(dir) = &args.schemas {
        let written = write_schemas(dir, session)?;
        session.output.either(|| json!({"written": written}), || format!("{written} schemas in {}", dir.display()));
        return Ok(Exit::Success);
    }
    let project = session.project()?;
    let mut errors = project.validate_offline(session.registry().all());
    match Lock::read(&project.dir) {
        Ok(lock) => errors.extend(lock.breaches(&project.dir)),
        Err(e) => errors.push(e),
    }
    if !errors.is_empty() {
        return Err(errors.into());
    }
    let counts = [
        (project.connection_names().count(), "connection"),
        (project.syncs().len(), "sync"),
        (project.models().len(), "model"),
        (project.seeds().len(), "seed"),
        (project.commands().len(), "command"),
        (project.jobs.len(), "job"),
    ];
    let text: Vec<String> =
        counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}{}", if *n == 1 { "" } else { "s" })).collect();
    session.output.either(
        || json!({"ok": true, "project": project.name, "environment": project.environment.name}),
        || format!("{} is right: {} (environment {})", project.name, text.join(", "), project.environment.name),
    );
    Ok(Exit::Success)
}

fn write_schemas(dir: &Path, session: &Session) -> Result<usize> {
    let connectors = dir.join("connectors");
    std::fs::create_dir_all(&connectors)?;
    let files = trib_project::schemas::schemas().into_iter().map(|(name, schema)| (dir.join(name), schema));
    let manifests = (dir.join("manifest.json"), serde_json::from_value(trib_connectors::manifest::manifest_schema()).map_err(Error::from)?);
    let settings = session.registry().all().iter().map(|c| (connectors.join(format!("{}.json", c.name)), c.schema.clone()));
    let mut written = 0;
    for (path, schema) in files.chain([manifests]).chain(settings) {
        let text = serde_json::to_string_pretty(&schema).map_err(Error::from)?;
        std::fs::write(&path, text + "\n").map_err(|e| Error::from(e).detail(path.display().to_string()))?;
        written += 1;
    }
    Ok(written)
}
