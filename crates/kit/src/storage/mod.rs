//! Files, wherever they are: local, S3, Google Cloud Storage, Azure, HTTP.

use std::collections::BTreeMap;
use std::path::Path as FsPath;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use object_store::http::{HttpBuilder, HttpStore};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ClientOptions, HeaderMap, HeaderValue, ObjectStore, ObjectStoreScheme, RetryConfig, parse_url_opts};
use trib_core::secret::redact_url;
use trib_core::{Code, Error, Result, Secret};
use url::{Position, Url};

mod failure;

pub use failure::{error, status, within};

/// A place in a store.
#[derive(Clone, Debug)]
pub struct Location {
    pub store: Arc<dyn ObjectStore>,
    pub path: Path,
    /// As it may be shown.
    pub shown: String,
    /// The folder or file itself, when it is local.
    pub local: Option<std::path::PathBuf>,
}

/// Opens a URL or a local path. Relative paths start at `base`. `options` are `object_store`'s own keys (`aws_access_key_id`,
/// `endpoint`, `google_service_account`, …); what they leave out is taken from the environment. Does no I/O.
pub fn open(location: &str, options: &BTreeMap<String, Secret>, base: &FsPath) -> Result<Location> {
    match Url::parse(location) {
        Ok(url) if url.scheme() == "file" => {
            let path = url.to_file_path().map_err(|()| invalid(location))?;
            local(&path)
        }
        // One letter is a drive, not a scheme.
        Ok(url) if url.scheme().len() > 1 => remote(&url, options),
        _ => local(&base.join(location)),
    }
}

fn local(path: &FsPath) -> Result<Location> {
    let absolute = std::path::absolute(path)?;
    let inner = Path::from_absolute_path(&absolute).map_err(|e| error(e.into(), &absolute.to_string_lossy()))?;
    Ok(Location {
        store: Arc::new(LocalFileSystem::new()),
        path: inner,
        shown: absolute.to_string_lossy().into_owned(),
        local: Some(absolute),
    })
}

fn remote(url: &Url, options: &BTreeMap<String, Secret>) -> Result<Location> {
    const PREFIXES: [&str; 4] = ["AWS_", "AZURE_", "GOOGLE_", "OBJECT_STORE_"];
    let environment = std::env::vars().filter(|(k, _)| PREFIXES.iter().any(|p| k.starts_with(p)));
    let declared = options.iter().map(|(k, v)| (k.clone(), v.expose().to_owned()));
    // Who writes `http://` means it.
    let plain = url.scheme() == "http" || options.values().any(|v| v.expose().starts_with("http://"));
    let allowed = plain.then(|| ("allow_http".to_owned(), "true".to_owned()));
    let all = allowed.into_iter().chain(environment.map(|(k, v)| (k.to_lowercase(), v))).chain(declared);
    let located = |e| error(e, url.as_str());
    let (store, path): (Arc<dyn ObjectStore>, Path) = match ObjectStoreScheme::parse(url) {
        Ok((ObjectStoreScheme::Http, path)) => (Arc::new(http(url, all).map_err(located)?), path),
        _ if url.password().is_some() || !url.username().is_empty() && !url.scheme().starts_with("abfs") => {
            return Err(invalid(url.as_str()).hint("a URL of an object store has no user and password: name its keys under `storage:`"));
        }
        _ => {
            let (store, path) = parse_url_opts(url, all).map_err(located)?;
            (Arc::from(store), path)
        }
    };
    Ok(Location { store, path, shown: redact_url(url.as_str()), local: None })
}

