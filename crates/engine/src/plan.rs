//! What a load will do with a stream, compiled once: the steps, the tables, the changes to them, and what was noticed.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use trib_core::contract::{Contract, Landing, SchemaChange, is_variant, meet};
use trib_core::load::{Deletes, Parent, RowScope};
use trib_core::name::{Named, Naming, identifiers, system, truncate};
use trib_core::transform::{Nesting, Transform};
use trib_core::{Code, Destination, Error, Result, Table, TableName, WriteMode};

use crate::conform::{Origin, TableConform};
use crate::nest::{Column, Shape, index_names};
use crate::session::Engine;
use crate::steps::Steps;

/// What is wanted of a stream.
#[derive(Clone, Debug)]
pub struct StreamSpec {
    pub stream: String,
    /// The source's schema, restricted to the columns that are read.
    pub schema: SchemaRef,
    pub transform: Transform,
    /// Of the columns that the transform gives, those that are loaded beside the key; `None`: all. No others are looked for at the destination, and no
    /// child tables.
    pub only: Option<Vec<String>>,
    /// The root table.
    pub table: TableName,
    pub naming: Naming,
    /// Source columns.
    pub key: Vec<String>,
    pub write: WriteMode,
    pub deletes: Deletes,
    pub scope: Option<RowScope>,
    pub contract: Contract,
    pub partition_by: Vec<String>,
    /// Add `_trib_load_id` and `_trib_loaded_at`.
    pub system_columns: bool,
    /// Rows carry `_op`, from a change log.
    pub changes: bool,
}

impl StreamSpec {
    /// All columns of a stream into a table, as they are; what is to be otherwise is set by who asks.
    pub fn plain(stream: &str, schema: SchemaRef, table: TableName, write: WriteMode) -> Self {
        Self {
            stream: stream.to_owned(),
            schema,
            transform: Transform::default(),
            only: None,
            table,
            naming: Naming::Keep,
            key: Vec::new(),
            write,
            deletes: Deletes::Hard,
            scope: None,
            contract: Contract::default(),
            partition_by: Vec::new(),
            system_columns: true,
            changes: false,
        }
    }
}

/// A compiled stream.
pub struct StreamPlan {
    pub spec: StreamSpec,
    pub steps: Steps,
    pub shape: Shape,
    /// Parents first; the root is the first.
    pub tables: Vec<TablePlan>,
}

/// One table of a stream, and what happens to it.
pub struct TablePlan {
    pub conform: TableConform,
    pub exists: bool,
    pub changes: Vec<SchemaChange>,
    /// For people: schema changes and what they lead to.
    pub notes: Vec<String>,
    /// For people: columns whose values the destination cannot hold exactly.
    pub lossy: Vec<String>,
}

impl TablePlan {
    pub fn table(&self) -> &Table {
        &self.conform.table
    }
}

/// One column on its way from the flat rows to the table.
struct Wanted {
    field: Field,
    origin: Origin,
}

impl StreamPlan {
    /// Looks at the destination's tables and decides everything. Errors name the stream.
    pub async fn compile(engine: &Engine, spec: StreamSpec, destination: &dyn Destination) -> Result<Self> {
        let stream = spec.stream.clone();
        Self::compile_inner(engine, spec, destination).await.map_err(|e| e.stream(stream))
    }

    async fn compile_inner(engine: &Engine, spec: StreamSpec, destination: &dyn Destination) -> Result<Self> {
        let steps = Steps::compile(engine, &spec.schema, &spec.transform).await?;
        if !spec.partition_by.is_empty() && !destination.capabilities().partitions {
            return Err(Error::new(Code::Unsupported, "the destination does not lay tables out by columns")
                .detail(spec.partition_by.join(", "))
                .setting("partition_by")
                .hint("leave `partition_by` out: this destination finds rows without it"));
        }
        let shape = shape_of(&spec, &steps, destination);
        if shape.tables().len() > 1 && spec.write == WriteMode::History {
            return Err(Error::new(Code::Unsupported, "history keeps versions of rows, and child tables have none of their own")
                .hint("keep the nested column as `nested: json` or `struct`"));
        }
        refuse_children(&spec, &steps, &shape)?;
        let mut tables: Vec<TablePlan> = Vec::new();
        // Children go with the parents that a prune deletes, and are left alone where columns are filled.
        let all = if spec.only.is_some() { 1 } else { usize::MAX };
        for table in shape.tables().into_iter().take(all) {
            let plan = compile_table(&spec, &steps, table, tables.first(), destination).await?;
            tables.push(plan);
        }
        Ok(Self { spec, steps, shape, tables })
    }

