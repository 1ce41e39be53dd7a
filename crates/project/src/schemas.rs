//! JSON Schemas of the project's files, for editors and for the documentation.

use schemars::{JsonSchema, Schema, generate::SchemaSettings};

use crate::config::command::CommandSpec;
use crate::config::connection::ConnectionsSpec;
use crate::config::job::JobSpec;
use crate::config::model::ModelSpec;
use crate::config::project::ProjectSpec;
use crate::config::sync::SyncSpec;
use crate::config::unit_test::UnitTestsSpec;

/// One schema for each kind of file, under the name that it is published as.
pub fn schemas() -> Vec<(&'static str, Schema)> {
    vec![
        ("tributary.json", schema::<ProjectSpec>("tributary.yaml")),
        ("connections.json", schema::<ConnectionsSpec>("connections.yaml")),
        ("sync.json", schema::<SyncSpec>("syncs/*.yaml")),
        ("model.json", schema::<ModelSpec>("models/**/*.sql, between /*--- and ---*/")),
        ("command.json", schema::<CommandSpec>("commands/*.yaml")),
        ("job.json", schema::<JobSpec>("jobs/*.yaml")),
        ("tests.json", schema::<UnitTestsSpec>("tests/*.yaml")),
    ]
}

fn schema<T: JsonSchema>(title: &str) -> Schema {
    // Draft 7 is what the YAML language servers of the editors read.
    let mut schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<T>();
    schema.insert("title".to_owned(), title.into());
    schema
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn settings_are_described_and_closed() {
        let schemas = schemas();
        let (_, sync) = schemas.iter().find(|(name, _)| *name == "sync.json").unwrap();
        let at = |pointer: &str| sync.as_value().pointer(pointer);
        assert_eq!(at("/additionalProperties"), Some(&Value::Bool(false)));
        assert!(at("/properties/from/description").is_some());
        assert!(at("/definitions/StreamSpec/properties/where").is_some());
        assert!(at("/definitions/StreamSpec/properties/send/description").is_some());
    }
}
