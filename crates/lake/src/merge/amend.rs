//! Giving rows that are there the staged values of some columns: an update by key, with memory that neither the table nor the load decides.
//!
//! The table's files are gone through in groups, as many at a time as the keys of their rows fit the budget; one file at least. For each group the staged
//! files are read once, and of their rows those are held whose key a row of the group has. Then each file in which a value differs is
//! written again. So what is held are the keys of one group and the new values for them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanBufferBuilder, RecordBatch, UInt32Array};
use arrow::compute::{interleave, take_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::row::{OwnedRow, RowConverter, SortField};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use trib_core::name::system;
use trib_core::{Error, Result};

use super::keys::{Bucket, Entry, KeyIndex};
use super::rules::Counts;
use super::{Room, StagedFiles};
use crate::data_file::{self, FileWriter, NewFile, join};
use crate::file_stats::FileStats;
use crate::table_log::LiveFile;

pub struct Amend<'a> {
    pub room: &'a Room,
    pub files: &'a [LiveFile],
    pub staged: &'a StagedFiles,
    pub key: Vec<String>,
    /// What a row gets, if one of `compared` differs.
    pub columns: Vec<String>,
    pub compared: Vec<String>,
    /// Only rows that are NULL there: the current ones of a history.
    pub current: Option<&'static str>,
}

/// What has become of the table's files.
#[derive(Default)]
pub struct Amended {
    /// By their numbers, those that others take the place of.
    pub files: Vec<usize>,
    pub written: Vec<NewFile>,
    pub counts: Counts,
}

/// Files whose rows get their values at a time.
struct Group {
    files: Vec<usize>,
    index: KeyIndex,
    /// Staged rows, of [`Amend::columns`].
    rows: Vec<RecordBatch>,
    /// For each key of the index the staged row that wins, with its sequence.
    winners: Vec<Option<Winner>>,
}

#[derive(Clone, Copy)]
struct Winner {
    seq: i64,
    batch: usize,
    row: usize,
}

/// The least and the greatest value of the key's first column in a file, where they are known.
type Bounds = Option<(OwnedRow, OwnedRow)>;

