//! Write, audit, publish: tests that look at a load's rows before readers can.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::Schema;
use async_trait::async_trait;
use trib_core::load::{Deletes, RowScope, Rows};
use trib_core::name::system;
use trib_core::{Code, Destination, Error, Load, Result, Table, TableName, WriteMode};
use trib_engine::catalog::Over;
use trib_engine::{NativeTable, Queries};
use trib_kit::sql::literal;
use trib_project::Environment;
use trib_project::data_test::{ident, quoted};
use trib_runtime::Audit;
use trib_store::{Tested, Verdict};

use crate::testing::{Ground, Subject};

/// The blocking tests of one table.
pub struct Auditor {
    subject: Subject,
    place: Place,
    found: Mutex<Vec<Tested>>,
}

/// Where staged rows can be looked at.
pub enum Place {
    Lake(Arc<dyn NativeTable>, Queries),
    /// In a database, by itself; not every one lets them be seen.
    Inside(Arc<dyn Destination>, Environment),
}

impl Auditor {
    /// `subject` holds the tests that block, and no others.
    pub fn new(subject: Subject, place: Place) -> Self {
        Self { subject, place, found: Mutex::default() }
    }

    /// What was found: of each test the last time, since a stream may load many times. `None` where there was nothing to look at.
    pub fn found(&self) -> Option<Vec<Tested>> {
        let found = std::mem::take(&mut *self.found.lock().unwrap_or_else(PoisonError::into_inner));
        (!found.is_empty()).then_some(found)
    }

    /// Who answers, with the table as it would be after the load.
    async fn ground(&self, load: &Load) -> Result<Option<Ground>> {
        let Some(root) = load.tables.first().filter(|t| !t.receipts.is_empty()) else { return Ok(None) };
        match &self.place {
            Place::Lake(native, queries) => {
                let staged = native.staged(root)?;
                let before = native.provider(&root.table.name, None).await?;
                let there = before.as_ref().map(|t| t.schema());
                let (staged_name, before_name) = (TableName::new(Some(AUDIT), "staged"), TableName::new(Some(AUDIT), "before"));
                let seen = Seen {
                    table: &root.table,
                    staged: quoted(&staged_name),
                    before: there.as_ref().map(|schema| (quoted(&before_name), schema.as_ref())),
                    constants: None,
                };
                let names = [self.subject.table.clone(), TableName::new(None, &self.subject.node)];
                let views = names.into_iter().filter(|name| self.subject.is_called(name)).map(|name| (name, Over::View(seen.sql())));
                let mut over: Vec<(TableName, Over)> = views.collect();
                over.push((staged_name, Over::Table(staged)));
                over.extend(before.map(|before| (before_name, Over::Table(before))));
                Ok(Some(Ground::Engine(queries.with(over))))
            }
            Place::Inside(destination, environment) => {
                let Some(engine) = destination.sql() else { return Ok(None) };
                let Some(staged) = engine.staged(root) else { return Ok(None) };
                let there = destination.inspect(&root.table.name).await?;
                let there = there.map(|t| Schema::new(t.columns.into_iter().map(|c| c.field).collect::<Vec<_>>()));
                let seen = Seen {
                    table: &root.table,
                    staged,
                    before: there.as_ref().map(|schema| (engine.table(&root.table.name), schema)),
                    constants: Some(load),
                };
                Ok(Some(Ground::Staged(destination.clone(), environment.clone(), seen.sql())))
            }
        }
    }
}

/// The schema in which queries see what is audited.
const AUDIT: &str = "_trib_audit";

