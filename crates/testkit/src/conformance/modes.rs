//! Every declared write mode against the model, load after load.

use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use trib_core::load::{Deletes, RowScope, TableOutcome};
use trib_core::name::system;
use trib_core::{Outcome, TableName, WriteMode};

use super::bench::{Bench, Place, Wanted};
use super::{Check, Failure, Report, ensure};
use crate::chance::Chance;
use crate::model::Tally;

const LOADS: usize = 5;

pub(super) async fn checks(at: &Place<'_>, report: &mut Report) {
    let modes = at.modes();
    for mode in modes.iter().filter(|m| !matches!(m, WriteMode::Prune | WriteMode::Update)) {
        report.check(&format!("modes::{}", mode.as_str()), random_loads(at, *mode, Deletes::Hard, false)).await;
    }
    for mode in [WriteMode::Upsert, WriteMode::History].into_iter().filter(|m| modes.contains(m)) {
        report.check(&format!("modes::{} of the same rows", mode.as_str()), the_same_rows_again(at, mode)).await;
    }
    if modes.contains(&WriteMode::Mirror) {
        for deletes in [Deletes::Soft, Deletes::Ignore] {
            report.check(&format!("modes::mirror with {deletes:?} deletes"), random_loads(at, WriteMode::Mirror, deletes, false)).await;
        }
    }
    if modes.contains(&WriteMode::Upsert) {
        for deletes in [Deletes::Hard, Deletes::Soft, Deletes::Ignore] {
            report
                .check(&format!("modes::upsert of changes with {deletes:?} deletes"), random_loads(at, WriteMode::Upsert, deletes, true))
                .await;
        }
        if modes.contains(&WriteMode::Prune) {
            for deletes in [Deletes::Hard, Deletes::Soft] {
                report.check(&format!("modes::prune with {deletes:?} deletes"), prune(at, deletes)).await;
            }
        }
    }
    if modes.contains(&WriteMode::Update) {
        for mode in [WriteMode::Upsert, WriteMode::Append, WriteMode::History].into_iter().filter(|m| modes.contains(m)) {
            report.check(&format!("modes::update of what {} has loaded", mode.as_str()), update(at, mode)).await;
        }
    }
    for mode in [WriteMode::Replace, WriteMode::Upsert, WriteMode::Mirror].into_iter().filter(|m| modes.contains(m)) {
        report.check(&format!("modes::{} within its scope", mode.as_str()), scopes_touch_their_own_rows(at, mode)).await;
    }
}

/// Rows by id, region and a version that makes every one of them new.
struct Rows<'a> {
    region: &'a str,
    ids: Vec<i64>,
    ops: Option<Vec<&'static str>>,
    version: usize,
}

impl Rows<'_> {
    fn batch(&self, at: &Place<'_>) -> Result<RecordBatch, Failure> {
        let count = self.ids.len();
        let null_or = |i: usize| (!(i + self.version).is_multiple_of(5)).then_some(i as i64);
        let names: StringArray = (0..count).map(|i| Some(format!("v{} row {i}", self.version))).collect();
        let amounts: Decimal128Array = (0..count).map(|i| null_or(i).map(|n| i128::from(n) * 100 + self.version as i128)).collect();
        let times: TimestampMicrosecondArray = (0..count).map(|i| null_or(i).map(|n| 1_700_000_000_000_000 + n)).collect();
        let amounts = amounts.with_precision_and_scale(12, 2).map_err(Failure::new)?;
        let columns: Vec<(&str, ArrayRef, bool)> = vec![
            ("id", Arc::new(Int64Array::from(self.ids.clone())), false),
            ("region", Arc::new(StringArray::from(vec![self.region; count])), false),
            ("name", Arc::new(names), true),
            ("amount", Arc::new(amounts), true),
            ("at", Arc::new(times.with_timezone("UTC")), true),
        ];
        let mut fields: Vec<Field> = columns.iter().map(|(n, c, nullable)| Field::new(*n, c.data_type().clone(), *nullable)).collect();
        let mut arrays: Vec<ArrayRef> = columns.into_iter().map(|c| c.1).collect();
        let keep: Vec<usize> = (0..fields.len()).filter(|i| at.is_exact(&fields[*i])).collect();
        fields = keep.iter().map(|i| fields[*i].clone()).collect();
        arrays = keep.iter().map(|i| arrays[*i].clone()).collect();
        if let Some(ops) = &self.ops {
            fields.push(Field::new(system::OP, DataType::Utf8, false));
            arrays.push(Arc::new(StringArray::from(ops.clone())));
        }
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(Failure::new)
    }
}

