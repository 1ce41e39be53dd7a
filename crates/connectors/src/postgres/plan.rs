//! How a read of one table is cut into splits.

use std::fmt::Write as _;

use trib_core::source::{Cursor, NullCursor};
use trib_core::{Code, Error, Read, Result, Split, StreamRead};
use trib_kit::cursor::CursorState;
use trib_kit::sql::ANSI;

use super::catalog::{self, Column, Relation, RelationKind};
use super::connect::Session;
use super::pg_type::Kind;
use super::split::{CursorRange, Spec, page_ranges, relation as relation_name, typed, value_ranges};

/// Fewer pages than this per split are read faster than another connection is opened.
const PAGES_PER_SPLIT: u64 = 1024;
/// Scans of a range of row addresses came with PostgreSQL 14; before, each would read the whole table.
const TID_RANGE_SCANS: i32 = 140_000;

/// The splits of a read, each with the rows to expect.
pub struct Planned {
    pub splits: Vec<(Spec, Option<u64>)>,
    /// The same read as one split.
    pub whole: Spec,
}

/// The splits that an unfinished read has left. Their snapshot is gone.
pub fn rest(left: &[Split]) -> Result<Vec<Split>> {
    left.iter()
        .map(|split| {
            let spec = Spec { snapshot: None, ..Spec::of(split)? };
            Ok(Split { spec: serde_json::to_value(spec)?, ..split.clone() })
        })
        .collect()
}

pub async fn plan(session: &Session, relation: &Relation, read: &StreamRead, before: CursorState) -> Result<Planned> {
    let mut base = base(relation, read)?;
    match &read.read {
        Read::Full => {
            if read.may_stop {
                order(&mut base, relation, &read.key)?;
            }
        }
        Read::Keys => {}
        Read::Range { column, since, until } => {
            let column = find(relation, column)?;
            let name = ANSI.identifier(&column.name);
            base.bounds.extend(since.as_ref().map(|v| format!("{name} >= {}", typed(v, &column.type_name))));
            base.bounds.extend(until.as_ref().map(|v| format!("{name} < {}", typed(v, &column.type_name))));
            return Ok(Planned { splits: vec![(base.clone(), None)], whole: base });
        }
        Read::Incremental(cursor) => return incremental(session, relation, read, cursor, base, before).await,
        Read::Cdc => {
            return Err(Error::new(Code::Unsupported, "this source does not read the change log").hint("use `read: incremental` or `full`"));
        }
    }
    let splits = cut(session, relation, read, &base).await?;
    Ok(Planned { splits, whole: base })
}

/// The whole table, with the columns and the condition that are asked for.
fn base(relation: &Relation, read: &StreamRead) -> Result<Spec> {
    let names: Vec<&String> = match (&read.read, &read.columns) {
        (Read::Keys, _) if read.key.is_empty() => {
            return Err(Error::new(Code::Unsupported, "a table without a key cannot be compared").hint("name its `key`"));
        }
        (_, Some(columns)) => columns.iter().collect(),
        (Read::Keys, None) => read.key.iter().collect(),
        (_, None) => relation.columns.iter().map(|c| &c.name).collect(),
    };
    Ok(Spec {
        schema: relation.schema.clone(),
        table: relation.name.clone(),
        columns: names.into_iter().map(|name| find(relation, name).cloned()).collect::<Result<_>>()?,
        hidden: 0,
        filter: read.filter.clone(),
        bounds: Vec::new(),
        order: Vec::new(),
        after: None,
        cursor: None,
        key: if read.key.is_empty() { relation.key.clone() } else { read.key.clone() },
        snapshot: None,
    })
}

fn find<'a>(relation: &'a Relation, name: &str) -> Result<&'a Column> {
    relation.column(name).ok_or_else(|| {
        let error = Error::new(Code::NotFound, "the table has no such column").detail(name);
        match trib_core::error::closest(name, relation.columns.iter().map(|c| c.name.as_str())) {
            Some(near) => error.hint(format!("did you mean {near:?}?")),
            None => error,
        }
    })
}

/// Makes the read one that can stop after any row. Without a key no place in it could be named.
fn order(spec: &mut Spec, relation: &Relation, columns: &[String]) -> Result<()> {
    for name in columns {
        spec.need(find(relation, name)?);
    }
    spec.order = columns.to_vec();
    Ok(())
}

