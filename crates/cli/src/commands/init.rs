//! `trib init`

use std::path::{Path, PathBuf};

use serde_json::json;
use trib_core::{Code, Error};
use trib_project::template::{self, Template};

use crate::app::usage;
use crate::exit::{Exit, Result};
use crate::output::Output;

/// A new project; with --example, one that runs as it is
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib init --example shop")]
pub struct Args {
    /// The folder, which is made if it is not there
    #[arg(default_value = ".", hide_default_value = true)]
    dir: PathBuf,
    /// A small shop: a SQLite database, events as JSON Lines, a CSV file of countries
    #[arg(long)]
    example: bool,
    /// The example's next day, for a second run
    #[arg(long, hide = true, conflicts_with = "example")]
    example_changes: bool,
}

pub fn run(args: &Args, output: Output) -> Result<Exit> {
    let dir = std::path::absolute(&args.dir)?;
    let there = dir.join(trib_project::load::MAIN).exists();
    if args.example_changes {
        if !there {
            return Err(usage("there is no example here").detail(dir.display().to_string()).hint("`trib init --example` makes it").into());
        }
        write(&dir, &template::example_changes())?;
        output
            .either(|| json!({"changed": dir}), || "a day has passed in the shop: rows have changed, and another file has come".to_owned());
        return Ok(Exit::Success);
    }
    if there {
        return Err(usage("there is a project here already").detail(dir.display().to_string()).hint("name another folder").into());
    }
    let name = dir.file_name().and_then(|n| n.to_str()).map(simple).filter(|n| !n.is_empty()).unwrap_or_else(|| "project".to_owned());
    write(&dir, &if args.example { template::example() } else { template::minimal(&name) })?;
    let enter = if args.dir == Path::new(".") { String::new() } else { format!("cd {} && ", args.dir.display()) };
    let next = if args.example {
        format!("{enter}trib run")
    } else {
        format!("{enter}edit connections.yaml, then `trib check` and `trib discover CONNECTION --write`")
    };
    output.either(|| json!({"project": dir, "name": name}), || format!("a project in {}; next: {next}", dir.display()));
    Ok(Exit::Success)
}

/// A folder's name as a project's name: what could not stand in a file name or identifier becomes `_`.
fn simple(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() || matches!(c, '_' | '-') { c } else { '_' }).collect()
}

fn write(dir: &Path, template: &Template) -> Result<()> {
    for file in &template.files {
        let path = dir.join(file.path);
        make_folder(&path)?;
        std::fs::write(&path, &file.contents).map_err(|e| Error::from(e).detail(path.display().to_string()))?;
    }
    for database in &template.databases {
        let path = dir.join(database.path);
        make_folder(&path)?;
        let made = rusqlite::Connection::open(&path).and_then(|connection| connection.execute_batch(&database.sql));
        made.map_err(|e| Error::new(Code::Io, "the example's database cannot be written").detail(path.display().to_string()).source(e))?;
    }
    Ok(())
}

fn make_folder(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    Ok(std::fs::create_dir_all(folder).map_err(|e| Error::from(e).detail(folder.display().to_string()))?)
}
