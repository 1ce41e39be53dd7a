//! A MariaDB server of the test process's own, like [`crate::postgres_server`]: in a temporary folder, on a free port of the loopback interface, stopped when it is
//! dropped. Its data do not survive a crash of the machine.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::postgres_server::{is_root, succeed};
use crate::shared::Shared;

/// The account that owns the server when the tests run as root.
const SYSTEM_USER: &str = "nobody";
const USER: &str = "trib";
const PASSWORD: &str = "s3cr3t-pw";
const START_TIMEOUT: Duration = Duration::from_mins(1);

pub struct MariadbServer {
    process: Child,
    port: u16,
    // Dropped last: the folder goes after the process.
    folder: TempDir,
}

impl MariadbServer {
    pub fn start() -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("trib-mariadb-").tempdir()?;
        let data = folder.path().join("data");
        let mut install = Command::new("mariadb-install-db");
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        install.arg(format!("--datadir={}", data.display()));
        if is_root() {
            succeed(Command::new("chown").arg(SYSTEM_USER).arg(folder.path()))?;
            install.arg(format!("--user={SYSTEM_USER}"));
        }
        succeed(&mut install).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => {
                io::Error::new(e.kind(), "MariaDB is not installed: `apt-get install mariadb-server-core mariadb-client-core`")
            }
            _ => e,
        })?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = fs::File::create(folder.path().join("log"))?;
        let mut command = Command::new("/usr/sbin/mariadbd");
        command.args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0"]);
        command.args(["--default-time-zone=+00:00", "--character-set-server=utf8mb4", "--innodb-buffer-pool-size=32M"]);
        command.arg(format!("--port={port}")).arg(format!("--datadir={}", data.display()));
        command.arg(format!("--socket={}", folder.path().join("socket").display()));
        command.arg(format!("--pid-file={}", folder.path().join("pid").display()));
        if is_root() {
            command.arg(format!("--user={SYSTEM_USER}"));
        }
        let process = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let mut server = Self { process, port, folder };
        server.wait()?;
        server.sql("", &format!("create user {USER}@'127.0.0.1' identified by '{PASSWORD}'; grant all on *.* to {USER}@'127.0.0.1'"))?;
        Ok(server)
    }

    /// One server for all tests of the process that run at the same time.
    pub fn shared() -> io::Result<Arc<Self>> {
        static SHARED: Shared<MariadbServer> = Shared::new();
        SHARED.get(Self::start)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// An account that may do everything, from this machine.
    pub fn user(&self) -> &'static str {
        USER
    }

    pub fn password(&self) -> &'static str {
        PASSWORD
    }

    /// A fresh database; gives its name.
    pub fn create_database(&self) -> io::Result<String> {
        let name = format!("t_{}", uuid::Uuid::new_v4().simple());
        self.sql("", &format!("create database {name}"))?;
        Ok(name)
    }

    /// Runs SQL by the server's own client; gives its rows, columns apart by tabs, without headers.
    pub fn sql(&self, database: &str, sql: &str) -> io::Result<String> {
        let socket = format!("--socket={}", self.folder.path().join("socket").display());
        let args = ["--no-defaults", socket.as_str(), "--user=root", "--batch", "--raw", "--skip-column-names", "--execute", sql, database];
        let output = succeed(Command::new("mariadb").args(args.iter().filter(|a| !a.is_empty())))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned())
    }

    fn wait(&mut self) -> io::Result<()> {
        let started = Instant::now();
        while let Err(error) = self.sql("", "select 1") {
            let ended = self.process.try_wait()?;
            if ended.is_some() || started.elapsed() > START_TIMEOUT {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                return Err(io::Error::other(format!("MariaDB does not answer: {error}\n{log}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for MariadbServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
