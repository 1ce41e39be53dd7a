//! `pip:` — a Python environment of a tap's own, made once, with `uv` where it is there.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::trib::{Folder, Said, ok, said};

/// A project with a tap in a wheel of its own, so that nothing is fetched.
fn project(pip: &str) -> Folder {
    let folder = Folder::with(&[
        ("tributary.yaml", "name: t\n"),
        ("connections.yaml", &format!("tap: {{connector: singer, tap: tap-own, pip: \"{pip}\"}}\n")),
        (
            "tap_own.py",
            "import sys\ndef main():\n    print('{\"streams\": [{\"tap_stream_id\": \"python-%d\", \"schema\": {\"properties\": {\"id\": {\"type\": \"integer\"}}}}]}' % sys.version_info[0])\n",
        ),
        (
            "wheel.py",
            r"import zipfile
with zipfile.ZipFile('tap_own-0.1-py3-none-any.whl', 'w') as wheel:
    wheel.write('tap_own.py')
    info = 'tap_own-0.1.dist-info/'
    files = {'METADATA': 'Metadata-Version: 2.1\nName: tap-own\nVersion: 0.1\n', 'WHEEL': 'Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
             'entry_points.txt': '[console_scripts]\ntap-own = tap_own:main\n'}
    for name, text in files.items(): wheel.writestr(info + name, text)
    wheel.writestr(info + 'RECORD', 'tap_own.py,,\n' + ''.join(f'{info}{name},,\n' for name in [*files, 'RECORD']))
",
        ),
    ]);
    let made = Command::new("python3").arg("wheel.py").current_dir(folder.path()).status().unwrap();
    assert!(made.success());
    folder
}

const WHEEL: &str = "./tap_own-0.1-py3-none-any.whl";

/// A folder to be the whole PATH: Python, what it needs, and `uv` when it is wanted. Each call of `uv` leaves a line in `calls`.
fn path(folder: &Folder, uv: bool) -> PathBuf {
    let bin = folder.path().join("bin");
    fs::create_dir_all(&bin).unwrap();
    // Not a version manager's script that stands for it.
    let python = Command::new("python3").args(["-c", "import sys; print(sys.executable, end='')"]).output().unwrap().stdout;
    for (name, program) in [("python3", String::from_utf8(python).unwrap()), ("sh", "/bin/sh".to_owned())] {
        symlink(fs::canonicalize(program).unwrap(), bin.join(name)).unwrap();
    }
    if uv {
        let real = trib_testkit::python_venv::bin("uv", &["uv"]).unwrap().join("uv");
        let calls = folder.path().join("calls");
        fs::write(bin.join("uv"), format!("#!/bin/sh\necho \"$1\" >> {}\nexec {} \"$@\"\n", calls.display(), real.display())).unwrap();
        fs::set_permissions(bin.join("uv"), fs::Permissions::from_mode(0o755)).unwrap();
    }
    bin
}

fn discover(folder: &Folder, path: &Path) -> Command {
    let mut command = folder.command(&["discover", "tap"]);
    command.env("PATH", path).env("XDG_CACHE_HOME", folder.path().join("cache")).env("UV_CACHE_DIR", folder.path().join("uv-cache"));
    command
}

fn environments(folder: &Folder) -> usize {
    let made = fs::read_dir(folder.path().join("cache/tributary/programs")).unwrap();
    made.filter(|e| e.as_ref().unwrap().path().join("ready").exists()).count()
}

#[test]
fn made_once_with_uv_or_without() {
    for uv in [true, false] {
        let folder = project(WHEEL);
        let path = path(&folder, uv);
        // Several at the same time, none of which may find the other's work half done.
        let start = || discover(&folder, &path).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let all: Vec<_> = (0..3).map(|_| start()).collect();
        for one in all {
            let found: Said = said(one.wait_with_output().unwrap());
            ok(&found);
            assert!(found.out.contains("python-3"), "{}", found.all());
        }
        assert_eq!(environments(&folder), 1);
        let calls = || fs::read_to_string(folder.path().join("calls")).unwrap_or_default();
        assert_eq!(calls(), if uv { "venv\npip\n" } else { "" });
        // Another Python is another environment; the first one stays.
        let python = fs::canonicalize(path.join("python3")).unwrap();
        folder
            .write("connections.yaml", &format!("tap: {{connector: singer, tap: tap-own, pip: {WHEEL}, python: {}}}\n", python.display()));
        ok(&said(discover(&folder, &path).output().unwrap()));
        assert_eq!(environments(&folder), 2);
        // A Python that is gone takes its environments with it: they are made again.
        for made in fs::read_dir(folder.path().join("cache/tributary/programs")).unwrap().map(|e| e.unwrap().path().join("bin/python")) {
            if made.is_symlink() {
                fs::remove_file(&made).unwrap();
                symlink("/no/such/python", &made).unwrap();
            }
        }
        ok(&said(discover(&folder, &path).output().unwrap()));
    }
}

#[test]
fn what_cannot_be_installed() {
    let cases = [
        ("./missing-1.0-py3-none-any.whl", "missing-1.0"),
        ("tap-own<>1", "tap-own"),
        ("https://someone:hunter2@127.0.0.1:9/tap_own-0.1-py3-none-any.whl", "127.0.0.1"),
    ];
    for uv in [true, false] {
        for (pip, expected) in cases {
            let folder = project(pip);
            let path = path(&folder, uv);
            let failed = said(discover(&folder, &path).env("PIP_RETRIES", "0").env("UV_HTTP_RETRIES", "0").output().unwrap());
            assert_ne!(failed.status, Some(0), "{pip}");
            for part in ["the Python environment could not be made", "pip", expected] {
                assert!(failed.err.contains(part), "{part} in {}", failed.err);
            }
            assert!(!failed.all().contains("hunter2"), "{}", failed.all());
            assert_eq!(environments(&folder), 0, "{pip}");
        }
    }
    let folder = project(WHEEL);
    folder.write("connections.yaml", &format!("tap: {{connector: singer, tap: tap-other, pip: {WHEEL}}}\n"));
    let failed = said(discover(&folder, &path(&folder, false)).output().unwrap());
    assert!(failed.err.contains("the packages have no program of this name") && failed.err.contains("tap-own"), "{}", failed.err);
    let empty = folder.path().join("empty");
    fs::create_dir_all(&empty).unwrap();
    folder.write("connections.yaml", "tap: {connector: singer, tap: tap-own, pip: nothing}\n");
    let failed = said(discover(&folder, &empty).output().unwrap());
    assert!(failed.err.contains("there is no Python to make an environment with"), "{}", failed.err);
}
