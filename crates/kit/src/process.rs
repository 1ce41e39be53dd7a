//! Programs that work for a connector: started in a process group of their own, heard on both outputs, and never left behind.

use std::collections::{BTreeSet, VecDeque};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use trib_core::{Code, Error, Result};

/// Of a line that is longer, only the beginning is kept.
const LONGEST_LINE: usize = 8 << 10;
/// Lines that wait to be taken; older ones give way.
const WAITING_LINES: usize = 1000;
/// Lines that an error shows.
const LAST_LINES: usize = 12;
/// How long a program that was asked to end may take.
const GRACE: Duration = Duration::from_secs(5);

/// What to run.
#[derive(Clone, Debug)]
pub struct Program {
    pub program: PathBuf,
    pub args: Vec<String>,
    /// On top of this process's own.
    pub env: Vec<(String, String)>,
    pub dir: PathBuf,
}

/// A program that runs. When it is dropped, it is killed with all that it has started.
pub struct Process {
    child: Child,
    group: Group,
    name: String,
    /// What it has said on standard error.
    pub said: Said,
    listener: Option<JoinHandle<()>>,
}

/// What a program says on standard error: always read, so that it never waits, and bounded, so that a flood costs no memory.
#[derive(Clone, Default)]
pub struct Said(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    waiting: VecDeque<String>,
    last: VecDeque<String>,
    dropped: u64,
}

impl Said {
    /// The lines since the last call, and how many more there were that nobody took in time.
    pub fn take(&self) -> (Vec<String>, u64) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (lines.waiting.drain(..).collect(), std::mem::take(&mut lines.dropped))
    }

    /// The last lines of all.
    pub fn last(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).last.iter().cloned().collect()
    }

    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.last.len() == LAST_LINES {
            lines.last.pop_front();
        }
        lines.last.push_back(line.clone());
        if lines.waiting.len() == WAITING_LINES {
            lines.waiting.pop_front();
            lines.dropped += 1;
        }
        lines.waiting.push_back(line);
    }

    async fn listen(self, stderr: impl AsyncRead + Unpin) {
        let mut stderr = BufReader::new(stderr);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = (&mut stderr).take(LONGEST_LINE as u64).read_until(b'\n', &mut line).await;
            if !matches!(read, Ok(n) if n > 0) {
                return;
            }
            if line.last() != Some(&b'\n') && line.len() == LONGEST_LINE && !skip_line(&mut stderr).await {
                return;
            }
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end();
            if !text.is_empty() {
                self.push(text.to_owned());
            }
        }
    }
}

/// Reads on to the end of the line, without keeping it.
async fn skip_line(from: &mut (impl AsyncBufReadExt + Unpin)) -> bool {
    loop {
        let Ok(buffer) = from.fill_buf().await else { return false };
        if buffer.is_empty() {
            return false;
        }
        let end = buffer.iter().position(|b| *b == b'\n');
        let used = end.map_or(buffer.len(), |at| at + 1);
        from.consume(used);
        if end.is_some() {
            return true;
        }
    }
}

impl Process {
    /// Starts a program. `name` is what errors call it.
    pub fn start(program: &Program, name: &str) -> Result<Self> {
        let mut command = Command::new(&program.program);
        command.args(&program.args).envs(program.env.iter().cloned()).current_dir(&program.dir).process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| {
            let error = match e.kind() {
                std::io::ErrorKind::NotFound => {
                    Error::new(Code::NotFound, "there is no such program").hint("is it installed, and on the PATH?")
                }
                std::io::ErrorKind::PermissionDenied => Error::new(Code::PermissionDenied, "the program may not be run"),
                _ => Error::new(Code::Io, "the program could not be started"),
            };
            error.detail(program.program.display().to_string()).source(e)
        })?;
        let group = Group::new(child.id());
        let said = Said::default();
        let listener = child.stderr.take().map(|stderr| tokio::spawn(said.clone().listen(stderr)));
        Ok(Self { child, group, name: name.to_owned(), said, listener })
    }

    /// Its standard input, once. Dropping it is the end of the input.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Its standard output, once.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Waits for its end; an end that is no success is an error with what it said last.
    pub async fn finish(&mut self) -> Result<()> {
        let status = self.child.wait().await?;
        // What is left of its group has no work any more.
        self.group.kill();
        if let Some(listener) = self.listener.take() {
            let _ = tokio::time::timeout(GRACE, listener).await;
        }
        if status.success() {
            return Ok(());
        }
        Err(self.failed(status))
    }

    /// Asks it to end, and ends it when it does not.
    pub async fn stop(&mut self) {
        self.group.signal(libc::SIGTERM);
        if tokio::time::timeout(GRACE, self.child.wait()).await.is_err() {
            self.group.kill();
            let _ = self.child.wait().await;
        }
        self.group.kill();
    }

    fn failed(&self, status: ExitStatus) -> Error {
        let last = self.said.last();
        let said = if last.is_empty() { "it said nothing".to_owned() } else { last.join("\n") };
        Error::new(Code::SystemError, "a program has ended with an error").detail(format!("{}: {status}\n{said}", self.name))
    }
}

