//! `trib` as its users start it: a process, a folder, what comes out.

mod cases;
mod crash;
mod errors;
mod secrets;
mod trib;
