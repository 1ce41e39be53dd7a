//! A PostgreSQL server of the test process's own.
//!
//! The server is a child of the process, lives in a temporary folder, listens on a free port of the loopback interface and is stopped,
//! by its process id, when the [`PostgresServer`] is dropped. Its data do not survive a crash of the machine (`fsync=off`), which is what makes it fast.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::certificate::Certificate;
use crate::shared::Shared;

/// The account that owns the server when the tests run as root, under which PostgreSQL refuses to start.
const SYSTEM_USER: &str = "postgres";
const PASSWORD: &str = "s3cr3t-pw";
const START_TIMEOUT: Duration = Duration::from_mins(1);

/// A running server. All its databases are empty when it starts.
pub struct PostgresServer {
    process: Child,
    port: u16,
    bin: PathBuf,
    // Dropped last: the folder goes after the process.
    folder: TempDir,
}

impl PostgresServer {
    /// A server of its own for the caller; [`PostgresServer::shared`] is the one that most tests want.
    pub fn start() -> io::Result<Self> {
        Self::start_with(&[])
    }

    /// The same with settings, each `name=value` as `postgres -c` takes them.
    pub fn start_with(settings: &[&str]) -> io::Result<Self> {
        Self::start_in(scratch()?, settings)
    }

    /// A server that takes encrypted connections only, and shows this certificate.
    pub fn start_with_tls(certificate: &Certificate) -> io::Result<Self> {
        let folder = scratch()?;
        let place = |name: &str| folder.path().join(name);
        let key = place("server.key");
        fs::write(place("server.crt"), &certificate.pem)?;
        fs::write(&key, &certificate.key)?;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
        fs::write(place("hba.conf"), "hostssl all all 127.0.0.1/32 scram-sha-256\n")?;
        let setting = |name: &str, file: &str| format!("{name}={}", place(file).display());
        let files = [setting("ssl_cert_file", "server.crt"), setting("ssl_key_file", "server.key"), setting("hba_file", "hba.conf")];
        let settings: Vec<&str> = files.iter().map(String::as_str).chain(["ssl=on"]).collect();
        Self::start_in(folder, &settings)
    }

    fn start_in(folder: TempDir, settings: &[&str]) -> io::Result<Self> {
        let bin = find_binaries()?;
        let data = folder.path().join("data");
        let password_file = folder.path().join("password");
        fs::write(&password_file, PASSWORD)?;
        if is_root() {
            succeed(Command::new("chown").arg("-R").arg(SYSTEM_USER).arg(folder.path()))?;
        }
        succeed(Command::new("cp").arg("-a").arg(template(&bin, folder.path(), &password_file)?).arg(&data))?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = fs::File::create(folder.path().join("log"))?;
        let mut command = as_system_user(&bin.join("postgres"));
        command.arg("-D").arg(&data).current_dir(folder.path());
        let fixed = ["fsync=off", "full_page_writes=off", "listen_addresses=127.0.0.1", "max_connections=200", "wal_level=logical"];
        let places = [format!("port={port}"), format!("unix_socket_directories={}", folder.path().display())];
        for setting in fixed.into_iter().chain(places.iter().map(String::as_str)).chain(settings.iter().copied()) {
            command.arg("-c").arg(setting);
        }
        let process = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let mut server = Self { process, port, bin, folder };
        server.wait()?;
        Ok(server)
    }

    /// One server for all tests of the process that run at the same time.
    pub fn shared() -> io::Result<Arc<Self>> {
        static SHARED: Shared<PostgresServer> = Shared::new();
        SHARED.get(Self::start)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn password(&self) -> &'static str {
        PASSWORD
    }

    /// The superuser's URL of a database.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://trib:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    /// A fresh database; gives its name.
    pub fn create_database(&self) -> io::Result<String> {
        let name = format!("t_{}", uuid::Uuid::new_v4().simple());
        self.sql("postgres", &format!("create database {name}"))?;
        Ok(name)
    }

    /// Runs SQL by `psql`, the oracle that shares no code with us; gives its unaligned output without headers.
    pub fn sql(&self, database: &str, sql: &str) -> io::Result<String> {
        let output = self.psql(database).args(["-c", sql]).output()?;
        if !output.status.success() {
            return Err(io::Error::other(format!("{}\nin: {sql}", String::from_utf8_lossy(&output.stderr))));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned())
    }

    fn psql(&self, database: &str) -> Command {
        let mut command = Command::new(self.bin.join("psql"));
        command.args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-d", &self.url(database)]);
        command.env("PGTZ", "UTC").env("PGOPTIONS", "--client-min-messages=warning");
        command
    }

    fn wait(&mut self) -> io::Result<()> {
        let started = Instant::now();
        loop {
            if self.psql("postgres").args(["-c", "select 1"]).output()?.status.success() {
                return Ok(());
            }
            let log = || fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            if let Some(status) = self.process.try_wait()? {
                return Err(io::Error::other(format!("PostgreSQL did not start ({status}):\n{}", log())));
            }
            if started.elapsed() > START_TIMEOUT {
                return Err(io::Error::other(format!("PostgreSQL does not answer:\n{}", log())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // The server's own pid stands in its data folder; the child may be `runuser`. SIGINT is its "fast" shutdown.
        let pid = fs::read_to_string(self.folder.path().join("data/postmaster.pid"));
        if let Some(pid) = pid.ok().and_then(|text| text.lines().next().map(str::to_owned)) {
            let _ = Command::new("kill").args(["-INT", &pid]).status();
        } else {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

fn scratch() -> io::Result<TempDir> {
    tempfile::Builder::new().prefix("trib-pg-").tempdir()
}

/// A data folder that was initialised once and is copied for each server: `initdb` takes seconds, and test processes are many.
fn template(bin: &Path, scratch: &Path, password_file: &Path) -> io::Result<PathBuf> {
    let version = bin.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let owner = if is_root() { SYSTEM_USER.to_owned() } else { std::env::var("USER").unwrap_or_default() };
    let template = std::env::temp_dir().join(format!("trib-pg-template-{version}-{owner}"));
    if template.join("PG_VERSION").exists() {
        return Ok(template);
    }
    let fresh = scratch.join("template");
    succeed(
        as_system_user(&bin.join("initdb"))
            .args(["--no-sync", "--encoding=UTF8", "--locale=C.UTF-8", "--auth=scram-sha-256", "--username=trib", "--wal-segsize=1"])
            .arg(format!("--pwfile={}", password_file.display()))
            .arg("-D")
            .arg(&fresh)
            .current_dir(scratch),
    )?;
    // Another process may have been faster; its template is as good.
    match fs::rename(&fresh, &template) {
        Ok(()) => Ok(template),
        Err(_) if template.join("PG_VERSION").exists() => Ok(template),
        Err(_) => Ok(fresh),
    }
}

fn find_binaries() -> io::Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok();
    let mut found: Vec<PathBuf> = versions
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").exists() && bin.join("psql").exists())
        .collect();
    found.sort();
    found.pop().ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            "PostgreSQL is not installed: `apt-get install postgresql` (Debian packages postgresql-15 and postgresql-client-15)",
        )
    })
}

pub(crate) fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

fn as_system_user(program: &Path) -> Command {
    if is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", SYSTEM_USER, "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

pub(crate) fn succeed(command: &mut Command) -> io::Result<Output> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(output);
    }
    Err(io::Error::other(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))))
}
