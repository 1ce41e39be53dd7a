//! A Docker engine for tests: the one that runs here, or one of the test's own, in a temporary folder, stopped when it is dropped.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::postgres_server::{is_root, succeed};

const START_TIMEOUT: Duration = Duration::from_mins(1);

pub struct DockerEngine {
    own: Option<(Child, TempDir)>,
    host: Option<String>,
}

impl DockerEngine {
    /// An error says what is missing.
    pub fn start() -> io::Result<Self> {
        let running = Self { own: None, host: None };
        if running.answers() {
            return Ok(running);
        }
        if !is_root() {
            return Err(io::Error::other("no Docker engine answers, and only root may start one"));
        }
        let folder = tempfile::Builder::new().prefix("trib-docker-").tempdir()?;
        let log = fs::File::create(folder.path().join("log"))?;
        let host = format!("unix://{}", folder.path().join("socket").display());
        let at = |flag: &str, name: &str| format!("--{flag}={}", folder.path().join(name).display());
        let mut command = Command::new("dockerd");
        command.args([at("data-root", "data"), at("exec-root", "exec"), at("pidfile", "pid"), format!("--host={host}")]);
        // Nothing of this machine's network is touched, and nothing is asked of its file system.
        command.args(["--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs"]);
        let process = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|e| io::Error::new(e.kind(), "there is no Docker engine: `apt-get install docker.io`"))?;
        let mut engine = Self { own: Some((process, folder)), host: Some(host) };
        engine.wait()?;
        Ok(engine)
    }

    fn wait(&mut self) -> io::Result<()> {
        let began = Instant::now();
        while !self.answers() {
            let Some((process, folder)) = &mut self.own else { break };
            if process.try_wait()?.is_some() || began.elapsed() > START_TIMEOUT {
                let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
                return Err(io::Error::other(format!("the Docker engine does not start: {}", log.lines().last().unwrap_or_default())));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn answers(&self) -> bool {
        self.command(&["version"]).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    /// What `DOCKER_HOST` has to be, where it is not what it is anyway.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(args).stdin(Stdio::null());
        if let Some(host) = &self.host {
            command.env("DOCKER_HOST", host);
        }
        command
    }

    /// Makes an image of this shell script, with the shell and these programs of the machine, and nothing from any registry.
    pub fn image(&self, tag: &str, script: &str, programs: &[&str]) -> io::Result<()> {
        let root = tempfile::tempdir()?;
        for program in ["sh"].iter().chain(programs) {
            let path = format!("/bin/{program}");
            let libraries = Command::new("ldd").arg(&path).output()?;
            let libraries = String::from_utf8_lossy(&libraries.stdout).into_owned();
            for file in libraries.split_whitespace().filter(|word| word.starts_with('/')).chain([path.as_str()]) {
                copy(file, root.path())?;
            }
        }
        fs::write(root.path().join("connector.sh"), script)?;
        let archive = root.path().join("archive.tar");
        succeed(Command::new("tar").arg("-C").arg(root.path()).args(["--exclude=./archive.tar", "-cf"]).arg(&archive).arg("."))?;
        let entry = "ENTRYPOINT [\"/bin/sh\", \"/connector.sh\"]";
        succeed(&mut self.command(&["import", "--change", entry, &archive.display().to_string(), tag])).map(drop)
    }
}

fn copy(file: &str, root: &Path) -> io::Result<()> {
    let to = root.join(file.trim_start_matches('/'));
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::copy(file, to).map(drop)
}

impl Drop for DockerEngine {
    fn drop(&mut self) {
        if let Some((process, _)) = &mut self.own {
            // By a signal that lets it stop its containers and give back what it has mounted.
            let _ = Command::new("kill").arg(process.id().to_string()).status();
            let _ = process.wait();
        }
    }
}
