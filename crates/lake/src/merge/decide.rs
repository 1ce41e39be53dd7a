//! Which rows a load touches, and which of its own rows count: see the steps in [`super`].

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanBufferBuilder, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use sha2::{Digest, Sha256};
use trib_core::load::RowScope;
use trib_core::name::system;
use trib_core::{Error, Result};

use super::keys::{Bucket, Entry, KeyIndex, Met};
use super::rules::{Counts, Fate, OnMatch, Row, Rules};
use super::{Room, StagedFiles};
use crate::data_file::{self, join};
use crate::table_log::LiveFile;

/// A merge to be decided.
pub struct Merge<'a> {
    pub room: &'a Room,
    pub files: &'a [LiveFile],
    pub staged: &'a StagedFiles,
    pub rules: Rules,
    /// The table's columns that are matched: its key, or a child table's tie to its parent.
    pub key: Vec<String>,
    pub scope: Option<&'a RowScope>,
    /// The column that says when a row went, if the table has one.
    pub mark: Option<String>,
    /// Columns that tell one version of a row from the next.
    pub compared: Vec<String>,
    /// For a child table: the parent, whose staged rows decide.
    pub parent: Option<ParentSide<'a>>,
    /// Deletes in a change log are passed over.
    pub ignore_deletes: bool,
}

/// The parent of a child table in the same load.
pub struct ParentSide<'a> {
    pub staged: StagedFiles,
    /// The parent's columns, in the order of [`Merge::key`].
    pub key: Vec<String>,
    /// Rows that are there keep their children: the parent's files, to see which are.
    pub keeps: Option<(&'a [LiveFile], Path)>,
}

/// What was decided: a bit for each row that was looked at.
pub struct Decision {
    /// For each of the table's files; `None` when the load touches no row of it.
    pub files: Vec<Option<Touched>>,
    /// For each staged file, the rows that become part of the table.
    pub accepted: Vec<BooleanBufferBuilder>,
    pub counts: Counts,
}

/// Rows of one file.
#[derive(Default)]
pub struct Touched {
    rows: usize,
    pub drop: Option<BooleanBufferBuilder>,
    pub mark: Option<BooleanBufferBuilder>,
}

impl Touched {
    fn set(bits: &mut Option<BooleanBufferBuilder>, row: usize) {
        let bits = bits.get_or_insert_with(|| BooleanBufferBuilder::new(row + 1));
        if bits.len() <= row {
            bits.append_n(row + 1 - bits.len(), false);
        }
        bits.set_bit(row, true);
    }

    /// Drops some of the next `rows` rows, and says how many.
    pub fn drop_more(&mut self, hits: impl Iterator<Item = usize>, rows: usize) -> u64 {
        let mut dropped = 0;
        for hit in hits {
            Self::set(&mut self.drop, self.rows + hit);
            dropped += 1;
        }
        self.rows += rows;
        dropped
    }

    /// When the whole file was looked at: its bits, as many as it has rows; `None` when no row is touched.
    pub fn ended(mut self) -> Option<Self> {
        for bits in [&mut self.drop, &mut self.mark].into_iter().flatten() {
            bits.append_n(self.rows.saturating_sub(bits.len()), false);
        }
        (self.drop.is_some() || self.mark.is_some()).then_some(self)
    }
}

