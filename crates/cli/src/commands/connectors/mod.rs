//! `trib connectors`

mod add;
mod dev;
mod new;
mod outdated;
mod record;
mod search;
mod show;
mod update;

use std::path::PathBuf;

use trib_core::{Code, Error};

use crate::app::Session;
use crate::exit::{Exit, Result};

/// What can be connected: the connectors that are there, and more of them
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    List(show::ListArgs),
    Show(show::ShowArgs),
    Search(search::Args),
    Add(add::Args),
    Outdated(outdated::Args),
    Update(update::Args),
    New(new::Args),
    Dev(dev::Args),
    Record(record::RecordArgs),
    Replay(record::ReplayArgs),
}

pub async fn run(args: &Args, session: &Session) -> Result<Exit> {
    match &args.command {
        Command::List(_) => Ok(show::list(session)),
        Command::Show(args) => show::show(args, session),
        Command::Search(args) => search::run(args, session).await,
        Command::Add(args) => add::run(args, session).await,
        Command::Outdated(args) => outdated::run(args, session).await,
        Command::Update(args) => update::run(args, session).await,
        Command::New(args) => new::run(args, session).await,
        Command::Dev(args) => dev::run(args, session).await,
        Command::Record(args) => record::record(args, session).await,
        Command::Replay(args) => record::replay(args, session).await,
    }
}

/// The project's folder, which must be one.
fn project_dir(session: &Session) -> Result<PathBuf> {
    let dir = session.project_dir()?;
    if trib_project::load::find(&dir).is_none() {
        let error = Error::new(Code::NotFound, "there is no project here").detail(dir.display().to_string());
        return Err(error.hint("`trib init` makes one; `--project-dir` names another folder").into());
    }
    Ok(dir)
}

/// `NAME` or `NAME@VERSION`.
fn name_and_version(text: &str) -> (&str, Option<&str>) {
    text.split_once('@').map_or((text, None), |(name, version)| (name, Some(version)))
}