    /// Whether rows must be staged even when there are none: an empty replace empties the table.
    pub fn stages_nothing_too(&self) -> bool {
        self.spec.write.needs_complete_read()
    }

    /// The stream's table, where what is staged for it are the source's own rows.
    pub fn untouched(&self) -> Option<&Table> {
        let [root] = self.tables.as_slice() else { return None };
        (self.steps.is_identity() && root.conform.keeps(&self.spec.schema)).then(|| root.table())
    }

    pub fn conforms(&self) -> impl Iterator<Item = &TableConform> {
        self.tables.iter().map(|t| &t.conform)
    }
}

fn shape_of(spec: &StreamSpec, steps: &Steps, destination: &dyn Destination) -> Shape {
    let nested = destination.capabilities().nested;
    let default = spec.transform.nested.unwrap_or(if nested { Nesting::Struct } else { Nesting::Json });
    let rule = |i: usize| {
        let name = steps.output().field(i).name();
        let by_name = |(source, rule): (&String, &trib_core::transform::ColumnRule)| {
            (rule.rename.as_deref().unwrap_or(source) == name).then_some(rule.nested).flatten()
        };
        spec.transform.columns.iter().find_map(by_name).unwrap_or(default)
    };
    Shape::compile(steps.output().fields(), rule, |field| destination.column_type(field).is_ok())
}

async fn compile_table(
    spec: &StreamSpec,
    steps: &Steps,
    shape: &Shape,
    root: Option<&TablePlan>,
    destination: &dyn Destination,
) -> Result<TablePlan> {
    let capabilities = destination.capabilities();
    let is_root = shape.depth == 0;
    let source_names: Vec<String> = shape.columns.iter().map(|c| c.field.name().clone()).collect();
    let names = column_names(spec, steps, shape, capabilities.max_identifier, capabilities.case_sensitive)?;
    let has_children = is_root && shape.tables().len() > 1;

    let mut wanted: Vec<Wanted> = Vec::new();
    let (key, parent) = match root {
        None => (root_key(spec, steps, &source_names, &names)?, None),
        Some(root) => {
            let parent = parent_columns(root.table(), &mut wanted);
            let mut key: Vec<String> = parent.columns.iter().map(|(here, _)| here.clone()).collect();
            for (depth, name) in index_names(shape.depth).into_iter().enumerate() {
                wanted.push(Wanted { field: Field::new(&name, DataType::Int64, false), origin: Origin::Index(depth) });
                key.push(name);
            }
            (key, Some(parent))
        }
    };
    for (i, (column, name)) in shape.columns.iter().zip(&names).enumerate() {
        let keyed = spec.write.needs_key() && key.contains(name);
        let field = column.field.as_ref().clone().with_name(name);
        let nullable = field.is_nullable() && !keyed;
        wanted.push(Wanted { field: field.with_nullable(nullable), origin: Origin::Column(i, Landing::Exact) });
    }
    if has_children && key.is_empty() {
        wanted.push(Wanted { field: Field::new(system::ROW_ID, DataType::Utf8, false), origin: Origin::RowId });
    }
    if let Some(only) = &spec.only {
        // The other columns were only needed to tell which rows count.
        let loaded = |w: &Wanted| match &w.origin {
            Origin::Column(i, _) => only.contains(steps.output().field(shape.columns[*i].top).name()),
            _ => false,
        };
        wanted.retain(|w| key.contains(w.field.name()) || loaded(w));
    }
    let lossy = check_types(&wanted, &source_names, destination)?;

    let mut fields: Vec<Field> = wanted.iter().map(|w| w.field.clone()).collect();
    if spec.write != WriteMode::Prune {
        fields.extend(system_fields(spec));
    }
    let parts = std::iter::once(spec.table.name.clone()).chain(shape.suffix.iter().map(|s| spec.naming.apply(s)));
    let name = truncate(&parts.collect::<Vec<_>>().join("__"), capabilities.max_identifier);
    let name = TableName { schema: spec.table.schema.clone(), name };
    let mut existing = destination.inspect(&name).await?;
    if spec.write == WriteMode::Update && existing.is_none() {
        return Err(Error::new(Code::NotFound, "there is no table yet whose rows could get these columns")
            .detail(name.to_string())
            .hint("`trib run` makes it, with all of its columns"));
    }
    if spec.only.is_some()
        && let Some(existing) = &mut existing
    {
        // What is not read is not gone.
        existing.columns.retain(|c| fields.iter().any(|f| c.field.name() == f.name() || is_variant(c.field.name(), f.name())));
    }
    let replaces_schema = spec.write == WriteMode::Replace && spec.scope.is_none();
    let native = |field: &Field| Ok(destination.column_type(field)?.native);
    let mut met = if replaces_schema && allows_any_change(&spec.contract) {
        // The whole table is made anew, so nothing has to be kept.
        let mut met = meet(None, &Schema::new(fields), &spec.contract, native)?;
        if let Some(existing) = &existing {
            met.changes.clear();
            met.notes = differences(existing, &met.schema, native);
        }
        met
    } else {
        meet(existing.as_ref(), &Schema::new(fields), &spec.contract, native)?
    };

    if destination.deliveries().is_some() {
        // An object of an API is there, whatever it is.
        met.changes.clear();
    }

    if spec.write == WriteMode::Update {
        let left_out = |landing: &Landing| matches!(landing, Landing::Discard | Landing::RejectPresent);
        if let Some((column, _)) = met.landings.iter().find(|(_, landing)| left_out(landing)) {
            return Err(Error::new(Code::ContractBroken, "the contract leaves this column out of the table")
                .detail(column)
                .hint("`contract: {new_columns: evolve}` lets it in"));
        }
    }
    let mut origins: Vec<(String, Origin)> = Vec::new();
    let mut forbidden = Vec::new();
    for (wanted, (landed, landing)) in wanted.iter().zip(&met.landings) {
        match (landing, &wanted.origin) {
            (Landing::Discard, _) => {}
            (Landing::RejectPresent, Origin::Column(i, _)) => forbidden.push((*i, source_names[*i].clone())),
            (landing, Origin::Column(i, _)) => origins.push((landed.clone(), Origin::Column(*i, landing.clone()))),
            (_, origin) => origins.push((landed.clone(), origin.clone())),
        }
    }
    let table = Table {
        name,
        schema: met.schema,
        key,
        write: spec.write,
        deletes: spec.deletes,
        scope: spec.scope.clone(),
        parent,
        partition_by: if is_root { spec.partition_by.clone() } else { Vec::new() },
        changes: spec.changes && is_root,
    };
    // Where rows are staged they have a column or two more.
    let columns = table.schema.fields().len().max(table.staging_schema().fields().len());
    if let Some(most) = capabilities.max_columns.filter(|most| columns > *most) {
        return Err(Error::new(Code::Unsupported, "the table would have more columns than the destination can hold")
            .detail(format!("{}: {columns} columns, {most} at most", table.name))
            .hint("choose columns with `select:`, or keep nested columns as JSON"));
    }
    let conform = TableConform::new(table, &origins, forbidden, &source_names, root.map(|r| &r.conform));
    Ok(TablePlan { conform, exists: existing.is_some(), changes: met.changes, notes: met.notes, lossy })
}

