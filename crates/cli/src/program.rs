//! Commands of the project: programs of somebody else's, run as nodes.

use std::time::Duration;

use trib_core::{Code, Error};
use trib_engine::attended::{Ended, attended};
use trib_kit::process::{Process, Program};
use trib_kit::scrub::Scrub;
use trib_project::Command;
use trib_project::config::command::RunLine;

use crate::app::Session;
use crate::exit::Result;

/// How long a command may run that says nothing about it.
const COMMAND_TIME: Duration = Duration::from_hours(6);

/// All that it says is talk, whichever output it uses.
const TALKING: &str = "exec >&2\n";

/// What it runs, without what came out of variables.
pub fn shown(command: &Command) -> String {
    Scrub::new(&command.secrets).text(&command.spec.run.text())
}

/// Runs the command to its end; `log` gets what it says, without what came out of variables.
pub async fn run(session: &Session, command: &Command, run: &str, log: impl Fn(String)) -> Result<()> {
    command.ready()?;
    let project = session.project()?;
    let scrub = Scrub::new(&command.secrets);
    let dir = command.spec.dir.as_ref().map_or(project.dir.clone(), |dir| project.dir.join(dir));
    if !dir.is_dir() {
        let error = Error::new(Code::NotFound, "there is no such folder").detail(dir.display().to_string()).setting("dir");
        return Err(command.at.mark(error).into());
    }
    let args = match &command.spec.run {
        RunLine::Shell(line) => vec!["-c".to_owned(), format!("{TALKING}{line}")],
        RunLine::Program(words) => {
            let script = format!("{TALKING}exec \"$@\"");
            ["-c".to_owned(), script, command.name.clone()].into_iter().chain(words.iter().cloned()).collect()
        }
    };
    let own = [("TRIB_RUN", run), ("TRIB_ENV", &project.environment.name)].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let env = own.into_iter().chain(command.spec.env.clone()).collect();
    let program = Program { program: "sh".into(), args, env, dir };
    let timeout = command.spec.timeout.map_or(COMMAND_TIME, |t| t.0);
    let mut process = Process::start(&program, &command.name)?;
    let ended = attended(&mut process, tokio::io::sink(), timeout, |line| log(scrub.text(&line))).await?;
    let failed = |message, detail: String| Error::new(Code::ScriptFailed, message).detail(detail);
    let error = match ended {
        Ended::Well => return Ok(()),
        Ended::Badly(e) => failed("the command has failed", scrub.text(e.detail_text().unwrap_or_default()))
            .hint(format!("`trib logs {run}` has all that it said")),
        Ended::Late => failed("the command took longer than it may", format!("{} s", timeout.as_secs())).hint("raise its `timeout:`"),
    };
    Err(command.at.mark(error.stream(&command.name)).into())
}
