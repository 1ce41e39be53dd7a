//! What a sync does with each stream that its source offers: pure decisions over settings and catalog.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use serde_json::Value;
use trib_core::contract::Contract;
use trib_core::error::closest;
use trib_core::load::{Deletes, RowScope};
use trib_core::mode::{Fit, fit};
use trib_core::name::Naming;
use trib_core::source::{Cursor, Read};
use trib_core::transform::Transform;
use trib_core::{Catalog, Code, Error, ReadMode, Result, Stream, TableName, WriteMode};

use crate::config::amount::Lookback;
use crate::config::delivery::{Apply, Key};
use crate::config::stream::{Detect, Duplicates, StreamSpec};
use crate::data_test::DataTest;
use crate::pattern::Pattern;
use crate::place::At;
use crate::sync::Sync;
use crate::table_template::TableTemplate;
use crate::writers::without_rivals;
use crate::yaml::{Content, Node};

/// One stream of a sync, with nothing left open: what is read, what becomes of it, and where it goes.
#[derive(Clone, Debug)]
pub struct StreamPlan {
    pub sync: String,
    /// The connection that is read.
    pub connection: String,
    /// The connection that is written.
    pub to: String,
    pub stream: String,
    pub description: Option<String>,
    pub tags: Vec<String>,
    /// The table as the project names it.
    pub logical: TableName,
    /// The table in this environment.
    pub table: TableName,
    pub mode: ReadMode,
    pub read: Read,
    pub write: WriteMode,
    /// Columns that identify a row, named as the source has them (or as `sql` gives them). The scope's column is not among them.
    pub key: Vec<String>,
    pub scope: Option<RowScope>,
    pub transform: Transform,
    pub naming: Naming,
    pub deletes: DeletesPlan,
    /// Rows may come twice.
    pub duplicates: bool,
    pub split_by: Option<String>,
    pub partition_by: Vec<String>,
    pub contract: Contract,
    /// Data tests on the table; columns are named as the table has them.
    pub tests: Vec<DataTest>,
    /// `--full-refresh` applies.
    pub full_refresh: bool,
    /// A source that is suddenly empty may empty the table.
    pub allow_empty: bool,
    /// Where the stream, or the glob that takes it, is declared.
    pub at: At,
    /// What is written of the stream, for places.
    node: Node,
}

impl StreamPlan {
    /// An error about a setting of the stream, at the setting: one about SQL at its place in that. One that names no setting is about the whole.
    pub fn mark(&self, error: Error) -> Error {
        let error = error.stream(&self.stream);
        if error.place().setting.is_some() { self.node.mark(error) } else { self.at.mark(error) }
    }
}

/// How deletes are found and what they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeletesPlan {
    pub detect: Detect,
    /// How often keys are compared; `None` is in every run.
    pub every: Option<Duration>,
    pub apply: Deletes,
}

/// The streams of a sync, those that can run and those that cannot: one does not keep the others from running.
#[derive(Debug, Default)]
pub struct Resolved {
    pub streams: Vec<StreamPlan>,
    /// Each names its stream.
    pub errors: Vec<Error>,
}

