//! Files, wherever they are: local, S3, Google Cloud Storage, Azure, HTTP.

use std::collections::BTreeMap;
use std::path::Path as FsPath;
use std::sync::Arc;

use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, parse_url_opts};
use trib_core::secret::redact_url;
use trib_core::{Code, Error, Result, Secret};
use url::Url;

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
    let (store, path) = parse_url_opts(url, all).map_err(|e| error(e, url.as_str()))?;
    Ok(Location { store: Arc::from(store), path, shown: redact_url(url.as_str()), local: None })
}

fn invalid(location: &str) -> Error {
    Error::new(Code::ConfigInvalid, "the location is not a path or URL that can be opened").detail(redact_url(location))
}

/// What a store's error means. `at` is shown, without its secrets.
pub fn error(e: object_store::Error, at: &str) -> Error {
    use object_store::Error as E;
    let (code, message) = match &e {
        E::NotFound { .. } => (Code::NotFound, "there is no such file"),
        E::PermissionDenied { .. } => (Code::PermissionDenied, "the file may not be read or written"),
        E::Unauthenticated { .. } => (Code::AuthFailed, "the store does not accept the credentials"),
        E::AlreadyExists { .. } | E::Precondition { .. } => (Code::LeaseLost, "somebody else has written the file"),
        E::NotSupported { .. } | E::NotImplemented { .. } => (Code::Unsupported, "the store cannot do this"),
        E::UnknownConfigurationKey { .. } | E::InvalidPath { .. } => (Code::ConfigInvalid, "the location is not right"),
        // Stores say this in the text of an answer that object_store does not take apart.
        E::Generic { source, .. } if source.to_string().contains("NoSuchBucket") => (Code::NotFound, "there is no such bucket"),
        _ => match io_kind(&e) {
            Some(kind) => {
                let from: Error = std::io::Error::from(kind).into();
                (from.code(), from.message())
            }
            None => (Code::SystemError, "the store answered with an error"),
        },
    };
    Error::new(code, message).detail(redact_url(at)).source(e)
}

/// The I/O error at the root of a store's error.
fn io_kind(e: &object_store::Error) -> Option<std::io::ErrorKind> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(e);
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        next = cause.source();
    }
    None
}
