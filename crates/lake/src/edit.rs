//! What a load does to one table, worked out for one version of it: files that come, files that go, a new schema.
//!
//! Nothing here is visible. The files it writes become part of the table by the commit that names them, or are removed.

use std::collections::HashSet;

use arrow::array::BooleanBufferBuilder;
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::SchemaRef;
use trib_core::contract::SchemaChange;
use trib_core::load::{Deletes, TableLoad, table_gone};
use trib_core::name::system;
use trib_core::{Code, Error, Load, Result, WriteMode};

use crate::data_file::{self, NewFile, join};
use crate::delta_schema::{self, Evolved};
use crate::layout::Layout;
use crate::merge::amend::Amend;
use crate::merge::decide::{Merge, ParentSide};
use crate::merge::rewrite::{Job, Mark, rewrite, timestamp};
use crate::merge::rules::{Counts, OnMatch, Rules, going};
use crate::merge::{Room, StagedFiles, unkeyed};
use crate::stage::{self, Staged};
use crate::table_log::{LiveFile, Snapshot, TableLog};

/// Sizes that a lake's settings give.
#[derive(Clone, Copy)]
pub struct Limits {
    pub file_bytes: u64,
    pub key_bytes: usize,
}

pub struct Edit {
    pub schema: SchemaRef,
    pub schema_changed: bool,
    pub adds: Vec<NewFile>,
    pub removes: Vec<LiveFile>,
    pub counts: Counts,
    /// Of the adds, those that this edit has written.
    written: Vec<String>,
}

impl Edit {
    /// Removes what was written for an edit that was not committed.
    pub async fn discard(self, layout: &Layout, log: &TableLog) -> Result<()> {
        let paths = self.written.iter().map(|name| log.folder.clone().join(name.as_str())).collect();
        data_file::remove(&layout.store, paths).await.map(drop)
    }
}

/// One table's share of a load, being worked out.
pub struct Draft<'a> {
    pub layout: &'a Layout,
    pub limits: Limits,
    pub load: &'a Load,
    pub share: &'a TableLoad,
    pub log: &'a TableLog,
    pub before: Option<&'a Snapshot>,
    /// The parent's table before the load, for child tables that keep what is there.
    pub parent_before: Option<&'a Snapshot>,
}

