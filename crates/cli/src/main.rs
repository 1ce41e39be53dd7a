//! `trib`: the command line.

mod app;
mod args;
mod assemble;
mod audit;
mod commands;
mod conduct;
mod exit;
mod lineage;
mod models;
mod observe;
mod output;
mod prepare;
mod registry;
mod render;
mod retried;
mod sample;
mod stop;
mod summary;
mod tables;
mod testing;
mod unfinished;
mod unit_tests;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;
use crate::exit::Exit;
use crate::output::Output;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Deeply nested SQL is parsed and planned by recursion.
const STACK: usize = 8 << 20;

fn main() -> ExitCode {
    // Help, version and mistakes in the call end the process here, before anything is set up.
    let cli = Cli::parse();
    let output = Output::new(&cli.global);
    output::init_tracing(&cli.global);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK).build() {
        Ok(runtime) => runtime,
        Err(e) => return output.fail(&trib_core::Error::from(e).into()).into(),
    };
    let exit = runtime.block_on(async {
        match commands::run(cli, output).await {
            Ok(exit) => exit,
            Err(failure) => output.fail(&failure),
        }
    });
    // Blocking reads that were given up are not waited for.
    runtime.shutdown_background();
    exit.into()
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}
