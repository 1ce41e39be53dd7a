//! `trib check`

use std::time::Instant;

use serde_json::json;
use trib_core::Error;

use crate::app::Session;
use crate::deliveries::check_mappings;
use crate::exit::{Exit, Failure, Result};
use crate::render::amount::duration;

/// Whether each system answers and permissions suffice, with the statement that mends what is missing
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib check shop")]
pub struct Args {
    /// All connections that are enabled when left out
    connection: Option<String>,
}

/// The ends of a connection that matter.
struct Ends {
    source: bool,
    destination: bool,
}

pub async fn run(args: &Args, session: &Session) -> Result<Exit> {
    let project = session.project()?;
    let names: Vec<String> = match &args.connection {
        Some(name) => vec![project.connection(name)?.name],
        None => project.connection_names().map(str::to_owned).collect(),
    };
    let mut answered = 0;
    let mut errors: Vec<Error> = Vec::new();
    for name in names {
        let began = Instant::now();
        let mut result = check(session, &name).await;
        if args.connection.is_none() && result.as_ref().is_ok_and(Option::is_none) {
            continue;
        }
        let text = match &mut result {
            Ok(_) => {
                answered += 1;
                format!("{name}: ok, {}", duration(began.elapsed()))
            }
            Err(failure) => {
                failure.0 = std::mem::take(&mut failure.0).into_iter().map(|e| e.connection(&name)).collect();
                format!("{name}: failed")
            }
        };
        let failed = result.err().map(|f| f.0).unwrap_or_default();
        let json = || json!({"connection": name, "ok": failed.is_empty(), "errors": failed.iter().map(Error::to_json).collect::<Vec<_>>()});
        session.output.either(json, || text);
        if !session.output.json {
            for error in &failed {
                session.output.error(error);
            }
        }
        errors.extend(failed);
    }
    let codes: Vec<_> = errors.iter().map(Error::code).collect();
    Ok(Exit::of_run(answered, &codes))
}

/// `None` when the connection is not enabled.
async fn check(session: &Session, name: &str) -> Result<Option<()>, Failure> {
    let (connection, connector) = session.connection(name)?;
    if !connection.enabled {
        return Ok(None);
    }
    let used = ends(session, name)?;
    // A connection that no sync uses is checked by all that it can do.
    let unused = !used.source && !used.destination;
    if connector.source.is_some() && (used.source || unused) {
        session.source(name)?.check().await?;
    }
    if connector.destination.is_some() && (used.destination || unused && connector.source.is_none()) {
        let destination = session.destination(name)?;
        destination.check().await?;
        if let Some(api) = destination.deliveries() {
            let mut notes = Vec::new();
            check_mappings(session, name, api, &mut notes).await?;
            notes.into_iter().for_each(|note| session.output.note(note));
        }
    }
    Ok(Some(()))
}

fn ends(session: &Session, name: &str) -> Result<Ends> {
    let enabled = || session.project().map(|p| p.syncs().iter().filter(|s| s.spec.enabled));
    Ok(Ends {
        source: enabled()?.any(|s| s.spec.from.0.iter().any(|from| from == name)),
        destination: enabled()?.any(|s| s.spec.to == name),
    })
}