impl Sync {
    /// Matches the catalog of `connection` (one of the sync's `from`) against the sync's patterns, in the catalog's order.
    ///
    /// An error of the whole is a variable without a value. A stream that is named and not there, or whose settings
    /// do not fit together, is one of [`Resolved::errors`]; so is a second stream for one table.
    pub fn streams_for(&self, connection: &str, catalog: &Catalog) -> Result<Resolved> {
        self.ready()?;
        let mut resolved = Resolved::default();
        for stream in catalog.streams.iter().filter(|s| self.takes(&s.name)) {
            match self.stream(connection, stream) {
                Ok(Some(plan)) => resolved.streams.push(plan),
                Ok(None) => {}
                Err(e) => resolved.errors.push(e.stream(&stream.name)),
            }
        }
        let there: HashSet<&str> = catalog.streams.iter().map(|s| s.name.as_str()).collect();
        for name in self.patterns().iter().filter(|p| !p.is_glob()).map(Pattern::text).filter(|name| !there.contains(name)) {
            if let Err(error) = catalog.stream(name)
                && !self.disabled(name)
            {
                resolved.errors.push(self.pattern_place(name).mark(error.stream(name).setting(format!("streams.{name}"))));
            }
        }
        if resolved.streams.is_empty() && resolved.errors.is_empty() && !catalog.streams.iter().any(|s| self.takes(&s.name)) {
            let offered: Vec<&str> = catalog.streams.iter().map(|s| s.name.as_str()).take(3).collect();
            let patterns: Vec<&str> = self.patterns().iter().map(Pattern::text).collect();
            let error = Error::new(Code::NotFound, "the source has no stream that the sync's patterns take")
                .detail(patterns.join(", "))
                .setting("streams")
                .hint(match offered.as_slice() {
                    [] => "the source offers no streams at all: check the permissions of its user".to_owned(),
                    some if some.len() == catalog.streams.len() => format!("it offers {}", some.join(", ")),
                    some => format!("it offers {} and others; `trib discover {connection}` lists them", some.join(", ")),
                });
            resolved.errors.push(self.node.place(&["streams"]).mark(error));
        }
        let (kept, errors) = without_rivals(std::mem::take(&mut resolved.streams));
        resolved.streams = kept;
        resolved.errors.extend(errors);
        resolved.errors = resolved.errors.into_iter().map(|e| e.connection(connection)).collect();
        Ok(resolved)
    }

    fn disabled(&self, stream: &str) -> bool {
        self.stream_settings(stream).is_ok_and(|(spec, _)| spec.enabled == Some(false))
    }

    /// One stream; `None` when it is not enabled.
    fn stream(&self, connection: &str, stream: &Stream) -> Result<Option<StreamPlan>> {
        let (spec, node) = self.stream_settings(&stream.name)?;
        if spec.enabled == Some(false) {
            return Ok(None);
        }
        let s = Settings { sync: self, stream, spec: &spec, node: &node };
        let key = s.key()?;
        let mode = s.read_mode()?;
        let write = s.write_mode(mode, &key)?;
        let read = s.read(mode)?;
        let deletes = s.deletes(mode, write, &key)?;
        s.columns()?;
        s.selected(&read, if write.needs_key() || deletes.detect == Detect::Compare { &key } else { &[] })?;
        let fill = |text: &str| fill_names(text, connection, &stream.name);
        let add: BTreeMap<String, String> = spec.add.iter().map(|(name, sql)| (name.clone(), fill(sql))).collect();
        let scope = s.scope(&add)?;
        let template = spec.into.as_deref().unwrap_or(&self.spec.into);
        let logical = TableTemplate::parse(template)?.render(connection, stream, self.spec.naming);
        Ok(Some(StreamPlan {
            sync: self.name.clone(),
            connection: connection.to_owned(),
            to: self.spec.to.clone(),
            stream: stream.name.clone(),
            description: spec.description.clone().or_else(|| stream.description.clone()),
            tags: self.spec.tags.iter().chain(&spec.tags).cloned().collect(),
            table: self.environment.physical(&logical),
            logical,
            mode,
            read,
            write,
            key,
            scope,
            transform: Transform {
                select: spec.select.clone(),
                filter: spec.filter.clone(),
                sql: spec.sql.clone(),
                columns: spec.columns.clone(),
                add,
                nested: spec.nested,
            },
            naming: self.spec.naming,
            deletes,
            duplicates: spec.duplicates == Some(Duplicates::Allow),
            split_by: spec.split_by.clone(),
            partition_by: spec.partition_by.clone().unwrap_or_default().0,
            contract: spec.contract.clone(),
            tests: s.tests()?,
            full_refresh: spec.full_refresh.unwrap_or(true),
            allow_empty: self.spec.allow_empty,
            at: s.declared(),
            node,
        }))
    }
}

/// One stream's settings beside what the catalog says about it.
struct Settings<'a> {
    sync: &'a Sync,
    stream: &'a Stream,
    spec: &'a StreamSpec,
    node: &'a Node,
}