impl Merge<'_> {
    pub async fn decide(mut self) -> Result<Decision> {
        let barrier = self.barrier().await?;
        if barrier.is_some() && !self.ignore_deletes {
            // A truncate in the log: what is there goes, whatever its key.
            self.rules.absent_goes = true;
        }
        let mut decision = Decision {
            files: self.files.iter().map(|_| Some(Touched::default())).collect(),
            accepted: self.staged.files.iter().map(|f| zeros(f.rows as usize)).collect(),
            counts: Counts::default(),
        };
        let mut bucket = Some(Bucket::all());
        while let Some(current) = bucket {
            let Some(mut index) = self.index(current.clone(), barrier).await? else {
                // Too many keys at a time. Nothing was decided yet, since only the first bucket can be the one that shows it,
                // or a later one that is a little larger: then what was decided is decided again, in the same way.
                decision.files.iter_mut().for_each(|f| *f = Some(Touched::default()));
                decision.accepted = self.staged.files.iter().map(|f| zeros(f.rows as usize)).collect();
                decision.counts = Counts::default();
                bucket = Some(current.halved());
                continue;
            };
            self.probe(&mut index, &mut decision).await?;
            match &self.parent {
                None => {
                    for entry in &index.entries {
                        if self.rules.accept(entry, &mut decision.counts) {
                            decision.accepted[entry.file as usize].set_bit(entry.row as usize, true);
                        }
                    }
                }
                Some(_) => self.accept_children(&index, &mut decision).await?,
            }
            bucket = current.next();
        }
        decision.files = decision.files.into_iter().map(|file| file.and_then(Touched::ended)).collect();
        Ok(decision)
    }

    /// Staged rows whose keys decide, and their key columns.
    fn deciding(&self) -> (&StagedFiles, &[String]) {
        match &self.parent {
            Some(parent) => (&parent.staged, &parent.key),
            None => (self.staged, &self.key),
        }
    }

    fn key_fields(&self) -> Result<Vec<Field>> {
        self.key.iter().map(|name| Ok(self.room.schema.field_with_name(name)?.clone())).collect()
    }

    /// The sequence of the last truncate: rows up to it are void.
    async fn barrier(&self) -> Result<Option<i64>> {
        let (staged, _) = self.deciding();
        if !staged.changes {
            return Ok(None);
        }
        let schema = Arc::new(Schema::new(vec![sequence(), operation()]));
        let mut last = None;
        for file in &staged.files {
            let mut batches = self.staged_rows(staged, file, &schema).await?;
            while let Some(batch) = batches.try_next().await? {
                let (seqs, ops) = (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_string::<i32>());
                let truncates = (0..batch.num_rows()).filter(|&i| ops.value(i) == "t").map(|i| seqs.value(i));
                last = last.max(truncates.max());
            }
        }
        Ok(last)
    }

    /// The winning staged rows of one bucket; `None` when they are too many.
    async fn index(&self, bucket: Bucket, barrier: Option<i64>) -> Result<Option<KeyIndex>> {
        let (staged, names) = self.deciding();
        let keys = self.key_fields()?;
        let versions = self.rules.on_match == OnMatch::Version && self.parent.is_none();
        let mut fields: Vec<Field> = keys.iter().zip(names).map(|(f, name)| f.clone().with_name(name)).collect();
        let at_seq = staged.sequenced.then(|| push(&mut fields, sequence()));
        let at_op = staged.changes.then(|| push(&mut fields, operation()));
        let at_compared = fields.len();
        let printer = if versions { Some(self.printer(&mut fields)?) } else { None };
        let schema: SchemaRef = Arc::new(Schema::new(fields));

        // Children that keep what is there belong to the first version of a new parent, as that is the one that stays.
        let keeps = self.parent.as_ref().is_some_and(|p| p.keeps.is_some());
        let first_wins = self.rules.on_match == OnMatch::Keep || keeps;
        let mut index = KeyIndex::new(&keys, bucket, self.room.key_bytes)?.first_wins(first_wins);
        for (number, file) in staged.files.iter().enumerate() {
            let mut batches = self.staged_rows(staged, file, &schema).await?;
            let mut before = 0;
            while let Some(batch) = batches.try_next().await? {
                let columns = &batch.columns()[..keys.len()];
                index.saw(columns);
                let rows = index.convert(columns)?;
                let seqs = at_seq.map(|at| batch.column(at).as_primitive::<Int64Type>());
                let ops = at_op.map(|at| batch.column(at).as_string::<i32>());
                let prints = printer.as_ref().map(|p| p.prints(&batch.columns()[at_compared..])).transpose()?;
                for i in 0..batch.num_rows() {
                    let seq = seqs.map_or((before + i) as i64, |s| s.value(i));
                    let op = ops.map_or("u", |o| o.value(i));
                    let void = op == "t" || barrier.is_some_and(|b| seq <= b) || (op == "d" && self.ignore_deletes);
                    let key = rows.row(i);
                    let key: &[u8] = key.as_ref();
                    let Some(hash) = (if void { None } else { index.hash(key) }) else {
                        continue;
                    };
                    let entry = Entry::new(seq, number, before + i, op == "d");
                    if index.offer(hash, key, entry, prints.as_ref().map(|p| p[i])).is_err() {
                        return Ok(None);
                    }
                }
                before += batch.num_rows();
            }
        }
        index.sort();
        Ok(Some(index))
    }

    /// Looks for the bucket's keys in the table, and decides on each row that has one of them, or should have.
    async fn probe(&self, index: &mut KeyIndex, decision: &mut Decision) -> Result<()> {
        if let Some(ParentSide { key, keeps: Some((files, folder)), .. }) = &self.parent {
            // Nothing of the child table goes; what counts is which parents are there.
            return self.mark_met(index, key, files, folder).await;
        }
        let keys = self.key_fields()?;
        let mut fields = keys.clone();
        let at_mark = match &self.mark {
            Some(name) => Some(push(&mut fields, self.room.schema.field_with_name(name)?.clone())),
            None => None,
        };
        let scope = self.scope.filter(|_| self.rules.absent_goes);
        let at_scope = scope.and_then(|s| Some((push(&mut fields, Field::new(&s.column, DataType::Utf8, true)), s.value()?)));
        let at_compared = fields.len();
        let printer = if self.rules.on_match == OnMatch::Version { Some(self.printer(&mut fields)?) } else { None };
        let schema: SchemaRef = Arc::new(Schema::new(fields));

        for (file, touched) in self.files.iter().zip(&mut decision.files) {
            if !self.rules.absent_goes && !may_hold(index, file, &keys[0])? {
                continue;
            }
            let touched = touched.get_or_insert_default();
            let path = join(&self.room.folder, &file.path);
            let mut batches = data_file::read(&self.room.store, &path, file.size, &schema, &[]).await?.boxed();
            let mut before = 0;
            while let Some(batch) = batches.try_next().await? {
                let rows = index.convert(&batch.columns()[..keys.len()])?;
                let prints = printer.as_ref().map(|p| p.prints(&batch.columns()[at_compared..])).transpose()?;
                let scopes = at_scope.map(|(at, value)| (batch.column(at).as_string::<i32>(), value));
                for i in 0..batch.num_rows() {
                    let key = rows.row(i);
                    let key: &[u8] = key.as_ref();
                    let Some(hash) = index.hash(key) else {
                        continue;
                    };
                    let at = index.find(hash, key);
                    let row = Row {
                        live: at_mark.is_none_or(|at| batch.column(at).is_null(i)),
                        in_scope: scopes.is_none_or(|(column, value)| column.is_valid(i) && column.value(i) == value),
                    };
                    let same = at.is_some_and(|at| prints.as_ref().is_some_and(|p| index.prints[at] == p[i]));
                    let entry = at.map(|at| &mut index.entries[at]);
                    match self.rules.judge(row, entry, same, &mut decision.counts) {
                        Fate::Stay => {}
                        Fate::Drop => Touched::set(&mut touched.drop, before + i),
                        Fate::Mark => Touched::set(&mut touched.mark, before + i),
                    }
                }
                before += batch.num_rows();
            }
            touched.rows = before;
        }
        Ok(())
    }

    /// Notes which of the keys a table has.
    async fn mark_met(&self, index: &mut KeyIndex, names: &[String], files: &[LiveFile], folder: &Path) -> Result<()> {
        let keys: Vec<Field> = self.key_fields()?.iter().zip(names).map(|(f, name)| f.clone().with_name(name)).collect();
        let schema: SchemaRef = Arc::new(Schema::new(keys.clone()));
        for file in files {
            if !may_hold(index, file, &keys[0])? {
                continue;
            }
            let mut batches = data_file::read(&self.room.store, &join(folder, &file.path), file.size, &schema, &[]).await?.boxed();
            while let Some(batch) = batches.try_next().await? {
                let rows = index.convert(batch.columns())?;
                for row in &rows {
                    if let Some(at) = index.hash(row.as_ref()).and_then(|hash| index.find(hash, row.as_ref())) {
                        index.entries[at].met = Met::Yes;
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes the staged rows of a child table whose parent row is the one that counts.
    async fn accept_children(&self, index: &KeyIndex, decision: &mut Decision) -> Result<()> {
        let keeps = self.parent.as_ref().is_some_and(|p| p.keeps.is_some());
        let mut fields = self.key_fields()?;
        let keys = fields.len();
        let at_seq = self.staged.sequenced.then(|| push(&mut fields, sequence()));
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        for (file, accepted) in self.staged.files.iter().zip(&mut decision.accepted) {
            let mut batches = self.staged_rows(self.staged, file, &schema).await?;
            let mut before = 0;
            while let Some(batch) = batches.try_next().await? {
                let rows = index.convert(&batch.columns()[..keys])?;
                let seqs = at_seq.map(|at| batch.column(at).as_primitive::<Int64Type>());
                for i in 0..batch.num_rows() {
                    let key = rows.row(i);
                    let Some(at) = index.hash(key.as_ref()).and_then(|hash| index.find(hash, key.as_ref())) else {
                        continue;
                    };
                    let parent = &index.entries[at];
                    // A parent that was staged twice has the children of its last version.
                    let of_winner = seqs.is_none_or(|s| s.value(i) == parent.seq);
                    if of_winner && !parent.delete && !(keeps && parent.met != Met::No) {
                        accepted.set_bit(before + i, true);
                        decision.counts.inserted += 1;
                    }
                }
                before += batch.num_rows();
            }
        }
        Ok(())
    }

    async fn staged_rows(
        &self,
        staged: &StagedFiles,
        file: &data_file::NewFile,
        schema: &SchemaRef,
    ) -> Result<futures::stream::BoxStream<'static, Result<RecordBatch>>> {
        let path = staged.folder.clone().join(file.name.as_str());
        Ok(data_file::read(&self.room.store, &path, file.size, schema, &[]).await?.boxed())
    }

    fn printer(&self, fields: &mut Vec<Field>) -> Result<Printer> {
        let compared: Result<Vec<Field>> = self.compared.iter().map(|name| Ok(self.room.schema.field_with_name(name)?.clone())).collect();
        let compared = compared?;
        let sorts = compared.iter().map(|f| SortField::new(f.data_type().clone())).collect();
        fields.extend(compared);
        Ok(Printer(RowConverter::new(sorts)?))
    }
}

/// Fingerprints of rows. SHA-256, so that two versions of a row that differ are never taken for one.
struct Printer(RowConverter);

impl Printer {
    fn prints(&self, columns: &[ArrayRef]) -> Result<Vec<u128>> {
        if columns.is_empty() {
            return Err(Error::internal("a history has nothing but its key"));
        }
        let rows = self.0.convert_columns(columns)?;
        let print = |row: &[u8]| {
            let digest = Sha256::digest(row);
            digest.iter().take(16).fold(0u128, |print, byte| print << 8 | u128::from(*byte))
        };
        Ok(rows.iter().map(|row| print(row.as_ref())).collect())
    }
}

/// Whether a file may hold one of the keys, by what the log says of the key's first column.
fn may_hold(index: &KeyIndex, file: &LiveFile, first: &Field) -> Result<bool> {
    match file.stats.bounds(first.name(), first.data_type()) {
        Some((least, greatest)) => index.touches(&least, &greatest),
        None => Ok(true),
    }
}

fn zeros(rows: usize) -> BooleanBufferBuilder {
    let mut bits = BooleanBufferBuilder::new(rows);
    bits.append_n(rows, false);
    bits
}

fn push(fields: &mut Vec<Field>, field: Field) -> usize {
    fields.push(field);
    fields.len() - 1
}

fn sequence() -> Field {
    Field::new(system::SEQ, DataType::Int64, true)
}

fn operation() -> Field {
    Field::new(system::OP, DataType::Utf8, true)
}
