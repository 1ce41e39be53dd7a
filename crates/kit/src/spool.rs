//! Parts of a load that wait in files until they are handed on.

use std::fs::File;
use std::io::{BufReader, BufWriter, IntoInnerError};
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::{FileWriter, IpcWriteOptions};
use futures::StreamExt;
use trib_core::load::Durability;
use trib_core::{BatchStream, Part, Receipt, Result, Table, TableLoad};

/// Writes a part into a load's folder, which is made where it is missing. The part is on the disk when this returns.
pub async fn stage(folder: &Path, part: &Part, table: &Table, mut rows: BatchStream) -> Result<Receipt> {
    tokio::fs::create_dir_all(folder).await?;
    let name = format!("{}-{}-{}.arrow", hex::encode(table.name.to_string()), part.split, part.attempt);
    let path = folder.join(name);
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
    let mut writer = FileWriter::try_new_with_options(BufWriter::new(File::create(&path)?), &table.staging_schema(), options)?;
    let mut count = 0;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        count += batch.num_rows() as u64;
        // A few megabytes at a time, which the system takes into its cache.
        writer.write(&batch)?;
    }
    let file = writer.into_inner()?.into_inner().map_err(IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok(Receipt {
        part: part.clone(),
        table: table.name.clone(),
        rows: count,
        bytes: file.metadata()?.len(),
        durability: Durability::Durable,
        staged: serde_json::to_value(&path)?,
        rejected: Vec::new(),
    })
}

/// The batches of a table's parts, in the order of their splits. Blocks.
pub fn batches(share: &TableLoad) -> impl Iterator<Item = Result<RecordBatch>> + Send + use<> {
    let mut receipts: Vec<_> = share.receipts.iter().filter(|r| r.rows > 0).collect();
    receipts.sort_by_key(|r| r.part.split);
    let paths: Vec<Result<PathBuf>> = receipts.into_iter().map(|r| Ok(serde_json::from_value(r.staged.clone())?)).collect();
    paths.into_iter().flat_map(|path| {
        let opened = path.and_then(|path| Ok(FileReader::try_new(BufReader::new(File::open(path)?), None)?));
        let (reader, failed) = match opened {
            Ok(reader) => (Some(reader), None),
            Err(e) => (None, Some(Err(e))),
        };
        reader.into_iter().flatten().map(|batch| Ok(batch?)).chain(failed)
    })
}