/// Rows of a child table come and go with whole rows of their parent.
fn refuse_children(spec: &StreamSpec, steps: &Steps, shape: &Shape) -> Result<()> {
    let Some(only) = &spec.only else { return Ok(()) };
    let in_children = shape.tables().into_iter().skip(1).flat_map(|child| &child.columns).map(|c| steps.output().field(c.top).name());
    match in_children.into_iter().find(|name| only.contains(name)) {
        None => Ok(()),
        Some(column) => Err(Error::new(Code::Unsupported, "the column is kept in a child table, whose rows come and go with whole rows")
            .detail(column)
            .hint("leave `--columns` out: then whole rows are read again")),
    }
}

/// A replaced table may take any shape unless the contract freezes or limits changes.
fn allows_any_change(contract: &Contract) -> bool {
    let default = Contract::default();
    contract.new_columns == default.new_columns
        && contract.dropped_columns == default.dropped_columns
        && contract.type_changes == default.type_changes
}

/// How a replaced table's new shape differs from its old one, for people.
fn differences(existing: &trib_core::ExistingTable, new: &Schema, native: impl Fn(&Field) -> Result<String>) -> Vec<String> {
    let mut notes = Vec::new();
    for field in new.fields() {
        match existing.columns.iter().find(|c| c.field.name() == field.name()) {
            None => notes.push(format!("column {} ({}) is new", field.name(), field.data_type())),
            Some(old) => {
                if let Ok(now) = native(field)
                    && now != old.native
                {
                    notes.push(format!("column {} changes from {} to {now}", field.name(), old.native));
                }
            }
        }
    }
    for column in &existing.columns {
        if new.field_with_name(column.field.name()).is_err() {
            notes.push(format!("column {} is gone at the source, and so from the table", column.field.name()));
        }
    }
    notes
}