/// Cuts a read of everything: by the column that the user names, by partition, or by physical place.
async fn cut(session: &Session, relation: &Relation, read: &StreamRead, base: &Spec) -> Result<Vec<(Spec, Option<u64>)>> {
    let most = read.parallelism.max(1) as u64;
    let whole = || vec![(base.clone(), relation.rows)];
    if let Some(column) = &read.split_by {
        return cut_by_value(session, relation, find(relation, column)?, most, base).await;
    }
    if most == 1 || read.may_stop || relation.row_security {
        return Ok(whole());
    }
    let by_pages = |spec: &Spec, pages: u64, most: u64| -> Vec<Spec> {
        let ranges = if relation.server_version >= TID_RANGE_SCANS { (pages / PAGES_PER_SPLIT).clamp(1, most) } else { 1 };
        if ranges == 1 {
            return vec![spec.clone()];
        }
        let bounded = |range| {
            let mut bounded = spec.clone();
            bounded.bounds.push(range);
            bounded
        };
        page_ranges(pages, ranges).into_iter().map(bounded).collect()
    };
    let share = |specs: Vec<Spec>| {
        let rows = relation.rows.map(|rows| rows / specs.len().max(1) as u64);
        specs.into_iter().map(|spec| (spec, rows)).collect()
    };
    match relation.kind {
        RelationKind::Table => Ok(share(by_pages(base, relation.pages, most))),
        RelationKind::Partitioned if relation.pages >= 2 * PAGES_PER_SPLIT => {
            let leaves = catalog::leaves(session, relation).await?;
            if leaves.is_empty() {
                return Ok(whole());
            }
            let total: u64 = leaves.iter().map(|(.., pages)| pages).sum();
            let specs = leaves.into_iter().flat_map(|(schema, table, pages)| {
                let leaf = Spec { schema, table, ..base.clone() };
                by_pages(&leaf, pages, (most * pages / total.max(1)).max(1))
            });
            Ok(share(specs.collect()))
        }
        RelationKind::Partitioned | RelationKind::Virtual => Ok(whole()),
    }
}

/// Cuts the span of a column's values into equal lengths.
async fn cut_by_value(session: &Session, relation: &Relation, column: &Column, most: u64, base: &Spec) -> Result<Vec<(Spec, Option<u64>)>> {
    let step = match column.pg_type().kind {
        Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Numeric(_) => "trunc(lo + (hi::numeric - lo) * i / n)",
        Kind::Date => "lo + ((hi - lo)::int8 * i / n)::int4",
        Kind::Timestamp | Kind::TimestampTz => "lo + (hi - lo) * (i::float8 / n)",
        _ => {
            return Err(Error::new(Code::Unsupported, "a read cannot be cut by a column of this type")
                .detail(format!("{} {}", column.name, column.type_name))
                .hint("`split_by` takes a column of whole numbers, decimals, dates or times"));
        }
    };
    if most == 1 || column.pg_type().array {
        return Ok(vec![(base.clone(), relation.rows)]);
    }
    let name = ANSI.identifier(&column.name);
    let sql = format!(
        "SELECT DISTINCT ({step})::{t} AS cut FROM (SELECT min({name}) AS lo, max({name}) AS hi, {most} AS n FROM {table}{finite}) s, \
         generate_series(1, {last}) i WHERE lo IS NOT NULL ORDER BY cut",
        t = column.type_name,
        table = relation_name(&relation.schema, &relation.name),
        finite = finite(column).map(|c| format!(" WHERE {c}")).unwrap_or_default(),
        last = most - 1,
    );
    let cuts: Vec<String> = session.rows(&sql).await?.iter().filter_map(|row| row.get(0).map(str::to_owned)).collect();
    let ranges = value_ranges(column, &cuts);
    let rows = relation.rows.map(|rows| rows / ranges.len() as u64);
    Ok(ranges
        .into_iter()
        .map(|range| {
            let mut spec = base.clone();
            spec.bounds.extend(Some(range).filter(|r| !r.is_empty()));
            (spec, rows)
        })
        .collect())
}