impl Settings<'_> {
    /// The error, at the setting that it is about.
    fn wrong(&self, setting: &str, error: Error) -> Error {
        let at = if self.node.get(setting).is_some() { self.node.place(&[setting]).clone() } else { self.declared() };
        at.mark(error.stream(&self.stream.name).setting(format!("streams.{}.{setting}", self.stream.name)))
    }

    /// Where the stream is named, or the glob that takes it; the sync's beginning when neither is written.
    fn declared(&self) -> At {
        let pattern = self.sync.pattern_for(&self.stream.name);
        pattern.map_or_else(|| self.sync.at.clone(), |p| self.sync.pattern_place(p.text()))
    }

    fn refuse(&self, setting: &str, message: &'static str, hint: impl std::convert::Into<String>) -> Error {
        self.wrong(setting, Error::new(Code::Unsupported, message).hint(hint))
    }

    fn for_apis(&self, setting: &str, hint: &str) -> Error {
        self.refuse(setting, "the setting is for destinations that are APIs", hint)
    }

    /// What is written for a column of the source is about the table's column.
    fn tests(&self) -> Result<Vec<DataTest>> {
        let columns: Vec<(String, &[Value])> = self
            .spec
            .columns
            .iter()
            .map(|(name, rule)| (rule.rename.clone().unwrap_or_else(|| self.sync.spec.naming.apply(name)), rule.tests.as_slice()))
            .collect();
        DataTest::of_table(&self.spec.tests, columns.iter().map(|(name, tests)| (name.as_str(), *tests)))
            .map_err(|mut wrong| self.node.mark(wrong.swap_remove(0)))
    }

    fn key(&self) -> Result<Vec<String>> {
        match &self.spec.key {
            None => Ok(self.stream.primary_key.clone()),
            Some(Key::Columns(key)) => {
                self.known("key", key)?;
                Ok(key.clone())
            }
            Some(Key::Fields(_)) => Err(self.for_apis("key", "write the columns that identify a row: `key: [id]`")),
        }
    }

    fn read_mode(&self) -> Result<ReadMode> {
        let mode = self.spec.read.unwrap_or(if self.spec.cursor.is_some() { ReadMode::Incremental } else { ReadMode::Full });
        if !self.stream.read_modes.contains(&mode) {
            let modes: Vec<&str> = self.stream.read_modes.iter().map(|m| m.as_str()).collect();
            let error =
                self.refuse("read", "the source cannot read the stream in this way", format!("it can be read as: {}", modes.join(", ")));
            return Err(error.detail(format!("`read: {}`", mode.as_str())));
        }
        Ok(mode)
    }

    fn write_mode(&self, mode: ReadMode, key: &[String]) -> Result<WriteMode> {
        let spec = &self.spec;
        let of_apis =
            [("map", spec.map.is_some()), ("send", spec.send.is_some()), ("empty", spec.empty.is_some()), ("log", spec.log.is_some())];
        if let Some(only) = of_apis.iter().find_map(|(name, set)| set.then_some(*name)) {
            return Err(self.for_apis(only, "for a table, `columns:` and `add:` say what becomes of columns"));
        }
        let asked = match self.spec.write.map(|write| write.of_table().ok_or(write)) {
            None => None,
            Some(Ok(mode)) => Some(mode),
            Some(Err(_)) => {
                return Err(self.for_apis("write", "a table is written with replace, append, insert, upsert, mirror or history"));
            }
        };
        let write = asked.unwrap_or(match (mode, key.is_empty()) {
            (ReadMode::Full, _) => WriteMode::Replace,
            (_, false) => WriteMode::Upsert,
            (_, true) => WriteMode::Append,
        });
        let pair = format!("`read: {}` with `write: {}`", mode.as_str(), write.as_str());
        let allowed = self.spec.duplicates == Some(Duplicates::Allow);
        match fit(mode, write) {
            Fit::Yes => {}
            Fit::RepeatsRows if allowed => {}
            Fit::RepeatsRows => {
                let hint = "say `duplicates: allow` if that is meant; otherwise give a cursor, or `write: replace`";
                return Err(self.refuse("write", "each run would load all rows again", hint).detail(pair));
            }
            Fit::No(why) => {
                let hint = "the modes that go together are in the documentation under \"Read and write modes\"";
                return Err(self
                    .refuse("write", "the read mode and the write mode do not go together", hint)
                    .detail(format!("{pair}: {why}")));
            }
        }
        if write.needs_key() && key.is_empty() {
            let hint = "name the columns that identify a row with `key:`, since the source declares none";
            return Err(self.refuse("write", "the write mode needs a key", hint).detail(format!("`write: {}`", write.as_str())));
        }
        if write == WriteMode::Append && mode == ReadMode::Incremental && self.spec.lookback.is_some() && !allowed {
            let hint = if key.is_empty() {
                "give the stream a key and `write: insert`, or leave `lookback` out"
            } else {
                "with `write: insert` rows that are there already stay single"
            };
            return Err(self.refuse("lookback", "reading back would append rows that were loaded already", hint));
        }
        Ok(write)
    }

    fn read(&self, mode: ReadMode) -> Result<Read> {
        match mode {
            ReadMode::Full => Ok(Read::Full),
            ReadMode::Cdc => Ok(Read::Cdc),
            ReadMode::Incremental => {
                let column = self.cursor()?;
                let lookback = self.lookback(&column)?;
                Ok(Read::Incremental(Cursor {
                    column,
                    lookback,
                    null_cursor: self.spec.null_cursor.unwrap_or_default(),
                    start: self.spec.start.clone(),
                    end: self.spec.end.clone(),
                }))
            }
        }
    }

    /// The cursor that is named; or the source's own way to tell what is new (such as which files it has read), which is no
    /// column that a person would have to choose.
    fn cursor(&self) -> Result<String> {
        let is_column = |name: &str| self.stream.schema.field_with_name(name).is_ok();
        match (&self.spec.cursor, self.stream.cursors.first()) {
            (Some(cursor), _) if is_column(cursor) || self.stream.cursors.contains(cursor) => Ok(cursor.clone()),
            (Some(cursor), _) => Err(self.wrong("cursor", self.no_column(cursor))),
            (None, Some(own)) if !is_column(own) => Ok(own.clone()),
            (None, Some(best)) => Err(self.refuse(
                "read",
                "an incremental read needs a cursor",
                format!("name the column that tells what is new; `cursor: {best}` looks right"),
            )),
            (None, None) => {
                Err(self.refuse("read", "an incremental read needs a cursor", "name the column that tells what is new, or `read: full`"))
            }
        }
    }

    fn lookback(&self, cursor: &str) -> Result<Option<u64>> {
        let number = self.stream.schema.field_with_name(cursor).is_ok_and(|f| f.data_type().is_numeric());
        match self.spec.lookback {
            None => Ok(None),
            Some(Lookback::Units(units)) => Ok(Some(units)),
            Some(Lookback::Time(time)) if !number => Ok(Some(time.as_secs())),
            Some(Lookback::Time(_)) => {
                let hint = format!("`{cursor}` is a number: write `lookback: 1000`, in its own units");
                Err(self.refuse("lookback", "a length of time does not fit a cursor that is a number", hint))
            }
        }
    }

    fn deletes(&self, mode: ReadMode, write: WriteMode, key: &[String]) -> Result<DeletesPlan> {
        let deletes = &self.spec.deletes;
        let usual = if mode == ReadMode::Cdc { Detect::Log } else { Detect::None };
        let detect = deletes.detect.unwrap_or(usual);
        let apply = match deletes.apply.map(Apply::of_table) {
            None => Deletes::default(),
            Some(Some(apply)) => apply,
            Some(None) => return Err(self.for_apis("deletes", "a table's deletes are applied `hard` or `soft`")),
        };
        if detect == Detect::Log && mode != ReadMode::Cdc {
            return Err(self.refuse(
                "deletes",
                "deletes can be taken from the log only when it is read",
                "use `read: cdc`, or `detect: compare`",
            ));
        }
        if detect == Detect::Compare {
            if key.is_empty() {
                return Err(self.refuse("deletes", "comparing needs a key", "name the columns that identify a row with `key:`"));
            }
            if write == WriteMode::Append {
                return Err(self.refuse("deletes", "deletes cannot be applied to rows that are only appended", "use `write: upsert`"));
            }
        }
        Ok(DeletesPlan { detect, every: deletes.every.map(|t| t.0), apply })
    }

    /// Columns that are named must be there. Rules that a glob gives hold for the streams that have the column; a rule under
    /// the exact name that meets no column is a mistake, since a misspelt `hmac` would let a value through.
    fn columns(&self) -> Result<()> {
        let one = |column: &Option<String>| column.clone().into_iter().collect::<Vec<_>>();
        if let Some(select) = &self.spec.select {
            self.at_source("select", select)?;
        }
        self.at_source("split_by", &one(&self.spec.split_by))?;
        if let Some(partition_by) = &self.spec.partition_by {
            self.known("partition_by", &partition_by.0)?;
        }
        let exact = self.sync.exact(&self.stream.name).and_then(|n| n.get("columns"));
        for entry in exact.map(Node::entries).unwrap_or_default() {
            if entry.value.content != Content::Null {
                // A rule may be about a part of a nested column.
                let column = if self.has(&entry.key) { entry.key.as_str() } else { entry.key.split('.').next().unwrap_or(&entry.key) };
                let checked = self.known("columns", &[column.to_owned()]);
                checked.map_err(|e| entry.at.mark(e))?;
            }
        }
        Ok(())
    }

    /// What the read itself depends on must be among the columns that are read.
    fn selected(&self, read: &Read, key: &[String]) -> Result<()> {
        let Some(select) = &self.spec.select else { return Ok(()) };
        let cursor = match read {
            Read::Incremental(cursor) => Some(&cursor.column),
            _ => None,
        };
        match key.iter().chain(cursor).find(|c| self.has(c) && !select.contains(c)) {
            Some(left_out) => {
                let error = self.refuse("select", "a column is left out that the stream's key or cursor needs", "add it to `select:`");
                Err(error.detail(format!("`{left_out}`")))
            }
            None => Ok(()),
        }
    }

    fn scope(&self, add: &BTreeMap<String, String>) -> Result<Option<RowScope>> {
        let Some(column) = &self.sync.spec.scope else { return Ok(None) };
        match add.get(column).and_then(|expression| scope_value(expression)) {
            Some(value) => Ok(Some(RowScope::with(column, value))),
            None => Err(self
                .refuse("add", "the scope's value must be a text literal", "such as \"'{connection}'\"")
                .detail(format!("`{column}`"))),
        }
    }

    fn has(&self, column: &str) -> bool {
        self.stream.schema.field_with_name(column).is_ok()
    }

    fn at_source(&self, setting: &str, columns: &[String]) -> Result<()> {
        match columns.iter().find(|c| !self.has(c)) {
            Some(unknown) => Err(self.wrong(setting, self.no_column(unknown))),
            None => Ok(()),
        }
    }

    /// Columns of the source or that were added. What `sql` gives is known only when it is planned.
    fn known(&self, setting: &str, columns: &[String]) -> Result<()> {
        if self.spec.sql.is_some() {
            return Ok(());
        }
        match columns.iter().find(|c| !self.has(c) && !self.spec.add.contains_key(*c)) {
            // The entry's own place is more exact where there is one.
            Some(unknown) if setting == "columns" => {
                Err(self.no_column(unknown).stream(&self.stream.name).setting(format!("streams.{}.columns", self.stream.name)))
            }
            Some(unknown) => Err(self.wrong(setting, self.no_column(unknown))),
            None => Ok(()),
        }
    }

    fn no_column(&self, name: &str) -> Error {
        let error = Error::new(Code::NotFound, "the stream has no such column").detail(format!("`{name}`"));
        match closest(name, self.stream.schema.fields().iter().map(|f| f.name().as_str())) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint(format!("`trib discover {} {}` lists its columns", self.sync.spec.from.0.join(" "), self.stream.name)),
        }
    }
}

/// `{connection}` and `{stream}` in SQL, where they stand within quotes.
fn fill_names(text: &str, connection: &str, stream: &str) -> String {
    let quoted = |name: &str| name.replace('\'', "''");
    text.replace("{connection}", &quoted(connection)).replace("{stream}", &quoted(stream))
}

/// The text that a literal such as `'shop_de'` stands for.
pub(crate) fn scope_value(expression: &str) -> Option<String> {
    let inside = expression.trim().strip_prefix('\'')?.strip_suffix('\'')?;
    let plain = inside.replace("''", "");
    (!plain.contains('\'')).then(|| inside.replace("''", "'"))
}
