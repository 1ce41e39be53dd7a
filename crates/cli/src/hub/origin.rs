//! Where a connector comes from, and what is there now.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use trib_connectors::manifest::{Manifest, SHIPPED, Shipped};
use trib_core::{Code, Error, Result};
use trib_project::lock::{self, Lock, Pin};

use super::index::Which;
use super::place::Place;

/// As a pin names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Within this binary.
    Bundled,
    /// In the registry, under this repository.
    Registry(String),
    /// A file or URL.
    Place(String),
}

/// A manifest that can be taken.
pub struct Found {
    pub text: String,
    pub manifest: Arc<Manifest>,
    pub pin: Pin,
}

impl Origin {
    pub fn of(pin: &Pin) -> Self {
        match pin.origin.strip_prefix("registry:") {
            Some(repository) => Origin::Registry(repository.to_owned()),
            None if pin.origin == "bundled" => Origin::Bundled,
            None => Origin::Place(pin.origin.clone()),
        }
    }

    fn text(&self) -> String {
        match self {
            Origin::Bundled => "bundled".to_owned(),
            Origin::Registry(repository) => format!("registry:{repository}"),
            Origin::Place(place) => place.clone(),
        }
    }

    /// Where a connector of this name is: in this binary, or else in the registry.
    pub async fn named(name: &str, registry: &Which) -> Result<Self> {
        if bundled(name).is_some() {
            return Ok(Origin::Bundled);
        }
        Ok(Origin::Registry(registry.read().await?.manifest(name)?.docker_repository.clone()))
    }

    /// What is there: the newest, or the version that was asked for. `dir` is the project's folder, which paths start at.
    pub async fn find(&self, name: &str, version: Option<&str>, dir: &Path, registry: &Which) -> Result<Found> {
        match self {
            Origin::Bundled => {
                let shipped = bundled(name)
                    .ok_or_else(|| Error::new(Code::NotFound, "this version of trib brings no such connector").detail(name))?;
                let edition = shipped.edition()?;
                if version.is_some_and(|v| v != edition.version) {
                    return Err(Error::new(Code::NotFound, "this version of trib brings another version of the connector")
                        .detail(format!("{name} {}", edition.version))
                        .hint("the file as it was is in your version control; `--from` takes one from anywhere"));
                }
                self.found(shipped.text.to_owned(), &edition.version, &edition.licence, name)
            }
            Origin::Registry(repository) => {
                let index = registry.read().await?;
                let entry = index.manifest(repository)?;
                let version = version.unwrap_or(&entry.docker_image_tag);
                let place = index.manifest_place(repository, version)?;
                let text = place.read().await.map_err(|e| match e.code() {
                    Code::NotFound => Error::new(Code::NotFound, "the registry has no such version")
                        .detail(format!("{repository} {version}; looked at {place}"))
                        .hint(format!("the newest is {}", entry.docker_image_tag)),
                    _ => e,
                })?;
                self.found(text, version, entry.licence(), &place.to_string())
            }
            Origin::Place(place) => {
                let place = match Place::parse(place)? {
                    Place::Path(path) => {
                        let path = dir.join(path);
                        Place::Path(if path.is_dir() { path.join("manifest.yaml") } else { path })
                    }
                    url @ Place::Url(_) => url,
                };
                let text = place.read().await?;
                let about = About::beside(&place).await?;
                let print = lock::checksum(&text);
                let version = version.map(str::to_owned).or(about.version).unwrap_or_else(|| print[..12].to_owned());
                self.found(text, &version, about.licence.as_deref().unwrap_or("unknown"), &place.to_string())
            }
        }
    }

    /// `shown` is what errors call the file.
    fn found(&self, text: String, version: &str, licence: &str, shown: &str) -> Result<Found> {
        let manifest = Manifest::parse(Path::new(shown), &text)?;
        let sha256 = lock::checksum(&text);
        let pin = Pin { version: version.to_owned(), origin: self.text(), sha256, licence: licence.to_owned() };
        Ok(Found { text, manifest, pin })
    }
}

impl Found {
    /// Writes the manifest into the project, and what it is into the lock.
    pub fn take(&self, name: &str, dir: &Path, lock: &mut Lock) -> Result<()> {
        let file = lock::manifest_file(dir, name);
        std::fs::create_dir_all(dir.join(lock::FOLDER))?;
        std::fs::write(&file, &self.text).map_err(|e| Error::from(e).file(file.display().to_string(), None, None))?;
        lock.connectors.insert(name.to_owned(), self.pin.clone());
        lock.write(dir)
    }
}

/// What a connector's folder says of it in `metadata.yaml`.
#[derive(Default)]
struct About {
    version: Option<String>,
    licence: Option<String>,
}

impl About {
    async fn beside(place: &Place) -> Result<Self> {
        // Beside a web address there may be anything.
        let Place::Path(_) = place else { return Ok(Self::default()) };
        let Some(text) = place.beside("metadata.yaml")?.read_if_there().await? else { return Ok(Self::default()) };
        let data = trib_project::yaml::parse("metadata.yaml", &text, 1)?.to_json();
        let said = |name: &str| data.pointer(&format!("/data/{name}")).and_then(Value::as_str).map(str::to_owned);
        Ok(Self { version: said("dockerImageTag"), licence: said("license") })
    }
}

/// The manifest that this binary brings along under a name.
pub fn bundled(name: &str) -> Option<&'static Shipped> {
    SHIPPED.iter().find(|shipped| shipped.name == name)
}
