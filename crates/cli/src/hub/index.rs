//! The public registry's index, in the form that Airbyte publishes: one JSON file of all connectors, and for each version of each a folder with
//! its manifest.
//!
//! ```text
//! registries/v0/oss_registry.json
//! metadata/<dockerRepository>/<version>/manifest.yaml
//! ```

use serde::Deserialize;
use trib_core::error::closest;
use trib_core::{Code, Error, Result};

use super::place::Place;

/// The index, unless another one is named.
const PUBLIC: &str = "https://connectors.airbyte.com/files/registries/v0/oss_registry.json";

/// Which index a command looks into.
#[derive(clap::Args, Clone, Debug)]
pub struct Which {
    /// The registry's index, in Airbyte's form; the public one when left out
    #[arg(long, value_name = "URL|FILE", env = "TRIB_CONNECTOR_REGISTRY", default_value = PUBLIC, hide_default_value = true)]
    registry: String,
}

pub struct Index {
    place: Place,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    pub name: String,
    /// `airbyte/source-stripe`
    pub docker_repository: String,
    pub docker_image_tag: String,
    #[serde(default)]
    pub license: Option<String>,
    #[serde(default)]
    pub documentation_url: Option<String>,
    #[serde(default)]
    pub support_level: Option<String>,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default)]
    tombstone: bool,
}

#[derive(Deserialize)]
struct Document {
    sources: Vec<Entry>,
    #[serde(default)]
    destinations: Vec<Entry>,
}

impl Entry {
    /// What the connector is called here: `stripe`.
    pub fn slug(&self) -> &str {
        let last = self.docker_repository.rsplit('/').next().unwrap_or_default();
        last.strip_prefix("source-").or_else(|| last.strip_prefix("destination-")).unwrap_or(last)
    }

    /// A manifest and nothing else, which runs natively. All others are programs.
    pub fn is_manifest(&self) -> bool {
        self.tags.iter().flatten().any(|t| t == "language:manifest-only")
    }

    pub fn is_source(&self) -> bool {
        self.docker_repository.rsplit('/').next().is_some_and(|name| name.starts_with("source-"))
    }

    pub fn licence(&self) -> &str {
        self.license.as_deref().unwrap_or("unknown")
    }
}

impl Which {
    pub async fn read(&self) -> Result<Index> {
        let place = Place::parse(&self.registry)?;
        Index::parse(place.clone(), &place.read().await?)
    }
}

impl Index {
    fn parse(place: Place, text: &str) -> Result<Self> {
        let wrong = |e: serde_json::Error| {
            Error::new(Code::DataInvalid, "the registry's index is not as it must be")
                .detail(e.to_string())
                .file(place.to_string(), None, None)
                .hint("it is a JSON object with `sources` and `destinations`, each entry with `name`, `dockerRepository` and `dockerImageTag`")
        };
        let document: Document = serde_json::from_str(text).map_err(wrong)?;
        let mut entries = document.sources;
        entries.extend(document.destinations);
        entries.retain(|e| !e.tombstone);
        Ok(Self { place, entries })
    }

    /// Those that a word is part of, in name or repository; in the order of their names.
    pub fn search(&self, word: &str) -> Vec<&Entry> {
        let word = word.to_lowercase();
        let has = |e: &&Entry| e.name.to_lowercase().contains(&word) || e.docker_repository.to_lowercase().contains(&word);
        let mut found: Vec<&Entry> = self.entries.iter().filter(has).collect();
        found.sort_by_key(|e| (e.slug().to_owned(), !e.is_source()));
        found
    }

    /// The source that a person means by `stripe`, `source-stripe` or `airbyte/source-stripe`, which must be a manifest.
    pub fn manifest(&self, name: &str) -> Result<&Entry> {
        let is = |e: &&Entry| {
            e.is_source() && (e.slug() == name || e.docker_repository == name || e.docker_repository.ends_with(&format!("/{name}")))
        };
        let Some(entry) = self.entries.iter().find(is) else {
            let error = Error::new(Code::NotFound, "the registry has no such connector").detail(format!("`{name}` in {}", self.place));
            let names = self.entries.iter().filter(|e| e.is_source() && e.is_manifest()).map(Entry::slug);
            return Err(match closest(name, names) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint(format!("`trib connectors search {name}` looks for parts of names; `--from` takes a file or a URL")),
            });
        };
        if !entry.is_manifest() {
            return Err(Error::new(Code::Unsupported, "the connector is a program, not a manifest")
                .detail(format!("{} {}", entry.docker_repository, entry.docker_image_tag))
                .hint("only manifests run here; `--from` takes one from anywhere"));
        }
        Ok(entry)
    }

    /// Where a version's manifest stands.
    pub fn manifest_place(&self, repository: &str, version: &str) -> Result<Place> {
        self.place.beside(&format!("../../metadata/{repository}/{version}/manifest.yaml"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_s_form() {
        let text = serde_json::json!({
            "sources": [
                {"sourceDefinitionId": "1", "name": "Shop", "dockerRepository": "airbyte/source-shop", "dockerImageTag": "1.2.0", "license": "MIT",
                 "tags": ["language:manifest-only", "cdk:low-code"], "spec": {"connectionSpecification": {}}, "releaseStage": "alpha"},
                {"name": "Shop Python", "dockerRepository": "airbyte/source-shop-python", "dockerImageTag": "0.1.0", "tags": null},
                {"name": "Gone", "dockerRepository": "airbyte/source-shop-gone", "dockerImageTag": "0.1.0", "tombstone": true},
            ],
            "destinations": [{"name": "Shop", "dockerRepository": "airbyte/destination-shop", "dockerImageTag": "3.0.0"}],
        });
        let index =
            Index::parse(Place::parse("https://r.example/files/registries/v0/oss_registry.json").unwrap(), &text.to_string()).unwrap();
        let found: Vec<_> = index.search("SHOP").iter().map(|e| (e.slug(), e.is_source(), e.is_manifest(), e.licence())).collect();
        assert_eq!(found, [("shop", true, true, "MIT"), ("shop", false, false, "unknown"), ("shop-python", true, false, "unknown")]);
        for name in ["shop", "source-shop", "airbyte/source-shop"] {
            assert_eq!(index.manifest(name).unwrap().docker_image_tag, "1.2.0");
        }
        assert_eq!(
            index.manifest_place("airbyte/source-shop", "1.1.0").unwrap().to_string(),
            "https://r.example/files/metadata/airbyte/source-shop/1.1.0/manifest.yaml"
        );
        assert_eq!(index.manifest("shop-python").unwrap_err().code(), Code::Unsupported);
        assert_eq!(index.manifest("shpo").unwrap_err().hint_text(), Some("did you mean `shop`?"));
        assert_eq!(Index::parse(Place::parse("x").unwrap(), "[]").err().unwrap().code(), Code::DataInvalid);
    }
}