impl Draft<'_> {
    pub async fn edit(&self) -> Result<Edit> {
        if let Some(before) = self.before {
            before.writable()?;
        }
        let table = &self.share.table;
        let evolved = self.evolve()?;
        let staged = Self::staged(self.share, &self.log.folder)?;
        stage::verify(self.layout, &self.log.folder, &staged.files).await?;
        let live: &[LiveFile] = self.before.map_or(&[], |s| &s.files);
        let mut edit = Edit {
            schema: evolved.schema.clone(),
            schema_changed: evolved.changed || self.before.is_none(),
            adds: Vec::new(),
            removes: Vec::new(),
            counts: Counts::default(),
            written: Vec::new(),
        };
        let done = match table.write {
            WriteMode::Replace if table.scope.is_none() => self.replace(&mut edit, live, staged).await,
            WriteMode::Append if !staged.changes => {
                edit.counts.inserted = staged.files.iter().map(|f| f.rows).sum();
                edit.adds = staged.files;
                self.rewrite_widened(&mut edit, live, &evolved).await
            }
            WriteMode::Update => self.amend(&mut edit, live, &staged, &evolved).await,
            _ => self.merge(&mut edit, live, &staged, &evolved).await,
        };
        match done {
            Ok(()) => Ok(edit),
            Err(e) => {
                // Files of a failed edit are swept with the load; to be rid of them now is only tidy.
                let _ = edit.discard(self.layout, self.log).await;
                Err(e)
            }
        }
    }

    fn evolve(&self) -> Result<Evolved> {
        let table = &self.share.table;
        let wanted = delta_schema::stored(&table.schema)?;
        let whole = table.write == WriteMode::Replace && table.scope.is_none();
        match self.before {
            None if table.write == WriteMode::Update => Err(table_gone(&table.name)),
            None => Ok(Evolved { schema: wanted, changed: true, widened: false }),
            Some(before) if whole => {
                let changed = delta_schema::to_json(&before.schema) != delta_schema::to_json(&wanted);
                Ok(Evolved { schema: wanted, changed, widened: false })
            }
            Some(before) => {
                let mut evolved = delta_schema::evolve(&before.schema, &wanted, &self.share.changes)?;
                // A prune knows keys alone, and may be the first to mark rows.
                if table.write == WriteMode::Prune && table.deletes == Deletes::Soft && Self::mark(&evolved.schema).is_none() {
                    let field = trib_core::Table::system_fields(WriteMode::Upsert, Deletes::Soft).pop();
                    let marked = delta_schema::stored(&arrow::datatypes::Schema::new(field.into_iter().collect::<Vec<_>>()))?;
                    evolved = delta_schema::evolve(&evolved.schema, &marked, &[] as &[SchemaChange])?;
                    evolved.changed = true;
                }
                Ok(evolved)
            }
        }
    }

    fn staged(share: &TableLoad, folder: &object_store::path::Path) -> Result<StagedFiles> {
        let mut files = Vec::new();
        for receipt in &share.receipts {
            files.extend(Staged::of(receipt)?.files);
        }
        Ok(StagedFiles { folder: folder.clone(), files, sequenced: share.table.write.needs_sequence(), changes: share.table.changes })
    }

    async fn replace(&self, edit: &mut Edit, live: &[LiveFile], staged: StagedFiles) -> Result<()> {
        for file in live {
            edit.counts.deleted += match file.stats.num_records {
                Some(rows) => rows,
                None => data_file::rows(&self.layout.store, &join(&self.log.folder, &file.path), file.size).await?,
            };
        }
        edit.removes = live.to_vec();
        edit.counts.inserted = staged.files.iter().map(|f| f.rows).sum();
        edit.adds = staged.files;
        Ok(())
    }

    /// The column whose value says that a row has gone.
    fn mark(schema: &SchemaRef) -> Option<&'static str> {
        [system::VALID_TO, system::DELETED_AT].into_iter().find(|name| schema.index_of(name).is_ok())
    }

    async fn merge(&self, edit: &mut Edit, live: &[LiveFile], staged: &StagedFiles, evolved: &Evolved) -> Result<()> {
        let table = &self.share.table;
        if let Some(before) = self.before {
            before.mergeable()?;
        }
        let room = self.room(evolved);
        let mark = Self::mark(&evolved.schema);
        let history = mark == Some(system::VALID_TO);
        let (key, parent) = match &table.parent {
            Some(_) if table.write == WriteMode::History => {
                return Err(Error::new(Code::Unsupported, "a child table cannot keep a history")
                    .detail(table.name.to_string())
                    .hint("keep the nested column as it is, or as JSON"));
            }
            Some(tie) if table.write.needs_key() && table.write != WriteMode::Prune => {
                let share = self.load.tables.iter().find(|t| t.table.name == tie.table);
                let share = share.ok_or_else(|| Error::internal("a child table was loaded without its parent"))?;
                let folder = self.layout.table(&tie.table)?;
                let (here, there): (Vec<String>, Vec<String>) = tie.columns.iter().cloned().unzip();
                let keeps = (table.write == WriteMode::Insert)
                    .then(|| (self.parent_before.map_or(&[] as &[LiveFile], |s| &s.files), folder.clone()));
                (here, Some(ParentSide { staged: Self::staged(share, &folder)?, key: there, keeps }))
            }
            _ => (table.key.clone(), None),
        };
        let going = going(table.deletes, history);
        let covers = matches!(table.write, WriteMode::Mirror) && !table.changes || table.write == WriteMode::Prune;
        let on_match = match table.write {
            _ if parent.is_some() => OnMatch::Clear,
            WriteMode::Insert => OnMatch::Keep,
            WriteMode::History => OnMatch::Version,
            WriteMode::Prune => OnMatch::Only,
            _ => OnMatch::Replace,
        };
        let decision = match table.write {
            WriteMode::Append => unkeyed::appended(&room, staged).await?,
            WriteMode::Replace => unkeyed::replaced(&room, live, staged, table.scope.as_ref()).await?,
            _ => {
                let merge = Merge {
                    room: &room,
                    files: live,
                    staged,
                    rules: Rules { on_match, going, absent_goes: covers },
                    key,
                    scope: table.scope.as_ref(),
                    mark: mark.map(str::to_owned),
                    compared: table.data_columns().map(|f| f.name().clone()).filter(|n| !table.key.contains(n)).collect(),
                    parent,
                    ignore_deletes: table.deletes == Deletes::Ignore,
                };
                merge.decide().await?
            }
        };
        edit.counts = decision.counts;

        let mark = match mark {
            Some(name) => Some(Mark { column: evolved.schema.index_of(name)?, micros: self.load.loaded_at.timestamp_micros() }),
            None => None,
        };
        let mut jobs = Vec::new();
        for (number, (file, touched)) in live.iter().zip(decision.files).enumerate() {
            let Some(touched) = touched else {
                continue;
            };
            edit.removes.push(file.clone());
            let keep = touched.drop.map(|mut dropped| !&dropped.finish());
            if keep.as_ref().is_some_and(|k| k.count_set_bits() == 0) {
                continue;
            }
            jobs.push(Job {
                keep,
                mark: mark.zip(touched.mark.map(|mut bits| bits.finish())),
                ..self.copy(file, format!("{}-{number}", room.prefix))
            });
        }
        jobs.extend(self.publish(edit, &room, staged, decision.accepted));
        edit.take(rewrite(&room, jobs).await?);
        self.rewrite_widened(edit, live, evolved).await
    }

    /// Gives rows that are there the columns that were staged.
    async fn amend(&self, edit: &mut Edit, live: &[LiveFile], staged: &StagedFiles, evolved: &Evolved) -> Result<()> {
        if let Some(before) = self.before {
            before.mergeable()?;
        }
        let (table, room) = (&self.share.table, self.room(evolved));
        let columns = table.schema.fields().iter().map(|f| f.name()).filter(|name| !table.key.contains(name)).cloned();
        let compared = table.data_columns().map(|f| f.name()).filter(|name| !table.key.contains(name)).cloned();
        let amend = Amend {
            room: &room,
            files: live,
            staged,
            key: table.key.clone(),
            columns: columns.collect(),
            compared: compared.collect(),
            current: evolved.schema.index_of(system::VALID_TO).is_ok().then_some(system::VALID_TO),
        };
        let amended = amend.run().await?;
        edit.counts = amended.counts;
        edit.removes.extend(amended.files.into_iter().map(|number| live[number].clone()));
        edit.take(amended.written);
        self.rewrite_widened(edit, live, evolved).await
    }

    /// Makes the accepted rows part of the table: as the files that they are in, or as new ones.
    fn publish(&self, edit: &mut Edit, room: &Room, staged: &StagedFiles, accepted: Vec<BooleanBufferBuilder>) -> Vec<Job> {
        // A staged file can be published as it is when all of its rows count, and no column is filled only now.
        let as_it_is = self.share.table.write != WriteMode::History;
        let valid_from = timestamp(self.load.loaded_at.timestamp_micros());
        let mut jobs = Vec::new();
        for (number, (file, mut bits)) in staged.files.iter().zip(accepted).enumerate() {
            let keep: BooleanBuffer = bits.finish();
            match keep.count_set_bits() {
                0 => {}
                all if all == keep.len() && as_it_is => edit.adds.push(file.clone()),
                _ => jobs.push(Job {
                    source: staged.folder.clone().join(file.name.as_str()),
                    size: file.size,
                    keep: Some(keep),
                    mark: None,
                    constants: vec![(system::VALID_FROM.to_owned(), valid_from.clone())],
                    name: format!("{}-s{number}", room.prefix),
                }),
            }
        }
        jobs
    }

    /// Writes the files that hold a narrower type again: not every reader widens.
    async fn rewrite_widened(&self, edit: &mut Edit, live: &[LiveFile], evolved: &Evolved) -> Result<()> {
        if !evolved.widened {
            return Ok(());
        }
        if let Some(before) = self.before {
            before.mergeable()?;
        }
        let room = self.room(evolved);
        let gone: HashSet<String> = edit.removes.iter().map(|f| f.path.clone()).collect();
        let narrow: Vec<&LiveFile> = live.iter().filter(|f| !gone.contains(&f.path)).collect();
        edit.removes.extend(narrow.iter().copied().cloned());
        let jobs = narrow.iter().enumerate().map(|(number, file)| self.copy(file, format!("{}-w{number}", room.prefix)));
        edit.take(rewrite(&room, jobs.collect()).await?);
        Ok(())
    }

    /// A file of the table as it is.
    fn copy(&self, file: &LiveFile, name: String) -> Job {
        Job { source: join(&self.log.folder, &file.path), size: file.size, keep: None, mark: None, constants: Vec::new(), name }
    }

    fn room(&self, evolved: &Evolved) -> Room {
        // Another attempt at the same load must not write over files that this one may publish.
        let attempt = uuid::Uuid::new_v4().simple().to_string();
        Room {
            store: self.layout.store.clone(),
            folder: self.log.folder.clone(),
            schema: evolved.schema.clone(),
            prefix: format!("{}-m{}", self.load.id, &attempt[..8]),
            file_bytes: self.limits.file_bytes,
            key_bytes: self.limits.key_bytes,
            bounded: stage::bounded(&self.share.table),
        }
    }
}

impl Edit {
    fn take(&mut self, files: Vec<NewFile>) {
        self.written.extend(files.iter().map(|f| f.name.clone()));
        self.adds.extend(files);
    }
}
