//! Loads that look at rows, but not at keys: a replaced scope, and a change log that is only appended.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanBufferBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::{StreamExt, TryStreamExt};
use trib_core::load::RowScope;
use trib_core::name::system;
use trib_core::{Error, Result};

use super::decide::{Decision, Touched};
use super::rules::Counts;
use super::{Room, StagedFiles};
use crate::data_file::{self, join};
use crate::table_log::LiveFile;

/// The scope's rows go, and all staged ones come.
pub async fn replaced(room: &Room, files: &[LiveFile], staged: &StagedFiles, scope: Option<&RowScope>) -> Result<Decision> {
    let scope = scope.ok_or_else(|| Error::internal("a part of a table is replaced without a scope"))?;
    let mut counts = Counts { inserted: staged.files.iter().map(|f| f.rows).sum(), ..Default::default() };
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new(&scope.column, DataType::Utf8, true)]));
    let mut decided = Vec::with_capacity(files.len());
    for file in files {
        if let Some((least, greatest)) = file.stats.bounds(&scope.column, &DataType::Utf8)
            && (scope.value.as_str() < least.as_string::<i32>().value(0) || scope.value.as_str() > greatest.as_string::<i32>().value(0))
        {
            decided.push(None);
            continue;
        }
        let mut touched = Touched::default();
        let mut batches = data_file::read(&room.store, &join(&room.folder, &file.path), file.size, &schema, &[]).await?.boxed();
        while let Some(batch) = batches.try_next().await? {
            let values = batch.column(0).as_string::<i32>();
            let hits = (0..values.len()).filter(|&i| values.is_valid(i) && values.value(i) == scope.value);
            counts.deleted += touched.drop_more(hits, values.len());
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
