//! Programs from PyPI that tests use: second readers, stand-in servers.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::process::Command;

/// A virtual environment with these packages, made once per machine; tests that ask at the same time, in one process or in several, wait for the one that
/// makes it. Returns its `bin` folder.
///
/// `TRIB_TEST_VENV` names a folder to use instead, with the packages in it already.
pub fn bin(name: &str, packages: &[&str]) -> io::Result<PathBuf> {
    if let Some(given) = std::env::var_os("TRIB_TEST_VENV") {
        return Ok(PathBuf::from(given).join("bin"));
    }
    let folder = std::env::temp_dir().join(format!("trib-test-venv-{name}"));
    fs::create_dir_all(&folder)?;
    let (lock, ready) = (File::create(folder.join("lock"))?, folder.join("ready"));
    lock.lock()?;
    let bin = folder.join("bin");
    let wanted = packages.join(" ");
    if fs::read_to_string(&ready).is_ok_and(|has| has == wanted) {
        return Ok(bin);
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    run(Command::new(bin.join("python")).args(["-m", "pip", "install", "--quiet"]).args(packages))?;
    fs::write(ready, wanted)?;
    Ok(bin)
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))))
}
