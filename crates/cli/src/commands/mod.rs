//! One file for each command.

pub mod airbyte;
pub mod backfill;
pub mod cancel;
pub mod check;
pub mod completions;
pub mod connectors;
pub mod copy;
pub mod discover;
pub mod docs;
pub mod fmt;
pub mod import;
pub mod init;
pub mod lineage;
pub mod login;
pub mod logs;
pub mod ls;
pub mod maintain;
pub mod pause;
pub mod plan;
pub mod preview;
pub mod promote;
pub mod query;
pub mod rejected;
pub mod resume;
pub mod run;
pub mod runs;
pub mod state;
pub mod status;
pub mod tap;
pub mod target;
pub mod test;
pub mod validate;
pub mod why;

use crate::app::Session;
use crate::args::{Cli, Command};
use crate::exit::{Exit, Result};
use crate::output::Output;

pub async fn run(cli: Cli, output: Output) -> Result<Exit> {
    let session = Session::new(cli.global, output);
    match cli.command {
        Command::Init(args) => init::run(&args, output),
        Command::Validate(args) => validate::run(&args, &session),
        Command::Fmt(args) => fmt::run(&args, &session),
        Command::Connectors(args) => connectors::run(&args, &session).await,
        Command::Check(args) => check::run(&args, &session).await,
        Command::Login(args) => login::run(&args, &session).await,
        Command::Discover(args) => discover::run(&args, &session).await,
        Command::Ls(args) => ls::run(&args, &session).await,
        Command::Status(args) => status::run(&args, &session).await,
        Command::Preview(args) => preview::run(&args, &session).await,
        Command::Plan(args) => plan::run(&args, &session).await,
        Command::Run(args) => run::run(&args, &session).await,
        Command::Promote(args) => promote::run(&args, &session).await,
        Command::Test(args) => test::run(&args, &session).await,
        Command::Backfill(args) => backfill::run(&args, &session).await,
        Command::Query(args) => query::run(&args, &session).await,
        Command::Lineage(args) => lineage::run(&args, &session).await,
        Command::Why(args) => why::run(&args, &session).await,
        Command::Docs(args) => docs::run(&args, &session).await,
        Command::State(args) => state::run(args, &session).await,
        Command::Runs(args) => runs::run(&args, &session).await,
        Command::Logs(args) => logs::run(&args, &session).await,
        Command::Cancel(args) => cancel::run(&args, &session).await,
        Command::Rejected(args) => rejected::run(args, &session).await,
        Command::Pause(args) => pause::run(&args, &session).await,
        Command::Resume(args) => resume::run(&args, &session).await,
        Command::Copy(args) => copy::run(&args, &session).await,
        Command::Airbyte(args) => airbyte::run(&args).await,
        Command::Import(args) => import::run(&args, &session).await,
        Command::Tap(args) => tap::run(&args, &session).await,
        Command::Target(args) => target::run(&args, &session).await,
        Command::Maintain(args) => maintain::run(&args, &session).await,
        Command::Completions(args) => Ok(completions::run(&args)),
    }
}
