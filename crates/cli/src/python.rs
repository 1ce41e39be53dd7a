//! The Python that a script model runs in: the machine's, or an environment of its own with what it requires.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use trib_core::{Code, Error, Result};
use trib_kit::process::{Process, Program};

/// Making an environment downloads packages.
const PATIENCE: Duration = Duration::from_mins(15);
/// In an environment that is whole: what is installed in it, as `pip freeze` says.
const FROZEN: &str = "frozen.txt";

/// The interpreter for these requirements. An environment is made once, below `home`, and found again while they stay the same.
pub async fn interpreter(requirements: &[String], home: &Path) -> Result<PathBuf> {
    if requirements.is_empty() {
        return installed();
    }
    let mut digest = Sha256::new();
    requirements.iter().for_each(|r| digest.update(format!("{r}\n")));
    let folder = home.join(&hex::encode(digest.finalize())[..16]);
    let python = folder.join("bin").join("python");
    std::fs::create_dir_all(home)?;
    // Two scripts that require the same wait for one another.
    let lock = std::fs::File::create(folder.with_extension("lock"))?;
    let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock))
        .await
        .map_err(|_| Error::internal("waiting for a lock has panicked"))??;
    if !folder.join(FROZEN).exists() {
        make(&folder, &python, requirements).await?;
    }
    drop(lock);
    Ok(python)
}

/// With `uv` where it is there, which is faster; with what Python brings along otherwise.
async fn make(folder: &Path, python: &Path, requirements: &[String]) -> Result<()> {
    let (place, interpreter) = (folder.to_string_lossy().into_owned(), python.to_string_lossy().into_owned());
    let owned = |args: &[&str]| args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>();
    let frozen = if let Some(uv) = found(&["uv"]) {
        run(&uv, owned(&["venv", "--quiet", "--clear", &place])).await?;
        run(&uv, [owned(&["pip", "install", "--quiet", "--python", &interpreter]), requirements.to_vec()].concat()).await?;
        run(&uv, owned(&["pip", "freeze", "--python", &interpreter])).await?
    } else {
        run(&installed()?, owned(&["-m", "venv", "--clear", &place])).await?;
        run(python, [owned(&["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]), requirements.to_vec()].concat()).await?;
        run(python, owned(&["-m", "pip", "freeze"])).await?
    };
    // Written last: an environment without it is not whole, and is made again.
    Ok(std::fs::write(folder.join(FROZEN), frozen)?)
}

async fn run(program: &Path, args: Vec<String>) -> Result<String> {
    let name = program.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let program = Program { program: program.to_owned(), args, env: Vec::new(), dir: std::env::current_dir()? };
    let failed = |e: Error| {
        Error::new(Code::ScriptFailed, "the script's environment could not be made")
            .detail(e.detail_text().unwrap_or_default())
            .hint("`requirements:` are what pip takes: `pyarrow==22.0.0`")
            .source(e)
    };
    let mut process = Process::start(&program, &name)?;
    let mut output = process.stdout().ok_or_else(|| Error::internal("a process without an output"))?;
    let mut said = String::new();
    let work = async {
        tokio::io::AsyncReadExt::read_to_string(&mut output, &mut said).await?;
        process.finish().await
    };
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(ended) => ended.map_err(failed)?,
        Err(_) => return Err(Error::new(Code::ScriptFailed, "making the script's environment took longer than it may").detail(name)),
    }
    Ok(said)
}

fn installed() -> Result<PathBuf> {
    found(&["python3", "python"]).ok_or_else(|| {
        Error::new(Code::NotFound, "there is no Python to run the script with").hint("install Python 3, or put `python3` on the PATH")
    })
}

fn found(names: &[&str]) -> Option<PathBuf> {
    let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
    names.iter().flat_map(|name| folders.iter().map(move |f| f.join(name))).find(|path| path.is_file())
}
