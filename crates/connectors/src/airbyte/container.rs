//! The container that an image runs in. It does not end with the program that has started it, so it says whose it is: the next one that looks removes what nobody
//! owns any more.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::timeout;

/// The label that names the process that a container belongs to.
const OWNER: &str = "tributary.process";
/// An engine that does not answer will not run anything either, and says so then.
const PATIENCE: Duration = Duration::from_secs(20);

/// Removed when it is dropped.
pub(super) struct Container(pub(super) String);

impl Container {
    pub(super) fn new() -> Self {
        Self(format!("trib-{}", uuid::Uuid::new_v4().simple()))
    }

    /// Docker has removed it.
    pub(super) fn gone(self) {
        std::mem::forget(self);
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let remove = Command::new("docker")
            .args(["rm", "--force", &self.0])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        if let Ok(mut remove) = remove {
            std::thread::spawn(move || remove.wait());
        }
    }
}

/// Removes containers of processes that were killed. Once in a process's life is enough.
pub(super) async fn sweep() {
    static SWEPT: OnceCell<()> = OnceCell::const_new();
    SWEPT.get_or_init(|| async { drop(timeout(PATIENCE, remove_orphans()).await) }).await;
}

async fn remove_orphans() -> Option<()> {
    let own = owner(std::process::id())?;
    let docker = |args: &[&str]| tokio::process::Command::new("docker").args(args).stdin(Stdio::null()).kill_on_drop(true).output();
    let format = format!("{{{{.ID}}}} {{{{.Label \"{OWNER}\"}}}}");
    let listed = docker(&["ps", "--all", "--filter", &format!("label={OWNER}"), "--format", &format]).await.ok()?;
    let listed = String::from_utf8(listed.stdout).ok()?;
    let orphans: Vec<&str> =
        listed.lines().filter_map(|line| line.split_once(' ')).filter(|(_, label)| is_orphan(label, &own)).map(|(id, _)| id).collect();
    if !orphans.is_empty() {
        tracing::info!(containers = orphans.len(), "containers of a run that was killed are removed");
        docker(&[["rm", "--force"].as_slice(), orphans.as_slice()].concat()).await.ok()?;
    }
    Some(())
}

/// A process that no other one is: the machine since it was started, what its processes are counted in, the process's number and when it began. Where that cannot be
/// said, nothing is labelled, and nothing removed.
fn owner(pid: u32) -> Option<String> {
    let machine = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let counted_in = fs::read_link("/proc/self/ns/pid").ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, a bracket too.
    let after_name: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let (state, began) = (after_name.first()?, after_name.get(19)?);
    (*state != "Z").then(|| format!("{}/{}/{pid}/{began}", machine.trim(), counted_in.display()))
}

/// Whether this is the label of a process of the same kind as our own, and it has ended.
fn is_orphan(label: &str, own: &str) -> bool {
    let parts = |label: &str| -> Option<(String, u32)> {
        let (process, _) = label.rsplit_once('/')?;
        let (place, pid) = process.rsplit_once('/')?;
        Some((place.to_owned(), pid.parse().ok()?))
    };
    match (parts(label), parts(own)) {
        (Some((place, pid)), Some((here, _))) => place == here && owner(pid).as_deref() != Some(label),
        _ => false,
    }
}

/// Docker's arguments for a call, up to the connector's own. The files are this user's and nobody else's, so the container is this user too.
pub(super) fn run<'a>(image: &str, name: &str, folder: &Path, env: impl Iterator<Item = &'a String>, input: bool) -> Vec<String> {
    let folder = folder.display();
    let mut args = ["run", "--rm", "--init", "--name", name, "--user"].map(str::to_owned).to_vec();
    if input {
        args.insert(1, "--interactive".to_owned());
    }
    args.push(user());
    if let Some(owner) = owner(std::process::id()) {
        args.extend(["--label".to_owned(), format!("{OWNER}={owner}")]);
    }
    args.extend(["--volume".to_owned(), format!("{folder}:{folder}:ro")]);
    // By name alone, the value is taken from our own environment and stands on no command line.
    args.extend(env.flat_map(|name| ["--env".to_owned(), name.clone()]));
    args.push(image.to_owned());
    args
}

fn user() -> String {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").map_or_else(|_| "0:0".to_owned(), |own| format!("{}:{}", own.uid(), own.gid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_given_the_files_and_no_secrets() {
        let args = run("a/source-x:1", "trib-1", Path::new("/tmp/x"), ["KEY".to_owned()].iter(), true);
        let joined = args.join(" ");
        assert!(joined.starts_with("run --interactive --rm"), "{joined}");
        assert!(joined.ends_with("--volume /tmp/x:/tmp/x:ro --env KEY a/source-x:1"), "{joined}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn only_what_a_dead_process_of_this_machine_has_left_is_an_orphan() {
        let own = owner(std::process::id()).unwrap();
        assert!(!is_orphan(&own, &own));
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let childs = owner(child.id()).unwrap();
        assert!(!is_orphan(&childs, &own));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_orphan(&childs, &own));
        // Its number may belong to another process by now.
        let (process, _) = own.rsplit_once('/').unwrap();
        assert!(is_orphan(&format!("{process}/1"), &own));
        let elsewhere = format!("another-machine/pid:[1]/{}/1", child.id());
        assert!(!is_orphan(&elsewhere, &own) && !is_orphan("", &own) && !is_orphan("a/b", &own));
    }
}
