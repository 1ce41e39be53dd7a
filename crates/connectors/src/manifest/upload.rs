//! Files that records point to: each is downloaded into a folder, and its record says where it lies.

use std::path::{Path, PathBuf};

use futures::{StreamExt, TryStreamExt};
use serde::Serialize;
use serde_json::{Map, Value, json};
use trib_core::{Code, Error, Result};
use trib_kit::http::shown;
use uuid::Uuid;

use super::env::Env;
use super::error_handler::body_json;
use super::node::{Expr, Node};
use super::options::Options;
use super::records::Records;
use super::requester::{Answer, Call, Requester};
use super::selector::Extractor;
use super::slice::Slice;
use super::template::python_str;

/// Files that are asked for at once within one page, as far as the connector's pace lets them.
const AT_ONCE: usize = 8;

/// Where a record's file lies, in the protocol's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileReference {
    /// The path on this machine.
    pub staging_file_url: String,
    /// Below the folder of all files: the stream, and the file's name.
    pub source_file_relative_path: String,
    pub file_size_bytes: u64,
}

/// A stream's `file_uploader`.
pub(super) struct FileUploader {
    requester: Requester,
    target: Extractor,
    /// Where the content stands in the answer; `None` for all of it.
    content: Option<Extractor>,
    name: Option<Expr>,
    folder: PathBuf,
}

impl FileUploader {
    /// `folder` is where files go; it is made with the first one.
    pub(super) fn build(env: &Env, node: &Node<'_>, folder: &Path) -> Result<Self> {
        Ok(Self {
            requester: Requester::build(env, &node.need("requester")?, false)?,
            target: Extractor::build(&node.need("download_target_extractor")?)?,
            content: node.get("file_extractor").map(|e| Extractor::build(&e)).transpose()?,
            name: node.expr("filename_extractor")?.filter(|name| !name.source().is_empty()),
            folder: std::path::absolute(folder)?,
        })
    }

    /// The files of these records, in their order. A record has none where the manifest ignores the answer.
    pub(super) async fn fetch(&self, env: &Env, stream: &str, records: &Records) -> Result<Vec<Option<FileReference>>> {
        let records: Vec<Value> = records.iter().map(|record| record.value()).collect();
        let files = futures::stream::iter(records).map(|record| self.fetch_one(env, stream, record));
        files.buffered(AT_ONCE).try_collect().await
    }

    async fn fetch_one(&self, env: &Env, stream: &str, record: Value) -> Result<Option<FileReference>> {
        let mut extracted = self.target.extract(env, &mut vec![record.clone()], true)?;
        if extracted.is_empty() {
            return Err(Error::new(Code::DataInvalid, "a record does not say where its file is").detail(self.at(&record)));
        }
        let Value::String(target) = extracted.swap_remove(0) else {
            return Err(Error::new(Code::DataInvalid, "where a record's file is should be text").detail(self.at(&record)));
        };
        let slice = Slice::default().with_extra("download_target", Value::String(target));
        let Answer::Response(response) = Box::pin(self.requester.send(env, Call::plain(&slice), Options::default())).await? else {
            return Err(Error::new(Code::SystemError, "a file cannot be asked for in smaller parts"));
        };
        if !response.ok() {
            tracing::warn!(url = shown(&response.url), status = response.status, "a record's file is not there");
            return Ok(None);
        }
        let content = match &self.content {
            None => response.body,
            Some(extractor) => match extractor.extract(env, &mut vec![body_json(&response)], false)?.into_iter().next() {
                Some(Value::String(text)) => text.into(),
                _ => return Err(Error::new(Code::DataInvalid, "the answer holds no file").detail(shown(&response.url))),
            },
        };
        let name = match &self.name {
            None => Uuid::new_v4().to_string(),
            Some(name) => name.text(&env.scope().with("record", &record))?,
        };
        let relative = below(stream, &name)?;
        let path = self.folder.join(&relative);
        write(&path, &content).await.map_err(|e| Error::from(e).file(path.display().to_string(), None, None))?;
        Ok(Some(FileReference {
            staging_file_url: path.display().to_string(),
            source_file_relative_path: relative,
            file_size_bytes: content.len() as u64,
        }))
    }