fn system_fields(spec: &StreamSpec) -> Vec<Field> {
    let fields = Table::system_fields(spec.write, spec.deletes);
    let optional = [system::LOAD_ID, system::LOADED_AT];
    fields.into_iter().filter(|f| spec.system_columns || !optional.contains(&f.name().as_str())).collect()
}

fn column_names(spec: &StreamSpec, steps: &Steps, shape: &Shape, max: usize, case_sensitive: bool) -> Result<Vec<String>> {
    if let Some(ours) = shape.columns.iter().find(|c| c.field.name().starts_with(system::PREFIX)) {
        return Err(Error::new(Code::Unsupported, "the source has a column whose name is kept for Tributary's own")
            .detail(ours.field.name())
            .hint("give it another name with `columns: {… rename: …}`"));
    }
    // Names that the user gave stay; the others are normalised. All must differ in the end.
    let given = |c: &Column| shape.depth == 0 && c.parts.len() == 1 && steps.is_named(c.top);
    let named = |c: &Column| Named {
        original: c.parts.join("."),
        name: if given(c) { c.field.name().clone() } else { joined(spec.naming, &c.parts) },
    };
    identifiers(&shape.columns.iter().map(named).collect::<Vec<_>>(), max, case_sensitive)
}

/// Each part normalised for itself, so that the joints stay visible.
fn joined(naming: Naming, parts: &[String]) -> String {
    parts.iter().map(|p| naming.apply(p)).collect::<Vec<_>>().join("__")
}

fn root_key(spec: &StreamSpec, steps: &Steps, source_names: &[String], names: &[String]) -> Result<Vec<String>> {
    let mut key = Vec::new();
    for column in &spec.key {
        let stepped = steps.renamed(&spec.transform, column);
        let place = stepped.and_then(|name| source_names.iter().position(|s| s == name));
        match place {
            Some(i) => key.push(names[i].clone()),
            None if spec.write.needs_key() => {
                return Err(Error::new(Code::ConfigInvalid, "a key column is not among the columns that are loaded")
                    .detail(column)
                    .setting("key")
                    .hint("keep it under `select:` and `columns:`, or choose another key"));
            }
            // The key only describes the table: without one of its columns there is none.
            None => return Ok(Vec::new()),
        }
    }
    // A shared table's rows are told apart by their scope as well.
    if let Some(scope) = spec.scope.as_ref().filter(|s| s.value().is_some())
        && !key.is_empty()
        && !key.contains(&scope.column)
    {
        key.insert(0, scope.column.clone());
    }
    Ok(key)
}

fn parent_columns(root: &Table, wanted: &mut Vec<Wanted>) -> Parent {
    let keys: Vec<(String, String)> = if root.key.is_empty() {
        vec![(system::PARENT_ID.to_owned(), system::ROW_ID.to_owned())]
    } else {
        root.key.iter().map(|k| (format!("_parent_{k}"), k.clone())).collect()
    };
    for (here, there) in &keys {
        if let Ok(field) = root.schema.field_with_name(there) {
            wanted.push(Wanted { field: field.clone().with_name(here), origin: Origin::ParentKey(there.clone()) });
        }
    }
    Parent { table: root.name.clone(), columns: keys }
}

/// Refuses every column that the destination cannot hold, all at once; returns what it cannot hold exactly.
fn check_types(wanted: &[Wanted], source_names: &[String], destination: &dyn Destination) -> Result<Vec<String>> {
    let mut refused: Vec<String> = Vec::new();
    let mut hint = None;
    let mut lossy = Vec::new();
    for w in wanted {
        let name = match &w.origin {
            Origin::Column(i, _) => &source_names[*i],
            _ => w.field.name(),
        };
        match destination.column_type(&w.field) {
            Ok(t) => lossy.extend(t.lossy.map(|why| format!("column {name} becomes {}: {why}", t.native))),
            Err(e) => {
                hint = hint.or_else(|| e.hint_text().map(str::to_owned));
                refused.push(format!("{name} ({})", w.field.data_type()));
            }
        }
    }
    if refused.is_empty() {
        return Ok(lossy);
    }
    Err(Error::new(Code::Unsupported, "the destination has no type for these columns")
        .detail(refused.join(", "))
        .hint(hint.unwrap_or_else(|| "cast them with `columns: {… cast: text}`, or leave them out with `drop: true`".into())))
}

/// A plan that several splits share.
pub type SharedPlan = Arc<StreamPlan>;
