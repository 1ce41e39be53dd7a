//! The tables of the destination as they are.

use std::sync::Arc;

use arrow::datatypes::Field;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use trib_core::destination::{ExistingColumn, ExistingTable};
use trib_core::logical::FieldExt;
use trib_core::{Code, Error, Result};

use super::connect::Session;
use super::error;
use super::layout::Place;
use super::pg_type::{DIALECT, PgType, Rules};

/// A table, and what a load has to know about it.
#[derive(Clone, Debug)]
pub struct Target {
    pub columns: Vec<TargetColumn>,
    pub key: Vec<String>,
    /// The columns of each unique index that `ON CONFLICT` can name.
    pub unique: Vec<Vec<String>>,
    /// Nothing else in the database knows the table: no view, foreign key, trigger, policy, publication, second index.
    pub stands_alone: bool,
    /// Foreign keys of other tables point here.
    pub referenced: bool,
    /// Statements that give the table that follows under this name the same grants, comments and owner.
    pub dress: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct TargetColumn {
    pub name: String,
    /// As `format_type` spells it.
    pub type_name: String,
    /// The same; for a domain the type that its values have.
    pub base_type: String,
    pub nullable: bool,
}

impl Target {
    pub fn type_of(&self, column: &str) -> Option<&str> {
        self.columns.iter().find(|c| c.name == column).map(|c| c.type_name.as_str())
    }

    /// A type of the database's own (an enum, a domain) that a column has and a replaced table keeps, since the field's values came from it
    /// or have its base type.
    pub fn own_type(&self, field: &Field, wanted: &str) -> Option<&str> {
        let column = self.columns.iter().find(|c| c.name == *field.name())?;
        let fits = column.base_type == wanted || field.native(DIALECT) == Some(&column.type_name);
        (fits && !PgType::parse(&column.type_name).is_built_in()).then_some(column.type_name.as_str())
    }

    /// Whether an index makes sure that these columns identify a row.
    pub fn is_unique(&self, key: &[String]) -> bool {
        self.unique.iter().any(|columns| columns.len() == key.len() && key.iter().all(|k| columns.contains(k)))
    }