fn wanted(at: &Place<'_>, table: &TableName, mode: WriteMode, rows: &Rows<'_>) -> Result<Wanted, Failure> {
    Ok(Wanted::new(table.clone(), mode, rows.batch(at)?))
}

/// Keys that overlap from load to load; where rows have an order, also twice within a load.
fn ids(chance: &mut Chance, repeats: bool) -> Vec<i64> {
    let mut ids: Vec<i64> = (0..40).filter(|_| chance.one_in(2)).collect();
    // No order that a merge could lean on.
    for i in (1..ids.len()).rev() {
        ids.swap(i, chance.below(i as u64 + 1) as usize);
    }
    if repeats {
        let twice: Vec<i64> = ids.iter().copied().filter(|_| chance.one_in(4)).collect();
        ids.extend(twice);
    }
    ids
}

/// Inserts, updates and deletes; in the fourth load also a truncate, first or in the middle.
fn ops(chance: &mut Chance, count: usize, deletes: Deletes, version: usize) -> Vec<&'static str> {
    let mut ops: Vec<&str> = (0..count).map(|_| *chance.pick(&["i", "u", "u", "d"])).collect();
    match deletes {
        Deletes::Hard if version == 3 => ops[count / 2] = "t",
        Deletes::Soft if version == 3 => ops[0] = "t",
        _ => {}
    }
    ops
}

async fn random_loads(at: &Place<'_>, mode: WriteMode, deletes: Deletes, changes: bool) -> Check {
    let name = format!("{}_{deletes:?}{}", mode.as_str(), if changes { "_changes" } else { "" }).to_lowercase();
    let table = at.table(&format!("conf_mode_{name}"));
    let mut bench = Bench::open(at, &format!("mode_{name}"), std::slice::from_ref(&table)).await?;
    let mut chance = Chance::new(11);
    for version in 0..LOADS {
        // A row that comes and goes within one load may leave a trace or none, unless it is deleted for good.
        let repeats = mode.needs_sequence() && (!changes || deletes == Deletes::Hard);
        let ids = ids(&mut chance, repeats);
        let ops = changes.then(|| ops(&mut chance, ids.len(), deletes, version));
        let truncates = ops.as_ref().is_some_and(|ops| ops.contains(&"t"));
        let mut wanted = wanted(at, &table, mode, &Rows { region: "eu", ids, ops, version })?;
        wanted.deletes = deletes;
        let (_, outcome, tallies) = bench.load("s", &[wanted]).await?;
        bench.verify(&table).await.map_err(|f| Failure::new(format!("after load {}: {}", version + 1, f.0)))?;
        if truncates {
            // Rows that go and come again may be counted as that, or as updated.
            continue;
        }
        counted(mode, &table, &outcome, tallies[0]).map_err(|f| Failure::new(format!("in load {}: {}", version + 1, f.0)))?;
    }
    Ok(())
}

/// What was inserted, and what was updated and deleted where that has one meaning.
fn counted(mode: WriteMode, table: &TableName, outcome: &Outcome, expected: Tally) -> Check {
    let Some(counts) = outcome.tables.iter().find(|t| t.table == *table) else {
        return Err(Failure::new(format!("the outcome does not name {table}: {outcome:?}")));
    };
    let TableOutcome { inserted, updated, deleted, unmatched, .. } = *counts;
    let found = Tally { inserted, updated, deleted, unmatched };
    // A replaced row may be counted as deleted or not at all.
    let found = if mode == WriteMode::Replace { Tally { deleted: expected.deleted, ..found } } else { found };
    ensure!(found == expected, "counted {found:?}, where {expected:?} is true");
    Ok(())
}

async fn the_same_rows_again(at: &Place<'_>, mode: WriteMode) -> Check {
    let table = at.table(&format!("conf_mode_again_{}", mode.as_str()));
    let mut bench = Bench::open(at, &format!("mode_again_{}", mode.as_str()), std::slice::from_ref(&table)).await?;
    let rows = |ids: std::ops::Range<i64>, version| Rows { region: "eu", ids: ids.collect(), ops: None, version };
    bench.load("s", &[wanted(at, &table, mode, &rows(0..20, 1))?]).await?;
    bench.load("s", &[wanted(at, &table, mode, &rows(0..20, 1))?]).await?;
    if mode == WriteMode::History {
        bench.verify(&table).await?;
        // One version in the past for each row that has changed, and back again.
        bench.load("s", &[wanted(at, &table, mode, &rows(0..10, 2))?]).await?;
        bench.load("s", &[wanted(at, &table, mode, &rows(0..10, 1))?]).await?;
        return bench.verify(&table).await;
    }
    let found = (at.read)(table).await.iter().map(RecordBatch::num_rows).sum::<usize>();
    ensure!(found == 20, "20 keys, {found} rows");
    Ok(())
}