    /// Names the record by its fields, since its values may be private.
    fn at(&self, record: &Value) -> String {
        let fields: Vec<&str> = record.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        format!("it has the fields {}", fields.join(", "))
    }
}

/// The file's path below the folder, which a name that an API has given must not leave.
fn below(stream: &str, name: &str) -> Result<String> {
    let parts = |text: &str| -> Result<Vec<String>> {
        let parts: Vec<&str> = text.split('/').map(str::trim).filter(|p| !p.is_empty() && *p != ".").collect();
        if parts.is_empty() || parts.iter().any(|p| *p == ".." || p.contains(['\0', '\\'])) {
            return Err(Error::new(Code::DataInvalid, "this is no name for a file").detail(text.to_owned()));
        }
        Ok(parts.into_iter().map(str::to_owned).collect())
    };
    Ok([parts(stream)?, parts(name)?].concat().join("/"))
}

/// Whoever finds the file finds all of it.
async fn write(path: &Path, content: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        tokio::fs::create_dir_all(folder).await?;
    }
    let partial = path.with_file_name(format!(".{}.part", Uuid::new_v4()));
    tokio::fs::write(&partial, content).await?;
    let renamed = tokio::fs::rename(&partial, path).await;
    if renamed.is_err() {
        let _ = tokio::fs::remove_file(&partial).await;
    }
    renamed
}

/// The columns that tell where a record's file lies, with their JSON schemas.
pub(super) fn columns() -> Map<String, Value> {
    let text = json!({"type": ["string", "null"]});
    let columns = [
        ("staging_file_url", text.clone()),
        ("source_file_relative_path", text),
        ("file_size_bytes", json!({"type": ["integer", "null"]})),
    ];
    columns.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

/// Records with what is known of their files among their fields. `whole` names the one column of a stream whose schema has none.
pub(super) fn as_columns(records: &Records, whole: Option<&str>) -> Result<Records> {
    let files = records.files();
    let with_file = |(index, record): (usize, Value)| -> Result<Value> {
        let mut fields = match (whole, record) {
            (Some(name), record) => Map::from_iter([(name.to_owned(), record)]),
            (None, Value::Object(fields)) => fields,
            (None, other) => return Err(Error::new(Code::DataInvalid, "a record is no object").detail(python_str(&other))),
        };
        if let Some(Value::Object(file)) = files.get(index).map(serde_json::to_value).transpose()? {
            fields.extend(file);
        }
        Ok(Value::Object(fields))
    };
    let records = records.iter().map(|r| r.value()).enumerate().map(with_file).collect::<Result<Vec<_>>>()?;
    Records::of(&records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_below_the_folder() {
        for (name, path) in [
            ("a.pdf", "tickets/a.pdf"),
            ("/7/a.pdf/", "tickets/7/a.pdf"),
            ("7//./a b.pdf", "tickets/7/a b.pdf"),
            ("..a/b..", "tickets/..a/b.."),
        ] {
            assert_eq!(below("tickets", name).unwrap(), path);
        }
        for name in ["", "/", "../a", "a/../../b", "a\\b", "a\0", ".."] {
            assert_eq!(below("tickets", name).unwrap_err().code(), Code::DataInvalid, "{name:?}");
        }
        assert!(below("..", "a").is_err());
    }

    #[test]
    fn files_become_columns() {
        let file = FileReference { staging_file_url: "/f/s/a".into(), source_file_relative_path: "s/a".into(), file_size_bytes: 3 };
        let mut records = Records::of(&[json!({"id": 1}), json!({"id": 2})]).unwrap();
        records.attach(vec![Some(file), None]);
        let fields = json!({"staging_file_url": "/f/s/a", "source_file_relative_path": "s/a", "file_size_bytes": 3});
        let mut first = json!({"id": 1});
        first.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let given: Vec<Value> = as_columns(&records, None).unwrap().into_iter().collect();
        assert_eq!(given, [first, json!({"id": 2})]);
        let whole: Vec<Value> = as_columns(&records, Some("record")).unwrap().into_iter().collect();
        assert_eq!((&whole[0]["record"], &whole[0]["file_size_bytes"]), (&json!({"id": 1}), &json!(3)));
        assert!(columns().keys().all(|name| fields.get(name).is_some()));
    }
}
