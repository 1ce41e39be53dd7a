//! The files of a project folder.

use std::path::{Path, PathBuf};

use trib_core::{Code, Error, Result};

/// A file that was read, named relative to the project with `/`.
#[derive(Clone, Debug)]
pub struct Text {
    pub name: String,
    pub text: String,
}

impl Text {
    /// The name of the node that the file declares: `syncs/shop.yaml` declares `shop`.
    pub fn stem(&self) -> &str {
        let file = self.name.rsplit('/').next().unwrap_or(&self.name);
        file.rsplit_once('.').map_or(file, |(stem, _)| stem)
    }
}

/// The file, or `None` when it is not there.
pub fn read(dir: &Path, name: &str) -> Result<Option<Text>> {
    match std::fs::read_to_string(dir.join(name)) {
        Ok(text) => Ok(Some(Text { name: name.to_owned(), text })),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
            let error = Error::new(Code::ConfigInvalid, "the file is not UTF-8 text").hint("save it as UTF-8");
            Err(error.file(name, None, None))
        }
        Err(e) => Err(Error::from(e).file(name, None, None)),
    }
}

/// All files below `folder` with one of these extensions, in the order of their names; none when the folder is not there.
pub fn read_all(dir: &Path, folder: &str, extensions: &[&str], deep: bool, errors: &mut Vec<Error>) -> Vec<Text> {
    let mut names = Vec::new();
    if let Err(e) = list(&dir.join(folder), folder, extensions, deep, &mut names) {
        errors.push(Error::from(e).file(folder, None, None));
    }
    names.sort();
    let mut texts = Vec::new();
    for name in names {
        match read(dir, &name) {
            Ok(text) => texts.extend(text),
            Err(e) => errors.push(e),
        }
    }
    texts
}

fn list(folder: &Path, shown: &str, extensions: &[&str], deep: bool, names: &mut Vec<String>) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path: PathBuf = entry?.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()).filter(|n| !n.starts_with('.')) else { continue };
        let below = format!("{shown}/{name}");
        if path.is_dir() {
            if deep {
                list(&path, &below, extensions, deep, names)?;
            }
        } else if path.extension().and_then(|e| e.to_str()).is_some_and(|e| extensions.contains(&e)) {
            names.push(below);
        }
    }
    Ok(())
}
