//! SQLite: one file, read and written through the bundled library.
//!
//! What a column holds is its [`kind`], found from its declaration; [`decode`] and [`encode`] go between stored values and
//! Arrow by it. Reading: [`source`] plans splits out of one [`snapshot`], [`split`] says them in SQL, [`scan`] reads them.
//! Writing: [`side_file`] stages each part in a file of its own, [`commit`] attaches those and carries out the statements
//! of [`merge`] in one transaction, after [`ddl`] has brought the tables into shape.

mod bound;
mod commit;
mod computed;
mod config;
mod database;
mod ddl;
mod decimal;
mod decode;
mod destination;
mod encode;
mod error;
mod kind;
mod marker;
mod merge;
mod query;
mod rebuild;
mod scan;
mod side_file;
mod snapshot;
mod source;
mod split;
mod table;

use trib_core::Connector;
use trib_core::connector::Ends;

pub fn connector() -> Connector {
    Connector::of::<config::SqliteConfig>(Ends::Both)
}
