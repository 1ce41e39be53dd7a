//! A manifest as an entry of the registry.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::Schema;
use serde_json::{Value, json};
use trib_core::connector::{MakeDestination, MakeSource, Verified};
use trib_core::{Connector, Context, Destination, Result, Source};

use super::deliver::ApiDestination;
use super::manifest::Manifest;
use super::source::ManifestSource;

/// The connector that a manifest describes, named by its user. A manifest that is not right makes an entry too: whoever uses it is
/// told what is wrong with it.
pub fn connector(name: &str, file: &Path, text: &str) -> Connector {
    match Manifest::parse_strictly(file, text) {
        Ok(manifest) => of(name, &manifest),
        Err(_) => {
            let again = {
                let (file, text): (PathBuf, String) = (file.to_owned(), text.to_owned());
                Arc::new(move || Manifest::parse_strictly(&file, &text))
            };
            let (reader, writer) = (again.clone(), again);
            let source: MakeSource = Arc::new(move |settings, context| open(&reader()?, settings, context));
            let destination: MakeDestination = Arc::new(move |settings, context| open_to_write(&writer()?, settings, context));
            let ends = (Some(source), Some(destination));
            entry(name, "A declarative connector whose manifest is not right.", json!({"type": "object"}), ends)
        }
    }
}

/// The connector that a manifest describes.
pub(super) fn of(name: &str, manifest: &Arc<Manifest>) -> Connector {
    let description = manifest.description().unwrap_or("A declarative connector of this project.");
    let mut schema = manifest.connection_schema();
    mark_secrets(&mut schema);
    let (reader, writer) = (manifest.clone(), manifest.clone());
    let source: MakeSource = Arc::new(move |settings, context| open(&reader, settings, context));
    let destination: MakeDestination = Arc::new(move |settings, context| open_to_write(&writer, settings, context));
    let ends = (manifest.has_streams().then_some(source), manifest.has_objects().then_some(destination));
    entry(name, description, schema, ends)
}

fn entry(name: &str, description: &str, schema: Value, (source, destination): (Option<MakeSource>, Option<MakeDestination>)) -> Connector {
    Connector {
        name: name.to_owned(),
        title: name.to_owned(),
        description: description.to_owned(),
        verified: Verified::Unverified,
        edition: None,
        pushes_filter: false,
        schema: Schema::try_from(schema).unwrap_or_default(),
        source,
        destination,
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
    let files = context.project_dir.join(".tributary/files").join(&context.connection);
    Ok(Arc::new(ManifestSource::new(manifest.open_for(settings, context)?, files)))
}

fn open_to_write(manifest: &Arc<Manifest>, settings: &Value, context: &Context) -> Result<Arc<dyn Destination>> {
    Ok(Arc::new(ApiDestination::new(manifest.open_for(settings, context)?, context)?))
}