#[async_trait]
impl Audit for Auditor {
    async fn audit(&self, load: &Load) -> Result<()> {
        let Some(ground) = self.ground(load).await? else { return Ok(()) };
        let mut found = self.subject.ask(&ground).await;
        let failed: Vec<String> = found
            .iter()
            .filter(|t| matches!(t.verdict, Verdict::Failed | Verdict::Broken))
            .map(|t| match t.verdict {
                Verdict::Broken => format!("{} could not be asked", t.test),
                _ => format!("{} ({})", t.test, crate::render::amount::rows(t.failures)),
            })
            .collect();
        found.iter_mut().for_each(|t| t.published = failed.is_empty());
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = found;
        if failed.is_empty() {
            return Ok(());
        }
        Err(Error::new(Code::TestFailed, "a blocking data test failed: the table stays as it was")
            .detail(failed.join(", "))
            .hint("`_trib.tests` has the failing rows; `blocking: false` publishes all the same"))
    }
}

/// What an audit sees of a load.
struct Seen<'a> {
    table: &'a Table,
    /// The staged rows, as they stand behind `from`.
    staged: String,
    /// The table as it is, and its columns.
    before: Option<(String, &'a Schema)>,
    /// The load whose own columns are not staged, because they are the same in all rows.
    constants: Option<&'a Load>,
}