/// A server that is asked for files by plain HTTP. User and password of the URL are sent as a header, so that no error shows them.
fn http(url: &Url, options: impl Iterator<Item = (String, String)>) -> object_store::Result<HttpStore> {
    // Loads are tried again as a whole: what cannot be reached is soon said.
    let retry = RetryConfig { max_retries: 3, ..RetryConfig::default() };
    let mut client = ClientOptions::new();
    if !url.username().is_empty() || url.password().is_some() {
        let part = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        let login = format!("{}:{}", part(url.username()), part(url.password().unwrap_or_default()));
        let mut value = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(login)))
            .map_err(|e| object_store::Error::Generic { store: "HTTP", source: Box::new(e) })?;
        value.set_sensitive(true);
        let mut headers = HeaderMap::new();
        headers.insert("authorization", value);
        client = client.with_default_headers(headers);
    }
    let mut bare = url.clone();
    // Both fail only for URLs that cannot have a user.
    let _ = bare.set_username("");
    let _ = bare.set_password(None);
    let builder = HttpBuilder::new().with_client_options(client).with_retry(retry).with_url(&bare[..Position::BeforePath]);
    options
        .fold(builder, |builder, (key, value)| match key.to_lowercase().parse() {
            Ok(key) => builder.with_config(key, value),
            Err(_) => builder,
        })
        .build()
}

fn invalid(location: &str) -> Error {
    Error::new(Code::ConfigInvalid, "the location is not a path or URL that can be opened").detail(shown(location))
}

/// A path as it is, and a URL as it may be shown.
pub fn shown(location: &str) -> String {
    if location.contains("://") { redact_url(location) } else { location.to_owned() }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;
    use object_store::ObjectStoreExt;
    use trib_core::Retry;
    use trib_testkit::http_fault::{Fate, HttpProxy};

    use super::*;

    fn at(url: &str) -> Result<Location> {
        open(url, &BTreeMap::new(), FsPath::new("."))
    }

    #[tokio::test]
    async fn answers_have_codes_and_show_no_secret() {
        let cases = [
            (429, "", Code::RateLimited),
            (503, "<Error><Code>SlowDown</Code></Error>", Code::RateLimited),
            (500, "", Code::ConnectionLost),
            (504, "", Code::Timeout),
            (507, "", Code::ResourceExhausted),
            (401, "", Code::AuthFailed),
            (403, "", Code::PermissionDenied),
            (404, "", Code::NotFound),
            (418, "", Code::SystemError),
        ];
        let ask = async |(status, body, code): (u16, &'static str, Code)| {
            let proxy = HttpProxy::start(([127, 0, 0, 1], 1).into(), move |_| Fate::Refused(status, body)).await.unwrap();
            let location = at(&format!("http://hunter2:hunter2@{}/x.csv?token=hunter2", proxy.address())).unwrap();
            let error = error(location.store.get(&location.path).await.unwrap_err(), &location.shown);
            assert_eq!(error.code(), code, "{status}: {error:?}");
            assert_eq!(error.code().retry() == Retry::Backoff, matches!(status, 429 | 500..), "{status}");
            assert!(!format!("{error:?}{}", error.to_json()).contains("hunter2"), "{error:?}");
        };
        join_all(cases.map(ask)).await;
    }

    #[tokio::test]
    async fn a_user_and_a_password_are_sent_as_a_header() {
        let proxy = HttpProxy::start(([127, 0, 0, 1], 1).into(), |head| {
            // `me:p@ss` in Base64.
            let known = head.contains("authorization: Basic bWU6cEBzcw==") && head.starts_with("GET /x.csv ");
            Fate::Refused(if known { 404 } else { 401 }, "")
        });
        let proxy = proxy.await.unwrap();
        let location = at(&format!("http://me:p%40ss@{}/x.csv", proxy.address())).unwrap();
        let error = error(location.store.get(&location.path).await.unwrap_err(), &location.shown);
        assert_eq!(error.code(), Code::NotFound, "{error:?}");
    }

    #[test]
    fn keys_in_the_url_of_an_object_store_are_refused_unseen() {
        for url in [
            "s3://hunter2@bucket/x",
            "s3://key:hunter2@bucket/x",
            "gs://hunter2@bucket/x",
            "abfss://c:hunter2@account.dfs.core.windows.net/x",
        ] {
            let error = at(url).unwrap_err();
            assert_eq!(error.code(), Code::ConfigInvalid);
            assert!(!format!("{error:?}{}", error.to_json()).contains("hunter2"), "{error:?}");
        }
        at("abfss://container@account.dfs.core.windows.net/x").unwrap();
    }
}