    pub fn existing(&self) -> ExistingTable {
        let column = |column: &TargetColumn| {
            let t = PgType::parse(&column.base_type);
            ExistingColumn { field: Arc::new(t.field(&column.name, column.nullable, Rules::default())), native: t.name }
        };
        ExistingTable { columns: self.columns.iter().map(column).collect(), key: self.key.clone() }
    }
}

/// What a table may have of its own without being known to others: its row type, its toast table, its primary key, constraints against NULL.
const TARGET: &str = r"
SELECT c.relkind::text, a.names, a.types, a.nullable,
  (SELECT array_agg(k.attname::text ORDER BY array_position(i.indkey::int2[], k.attnum))
   FROM pg_index i JOIN pg_attribute k ON k.attrelid = c.oid AND k.attnum = ANY (i.indkey::int2[])
   WHERE i.indrelid = c.oid AND i.indisprimary) AS key,
  (SELECT json_agg(u.names)::text FROM (
     SELECT json_agg(k.attname) AS names
     FROM pg_index i JOIN pg_attribute k ON k.attrelid = c.oid AND k.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
     WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
     GROUP BY i.indexrelid) u) AS uniques,
  c.relkind = 'r' AND NOT c.relispartition AND NOT c.relrowsecurity AND NOT c.relhassubclass AND c.relreplident = 'd' AND c.reltablespace = 0
    AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = c.oid)
    AND NOT EXISTS (SELECT FROM pg_depend d
      LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
      WHERE (d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid OR d.refclassid = 'pg_type'::regclass AND d.refobjid = c.reltype)
        AND NOT (d.classid = 'pg_type'::regclass AND d.deptype = 'i')
        AND NOT (d.classid = 'pg_class'::regclass AND d.objid = c.reltoastrelid)
        AND (k.contype IS NULL OR k.contype NOT IN ('p', 'n')))
    AS stands_alone,
  EXISTS (SELECT FROM pg_constraint k WHERE k.confrelid = c.oid AND k.conrelid <> c.oid AND k.contype = 'f') AS referenced,
  ARRAY(SELECT format('GRANT %s ON %I.%I TO %s%s', x.privilege_type, n.nspname, c.relname, CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE x.grantee::regrole::text END,
                      CASE WHEN x.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
        FROM aclexplode(c.relacl) x WHERE x.grantee <> c.relowner)
  || ARRAY(SELECT format('GRANT %s (%I) ON %I.%I TO %s', x.privilege_type, k.attname, n.nspname, c.relname, CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE x.grantee::regrole::text END)
        FROM pg_attribute k CROSS JOIN aclexplode(k.attacl) x WHERE k.attrelid = c.oid AND NOT k.attisdropped)
  || ARRAY(SELECT CASE d.objsubid WHEN 0 THEN format('COMMENT ON TABLE %I.%I IS %L', n.nspname, c.relname, d.description)
                  ELSE format('COMMENT ON COLUMN %I.%I.%I IS %L', n.nspname, c.relname, k.attname, d.description) END
        FROM pg_description d LEFT JOIN pg_attribute k ON k.attrelid = c.oid AND k.attnum = d.objsubid AND d.objsubid > 0
        WHERE d.classoid = 'pg_class'::regclass AND d.objoid = c.oid)
  || ARRAY(SELECT format('ALTER TABLE %I.%I OWNER TO %I', n.nspname, c.relname, o.rolname) FROM pg_roles o WHERE o.oid = c.relowner AND o.rolname <> current_user) AS dress,
  a.base_types
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
  SELECT coalesce(array_agg(a.attname::text ORDER BY a.attnum), '{}') AS names,
         coalesce(array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum), '{}') AS types,
         coalesce(array_agg(NOT a.attnotnull ORDER BY a.attnum), '{}') AS nullable,
         coalesce(array_agg(CASE t.typtype WHEN 'd' THEN format_type(t.typbasetype, t.typtypmod)
                                           ELSE format_type(a.atttypid, a.atttypmod) END ORDER BY a.attnum), '{}') AS base_types
  FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
  WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '') a
WHERE n.nspname = $1 AND c.relname = $2";

pub async fn find(session: &Session, place: &Place) -> Result<Option<Target>> {
    let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] = [(&place.schema, Type::TEXT), (&place.name, Type::TEXT)];
    let row = session.client.query_typed_opt(TARGET, &parameters).await.map_err(error::driver)?;
    let Some(row) = row else { return Ok(None) };
    let (kind, target) = target(&row).map_err(error::driver)?;
    if !matches!(kind.as_str(), "r" | "p") {
        return Err(Error::new(Code::Unsupported, "what stands under the table's name is no table")
            .detail(format!("{}.{}", place.schema, place.name))
            .hint("load `into` another name, or drop the view"));
    }
    Ok(Some(target))
}

fn target(row: &Row) -> Result<(String, Target), tokio_postgres::Error> {
    let (names, types, nullable): (Vec<String>, Vec<String>, Vec<bool>) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
    let base_types: Vec<String> = row.try_get(9)?;
    let uniques: Option<String> = row.try_get(5)?;
    let target = Target {
        columns: names
            .into_iter()
            .zip(types)
            .zip(base_types.into_iter().zip(nullable))
            .map(|((name, type_name), (base_type, nullable))| TargetColumn { name, type_name, base_type, nullable })
            .collect(),
        key: row.try_get::<_, Option<Vec<String>>>(4)?.unwrap_or_default(),
        unique: uniques.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
        stands_alone: row.try_get(6)?,
        referenced: row.try_get(7)?,
        dress: row.try_get(8)?,
    };
    Ok((row.try_get(0)?, target))
}
