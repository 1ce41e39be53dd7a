//! `trib`: the command line.

mod app;
mod args;
mod assemble;
mod audit;
mod commands;
mod conduct;
mod delivered;
mod deliveries;
mod exit;
mod hub;
mod impact;
mod lineage;
mod made_from;
mod measured;
mod models;
mod objects;
mod observe;
mod openlineage;
mod output;
mod preflight;
mod prepare;
mod program;
mod promotion;
mod python;
mod record;
mod registry;
mod render;
mod retried;
mod sample;
mod site;
mod stop;
mod summary;
mod tables;
mod testing;
mod unfinished;
mod unit_tests;
mod why;

use std::ffi::{OsString, c_int, c_long};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;
use crate::exit::Exit;
use crate::output::Output;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Gives freed memory back to the system after a tenth of a second. In the whole second that the allocator waits by itself, a load that writes
/// one file after another holds a quarter more than it uses. `MIMALLOC_PURGE_DELAY` still counts.
#[allow(unsafe_code, reason = "the allocator's options have no safe interface")]
fn give_memory_back_early() {
    /// `mi_option_purge_delay` of `mimalloc.h`, in milliseconds.
    const PURGE_DELAY: c_int = 15;
    unsafe extern "C" {
        fn mi_option_set_default(option: c_int, value: c_long);
    }
    // SAFETY: the function belongs to the allocator that is linked in, takes two integers, and checks the first. No other thread runs yet.
    unsafe { mi_option_set_default(PURGE_DELAY, 100) };
}

/// Deeply nested SQL is parsed and planned by recursion.
const STACK: usize = 8 << 20;

fn main() -> ExitCode {
    give_memory_back_early();
    // Help, version and mistakes in the call end the process here, before anything is set up.
    let cli = Cli::parse_from(arguments());
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
    trib_kit::process::end_all();
    exit.into()
}

/// Meltano starts taps and targets without a word that says which they are to be: the name of a link to this program does.
fn arguments() -> Vec<OsString> {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let name = arguments.first().and_then(|program| Some(Path::new(program).file_name()?.to_string_lossy().into_owned()));
    for command in ["tap", "target"] {
        if name.as_deref() == Some(&format!("{command}-trib")) {
            arguments.insert(1, command.into());
        }
    }
    arguments
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}
