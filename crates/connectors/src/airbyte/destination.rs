//! A connector as a destination.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use async_trait::async_trait;
use serde_json::Value;
use trib_core::destination::ColumnType;
use trib_core::{Code, Context, Destination, Error, Load, Result, Table, WriteMode};
use trib_kit::relay::{Relay, Taker};

use super::config::AirbyteConfig;
use super::connector::Connector;
use super::delivery::deliver;
use super::write::{column, sync_mode};

pub fn destination(config: AirbyteConfig, context: &Context) -> Arc<dyn Destination> {
    let folder = context.project_dir.join(".tributary/airbyte").join(&context.connection);
    Arc::new(Relay::new(Connector::new(config, context), folder, &[WriteMode::Append, WriteMode::Upsert, WriteMode::Replace]))
}

#[async_trait]
impl Taker for Connector {
    fn column_type(&self, field: &Field) -> Result<ColumnType> {
        let native = column(field).to_string();
        Ok(match field.data_type() {
            DataType::Float16 | DataType::Float32 | DataType::Float64 => ColumnType::lossy(native, "JSON has no NaN and no infinity"),
            _ => ColumnType::exact(native),
        })
    }

    async fn check(&self) -> Result<()> {
        Connector::check(self).await
    }

    async fn admit(&self, table: &Table) -> Result<()> {
        cannot(table)?;
        supported(self.specification().await?, table)
    }

    async fn take(&self, load: &Load, folder: &Path) -> Result<()> {
        deliver(self, load, folder).await
    }
}

/// What the protocol has no words for.
fn cannot(table: &Table) -> Result<()> {
    let refused =
        |message: &'static str, hint: &'static str| Err(Error::new(Code::Unsupported, message).detail(table.name.to_string()).hint(hint));
    if table.changes {
        return refused("Airbyte destinations take rows, and no log of changes", "read the stream in full or by a cursor");
    }
    if table.write == WriteMode::Replace && table.scope.is_some() {
        return refused(
            "an Airbyte destination replaces a table as a whole",
            "give each source a table of its own, or use `write: upsert`",
        );
    }
    if table.write == WriteMode::Upsert && table.parent.is_some() {
        return refused(
            "rows of child tables cannot be replaced with their parents",
            "keep the nested column as `nested: json` or `struct`",
        );
    }
    Ok(())
}

/// Its specification may say which of the modes it knows.
fn supported(specification: &Value, table: &Table) -> Result<()> {
    let modes =
        ["supported_destination_sync_modes", "supportedDestinationSyncModes"].iter().find_map(|name| specification[name].as_array());
    let mode = sync_mode(table.write);
    match modes {
        Some(modes) if !modes.is_empty() && !modes.iter().any(|m| m == mode) => {
            let known: Vec<&str> = modes.iter().filter_map(Value::as_str).collect();
            Err(Error::new(Code::Unsupported, "the connector does not know this way to write")
                .detail(format!("`write: {}` is its {mode}; it knows {}", table.write.as_str(), known.join(", ")))
                .setting("write")
                .hint("append is `write: append`, overwrite is `write: replace`, append_dedup is `write: upsert`"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;
    use serde_json::json;
    use trib_core::TableName;
    use trib_core::load::{Deletes, Parent, RowScope};

    use super::*;

    #[test]
    fn what_is_refused() {
        let name = TableName { schema: None, name: "orders".into() };
        let table = |write| Table {
            name: name.clone(),
            schema: Arc::new(Schema::empty()),
            key: vec!["id".into()],
            write,
            deletes: Deletes::Hard,
            scope: None,
            parent: None,
            partition_by: Vec::new(),
            changes: false,
        };
        let plain = table(WriteMode::Upsert);
        assert!(cannot(&plain).is_ok());
        let scope = Some(RowScope::with("source", "a"));
        let parent = Some(Parent { table: name.clone(), columns: Vec::new() });
        assert!(cannot(&Table { scope: scope.clone(), ..table(WriteMode::Append) }).is_ok());
        for refused in
            [Table { changes: true, ..plain.clone() }, Table { scope, ..table(WriteMode::Replace) }, Table { parent, ..plain.clone() }]
        {
            assert_eq!(cannot(&refused).unwrap_err().code(), Code::Unsupported);
        }
        let spec = json!({"supported_destination_sync_modes": ["append", "overwrite"]});
        assert!(supported(&spec, &table(WriteMode::Replace)).is_ok() && supported(&json!({}), &plain).is_ok());
        assert!(supported(&spec, &plain).unwrap_err().to_string().contains("append_dedup"));
    }
}
