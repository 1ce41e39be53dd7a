//! A target as a destination. A load is done when the target gives our STATE back.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use async_trait::async_trait;
use trib_core::destination::ColumnType;
use trib_core::{Context, Destination, Load, Result, WriteMode};
use trib_kit::records::schema::of_field;
use trib_kit::relay::{Relay, Taker};

use super::config::SingerConfig;
use super::delivery::Delivery;

pub fn destination(config: SingerConfig, context: &Context) -> Arc<dyn Destination> {
    let folder = context.project_dir.join(".tributary/singer").join(&context.connection);
    let target = Delivery { config, dir: context.project_dir.clone() };
    Arc::new(Relay::new(target, folder, &[WriteMode::Append, WriteMode::Upsert]))
}

#[async_trait]
impl Taker for Delivery {
    fn column_type(&self, field: &Field) -> Result<ColumnType> {
        let native = of_field(field).to_string();
        Ok(match field.data_type() {
            DataType::Timestamp(_, None) => ColumnType::lossy(native, "JSON Schema has no time without a zone: targets take it for UTC"),
            DataType::Float16 | DataType::Float32 | DataType::Float64 => ColumnType::lossy(native, "JSON has no NaN and no infinity"),
            _ => ColumnType::exact(native),
        })
    }

    /// A target takes no message that proves anything without loading: that it can be made is all that can be known.
    async fn check(&self) -> Result<()> {
        self.program().await.map(drop)
    }

    async fn take(&self, load: &Load, _folder: &Path) -> Result<()> {
        self.run(load).await
    }
}
