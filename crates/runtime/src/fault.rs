//! Named places at which a test can have the process die, as if it were killed there.
//!
//! `TRIB_FAULT=staged` (or `staged:2` for the second time) aborts the process at that point. The points are those of
//! [`trib_core::protocol`]; without the variable they cost one comparison. `TRIB_FAULT_TRACE=FILE` notes each point that is passed, so that
//! a test which kills at random can tell where it hit.

use std::fs::OpenOptions;
use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

struct Fault {
    point: String,
    after: AtomicU64,
}

/// Dies here when `TRIB_FAULT` names this point.
pub fn point(name: &str) {
    static FAULT: OnceLock<Option<Fault>> = OnceLock::new();
    let fault = FAULT.get_or_init(|| {
        let wanted = std::env::var("TRIB_FAULT").ok()?;
        let (point, times) = wanted.split_once(':').unwrap_or((&wanted, "1"));
        Some(Fault { point: point.to_owned(), after: AtomicU64::new(times.parse().unwrap_or(1)) })
    });
    static TRACE: OnceLock<Option<String>> = OnceLock::new();
    if let Some(path) = TRACE.get_or_init(|| std::env::var("TRIB_FAULT_TRACE").ok())
        && let Ok(mut file) = OpenOptions::new().create(true).append(true).open(path)
    {
        // A trace that cannot be written only leaves the test without its table.
        let _ = writeln!(file, "{name}");
    }
    if let Some(fault) = fault
        && fault.point == name
        && fault.after.fetch_sub(1, Ordering::SeqCst) == 1
    {
        // No destructor runs and nothing is flushed, as with SIGKILL.
        std::process::abort();
    }
}
