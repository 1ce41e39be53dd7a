//! `trib completions`

use clap::CommandFactory;

use crate::args::Cli;
use crate::exit::Exit;

/// Completions for your shell
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib completions bash > ~/.local/share/bash-completion/completions/trib")]
pub struct Args {
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

pub fn run(args: &Args) -> Exit {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "trib", &mut text);
    // A reader that has gone away is no error.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), &text);
    Exit::Success
}