async fn prune(at: &Place<'_>, deletes: Deletes) -> Check {
    let table = at.table(&format!("conf_prune_{deletes:?}").to_lowercase());
    let mut bench = Bench::open(at, &format!("prune_{deletes:?}"), std::slice::from_ref(&table)).await?;
    let rows = |ids: Vec<i64>| Rows { region: "eu", ids, ops: None, version: 1 };
    let loaded = Wanted { deletes, ..wanted(at, &table, WriteMode::Upsert, &rows((0..20).collect()))? };
    bench.load("s", std::slice::from_ref(&loaded)).await?;
    let keys = rows((0..20).filter(|i| i % 3 == 0).chain([99]).collect()).batch(at)?.project(&[0]).map_err(Failure::new)?;
    let (_, outcome, tallies) = bench.load("s", &[Wanted { deletes, ..Wanted::new(table.clone(), WriteMode::Prune, keys) }]).await?;
    bench.verify(&table).await?;
    counted(WriteMode::Prune, &table, &outcome, tallies[0])?;
    // What comes back is there again.
    bench.load("s", &[loaded]).await?;
    bench.verify(&table).await
}

/// Columns for rows that are there: one that is new, and one that was there.
async fn update(at: &Place<'_>, mode: WriteMode) -> Check {
    let table = at.table(&format!("conf_update_{}", mode.as_str()));
    let mut bench = Bench::open(at, &format!("update_{}", mode.as_str()), std::slice::from_ref(&table)).await?;
    for (ids, version) in [(0..30, 1), (if mode == WriteMode::Append { 30..40 } else { 20..40 }, 2)] {
        bench.load("s", &[wanted(at, &table, mode, &Rows { region: "eu", ids: ids.collect(), ops: None, version })?]).await?;
    }
    // Some keys twice, some not there, some values NULL.
    let ids: Vec<i64> = (0..30).filter(|i| i % 4 != 0).chain([5, 77, 7, 78]).collect();
    let notes: StringArray = (0..ids.len()).map(|i| (i % 3 != 0).then(|| format!("note {i}"))).collect();
    let names: StringArray = ids.iter().map(|id| Some(format!("name {}", id % 7))).collect();
    let fields = [("id", DataType::Int64), ("name", DataType::Utf8), ("note", DataType::Utf8)];
    let schema = Schema::new(fields.into_iter().map(|(name, t)| Field::new(name, t, name != "id")).collect::<Vec<_>>());
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(ids)), Arc::new(names), Arc::new(notes)];
    let rows = RecordBatch::try_new(Arc::new(schema), columns).map_err(Failure::new)?;
    let filled = Wanted { deletes: Deletes::Ignore, ..Wanted::new(table.clone(), WriteMode::Update, rows) };
    for again in [false, true] {
        let (_, outcome, tallies) = bench.load("s", std::slice::from_ref(&filled)).await?;
        bench.verify(&table).await?;
        counted(WriteMode::Update, &table, &outcome, tallies[0])?;
        ensure!(again == (tallies[0].updated == 0), "the same values once more change {} rows", tallies[0].updated);
        ensure!(tallies[0].unmatched == 2, "{} rows are not there", tallies[0].unmatched);
    }
    Ok(())
}

async fn scopes_touch_their_own_rows(at: &Place<'_>, mode: WriteMode) -> Check {
    let table = at.table(&format!("conf_scope_{}", mode.as_str()));
    let mut bench = Bench::open(at, &format!("scope_{}", mode.as_str()), std::slice::from_ref(&table)).await?;
    let mut chance = Chance::new(12);
    for version in 0..LOADS {
        let region = ["eu", "it's"][version % 2];
        let mut wanted = wanted(at, &table, mode, &Rows { region, ids: ids(&mut chance, false), ops: None, version })?;
        wanted.scope = Some(RowScope::with("region", region));
        if mode.needs_key() {
            wanted.key = vec!["region".to_owned(), "id".to_owned()];
        }
        bench.load(&format!("s of {region}"), &[wanted]).await?;
        bench.verify(&table).await.map_err(|f| Failure::new(format!("after load {}: {}", version + 1, f.0)))?;
    }
    Ok(())
}
