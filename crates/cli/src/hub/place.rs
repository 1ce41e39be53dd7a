//! A file that is named by a URL or by a path.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use trib_core::secret::redact_url;
use trib_core::{Code, Error, Result};
use trib_kit::http::{Client, Request};
use url::Url;

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub enum Place {
    Url(Url),
    Path(PathBuf),
}

/// Without user, password and query.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Url(url) => f.write_str(&redact_url(url.as_str())),
            Place::Path(path) => path.display().fmt(f),
        }
    }
}

impl Place {
    /// What looks like a web address is one, all else is a path.
    pub fn parse(text: &str) -> Result<Self> {
        if text.starts_with("http://") || text.starts_with("https://") {
            let url = Url::parse(text).map_err(|_| Error::new(Code::UsageInvalid, "this is no URL").detail(redact_url(text)))?;
            return Ok(Place::Url(url));
        }
        Ok(Place::Path(text.into()))
    }

    /// A file relative to the folder that this one stands in, as links are.
    pub fn beside(&self, relative: &str) -> Result<Self> {
        Ok(match self {
            Place::Url(url) => {
                let joined = url.join(relative).map_err(|e| Error::internal("a relative address does not fit").source(e))?;
                Place::Url(joined)
            }
            Place::Path(path) => {
                let mut folder = path.parent().map(PathBuf::from).unwrap_or_default();
                for part in relative.split('/') {
                    match part {
                        ".." if folder.pop() => {}
                        part => folder.push(part),
                    }
                }
                Place::Path(folder)
            }
        })
    }

    /// The whole file; `NotFound` when it is not there.
    pub async fn read(&self) -> Result<String> {
        let shown = self.to_string();
        let bytes = match self {
            Place::Path(path) => tokio::fs::read(path).await.map_err(|e| Error::from(e).file(&shown, None, None))?,
            Place::Url(url) => {
                let client = Client::new(concat!("tributary/", env!("CARGO_PKG_VERSION")), PATIENCE)?;
                let answer = client.send(Request::get(url.clone())).await?;
                match answer.status {
                    200 => answer.body.to_vec(),
                    404 => return Err(Error::new(Code::NotFound, "the file is not there").detail(shown)),
                    status => {
                        return Err(
                            Error::new(Code::Unavailable, "the file could not be fetched").detail(format!("{shown} answered {status}"))
                        );
                    }
                }
            }
        };
        String::from_utf8(bytes).map_err(|_| Error::new(Code::DataInvalid, "the file is not UTF-8 text").detail(shown))
    }

    /// `None` when it is not there.
    pub async fn read_if_there(&self) -> Result<Option<String>> {
        match self.read().await {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.code() == Code::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beside_is_as_links_are() {
        for (file, relative, expected) in [
            ("https://a.example/f/registries/v0/r.json", "../../metadata/x.yaml", "https://a.example/f/metadata/x.yaml"),
            ("/f/registries/v0/r.json", "../../metadata/x.yaml", "/f/metadata/x.yaml"),
            ("manifest.yaml", "metadata.yaml", "metadata.yaml"),
        ] {
            assert_eq!(Place::parse(file).unwrap().beside(relative).unwrap().to_string(), expected);
        }
    }
}
