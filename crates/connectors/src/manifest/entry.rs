//! A manifest as an entry of the registry.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::Schema;
use serde_json::{Value, json};
use trib_core::connector::{MakeSource, Verified};
use trib_core::{Connector, Context, Result, Source};

use super::manifest::Manifest;
use super::source::ManifestSource;

/// The connector that a manifest describes, named by its user. A manifest that is not right makes an entry too: whoever uses it is
/// told what is wrong with it.
pub fn connector(name: &str, file: &Path, text: &str) -> Connector {
    match Manifest::parse_strictly(file, text) {
        Ok(manifest) => of(name, &manifest),
        Err(_) => {
            let (file, text): (PathBuf, String) = (file.to_owned(), text.to_owned());
            let again: MakeSource = Arc::new(move |settings, context| open(&Manifest::parse_strictly(&file, &text)?, settings, context));
            entry(name, "A declarative connector whose manifest is not right.", json!({"type": "object"}), again)
        }
    }
}

/// The connector that a manifest describes.
pub(super) fn of(name: &str, manifest: &Arc<Manifest>) -> Connector {
    let description = manifest.description().unwrap_or("A declarative connector of this project.");
    let mut schema = manifest.connection_schema();
    mark_secrets(&mut schema);
    let own = manifest.clone();
    entry(name, description, schema, Arc::new(move |settings, context| open(&own, settings, context)))
}

fn entry(name: &str, description: &str, schema: Value, source: MakeSource) -> Connector {
    Connector {
        name: name.to_owned(),
        title: name.to_owned(),
        description: description.to_owned(),
        verified: Verified::StandIn,
        edition: None,
        pushes_filter: false,
        schema: Schema::try_from(schema).unwrap_or_default(),
        source: Some(source),
        destination: None,
        from_url: None,
    }
}

/// Secrets as JSON Schema marks them, beside the format's own mark.
fn mark_secrets(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.get("airbyte_secret") == Some(&Value::Bool(true)) {
                map.insert("format".to_owned(), json!("password"));
                map.insert("writeOnly".to_owned(), json!(true));
            }
            map.values_mut().for_each(mark_secrets);
        }
        Value::Array(items) => items.iter_mut().for_each(mark_secrets),
        _ => {}
    }
}

fn open(manifest: &Arc<Manifest>, settings: &Value, context: &Context) -> Result<Arc<dyn Source>> {
    Ok(Arc::new(ManifestSource::new(manifest.open_for(settings, context)?)))
}
