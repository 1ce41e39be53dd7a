//! `trib connectors outdated`

use serde_json::json;
use trib_core::Error;
use trib_project::Lock;

use super::project_dir;
use super::update::{Step, step};
use crate::app::Session;
use crate::exit::{Exit, Result};
use crate::hub::index::Which;
use crate::output;
use crate::render::table::{left, render};

/// Pinned connectors of which there is another version
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib connectors outdated")]
pub struct Args {
    #[command(flatten)]
    registry: Which,
}

pub async fn run(args: &Args, session: &Session) -> Result<Exit> {
    let dir = project_dir(session)?;
    let lock = Lock::read(&dir)?;
    let mut outdated: Vec<Step> = Vec::new();
    let mut errors: Vec<Error> = Vec::new();
    for (name, pin) in &lock.connectors {
        match step(name, pin, None, &dir, &args.registry).await {
            Ok(step) => outdated.extend(step.filter(Step::is_news)),
            Err(e) => errors.push(e.file(format!("connectors/{name}.yaml"), None, None)),
        }
    }
    let columns = ["connector", "pinned", "there is", "licence", "changes"].map(left);
    session.output.either(
        || json!({"pinned": lock.connectors.len(), "outdated": outdated.iter().map(Step::json).collect::<Vec<_>>()}),
        || {
            if outdated.is_empty() {
                let all = format!("all {} pinned connectors are up to date", lock.connectors.len());
                if errors.is_empty() { all } else { String::new() }
            } else {
                let rows: Vec<Vec<String>> = outdated
                    .iter()
                    .map(|s| {
                        vec![s.name.clone(), s.from.version.clone(), s.found.pin.version.clone(), s.found.pin.licence.clone(), s.summary()]
                    })
                    .collect();
                render(&columns, &rows, output::width())
            }
        },
    );
    if errors.is_empty() { Ok(Exit::Success) } else { Err(errors.into()) }
}
