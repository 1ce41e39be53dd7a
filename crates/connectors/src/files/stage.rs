//! Writing a part where no reader looks.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use trib_core::{Code, Error, Part, Result, Table, WriteMode};
use trib_kit::shown;

use super::csv::write::printable;
use super::encoder::{Encoder, Style};
use super::manifest::{component, folder, stage_folder, table_file};
use super::place::Place;

/// The folder name that Hive gives to NULL.
pub const NULL_PARTITION: &str = "__HIVE_DEFAULT_PARTITION__";

/// A file gets a successor when it has grown beyond this.
const ROLL_BYTES: u64 = 512 << 20;
/// Partitions that are written at the same time; further ones close the oldest, which then has several files.
const MOST_OPEN: usize = 32;

/// A staged file: what a receipt remembers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StagedFile {
    /// Where it is.
    pub staged: String,
    /// Where readers will find it.
    pub name: String,
    pub rows: u64,
    pub bytes: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub partition: BTreeMap<String, Option<String>>,
}

type Values = Vec<Option<String>>;

struct Open {
    encoder: Encoder,
    file: StagedFile,
    /// Grows with each file that is opened.
    age: usize,
}

/// Writes the batches of one part, on a blocking thread.
pub struct PartWriter {
    place: Place,
    style: Style,
    /// Of the files: without the columns that their folders' names hold.
    schema: SchemaRef,
    kept: Vec<usize>,
    partition_by: Vec<(String, usize)>,
    staging: String,
    published: String,
    stem: String,
    open: HashMap<Values, Open>,
    done: Vec<StagedFile>,
    opened: usize,
    keeps_empty: bool,
    /// All rows go into one file of a given name.
    single: bool,
}

impl PartWriter {
    /// `single` is the one file that the destination consists of, when it does.
    pub fn new(place: Place, style: Style, part: &Part, table: &Table, single: Option<&str>) -> Result<Self> {
        let whole = table.staging_schema();
        let partition_by: Vec<(String, usize)> = table
            .partition_by
            .iter()
            .map(|name| {
                let missing = |_| Error::new(Code::NotFound, "the table has no such column").detail(name.clone()).setting("partition_by");
                Ok((name.clone(), whole.index_of(name).map_err(missing)?))
            })
            .collect::<Result<_>>()?;
        if whole.fields().is_empty() {
            return Err(Error::new(Code::DataInvalid, "the rows have no columns, and there is nothing to write")
                .detail(table.name.to_string())
                .hint("an empty file names no columns; one with a header does"));
        }
        let kept: Vec<usize> = (0..whole.fields().len()).filter(|i| !partition_by.iter().any(|(_, at)| at == i)).collect();
        if kept.is_empty() {
            return Err(
                Error::new(Code::ConfigInvalid, "all columns are partitions, and nothing is left for the files").setting("partition_by")
            );
        }
        let control = table_file(&table.name);
        let table_key = control.rsplit('/').next().unwrap_or(&control).trim_end_matches(".json");
        Ok(Self {
            single: single.is_some(),
            place,
            style,
            schema: Arc::new(Schema::new(kept.iter().map(|i| whole.field(*i).clone()).collect::<Vec<_>>())),
            kept,
            partition_by,
            staging: format!("{}/{table_key}", stage_folder(&part.sync, &part.load)),
            published: single.map_or_else(|| folder(&table.name), str::to_owned),
            stem: format!("{}-{}-{}", component(&part.load.0), part.split, part.attempt),
            open: HashMap::new(),
            done: Vec::new(),
            opened: 0,
            // A table that is replaced by nothing is an empty file, which still says what its columns are.
            keeps_empty: single.is_some() || (table.write == WriteMode::Replace && part.split == 0 && table.partition_by.is_empty()),
        })
    }

    /// Takes batches until the channel ends.
    pub fn run(mut self, mut batches: mpsc::Receiver<RecordBatch>) -> Result<Vec<StagedFile>> {
        while let Some(batch) = batches.blocking_recv() {
            for (values, rows) in self.partitions(batch)? {
                self.write(&values, &rows)?;
            }
        }
        if self.open.is_empty() && self.done.is_empty() && self.keeps_empty {
            let open = self.begin(&Vec::new(), None)?;
            self.open.insert(Vec::new(), open);
        }
        let mut rest: Vec<Open> = std::mem::take(&mut self.open).into_values().collect();
        rest.sort_by_key(|open| open.age);
        for open in rest {
            self.close(open)?;
        }
        Ok(self.done)
    }

