//! `trib connectors search`

use serde_json::json;

use crate::app::Session;
use crate::exit::{Exit, Result};
use crate::hub::index::{Entry, Which};
use crate::output;
use crate::render::table::{left, render};

/// Look for connectors, here and in the registry
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib connectors search stripe")]
pub struct Args {
    /// Part of a name
    word: String,
    #[command(flatten)]
    registry: Which,
}

/// One connector that was found.
struct Row {
    name: String,
    version: String,
    licence: String,
    what: &'static str,
    title: String,
    next: String,
    documentation: Option<String>,
    support: Option<String>,
}

pub async fn run(args: &Args, session: &Session) -> Result<Exit> {
    let word = args.word.to_lowercase();
    let own = session.registry().all().iter().filter(|c| c.name.to_lowercase().contains(&word) || c.title.to_lowercase().contains(&word));
    let mut rows: Vec<Row> = own
        .map(|c| Row {
            name: c.name.clone(),
            version: c.edition.as_ref().map(|e| e.version.clone()).unwrap_or_default(),
            licence: c.edition.as_ref().map(|e| e.licence.clone()).unwrap_or_default(),
            what: "there",
            title: c.title.clone(),
            next: format!("trib connectors show {}", c.name),
            documentation: None,
            support: None,
        })
        .collect();
    match args.registry.read().await {
        Ok(index) => rows.extend(index.search(&word).into_iter().map(of_entry)),
        // What is here is worth showing when the network is not.
        Err(e) if rows.is_empty() => return Err(e.into()),
        Err(e) => session.output.error(&e),
    }
    let columns = ["connector", "version", "licence", "runs as", "title", "next"].map(left);
    session.output.either(
        || {
            let row = |r: &Row| {
                json!({"name": r.name, "version": r.version, "licence": r.licence, "runs_as": r.what, "title": r.title, "next": r.next,
                       "documentation": r.documentation, "support": r.support})
            };
            rows.iter().map(row).collect()
        },
        || {
            if rows.is_empty() {
                format!("nothing is called like `{}`", args.word)
            } else {
                let cells = |r: &Row| {
                    vec![r.name.clone(), r.version.clone(), r.licence.clone(), r.what.to_owned(), r.title.clone(), r.next.clone()]
                };
                render(&columns, &rows.iter().map(cells).collect::<Vec<_>>(), output::width())
            }
        },
    );
    Ok(Exit::Success)
}

fn of_entry(entry: &Entry) -> Row {
    let (what, next) = match (entry.is_source(), entry.is_manifest()) {
        (true, true) => ("manifest", format!("trib connectors add {}", entry.slug())),
        (true, false) => ("source program", format!("connector: airbyte, image: {}:{}", entry.docker_repository, entry.docker_image_tag)),
        (false, _) => ("destination program", String::new()),
    };
    Row {
        name: entry.slug().to_owned(),
        version: entry.docker_image_tag.clone(),
        licence: entry.licence().to_owned(),
        what,
        title: entry.name.clone(),
        next,
        documentation: entry.documentation_url.clone(),
        support: entry.support_level.clone(),
    }
}