impl Amend<'_> {
    pub async fn run(&self) -> Result<Amended> {
        let first = self.fields(&self.key[..1])?.remove(0);
        let order = RowConverter::new(vec![SortField::new(first.data_type().clone())])?;
        let staged =
            self.staged.files.iter().map(|f| bounds(&order, FileStats::parse(&f.stats).as_ref(), &first)).collect::<Result<Vec<_>>>()?;
        let live = self.files.iter().map(|f| bounds(&order, Some(&f.stats), &first)).collect::<Result<Vec<_>>>()?;
        let mut met: Vec<BooleanBufferBuilder> = self.staged.files.iter().map(|f| none(f.rows as usize)).collect();
        let mut amended = Amended::default();
        let mut next = 0;
        while next < self.files.len() {
            let mut group = self.group()?;
            while next < self.files.len() && group.index.size() <= self.room.key_bytes {
                if staged.iter().any(|other| overlap(&live[next], other)) {
                    self.take(&mut group, next).await?;
                }
                next += 1;
            }
            let meets = |other: &Bounds| group.files.iter().any(|file| overlap(&live[*file], other));
            let read: Vec<usize> = (0..staged.len()).filter(|file| meets(&staged[*file])).collect();
            for file in read {
                self.find(&mut group, file, &mut met[file]).await?;
            }
            for file in &group.files {
                self.write(&group, *file, &mut amended).await?;
            }
        }
        amended.counts.unmatched = met.iter_mut().map(|bits| bits.finish()).map(|bits| (bits.len() - bits.count_set_bits()) as u64).sum();
        Ok(amended)
    }

    fn group(&self) -> Result<Group> {
        // Where a group ends is decided between two files.
        let index = KeyIndex::new(&self.fields(&self.key)?, Bucket::all(), usize::MAX)?;
        Ok(Group { files: Vec::new(), index, rows: Vec::new(), winners: Vec::new() })
    }

    /// Takes the keys of a file into the group.
    async fn take(&self, group: &mut Group, file: usize) -> Result<()> {
        let mut fields = self.fields(&self.key)?;
        fields.extend(self.current_field()?);
        let mut batches = self.live(file, fields).await?;
        while let Some(batch) = batches.try_next().await? {
            let keys = group.index.convert(&batch.columns()[..self.key.len()])?;
            for row in self.current_rows(&batch) {
                let key = keys.row(row);
                let Some(hash) = group.index.hash(key.as_ref()) else { continue };
                let entry = Entry::new(0, file, row, false);
                group.index.offer(hash, key.as_ref(), entry, None).map_err(|_| Error::internal("a file of the table has too many keys"))?;
            }
        }
        group.files.push(file);
        Ok(())
    }

    /// Takes the rows of a staged file into the group whose keys it has, the last of each key winning.
    async fn find(&self, group: &mut Group, file: usize, met: &mut BooleanBufferBuilder) -> Result<()> {
        let keys = self.key.len();
        let mut fields = self.fields(&self.key)?;
        fields.push(Field::new(system::SEQ, DataType::Int64, true));
        fields.extend(self.fields(&self.columns)?);
        let values: Vec<usize> = (keys + 1..fields.len()).collect();
        let file = &self.staged.files[file];
        let mut batches = self.read(&self.staged.folder.clone().join(file.name.as_str()), file.size, fields).await?;
        group.winners.resize(group.index.entries.len(), None);
        let mut before = 0;
        while let Some(batch) = batches.try_next().await? {
            let found = group.index.convert(&batch.columns()[..keys])?;
            let seqs = batch.column(keys).as_primitive::<Int64Type>();
            let mut taken: Vec<u32> = Vec::new();
            for row in 0..batch.num_rows() {
                let key = found.row(row);
                let Some(at) = group.index.hash(key.as_ref()).and_then(|hash| group.index.find(hash, key.as_ref())) else { continue };
                met.set_bit(before + row, true);
                let seq = seqs.value(row);
                if group.winners[at].is_none_or(|w| w.seq <= seq) {
                    group.winners[at] = Some(Winner { seq, batch: group.rows.len(), row: taken.len() });
                    taken.push(row as u32);
                }
            }
            if !taken.is_empty() {
                group.rows.push(take_record_batch(&batch.project(&values)?, &UInt32Array::from(taken))?);
            }
            before += batch.num_rows();
        }
        Ok(())
    }

    /// Writes a file again with the new values, unless all of its rows have them.
    async fn write(&self, group: &Group, file: usize, amended: &mut Amended) -> Result<()> {
        if group.rows.is_empty() || self.differing(group, file, self.narrow()?).await? == 0 {
            return Ok(());
        }
        let room = self.room;
        let name = format!("{}-{file}", room.prefix);
        let writer = FileWriter::new(room.store.clone(), room.folder.clone(), name, room.schema.clone(), room.file_bytes);
        let mut writer = writer.bounded(&room.bounded);
        let mut batches = self.live(file, room.schema.fields().iter().map(|f| f.as_ref().clone()).collect()).await?;
        while let Some(batch) = batches.try_next().await? {
            let winners = self.winners(group, &batch)?;
            amended.counts.updated += winners.iter().flatten().count() as u64;
            writer.write(&self.changed(group, &batch, &winners)?).await?;
        }
        amended.files.push(file);
        amended.written.extend(writer.finish().await?);
        Ok(())
    }

    /// How many rows of a file get other values.
    async fn differing(&self, group: &Group, file: usize, columns: Vec<Field>) -> Result<usize> {
        let mut batches = self.live(file, columns).await?;
        let mut rows = 0;
        while let Some(batch) = batches.try_next().await? {
            rows += self.winners(group, &batch)?.iter().flatten().count();
        }
        Ok(rows)
    }

    /// For each row of a batch of the table the staged row whose values it gets; `None` where it stays as it is.
    fn winners(&self, group: &Group, batch: &RecordBatch) -> Result<Vec<Option<Winner>>> {
        let mut winners = vec![None; batch.num_rows()];
        let key: Vec<ArrayRef> = self.key.iter().map(|name| column(batch, name)).collect::<Result<_>>()?;
        let keys = group.index.convert(&key)?;
        for row in self.current_rows(batch) {
            let key = keys.row(row);
            let at = group.index.hash(key.as_ref()).and_then(|hash| group.index.find(hash, key.as_ref()));
            winners[row] = at.and_then(|at| group.winners.get(at).copied().flatten());
        }
        let compared = self.fields(&self.compared)?;
        let sorts: Vec<SortField> = compared.iter().map(|f| SortField::new(f.data_type().clone())).collect();
        if !RowConverter::supports_fields(&sorts) {
            return Ok(winners);
        }
        let order = RowConverter::new(sorts)?;
        let changed = self.changed(group, batch, &winners)?;
        let values = |batch: &RecordBatch| self.compared.iter().map(|name| column(batch, name)).collect::<Result<Vec<_>>>();
        let (before, after) = (order.convert_columns(&values(batch)?)?, order.convert_columns(&values(&changed)?)?);
        for (row, winner) in winners.iter_mut().enumerate() {
            if before.row(row) == after.row(row) {
                *winner = None;
            }
        }
        Ok(winners)
    }

    /// The batch with the values that its rows get.
    fn changed(&self, group: &Group, batch: &RecordBatch, winners: &[Option<Winner>]) -> Result<RecordBatch> {
        let own = group.rows.len();
        let places: Vec<(usize, usize)> = winners.iter().enumerate().map(|(row, w)| w.map_or((own, row), |w| (w.batch, w.row))).collect();
        let mut columns = batch.columns().to_vec();
        for (number, name) in self.columns.iter().enumerate() {
            let Ok(at) = batch.schema_ref().index_of(name) else { continue };
            let mut sources: Vec<&dyn Array> = group.rows.iter().map(|rows| rows.column(number).as_ref()).collect();
            sources.push(batch.column(at).as_ref());
            columns[at] = interleave(&sources, &places)?;
        }
        Ok(RecordBatch::try_new(batch.schema(), columns)?)
    }

    /// The columns of the table that tell whether a row differs.
    fn narrow(&self) -> Result<Vec<Field>> {
        let mut fields = self.fields(&self.key)?;
        fields.extend(self.fields(&self.compared)?);
        fields.extend(self.current_field()?);
        Ok(fields)
    }

    fn fields(&self, names: &[String]) -> Result<Vec<Field>> {
        names.iter().map(|name| Ok(self.room.schema.field_with_name(name)?.clone())).collect()
    }

    fn current_field(&self) -> Result<Option<Field>> {
        self.current.map(|name| Ok(self.room.schema.field_with_name(name)?.clone())).transpose()
    }

    fn current_rows(&self, batch: &RecordBatch) -> Vec<usize> {
        let until = self.current.and_then(|name| batch.column_by_name(name));
        (0..batch.num_rows()).filter(|row| until.is_none_or(|until| until.is_null(*row))).collect()
    }

    async fn live(&self, file: usize, fields: Vec<Field>) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let file = &self.files[file];
        self.read(&join(&self.room.folder, &file.path), file.size, fields).await
    }

    async fn read(&self, path: &Path, size: u64, fields: Vec<Field>) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        Ok(data_file::read(&self.room.store, path, size, &schema, &[]).await?.boxed())
    }
}

fn column(batch: &RecordBatch, name: &str) -> Result<ArrayRef> {
    Ok(batch.column(batch.schema_ref().index_of(name)?).clone())
}

fn bounds(order: &RowConverter, stats: Option<&FileStats>, first: &Field) -> Result<Bounds> {
    let Some((least, greatest)) = stats.and_then(|s| s.bounds(first.name(), first.data_type())) else {
        return Ok(None);
    };
    let row = |value: ArrayRef| Ok::<_, Error>(order.convert_columns(&[value])?.row(0).owned());
    Ok(Some((row(least)?, row(greatest)?)))
}

/// Whether two files may have a key in common.
fn overlap(one: &Bounds, other: &Bounds) -> bool {
    match (one, other) {
        (Some((least, greatest)), Some((from, to))) => least <= to && from <= greatest,
        _ => true,
    }
}

fn none(rows: usize) -> BooleanBufferBuilder {
    let mut bits = BooleanBufferBuilder::new(rows);
    bits.append_n(rows, false);
    bits
}
