//! The command line's shape. Each command's own arguments stand beside the command.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::commands::{
    airbyte, backfill, cancel, check, completions, connectors, copy, discover, docs, fmt, import, init, lineage, login, logs, ls, maintain,
    pause, plan, preview, promote, query, rejected, resume, run, runs, state, status, tap, target, test, validate, why,
};

/// Moves data: out of databases and files, into a warehouse or lake.
#[derive(Parser, Debug)]
#[command(
    name = "trib",
    version,
    max_term_width = 110,
    before_help = "Example: trib init --example shop && cd shop && trib run",
    after_help = "Exit status: 0 all well, 1 something failed, 2 the project or the call is wrong, 3 some streams failed and others \
                  succeeded, 4 tests failed, 5 held by a guard, 130 stopped by Ctrl-C"
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Results as JSON on standard output, errors as JSON on standard error
    #[arg(long, global = true)]
    pub json: bool,
    /// The environment, as declared under `environments:`; `dev`, where it is declared, when left out
    #[arg(long, global = true, value_name = "NAME", env = "TRIB_ENV")]
    pub env: Option<String>,
    /// The project's folder; the nearest one upwards with a tributary.yaml when left out
    #[arg(long, global = true, value_name = "DIR", env = "TRIB_PROJECT_DIR")]
    pub project_dir: Option<PathBuf>,
    /// Results and errors only
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// What happens inside, on standard error
    #[arg(long, short, global = true, conflicts_with = "quiet")]
    pub verbose: bool,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    Init(init::Args),
    Validate(validate::Args),
    Fmt(fmt::Args),
    Connectors(connectors::Args),
    Check(check::Args),
    Login(login::Args),
    Discover(discover::Args),
    Ls(ls::Args),
    Status(status::Args),
    Preview(preview::Args),
    Plan(plan::Args),
    Run(run::Args),
    Promote(promote::Args),
    Test(test::Args),
    Backfill(backfill::Args),
    Query(query::Args),
    Lineage(lineage::Args),
    Why(why::Args),
    Docs(docs::Args),
    State(state::Args),
    Runs(runs::Args),
    Logs(logs::Args),
    Cancel(cancel::Args),
    Rejected(rejected::Args),
    Pause(pause::Args),
    Resume(resume::Args),
    Copy(copy::Args),
    Airbyte(airbyte::Args),
    Import(import::Args),
    Tap(tap::Args),
    Target(target::Args),
    Maintain(maintain::Args),
    Completions(completions::Args),
}

/// Which nodes of the project a command is about.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Select {
    /// Names, globs, `sync/stream`, `tag:x`, `sync+`, `+model`, `state:modified`; all when left out
    #[arg(value_name = "SELECT")]
    pub select: Vec<String>,
    /// What is left out of that
    #[arg(long, value_name = "SELECT")]
    pub exclude: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    /// Help shows what to type before it explains.
    #[test]
    fn help_begins_with_an_example() {
        fn check(command: &mut clap::Command) {
            if command.is_hide_set() || command.get_name() == "help" {
                return;
            }
            let help = command.render_long_help().to_string();
            let groups = command.has_subcommands() && command.get_name() != "trib";
            assert!(groups || help.starts_with("Example: trib "), "{}: {help}", command.get_name());
            command.get_subcommands_mut().for_each(check);
        }
        check(&mut Cli::command());
    }
}
