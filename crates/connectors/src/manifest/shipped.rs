//! Manifests that ship with Tributary, compiled into the binary: `crates/connectors/manifests/NAME.yaml`.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};
use trib_core::connector::{Edition, Verified};
use trib_core::{Code, Connector, Error, Result};

use super::entry;
use super::manifest::Manifest;

/// A manifest of ours.
#[derive(Clone, Copy, Debug)]
pub struct Shipped {
    /// What stands behind `connector:` in a project.
    pub name: &'static str,
    /// The YAML itself.
    pub text: &'static str,
}

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        &[$(Shipped { name: $name, text: include_str!(concat!("../../manifests/", $name, ".yaml")) }),*]
    };
}

/// All of them, in the order of their names.
pub const SHIPPED: &[Shipped] = shipped![
    "asana",
    "ecb",
    "github",
    "google_ads",
    "google_data_manager",
    "google_sheets",
    "hubspot",
    "jira",
    "mailchimp",
    "meta_ads",
    "meta_conversions",
    "open_meteo",
    "salesforce",
    "shopify",
    "slack",
    "stripe",
    "webhook",
    "world_bank"
];

impl Shipped {
    /// How errors name it.
    fn file(&self) -> std::path::PathBuf {
        Path::new("manifests").join(format!("{}.yaml", self.name))
    }

    /// SHA-256 of the text in hex.
    pub fn sha256(&self) -> String {
        hex::encode(Sha256::digest(self.text))
    }

    pub fn manifest(&self) -> Result<Arc<Manifest>> {
        Manifest::parse(&self.file(), self.text)
    }

    /// What the manifest's `metadata` says about itself.
    pub fn edition(&self) -> Result<Edition> {
        let manifest = self.manifest()?;
        self.edition_of(&manifest)
    }

    fn edition_of(&self, manifest: &Manifest) -> Result<Edition> {
        let notes = manifest.metadata("notes").and_then(Value::as_array).into_iter().flatten();
        Ok(Edition {
            version: fact(manifest, "version")?,
            sha256: self.sha256(),
            licence: fact(manifest, "licence")?,
            verified_on: fact(manifest, "verified_on")?,
            documentation: fact(manifest, "documentation")?,
            held_against: manifest.metadata("held_against").and_then(Value::as_str).map(str::to_owned),
            notes: notes.filter_map(Value::as_str).map(str::to_owned).collect(),
        })
    }

    /// The registry's entry. A manifest that cannot be read makes one that says so, like any other; a test holds that there is none.
    pub fn entry(&self) -> Connector {
        self.connector().unwrap_or_else(|_| entry::connector(self.name, &self.file(), self.text))
    }

    /// The connector that the manifest describes, with its edition.
    pub fn connector(&self) -> Result<Connector> {
        let manifest = self.manifest()?;
        let verified = match fact(&manifest, "verified")?.as_str() {
            "live" => Verified::Live,
            "emulator" => Verified::Emulator,
            _ => Verified::StandIn,
        };
        Ok(Connector {
            title: fact(&manifest, "title")?,
            verified,
            edition: Some(self.edition_of(&manifest)?),
            ..entry::of(self.name, &manifest)
        })
    }
}

fn fact(manifest: &Manifest, name: &str) -> Result<String> {
    manifest.metadata(name).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| {
        Error::new(Code::ConfigInvalid, "a manifest that ships with Tributary does not say what it has to").detail(name.to_owned())
    })
}
