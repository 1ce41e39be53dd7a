//! Loads that look at rows, but not at keys: a replaced scope, and a change log that is only appended.

use std::sync::Arc;

use arrow::array::{AsArray, BooleanBufferBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::{StreamExt, TryStreamExt};
use trib_core::load::RowScope;
use trib_core::name::system;
use trib_core::{Error, Result};

use super::covered::{Covered, Share};
use super::decide::{Decision, Touched};
use super::rules::Counts;
use super::{Room, StagedFiles};
use crate::data_file::{self, join};
use crate::table_log::LiveFile;

/// The scope's rows go, and all staged ones come. Files that hold none of them are not read, and those that hold no others neither.
pub async fn replaced(room: &Room, files: &[LiveFile], staged: &StagedFiles, scope: Option<&RowScope>) -> Result<Decision> {
    let scope = scope.ok_or_else(|| Error::internal("a part of a table is replaced without a scope"))?;
    let mut counts = Counts { inserted: staged.files.iter().map(|f| f.rows).sum(), ..Default::default() };
    let field = room.schema.field_with_name(&scope.column)?.clone().with_nullable(true);
    let schema: SchemaRef = Arc::new(Schema::new(vec![field]));
    let going = Covered::of(room, staged, scope, &schema).await?;
    let mut decided = Vec::with_capacity(files.len());
    for file in files {
        let mut touched = Touched::default();
        match (going.of_file(&file.stats)?, file.stats.num_records) {
            (Share::None, _) => {
                decided.push(None);
                continue;
            }
            (Share::All, Some(rows)) => {
                let rows = usize::try_from(rows).map_err(|_| Error::internal("a file has more rows than fit into memory"))?;
                counts.deleted += touched.drop_more(0..rows, rows);
            }
            (Share::All | Share::Some, _) => {
                let mut batches = data_file::read(&room.store, &join(&room.folder, &file.path), file.size, &schema, &[]).await?.boxed();
                while let Some(batch) = batches.try_next().await? {
                    let hits = going.hits(batch.column(0))?;
                    counts.deleted += touched.drop_more(hits.into_iter(), batch.num_rows());
                }
            }
        }
        decided.push(touched.ended());
    }
    let all = |rows: u64| {
        let mut bits = BooleanBufferBuilder::new(rows as usize);
        bits.append_n(rows as usize, true);
        bits
    };
    Ok(Decision { files: decided, accepted: staged.files.iter().map(|f| all(f.rows)).collect(), counts })
}

/// Each insert and update of a change log is a row more; deletes and truncates are not rows.
pub async fn appended(room: &Room, staged: &StagedFiles) -> Result<Decision> {
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new(system::OP, DataType::Utf8, true)]));
    let mut counts = Counts::default();
    let mut accepted = Vec::with_capacity(staged.files.len());
    for file in &staged.files {
        let path = staged.folder.clone().join(file.name.as_str());
        let mut bits = BooleanBufferBuilder::new(file.rows as usize);
        let mut batches = data_file::read(&room.store, &path, file.size, &schema, &[]).await?.boxed();
        while let Some(batch) = batches.try_next().await? {
            for op in batch.column(0).as_string::<i32>() {
                let is_row = matches!(op, Some("i" | "u"));
                bits.append(is_row);
                counts.inserted += u64::from(is_row);
            }
        }
        accepted.push(bits);
    }
    Ok(Decision { files: Vec::new(), accepted, counts })
}
