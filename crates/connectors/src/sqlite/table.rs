//! Tables and views as the database describes them.

use rusqlite::Connection;

use super::database::{Database, quoted};
use super::kind::Kind;

#[derive(Clone, Debug)]
pub struct Table {
    pub name: String,
    pub is_view: bool,
    pub has_rowid: bool,
    pub columns: Vec<Column>,
}

#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    pub declared: String,
    pub not_null: bool,
    /// Place in the primary key, from 1; 0 for the others.
    pub key: i64,
    pub generated: bool,
}

/// Names of the tables and views that hold a user's rows: neither SQLite's own nor Tributary's.
pub fn names(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'view', 'virtual') \
         AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_trib%' ESCAPE '\\' ORDER BY name",
    )?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// The table or view; `None` when it is not there. An error when it is a view that cannot be read.
pub fn describe(connection: &Connection, name: &str) -> rusqlite::Result<Option<Table>> {
    let found = connection.query_row(
        "SELECT name, type, wr FROM pragma_table_list WHERE schema = 'main' AND name = ?1 COLLATE NOCASE",
        [name],
        |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, bool>(2)?)),
    );
    let (name, class, without_rowid) = match found {
        Ok(found) => found,
        Err(rusqlite::Error::QueryReturnedNoRows) => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut statement = connection
        .prepare("SELECT name, type, \"notnull\", pk, hidden FROM pragma_table_xinfo(?1, 'main') WHERE hidden <> 1 ORDER BY cid")?;
    let columns = statement
        .query_map([&name], |row| {
            Ok(Column {
                name: row.get(0)?,
                declared: row.get(1)?,
                not_null: row.get(2)?,
                key: row.get(3)?,
                generated: row.get::<_, i64>(4)? > 1,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Some(Table { name, is_view: class == "view", has_rowid: class == "table" && !without_rowid, columns }))
}

impl Table {
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name.eq_ignore_ascii_case(name))
    }

    /// The columns of the primary key, in its order.
    pub fn key(&self) -> Vec<String> {
        let mut key: Vec<&Column> = self.columns.iter().filter(|c| c.key > 0).collect();
        key.sort_by_key(|c| c.key);
        key.into_iter().map(|c| c.name.clone()).collect()
    }

    /// The column is another name of the rowid, and so never NULL.
    pub fn is_rowid(&self, column: &Column) -> bool {
        self.has_rowid
            && column.key == 1
            && column.declared.eq_ignore_ascii_case("INTEGER")
            && self.columns.iter().filter(|c| c.key > 0).count() == 1
    }

    /// A name by which the rowid can be asked for, where the table has one and no columns take all its names.
    pub fn rowid(&self) -> Option<&'static str> {
        ["rowid", "_rowid_", "oid"].into_iter().find(|name| self.has_rowid && self.column(name).is_none())
    }

    /// NULL may stand in the column.
    pub fn is_nullable(&self, column: &Column) -> bool {
        !(column.not_null || self.is_rowid(column) || (!self.has_rowid && column.key > 0))
    }

    /// What the column holds: as the user declares it in the settings, or as the table does.
    pub fn kind(&self, database: &Database, column: &Column) -> Kind {
        let setting = format!("{}.{}", self.name, column.name);
        database.columns.get(&setting).cloned().unwrap_or_else(|| Kind::of_declaration(&column.declared))
    }
}

/// How the rows of a key can be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyIndex {
    Missing,
    /// An index leads to them, and there may be several of one key.
    Plain,
    /// There is one row of a key at most.
    Unique,
}

/// How the rows of `key` can be found in a table.
pub fn key_index(connection: &Connection, table: &Table, key: &[String]) -> rusqlite::Result<KeyIndex> {
    let same = |columns: &[String]| columns.len() == key.len() && columns.iter().all(|c| key.iter().any(|k| k.eq_ignore_ascii_case(c)));
    if key.len() == 1 && table.column(&key[0]).is_some_and(|c| table.is_rowid(c)) {
        return Ok(KeyIndex::Unique);
    }
    let mut best = KeyIndex::Missing;
    for index in indexes(connection, &table.name)? {
        if same(&index.columns) && index.unique && !index.partial {
            return Ok(KeyIndex::Unique);
        }
        if index.columns.len() >= key.len() && same(&index.columns[..key.len()]) {
            best = KeyIndex::Plain;
        }
    }
    Ok(best)
}

#[derive(Debug)]
pub struct Index {
    pub unique: bool,
    pub partial: bool,
    pub columns: Vec<String>,
}

pub fn indexes(connection: &Connection, table: &str) -> rusqlite::Result<Vec<Index>> {
    let mut statement = connection.prepare("SELECT name, \"unique\", partial FROM pragma_index_list(?1, 'main')")?;
    let found = statement.query_map([table], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?)))?;
    let mut columns = connection.prepare("SELECT coalesce(name, '') FROM pragma_index_info(?1, 'main') ORDER BY seqno")?;
    let mut indexes = Vec::new();
    for index in found {
        let (name, unique, partial) = index?;
        let columns = columns.query_map([&name], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        indexes.push(Index { unique, partial, columns });
    }
    Ok(indexes)
}

/// Rows of the table, about, where that is cheap to have: from statistics, or from the greatest rowid.
pub fn estimate(connection: &Connection, table: &Table) -> Option<u64> {
    let analyzed: rusqlite::Result<String> =
        connection.query_row("SELECT stat FROM main.sqlite_stat1 WHERE tbl = ?1 AND stat IS NOT NULL LIMIT 1", [&table.name], |r| r.get(0));
    if let Some(rows) = analyzed.ok().and_then(|stat| stat.split(' ').next()?.parse().ok()) {
        return Some(rows);
    }
    let (least, greatest) = rowid_range(connection, table).ok()??;
    let bytes: i64 =
        connection.query_row("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size", [], |r| r.get(0)).ok()?;
    let span = greatest.checked_sub(least)?.checked_add(1)?;
    // More rows than the file has room for means that the ids are not consecutive.
    (span <= bytes / 4).then_some(span as u64)
}

/// The least and the greatest rowid; `None` for an empty table and for one without rowids.
pub fn rowid_range(connection: &Connection, table: &Table) -> rusqlite::Result<Option<(i64, i64)>> {
    match table.rowid() {
        Some(rowid) => integer_range(connection, table, rowid),
        None => Ok(None),
    }
}

/// The least and the greatest value of an integer column.
pub fn integer_range(connection: &Connection, table: &Table, column: &str) -> rusqlite::Result<Option<(i64, i64)>> {
    // Two queries, since SQLite uses an index for only one of min and max at a time.
    let (table, column) = (quoted(&table.name), quoted(column));
    let one = |f: &str| connection.query_row(&format!("SELECT {f}({column}) FROM main.{table}"), [], |r| r.get::<_, Option<i64>>(0));
    Ok(one("min")?.zip(one("max")?))
}
