//! What is in the database, read from its system catalog.

use std::sync::Arc;

use arrow::datatypes::Schema;
use serde::{Deserialize, Serialize};
use tokio_postgres::types::Type;
use trib_core::catalog::propose_cursors;
use trib_core::{ReadMode, Result, Stream};

use super::connect::Session;
use super::error;
use super::pg_type::{ArrayRule, PgType, Rules};

/// Everything that begins like this is a staging table of ours.
pub const STAGING_PREFIX: &str = "_trib_s_";

/// A table, or something that is read like one.
#[derive(Clone, Debug)]
pub struct Relation {
    pub schema: String,
    pub name: String,
    pub kind: RelationKind,
    pub columns: Vec<Column>,
    pub key: Vec<String>,
    pub rows: Option<u64>,
    pub pages: u64,
    pub row_security: bool,
    pub description: Option<String>,
    /// The server's version as a number: 150018 for 15.18.
    pub server_version: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelationKind {
    Table,
    Partitioned,
    /// Rows come out of a query or another server: there are no physical pages to cut by.
    Virtual,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    /// As `format_type` spells it; a domain's base type.
    #[serde(rename = "type")]
    pub type_name: String,
    pub nullable: bool,
    /// An array of several dimensions, which no list holds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub several_dimensions: bool,
}

impl Column {
    /// The rules for this column: the connection's, unless its own declaration leaves no choice.
    pub fn rules(&self, rules: Rules) -> Rules {
        if self.several_dimensions { Rules { arrays: ArrayRule::Text, ..rules } } else { rules }
    }

    pub fn pg_type(&self) -> PgType {
        PgType::parse(&self.type_name)
    }

    pub fn field(&self, rules: Rules) -> arrow::datatypes::Field {
        self.pg_type().field(&self.name, self.nullable, self.rules(rules))
    }
}

impl Relation {
    pub fn stream_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name == name)
    }

    pub fn stream(&self, rules: Rules) -> Stream {
        let schema = Arc::new(Schema::new(self.columns.iter().map(|c| c.field(rules)).collect::<Vec<_>>()));
        let mut stream = Stream::new(self.stream_name(), &self.name, schema.clone());
        stream.schema_name = Some(self.schema.clone());
        stream.cursors = propose_cursors(&schema, &self.key);
        stream.primary_key.clone_from(&self.key);
        stream.read_modes = vec![ReadMode::Full, ReadMode::Incremental];
        stream.rows = self.rows;
        stream.bytes = Some(self.pages * 8192).filter(|bytes| *bytes > 0);
        stream.description.clone_from(&self.description);
        stream
    }
}

/// Sees what the user may read: whole relations, or those of their columns that are granted. Partitions come out of their parents,
/// members of extensions are no data of the user's.
const RELATIONS: &str = r"
SELECT n.nspname::text, c.relname::text, c.relkind::text, c.relrowsecurity,
       CASE c.relkind
         WHEN 'p' THEN (SELECT sum(l.reltuples)::float8 FROM pg_partition_tree(c.oid) p JOIN pg_class l ON l.oid = p.relid
                        WHERE p.isleaf HAVING bool_and(l.reltuples >= 0))
         ELSE c.reltuples::float8 END,
       CASE c.relkind
         WHEN 'p' THEN (SELECT sum(pg_relation_size(p.relid))::int8 FROM pg_partition_tree(c.oid) p)
         WHEN 'v' THEN 0
         ELSE pg_relation_size(c.oid) END,
       obj_description(c.oid, 'pg_class'), current_setting('server_version_num')::int4,
       a.names, a.types, a.dimensions, a.required,
       (SELECT array_agg(k.attname::text ORDER BY array_position(i.indkey::int2[], k.attnum))
        FROM pg_index i JOIN pg_attribute k ON k.attrelid = c.oid AND k.attnum = ANY (i.indkey::int2[])
        WHERE i.indrelid = c.oid AND i.indisprimary)
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
  SELECT array_agg(a.attname::text ORDER BY a.attnum) AS names,
         array_agg(CASE t.typtype WHEN 'd' THEN format_type(t.typbasetype, t.typtypmod)
                                  ELSE format_type(a.atttypid, a.atttypmod) END ORDER BY a.attnum) AS types,
         array_agg(a.attndims::int4 ORDER BY a.attnum) AS dimensions,
         array_agg(a.attnotnull ORDER BY a.attnum) AS required
  FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
  WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    AND (has_table_privilege(c.oid, 'SELECT') OR has_column_privilege(c.oid, a.attnum, 'SELECT'))) a
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition AND a.names IS NOT NULL
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', '_trib') AND n.nspname !~ '^pg_(toast|temp)'
  AND NOT starts_with(c.relname, '_trib_s_') AND has_schema_privilege(n.oid, 'USAGE')
  AND (cardinality($1) = 0 OR n.nspname || '.' || c.relname = ANY ($1))
  AND (cardinality($2) = 0 OR n.nspname = ANY ($2))
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY 1, 2";