/// Reads what lies between the value that the state has reached and the greatest there is now, both included.
async fn incremental(
    session: &Session,
    relation: &Relation,
    read: &StreamRead,
    cursor: &Cursor,
    mut spec: Spec,
    before: CursorState,
) -> Result<Planned> {
    let column = find(relation, &cursor.column)?;
    let name = ANSI.identifier(&column.name);
    let value = |v: &str| typed(v, &column.type_name);
    let canonical = canonical(column)?;
    let table = relation_name(&relation.schema, &relation.name);
    let filtered = |conditions: &[String]| {
        let mut all = conditions.to_vec();
        all.extend(read.filter.as_ref().map(|f| format!("(\n{f}\n)")));
        if all.is_empty() { String::new() } else { format!(" WHERE {}", all.join(" AND ")) }
    };

    // One round trip: the upper end, and whether there are rows without a cursor.
    let mut below: Vec<String> = cursor.end.as_deref().map(|end| format!("{name} < {}", value(end))).into_iter().collect();
    below.extend(finite(column));
    let mut sql = format!(
        "SELECT {} FROM (SELECT max({name}) AS c FROM {table}{}) m",
        canonical.replace('$', &before.value.as_deref().map_or("c".to_owned(), |v| format!("greatest(c, {})", value(v)))),
        filtered(&below),
    );
    let ask_nulls = column.nullable && cursor.null_cursor != NullCursor::Exclude;
    if ask_nulls {
        let _ = write!(sql, "; SELECT 'null' FROM {table}{} LIMIT 1", filtered(&[format!("{name} IS NULL")]));
    }
    let rows = session.rows(&sql).await?;
    let upper = rows.first().and_then(|row| row.get(0)).map(str::to_owned);
    let has_nulls = ask_nulls && rows.len() > 1;
    if has_nulls && cursor.null_cursor == NullCursor::Fail {
        return Err(Error::new(Code::DataInvalid, "there are rows whose cursor is NULL")
            .detail(&cursor.column)
            .hint("`null_cursor: include` reads them in every run, `exclude` leaves them out"));
    }

    spec.need(column);
    let mut splits = Vec::new();
    let whole = spec.clone();
    if let Some(upper) = upper {
        let mut range = spec.clone();
        range.bounds.extend(lower_bound(column, cursor, before.value.as_deref())?);
        range.bounds.push(format!("{name} <= {}", value(&upper)));
        if read.may_stop && !read.key.is_empty() {
            let mut by = vec![cursor.column.clone()];
            by.extend(read.key.iter().filter(|k| **k != cursor.column).cloned());
            order(&mut range, relation, &by)?;
        }
        range.cursor = Some(CursorRange {
            column: cursor.column.clone(),
            reached: before.value.clone(),
            upper,
            seen: before.seen,
            exactly_once: read.exactly_once,
        });
        splits.push((range, if before.value.is_none() { relation.rows } else { None }));
    }
    if has_nulls {
        let mut nulls = spec;
        nulls.bounds.push(format!("{name} IS NULL"));
        splits.push((nulls, None));
    }
    Ok(Planned { splits, whole })
}

fn lower_bound(column: &Column, cursor: &Cursor, reached: Option<&str>) -> Result<Option<String>> {
    let name = ANSI.identifier(&column.name);
    let typed = |v: &str| typed(v, &column.type_name);
    Ok(match (reached, cursor.lookback.filter(|n| *n > 0)) {
        (None, _) => cursor.start.as_deref().map(|start| format!("{name} >= {}", typed(start))),
        (Some(reached), None) => Some(format!("{name} >= {}", typed(reached))),
        (Some(reached), Some(back)) => Some(match column.pg_type().kind {
            Kind::Timestamp | Kind::TimestampTz => format!("{name} >= {} - interval '{back} seconds'", typed(reached)),
            Kind::Date => format!("{name} >= ({} - interval '{back} seconds')::date", typed(reached)),
            Kind::Text(_) => {
                return Err(Error::new(Code::Unsupported, "a cursor of text cannot look back").detail(&cursor.column).setting("lookback"));
            }
            _ => format!("{name} >= {} - {back}", typed(reached)),
        }),
    })
}

/// Leaves out infinities, behind which a cursor would never find anything again.
fn finite(column: &Column) -> Option<String> {
    let kind = column.pg_type().kind;
    matches!(kind, Kind::Date | Kind::Timestamp | Kind::TimestampTz).then(|| format!("isfinite({})", ANSI.identifier(&column.name)))
}

/// SQL for the text form of a cursor value `$`, as Arrow and PostgreSQL both read it.
fn canonical(column: &Column) -> Result<String> {
    let t = column.pg_type();
    Ok(match t.kind {
        _ if t.array => None,
        Kind::Timestamp => Some("to_char($, 'YYYY-MM-DD\"T\"HH24:MI:SS.US')"),
        Kind::TimestampTz => Some("to_char($, 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"),
        Kind::Date => Some("to_char($, 'YYYY-MM-DD')"),
        Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Oid | Kind::Float4 | Kind::Float8 | Kind::Numeric(_) | Kind::Text(_) => {
            Some("($)::text")
        }
        _ => None,
    }
    .ok_or_else(|| {
        Error::new(Code::Unsupported, "a cursor cannot run on a column of this type")
            .detail(format!("{} {}", column.name, column.type_name))
            .hint("a cursor is a number, a text, a date or a time that only grows")
    })?
    .to_owned())
}