    fn write(&mut self, values: &Values, rows: &RecordBatch) -> Result<()> {
        if !self.open.contains_key(values) {
            if self.open.len() >= MOST_OPEN {
                let oldest = self.open.iter().min_by_key(|(_, open)| open.age).map(|(values, _)| values.clone());
                if let Some(open) = oldest.and_then(|values| self.open.remove(&values)) {
                    self.close(open)?;
                }
            }
            let open = self.begin(values, Some(rows))?;
            self.open.insert(values.clone(), open);
        }
        let Some(open) = self.open.get_mut(values) else { return Ok(()) };
        open.encoder.write(rows)?;
        open.file.rows += rows.num_rows() as u64;
        if open.encoder.written() > ROLL_BYTES
            && !self.single
            && let Some(open) = self.open.remove(values)
        {
            self.close(open)?;
        }
        Ok(())
    }

    fn begin(&mut self, values: &Values, first: Option<&RecordBatch>) -> Result<Open> {
        let number = self.opened;
        self.opened += 1;
        let extension = self.style.extension();
        let file_name = if number == 0 { format!("{}{extension}", self.stem) } else { format!("{}-{number}{extension}", self.stem) };
        let mut name = self.published.clone();
        for ((column, _), value) in self.partition_by.iter().zip(values) {
            let value = value.as_deref().map_or_else(|| NULL_PARTITION.to_owned(), hive_value);
            name = format!("{name}/{}={value}", hive_value(column));
        }
        if !self.single {
            name = format!("{name}/{file_name}");
        }
        let staged = format!("{}/{file_name}", self.staging);
        let encoder = self.style.encoder(self.place.create(&staged)?, &self.schema, first)?;
        let partition = self.partition_by.iter().map(|(column, _)| column.clone()).zip(values.iter().cloned()).collect();
        Ok(Open { encoder, file: StagedFile { staged, name, rows: 0, bytes: 0, partition }, age: number })
    }

    fn close(&mut self, open: Open) -> Result<()> {
        let bytes = open.encoder.finish()?;
        self.done.push(StagedFile { bytes, ..open.file });
        Ok(())
    }

    /// The batch by partition, without the partition columns.
    fn partitions(&self, batch: RecordBatch) -> Result<Vec<(Values, RecordBatch)>> {
        if self.partition_by.is_empty() {
            return Ok(vec![(Vec::new(), batch)]);
        }
        let columns: Vec<ArrayRef> =
            self.partition_by.iter().map(|(_, at)| printable(batch.schema().field(*at), batch.column(*at))).collect::<Result<_>>()?;
        let options = FormatOptions::default();
        let formatters: Vec<ArrayFormatter<'_>> = columns.iter().map(|c| ArrayFormatter::try_new(c, &options)).collect::<Result<_, _>>()?;
        let mut groups: Vec<(Values, Vec<u32>)> = Vec::new();
        let mut places: HashMap<Values, usize> = HashMap::new();
        for row in 0..batch.num_rows() {
            let value = |(c, f): (&ArrayRef, &ArrayFormatter<'_>)| c.is_valid(row).then(|| shown::text(f, c, row)).transpose();
            let values: Values = columns.iter().zip(&formatters).map(value).collect::<Result<_>>()?;
            let at = *places.entry(values.clone()).or_insert_with(|| {
                groups.push((values, Vec::new()));
                groups.len() - 1
            });
            groups[at].1.push(row as u32);
        }
        let inner = batch.project(&self.kept)?;
        groups.into_iter().map(|(values, rows)| Ok((values, take_record_batch(&inner, &UInt32Array::from(rows))?))).collect()
    }
}

/// Escapes what a path component may not hold, as Hive and Spark do.
fn hive_value(value: &str) -> String {
    component(value).replace("%2E", ".")
}
