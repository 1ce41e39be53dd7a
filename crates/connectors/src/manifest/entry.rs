//! A manifest as an entry of the registry.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::Schema;
use serde_json::{Value, json};
use trib_core::connector::{MakeSource, Verified};
use trib_core::{Connector, Result, Source};

use super::manifest::Manifest;
use super::source::ManifestSource;

/// The connector that a manifest describes, named by its user. A manifest that is not right makes an entry too: whoever uses it is
/// told what is wrong with it.
pub fn connector(name: &str, file: &Path, text: &str) -> Connector {
    let read = Manifest::parse(file, text);
    let manifest = read.as_ref().ok().cloned();
    let schema = manifest.as_ref().map_or_else(|| json!({"type": "object"}), |m| m.connection_schema());
    let described = manifest.as_ref().and_then(|m| m.description().map(str::to_owned));
    let description = match (&read, described) {
        (Err(_), _) => "A declarative connector whose manifest is not right.".to_owned(),
        (Ok(_), None) => "A declarative connector of this project.".to_owned(),
        (Ok(_), Some(own)) => own,
    };
    let source: MakeSource = match manifest {
        Some(manifest) => Arc::new(move |settings, _| open(&manifest, settings)),
        None => {
            let (file, text): (PathBuf, String) = (file.to_owned(), text.to_owned());
            Arc::new(move |settings, _| open(&Manifest::parse(&file, &text)?, settings))
        }
    };
    Connector {
        name: name.to_owned(),
        title: name.to_owned(),
        description,
        verified: Verified::StandIn,
        pushes_filter: false,
        schema: Schema::try_from(schema).unwrap_or_default(),
        source: Some(source),
        destination: None,
        from_url: None,
    }
}

fn open(manifest: &Arc<Manifest>, settings: &Value) -> Result<Arc<dyn Source>> {
    Ok(Arc::new(ManifestSource::new(manifest.open(settings)?)))
}
