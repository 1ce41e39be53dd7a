//! What is kept of a delivered load until somebody has noted its fates: the rows, and the log of calls.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use serde::{Deserialize, Serialize};
use trib_core::delivery::{Fate, column};
use trib_core::{Error, RejectedRow, Result, TableLoad};
use trib_kit::spool;

use super::log::{self, Known};
use super::record::{of_batch, place};

const NAME: &str = "settled.json";

#[derive(Serialize, Deserialize)]
pub(super) struct Settled {
    pub(super) scope: String,
    share: TableLoad,
}

/// Keeps a load whose rows all have a fate: its folder moves to where no sweep removes it. Blocks.
pub(super) fn settle(staged: &Path, kept: &Path, scope: &str, share: &TableLoad) -> Result<()> {
    let mut share = share.clone();
    for receipt in &mut share.receipts {
        let path: PathBuf = serde_json::from_value(receipt.staged.clone())?;
        let name = path.file_name().ok_or_else(|| Error::internal("a staged part has no file name"))?;
        receipt.staged = serde_json::to_value(kept.join(name))?;
    }
    let settled = Settled { scope: scope.to_owned(), share };
    std::fs::write(staged.join(NAME), serde_json::to_vec_pretty(&settled)?)?;
    if let Some(parent) = kept.parent() {
        std::fs::create_dir_all(parent)?;
    }
    Ok(std::fs::rename(staged, kept)?)
}

impl Settled {
    /// `None` when nothing is kept there. Blocks.
    pub(super) fn open(kept: &Path) -> Result<Option<Self>> {
        match std::fs::read(kept.join(NAME)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// The staged batches with the fate of each row. Blocks.
    pub(super) fn batches(&self, kept: &Path) -> Result<impl Iterator<Item = Result<RecordBatch>> + Send + use<>> {
        let known = log::known(kept)?;
        let mut first = 0;
        Ok(spool::batches(&self.share).map(move |batch| {
            let batch = batch?;
            let told = with_fates(&batch, &known, first);
            first += batch.num_rows() as u64;
            told
        }))
    }

    /// Rows that were refused or may have been lost, for people. Blocks.
    pub(super) fn undelivered(&self, kept: &Path) -> Result<Vec<RejectedRow>> {
        let known = log::known(kept)?;
        let mut rows = Vec::new();
        let mut first = 0;
        for batch in spool::batches(&self.share) {
            let batch = batch?;
            let reason = |row: u64| match known.fates.get(&row) {
                Some(Fate::Rejected(why)) => Some(why.clone()),
                Some(Fate::Unknown(why)) => Some(format!("nobody knows whether it arrived: {why}")),
                Some(Fate::Delivered(_)) | None => None,
            };
            if (0..batch.num_rows() as u64).any(|row| reason(first + row).is_some()) {
                for record in of_batch(&batch, first)? {
                    if let Some(reason) = reason(record.row) {
                        let row = record.value();
                        rows.push(RejectedRow { place: place(&row, &self.share.table.key), reason, row });
                    }
                }
            }
            first += batch.num_rows() as u64;
        }
        Ok(rows)
    }
}

/// The batch with [`column::FATE`] at its end and the identifiers that the API has told.
fn with_fates(batch: &RecordBatch, known: &Known, first: u64) -> Result<RecordBatch> {
    let rows = (0..batch.num_rows() as u64).map(|row| known.fates.get(&(first + row)));
    let fate = |fate: Option<&Fate>| match fate {
        Some(Fate::Delivered(_)) => "delivered",
        Some(Fate::Rejected(_)) => "rejected",
        Some(Fate::Unknown(_)) | None => "unknown",
    };
    let fates: StringArray = rows.clone().map(|f| Some(fate(f))).collect();
    let before = batch.column_by_name(column::REMOTE_ID).and_then(|c| c.as_any().downcast_ref::<StringArray>());
    let id = |(row, fate): (usize, Option<&Fate>)| match fate {
        Some(Fate::Delivered(Some(id))) => Some(id.clone()),
        _ => before.filter(|b| !arrow::array::Array::is_null(b, row)).map(|b| b.value(row).to_owned()),
    };
    let ids: StringArray = rows.enumerate().map(id).collect();
    let (mut fields, mut columns): (Vec<_>, Vec<ArrayRef>) = batch
        .schema()
        .fields()
        .iter()
        .zip(batch.columns())
        .filter(|(f, _)| f.name() != column::REMOTE_ID)
        .map(|(f, c)| (f.clone(), c.clone()))
        .unzip();
    for (name, values) in [(column::REMOTE_ID, ids), (column::FATE, fates)] {
        fields.push(Arc::new(Field::new(name, DataType::Utf8, true)));
        columns.push(Arc::new(values));
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}
