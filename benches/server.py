"""A PostgreSQL server of our own: a temporary folder, a free port, gone afterwards."""

import os
import pwd
import shutil
import socket
import subprocess
from glob import glob
from pathlib import Path


def programs() -> Path:
    """The newest installed version's programs."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = sorted(glob("/usr/lib/postgresql/*/bin/initdb"), key=lambda p: float(Path(p).parts[4]))
    if not versions:
        raise SystemExit("PostgreSQL is not installed: `make setup`")
    return Path(versions[-1]).parent


class Server:
    """A context manager; `url(database)` and `sql(text)` while it stands."""

    # Large enough that checkpoints do not fall into one contender's run and not into the other's; durability as installed.
    SETTINGS = {
        "shared_buffers": "512MB",
        "max_wal_size": "16GB",
        "checkpoint_timeout": "1h",
        "autovacuum": "off",
        "maintenance_work_mem": "256MB",
        "listen_addresses": "127.0.0.1",
    }

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = programs()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def __enter__(self) -> "Server":
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        if os.geteuid() == 0:
            # The server refuses to run as root; Debian's package has a user for it.
            user = pwd.getpwnam("postgres")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        data = self.folder / "data"
        self.run("initdb", "-D", str(data), "-U", "bench", "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        with open(data / "postgresql.conf", "a") as conf:
            for key, value in {**self.SETTINGS, "port": self.port, "unix_socket_directories": self.folder}.items():
                conf.write(f"{key} = '{value}'\n")
        self.run("pg_ctl", "-D", str(data), "-l", str(self.folder / "log"), "-w", "start")
        return self

    def __exit__(self, *_) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def stop(self) -> None:
        if (self.folder / "data" / "postmaster.pid").exists():
            self.run("pg_ctl", "-D", str(self.folder / "data"), "-m", "fast", "-w", "stop", check=False)

    def run(self, program: str, *args: str, check: bool = True) -> None:
        command = [str(self.bin / program), *args]
        if os.geteuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        done = subprocess.run(command, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if check and done.returncode:
            raise SystemExit(f"{program} failed:\n{done.stdout}")

    def url(self, database: str) -> str:
        return f"postgres://bench@127.0.0.1:{self.port}/{database}"

    def psql(self, database: str) -> str:
        """A psql command line, for pipes."""
        return f"{self.bin}/psql -XqAt -v ON_ERROR_STOP=1 -d {self.url(database)}"

    def sql(self, text: str, database: str = "postgres") -> str:
        done = subprocess.run([*self.psql(database).split(), "-c", text], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{text[:200]}\n{done.stderr}")
        return done.stdout.strip()

    def fresh(self, database: str) -> None:
        self.sql(f"drop database if exists {database} with (force)")
        self.sql(f"create database {database}")