impl Seen<'_> {
    fn columns(&self) -> Vec<String> {
        let staged = self.table.staging_schema();
        staged.fields().iter().map(|f| f.name().clone()).filter(|n| n != system::SEQ && n != system::OP).collect()
    }

    fn new_columns(&self) -> String {
        let one = |name: String| match (name.as_str(), self.constants) {
            (system::LOAD_ID, Some(load)) => format!("'{}' as {}", load.id, ident(&name)),
            (system::LOADED_AT, Some(load)) => {
                format!("timestamp with time zone '{}' as {}", load.loaded_at.format("%Y-%m-%d %H:%M:%S%.6f+00"), ident(&name))
            }
            _ => ident(&name),
        };
        self.columns().into_iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// The query that gives the table as it would be after the load: what commit does, as SQL over the rows that are staged and those
    /// that are there. History shows the versions that would hold.
    fn sql(&self) -> String {
        let (table, staged) = (self.table, &self.staged);
        let new = match table.write {
            WriteMode::Update => return self.updated(),
            WriteMode::Replace | WriteMode::Append | WriteMode::Prune => format!("select {} from {staged} as s", self.new_columns()),
            WriteMode::Insert => self.winners("asc"),
            WriteMode::Upsert | WriteMode::Mirror | WriteMode::History => self.winners("desc"),
        };
        let Some((before, schema)) = &self.before else { return new };
        let one = |name: &String| match schema.field_with_name(name) {
            Ok(_) => format!("b.{}", ident(name)),
            Err(_) => format!("null as {}", ident(name)),
        };
        let columns = self.columns().iter().map(one).collect::<Vec<_>>().join(", ");
        let there = format!("select {columns} from {before} as b");
        let others = |scope: &RowScope| format!("{there} where ({}) is not true", self.covered(scope));
        let untouched = format!("not exists (select 1 from {staged} as s where {})", self.same_key("s", "b"));
        // Of a change log, what does not come along is not gone.
        let whole = match table.write {
            WriteMode::Mirror => !table.changes && table.deletes != Deletes::Ignore,
            write => write == WriteMode::Replace,
        };
        match (table.write, &table.scope) {
            (_, None) if whole => new,
            (_, Some(scope)) if whole => format!("{} union all {new}", others(scope)),
            (WriteMode::Append, _) => format!("{there} union all {new}"),
            (WriteMode::Insert, _) => {
                let known = format!("select 1 from {before} as b where {}", self.same_key("n", "b"));
                format!("{there} union all select n.* from ({new}) as n where not exists ({known})")
            }
            (WriteMode::History, _) => format!("{there} where b.{} is null and {untouched} union all {new}", ident(system::VALID_TO)),
            (WriteMode::Upsert | WriteMode::Mirror, _) => format!("{there} where {untouched} union all {new}"),
            (WriteMode::Prune | WriteMode::Replace | WriteMode::Update, _) => there,
        }
    }

    /// The rows that are there, with the values that were staged for some of their columns. Of a history, the versions that hold.
    fn updated(&self) -> String {
        let winners = self.winners("desc");
        let Some((before, schema)) = &self.before else { return winners };
        let staged: Vec<String> = self.columns().into_iter().filter(|name| !self.table.key.contains(name)).collect();
        let met = self.table.key.first().map(|k| format!("n.{} is not null", ident(k))).unwrap_or_default();
        let one = |name: &str| match (staged.iter().any(|s| s == name), schema.field_with_name(name)) {
            (false, _) => format!("b.{}", ident(name)),
            (true, Ok(_)) => format!("case when {met} then n.{0} else b.{0} end as {0}", ident(name)),
            (true, Err(_)) => format!("n.{}", ident(name)),
        };
        let there = schema.fields().iter().map(|f| f.name().as_str());
        let added = staged.iter().map(String::as_str).filter(|name| schema.field_with_name(name).is_err());
        let columns: Vec<String> = there.chain(added).map(one).collect();
        let same_key = self.same_key("n", "b");
        let current = if schema.field_with_name(system::VALID_TO).is_ok() {
            format!(" where b.{} is null", ident(system::VALID_TO))
        } else {
            String::new()
        };
        format!("select {} from {before} as b left join ({winners}) as n on {same_key}{current}", columns.join(", "))
    }

    fn same_key(&self, left: &str, right: &str) -> String {
        self.table.key.iter().map(|k| format!("{left}.{0} = {right}.{0}", ident(k))).collect::<Vec<_>>().join(" and ")
    }

    /// The condition on rows that are there that the load is about them.
    fn covered(&self, scope: &RowScope) -> String {
        let column = ident(&scope.column);
        match &scope.rows {
            Rows::With(value) => format!("b.{column} = {}", literal(value)),
            Rows::Between { from, until } => format!("b.{column} >= {} and b.{column} < {}", literal(from), literal(until)),
            Rows::Staged => format!("exists (select 1 from {} as s where s.{column} is not distinct from b.{column})", self.staged),
        }
    }

    /// Of each key the staged row that counts; deletes of a change log are none.
    fn winners(&self, order: &str) -> String {
        let key: Vec<String> = self.table.key.iter().map(|k| ident(k)).collect();
        let number = format!("row_number() over (partition by {} order by {} {order}) as \"_trib_n\"", key.join(", "), ident(system::SEQ));
        let alive = if self.table.changes { format!(" and {} in ('i', 'u')", ident(system::OP)) } else { String::new() };
        let numbered = format!("select s.*, {number} from {} as s", self.staged);
        format!("select {} from ({numbered}) as w where \"_trib_n\" = 1{alive}", self.new_columns())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, RecordBatch, StringArray};
    use arrow::datatypes::{DataType, Field};
    use trib_testkit::chance::Chance;
    use trib_testkit::model::Model;
    use trib_testkit::rows::{self, NULL, Row};

    /// A key, a value, and the scope that a row belongs to.
    fn table(write: WriteMode, deletes: Deletes, scope: Option<RowScope>, changes: bool) -> Table {
        let mut fields = vec![Field::new("id", DataType::Int64, true), Field::new("v", DataType::Int64, true)];
        fields.push(Field::new("region", DataType::Utf8, true));
        let ours =
            Table::system_fields(write, deletes).into_iter().filter(|f| ![system::LOAD_ID, system::LOADED_AT].contains(&f.name().as_str()));
        fields.extend(ours.map(|f| Field::new(f.name(), DataType::Utf8, true)));
        let mut key = vec!["id".to_owned()];
        key.extend(scope.iter().filter_map(|s| s.value().map(|_| s.column.clone())));
        let (name, schema) = (TableName::parse("t"), Arc::new(Schema::new(fields)));
        Table { name, schema, key, write, deletes, scope, parent: None, partition_by: vec![], changes }
    }

    /// Staged rows, or those that a table has: keys repeat only where they are staged.
    fn batch(chance: &mut Chance, table: &Table, staged: bool) -> RecordBatch {
        let schema = if staged { table.staging_schema() } else { table.schema.clone() };
        let keys = table.write.needs_key();
        let ids: Vec<i64> = (0..chance.below(6) as i64).map(|n| if staged || !keys { chance.between(0, 5) } else { n }).collect();
        let mine = table.scope.as_ref().filter(|_| staged).and_then(RowScope::value);
        let column = |field: &Arc<Field>| -> arrow::array::ArrayRef {
            let mut drawn = |from: &[&str]| -> Vec<Option<String>> { ids.iter().map(|_| Some((*chance.pick(from)).to_owned())).collect() };
            match field.name().as_str() {
                "id" => Arc::new(Int64Array::from(ids.clone())),
                "v" => {
                    Arc::new(Int64Array::from(drawn(&["0", "1"]).iter().map(|v| v.as_ref()?.parse().ok()).collect::<Vec<Option<i64>>>()))
                }
                "region" => Arc::new(StringArray::from(mine.map_or_else(|| drawn(&["us", "de"]), |m| vec![Some(m.to_owned()); ids.len()]))),
                system::SEQ => Arc::new(Int64Array::from((0..ids.len() as i64).collect::<Vec<_>>())),
                system::OP => Arc::new(StringArray::from(drawn(&["i", "u", "d"]))),
                system::VALID_FROM => Arc::new(StringArray::from(vec!["before"; ids.len()])),
                _ => Arc::new(StringArray::from(vec![None::<&str>; ids.len()])),
            }
        };
        let columns = schema.fields().iter().map(column).collect();
        let fields: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    }

    /// Rows that hold: none that is deleted, and of a history those that have no end. Our own columns are left out.
    fn held(all: &[Row]) -> Vec<String> {
        let unset = |row: &Row, name: &str| row.get(name).is_none_or(|v| v == NULL);
        let holds = all.iter().filter(|r| unset(r, system::VALID_TO) && unset(r, system::DELETED_AT)).cloned();
        let plain: Vec<Row> = holds.map(|row| row.into_iter().filter(|(name, _)| !name.starts_with(system::PREFIX)).collect()).collect();
        rows::lines(&plain)
    }

    /// What an audit sees is what a commit makes: the rules that are stated here in SQL, and those that every destination is held to.
    #[tokio::test]
    async fn an_audit_sees_what_a_commit_makes() {
        use WriteMode::{Append, History, Insert, Mirror, Replace, Upsert};
        let dir = tempfile::tempdir().unwrap();
        let engine = trib_engine::Engine::new(64 << 20, dir.path(), 1).unwrap();
        let mut chance = Chance::new(11);
        for round in 0..150 {
            let write = *chance.pick(&[Replace, Append, Insert, Upsert, Mirror, History]);
            let deletes = *chance.pick(&[Deletes::Hard, Deletes::Soft, Deletes::Ignore]);
            let deletes = if write == History { Deletes::Hard } else { deletes };
            let changes = matches!(write, Upsert | Mirror | History) && deletes == Deletes::Hard && chance.one_in(3);
            let scope = chance.one_in(3).then(|| RowScope::with("region", "us"));
            let table = table(write, deletes, scope.filter(|_| write != History), changes);
            let (before, staged) = (batch(&mut chance, &table, false), batch(&mut chance, &table, true));
            let seen = Seen {
                table: &table,
                staged: "staged".to_owned(),
                before: Some(("before".to_owned(), table.schema.as_ref())),
                constants: None,
            };
            let context = engine.context();
            context.register_batch("before", before.clone()).unwrap();
            context.register_batch("staged", staged.clone()).unwrap();
            let sql = seen.sql();
            let found = context.sql(&sql).await.unwrap().collect().await.unwrap();
            let mut model = Model { rows: rows::rows(&[before]) };
            model.apply(&table, &rows::rows(&[staged]), None, "\"now\"");
            let difference = rows::difference(&held(&model.rows), &held(&rows::rows(&found)));
            assert_eq!(difference, None, "round {round}: {write:?} {deletes:?} {:?} changes: {changes}\n{sql}", table.scope);
        }
    }
}