/// Relations that may be read; `only` names streams, and `schemas` schemas, where they are not empty. One round trip.
pub async fn relations(session: &Session, only: &[String], schemas: &[String]) -> Result<Vec<Relation>> {
    let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] = [(&only, Type::TEXT_ARRAY), (&schemas, Type::TEXT_ARRAY)];
    let rows = session.client.query_typed(RELATIONS, &parameters).await.map_err(error::driver)?;
    rows.iter().map(|row| relation(row).map_err(error::driver)).collect()
}

fn relation(row: &tokio_postgres::Row) -> Result<Relation, tokio_postgres::Error> {
    let (names, types): (Vec<String>, Vec<String>) = (row.try_get(8)?, row.try_get(9)?);
    let (dimensions, required): (Vec<i32>, Vec<bool>) = (row.try_get(10)?, row.try_get(11)?);
    let columns = names.into_iter().zip(types).zip(dimensions.into_iter().zip(required));
    let kind: String = row.try_get(2)?;
    let tuples: Option<f64> = row.try_get(4)?;
    Ok(Relation {
        schema: row.try_get(0)?,
        name: row.try_get(1)?,
        kind: match kind.as_str() {
            "r" | "m" => RelationKind::Table,
            "p" => RelationKind::Partitioned,
            _ => RelationKind::Virtual,
        },
        columns: columns
            .map(|((name, type_name), (dimensions, required))| Column {
                name,
                type_name,
                nullable: !required,
                several_dimensions: dimensions > 1,
            })
            .collect(),
        key: row.try_get::<_, Option<Vec<String>>>(12)?.unwrap_or_default(),
        // -1 stands for a table that was never analyzed.
        rows: tuples.filter(|n| *n > 0.0).map(|n| n as u64),
        pages: row.try_get::<_, Option<i64>>(5)?.unwrap_or(0).unsigned_abs() / 8192,
        row_security: row.try_get(3)?,
        description: row.try_get(6)?,
        server_version: row.try_get(7)?,
    })
}

/// The leaf partitions of a partitioned table with their pages, or nothing where one of them may not be read by itself.
pub async fn leaves(session: &Session, relation: &Relation) -> Result<Vec<(String, String, u64)>> {
    const LEAVES: &str = "SELECT n.nspname::text, c.relname::text, pg_relation_size(c.oid), \
            c.relkind = 'r' AND has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE') \
        FROM pg_partition_tree(format('%I.%I', $1, $2)::regclass) p JOIN pg_class c ON c.oid = p.relid JOIN pg_namespace n ON n.oid = c.relnamespace \
        WHERE p.isleaf AND c.relkind <> 'p' ORDER BY 1, 2";
    let rows =
        session.client.query_typed(LEAVES, &[(&relation.schema, Type::TEXT), (&relation.name, Type::TEXT)]).await.map_err(error::driver)?;
    if rows.iter().any(|row| !row.get::<_, bool>(3)) {
        return Ok(Vec::new());
    }
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get::<_, i64>(2).unsigned_abs() / 8192)).collect())
}

/// Relations that the user sees and may not read, each with the statement that lets it.
pub async fn missing_grants(session: &Session, schemas: &[String]) -> Result<Vec<String>> {
    const MISSING: &str = "SELECT CASE WHEN has_schema_privilege(n.oid, 'USAGE') \
            THEN format('GRANT SELECT ON %I.%I TO %I', n.nspname, c.relname, current_user) \
            ELSE format('GRANT USAGE ON SCHEMA %I TO %I', n.nspname, current_user) END \
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition AND n.nspname = ANY ($1) \
          AND NOT starts_with(c.relname, '_trib_s_') \
          AND NOT (has_schema_privilege(n.oid, 'USAGE') AND has_any_column_privilege(c.oid, 'SELECT')) GROUP BY 1 ORDER BY 1";
    let rows = session.client.query_typed(MISSING, &[(&schemas, Type::TEXT_ARRAY)]).await.map_err(error::driver)?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
