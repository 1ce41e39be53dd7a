//! `trib` as its users start it: a process, a folder, what comes out.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod across;
mod cases;
mod commands;
mod crash;
mod declarative;
mod errors;
mod faults;
mod hub;
mod intervals;
mod lineage;
mod login;
mod making;
mod model_crash;
mod models;
mod openlineage;
mod pairs;
mod plan;
mod process;
mod programs;
mod protocol;
mod recovery;
mod scripts;
mod secrets;
mod shipped;
mod singer;
mod singer_environment;
mod singer_meltano;
mod singer_pairs;
mod singer_versions;
mod site;
mod target;
mod tpch;
mod trib;
mod why;
mod wild;
