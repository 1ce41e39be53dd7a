//! `trib ls`

use serde_json::{Value, json};
use trib_project::NodeKind;

use crate::app::Session;
use crate::args::Select;
use crate::exit::{Exit, Result};
use crate::output;
use crate::render::table::{left, render};

/// The project's nodes: syncs, seeds and models, where they read and where they write
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib ls tag:hourly")]
pub struct Args {
    #[command(flatten)]
    select: Select,
}

struct Line {
    name: String,
    kind: NodeKind,
    from: String,
    to: String,
    tags: Vec<String>,
    description: Option<String>,
    file: String,
}

pub async fn run(args: &Args, session: &Session) -> Result<Exit> {
    let selection = session.select(&args.select).await?;
    let project = session.project()?;
    let graph = session.graph()?;
    let mut lines = Vec::new();
    for node in graph.nodes().iter().filter(|n| selection.contains(&n.name)) {
        let (from, to, description) = match node.kind {
            NodeKind::Sync => {
                let spec = &project.sync(&node.name)?.spec;
                (spec.from.0.join(", "), format!("{}: {}", spec.to, spec.into), spec.description.clone())
            }
            NodeKind::Seed => match project.seeds().iter().find(|s| s.name == node.name) {
                None => continue,
                Some(seed) => (seed.file.clone(), format!("{}: {}", seed.connection, seed.table), None),
            },
            NodeKind::Command => match project.commands().iter().find(|c| c.name == node.name) {
                None => continue,
                Some(command) => (command.spec.reads.join(", "), command.spec.writes.join(", "), command.spec.description.clone()),
            },
            NodeKind::Model => match project.models().iter().find(|m| m.name == node.name) {
                None => continue,
                Some(model) => {
                    (model.read_names().join(", "), format!("{}: {}", model.spec.connection, model.table), model.spec.description.clone())
                }
            },
        };
        let file = node.at.file.to_string();
        lines.push(Line { name: node.name.clone(), kind: node.kind, from, to, tags: node.tags.clone(), description, file });
    }
    let columns = [left("name"), left("kind"), left("from"), left("to"), left("tags"), left("description")];
    let row = |l: &Line| {
        vec![
            l.name.clone(),
            l.kind.as_str().to_owned(),
            l.from.clone(),
            l.to.clone(),
            l.tags.join(" "),
            l.description.clone().unwrap_or_default(),
        ]
    };
    session
        .output
        .either(|| lines.iter().map(to_json).collect(), || render(&columns, &lines.iter().map(row).collect::<Vec<_>>(), output::width()));
    Ok(Exit::Success)
}

fn to_json(line: &Line) -> Value {
    json!({
        "name": line.name, "kind": line.kind, "from": line.from, "to": line.to, "tags": line.tags, "description": line.description,
        "file": line.file,
    })
}