/// Process groups that must not outlive this process.
static GROUPS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());
/// Folders that must not either.
static FOLDERS: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Kills every program that still runs, and removes what only they were to read. For the very end of this process, when what owns
/// them may not be dropped any more.
pub fn end_all() {
    let groups = std::mem::take(&mut *GROUPS.lock().unwrap_or_else(PoisonError::into_inner));
    for group in groups {
        send(group, libc::SIGKILL);
    }
    let folders = std::mem::take(&mut *FOLDERS.lock().unwrap_or_else(PoisonError::into_inner));
    for folder in folders {
        let _ = std::fs::remove_dir_all(folder);
    }
}

/// A temporary folder that only this user can read, for files that a program is given: settings with secrets in them.
pub struct PrivateFolder(tempfile::TempDir);

impl PrivateFolder {
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("trib-").permissions(std::fs::Permissions::from_mode(0o700)).tempdir()?;
        FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.path().to_owned());
        Ok(Self(folder))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file that only this user can read.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<PathBuf> {
        let path = self.0.path().join(name);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(content)?;
        Ok(path)
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).remove(self.0.path());
    }
}

struct Group(Option<i32>);

impl Group {
    fn new(leader: Option<u32>) -> Self {
        let leader = leader.and_then(|id| i32::try_from(id).ok());
        GROUPS.lock().unwrap_or_else(PoisonError::into_inner).extend(leader);
        Self(leader)
    }

    fn signal(&self, signal: i32) {
        if let Some(group) = self.0 {
            send(group, signal);
        }
    }

    /// Once: its number may be another's later.
    fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        if let Some(group) = self.0.take() {
            GROUPS.lock().unwrap_or_else(PoisonError::into_inner).remove(&group);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

#[allow(unsafe_code, reason = "the standard library cannot signal a process group")]
fn send(group: i32, signal: i32) {
    // SAFETY: takes two numbers and touches no memory of ours. The group was made by us, so it is never 0 or 1.
    unsafe {
        libc::killpg(group, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        let program = Program { program: "sh".into(), args: vec!["-c".into(), script.into()], env: Vec::new(), dir: ".".into() };
        Process::start(&program, "the script").unwrap()
    }

    fn alive(pid: &str) -> bool {
        // A process that was killed and not waited for by its new parent is a zombie: as dead as can be.
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    }

    #[tokio::test]
    async fn what_it_started_ends_with_it() {
        let mut process = shell("sleep 1000 & echo $!; wait");
        let mut pid = String::new();
        BufReader::new(process.stdout().unwrap()).read_line(&mut pid).await.unwrap();
        assert!(alive(pid.trim()));
        drop(process);
        while alive(pid.trim()) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_failure_shows_the_last_words() {
        let mut process = shell("head -c 1000000 /dev/zero | tr '\\0' x >&2; echo >&2; echo why >&2; exit 3");
        let error = process.finish().await.unwrap_err();
        assert!(error.to_string().contains("exit status: 3"), "{error}");
        let last = process.said.last();
        assert_eq!(last[1], "why");
        assert_eq!(last[0].len(), LONGEST_LINE);
    }

    #[tokio::test]
    async fn no_such_program() {
        let program = Program { program: "/no/such/program".into(), args: vec![], env: vec![], dir: ".".into() };
        assert_eq!(Process::start(&program, "it").err().unwrap().code(), Code::NotFound);
    }
}
