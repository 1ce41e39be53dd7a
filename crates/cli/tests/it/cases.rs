//! The black-box cases of `tests/cases`, in the form that `tests/README.md` describes.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::trib::{Folder, Said, said};

/// Where each run dies in the second round: in the middle of its first load.
const FAULT: &str = "staged";

#[derive(Clone, Copy, PartialEq)]
enum Round {
    Straight,
    Killed,
}

#[test]
fn straight() {
    all(Round::Straight);
}

#[test]
fn each_run_killed_once() {
    all(Round::Killed);
}

fn all(round: Round) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cases");
    let mut cases: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()).collect();
    cases.sort();
    let only = std::env::var("TRIB_CASE").unwrap_or_default();
    let mut failures = Vec::new();
    for case in cases.iter().filter(|c| c.to_string_lossy().contains(&only)) {
        let name = case.file_name().unwrap().to_string_lossy();
        if let Err(why) = run(case, round) {
            failures.push(format!("{name}: {why}"));
        }
    }
    assert!(failures.is_empty(), "{} of {} cases:\n\n{}", failures.len(), cases.len(), failures.join("\n\n"));
}

fn run(case: &Path, round: Round) -> Result<(), String> {
    let text = fs::read_to_string(case.join("case.yaml")).map_err(|e| e.to_string())?;
    let spec = trib_project::yaml::parse("case.yaml", &text, 1).map_err(|e| format!("{e:?}"))?.to_json();
    let mut folder = Folder::new();
    for (name, value) in spec["env"].as_object().into_iter().flatten() {
        folder.set(name, &plain(value));
    }
    copy(&case.join("project"), folder.path());
    for (i, step) in spec["steps"].as_array().ok_or("a case has steps")?.iter().enumerate() {
        one(case, &folder, step, round).map_err(|why| format!("step {}: {why}", i + 1))?;
    }
    Ok(())
}

fn one(case: &Path, folder: &Folder, step: &Value, round: Round) -> Result<(), String> {
    if let Some(files) = step["files"].as_str() {
        copy(&case.join(files), folder.path());
        return Ok(());
    }
    if let Some(sqlite) = step.get("sqlite") {
        let file = folder.path().join(text(sqlite, "file")?);
        fs::create_dir_all(file.parent().unwrap()).map_err(|e| e.to_string())?;
        let script = fs::read_to_string(case.join(text(sqlite, "script")?)).map_err(|e| e.to_string())?;
        let connection = rusqlite::Connection::open(file).map_err(|e| e.to_string())?;
        return connection.execute_batch(&script).map_err(|e| e.to_string());
    }
    if let Some(expect) = step.get("expect") {
        return rows(case, folder, text(expect, "query")?, text(expect, "rows")?);
    }
    let args: Vec<String> = step["trib"].as_array().ok_or("a step has one of trib, expect, files, sqlite")?.iter().map(plain).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if round == Round::Killed && args.first() == Some(&"run") {
        // Where there is nothing to load it ends by itself.
        folder.command(&args).env("TRIB_FAULT", FAULT).output().map_err(|e| e.to_string())?;
    }
    let said = folder.trib(&args);
    let shown = |what: String| format!("trib {}: {what}\n{}", args.join(" "), said.all());
    let exit = step["exit"].as_i64().unwrap_or(0);
    if said.status.map(i64::from) != Some(exit) {
        return Err(shown(format!("exit status {:?}, expected {exit}", said.status)));
    }
    // What a run has rejected, a killed one may have rejected before it.
    for wanted in step["output"].as_array().into_iter().flatten().map(plain) {
        if !said.all().contains(&wanted) {
            return Err(shown(format!("{wanted:?} does not occur")));
        }
    }
    for unwanted in step["absent"].as_array().into_iter().flatten().map(plain) {
        if said.all().contains(&unwanted) {
            return Err(shown(format!("{unwanted:?} occurs")));
        }
    }
    Ok(())
}

fn rows(case: &Path, folder: &Folder, query: &str, expected: &str) -> Result<(), String> {
    let expected = fs::read_to_string(case.join(expected)).map_err(|e| e.to_string())?;
    let mut expected = csv(&expected);
    let header = expected.remove(0);
    let Said { status, out, err } = said(folder.command(&["query", "--json", query]).output().map_err(|e| e.to_string())?);
    if status != Some(0) {
        return Err(format!("{query}\n{out}{err}"));
    }
    let found: Vec<serde_json::Map<String, Value>> = serde_json::from_str(&out).map_err(|e| format!("{e}: {out}"))?;
    if let Some(first) = found.first() {
        let names: Vec<&str> = first.keys().map(String::as_str).collect();
        if names != header {
            return Err(format!("{query}\ncolumns {names:?}, expected {header:?}"));
        }
    }
    let found: Vec<Vec<String>> = found.iter().map(|row| row.values().map(plain).collect()).collect();
    if found == expected {
        return Ok(());
    }
    let lines = |rows: &[Vec<String>]| rows.iter().map(|r| r.join(" | ")).collect::<Vec<_>>().join("\n");
    Err(format!("{query}\nfound:\n{}\nexpected:\n{}", lines(&found), lines(&expected)))
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str, String> {
    value[key].as_str().ok_or_else(|| format!("`{key}` is missing"))
}

/// A value as it stands in an expectation.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Comma, double quotes, and nothing else that CSV might be.
fn csv(text: &str) -> Vec<Vec<String>> {
    let mut rows = vec![vec![String::new()]];
    let mut quoted = false;
    let mut chars = text.trim_end_matches('\n').chars().peekable();
    while let Some(c) = chars.next() {
        let row = rows.last_mut().unwrap();
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => row.last_mut().unwrap().push(chars.next().unwrap()),
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(String::new()),
            '\n' if !quoted => rows.push(vec![String::new()]),
            c => row.last_mut().unwrap().push(c),
        }
    }
    rows
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
