//! The tables, and how older ones are brought up to date.

use sqlx::AssertSqlSafe;
use trib_core::{Code, Error, Result};

use crate::database::{Backend, Database, failed, number};

/// Version `n` is reached by the first `n` scripts. A script that was released is never edited.
pub(crate) const MIGRATIONS: &[&str] = &[
    include_str!("schema/1.sql"),
    include_str!("schema/2.sql"),
    include_str!("schema/3.sql"),
    include_str!("schema/4.sql"),
    include_str!("schema/5.sql"),
];

/// Stands in the scripts for the type of a column that numbers its rows.
const SERIAL: &str = "@serial";

/// Runs the scripts that the database has not seen, in one transaction.
pub(crate) async fn migrate(database: &Database, scripts: &[&str]) -> Result<()> {
    let wanted = scripts.len() as u64;
    // The usual case is one read. A failure means that the table is not there yet, or else shows again below.
    if let Ok(version) = sqlx::query("select version from trib_schema").fetch_one(&database.pool).await
        && number(&version, 0)? == wanted
    {
        return Ok(());
    }
    let mut tx = database.begin().await?;
    if database.backend == Backend::Postgres {
        // Two processes that start at once on an empty database; the number is arbitrary.
        sqlx::query("select pg_advisory_xact_lock(7474696206)").execute(&mut *tx).await.map_err(failed)?;
    }
    sqlx::query("create table if not exists trib_schema (version bigint not null)").execute(&mut *tx).await.map_err(failed)?;
    let found = sqlx::query("select version from trib_schema").fetch_optional(&mut *tx).await.map_err(failed)?;
    let found = found.map(|row| number(&row, 0)).transpose()?.unwrap_or(0);
    if found > wanted {
        return Err(Error::new(Code::Unsupported, "the control database was written by a newer version of Tributary")
            .detail(format!("its schema is version {found}, this program knows {wanted}"))
            .setting("state")
            .hint("update `trib`, or name another control database with `state:`"));
    }
    let serial = match database.backend {
        Backend::Sqlite => "integer primary key autoincrement",
        Backend::Postgres => "bigint generated always as identity primary key",
    };
    for script in &scripts[found as usize..] {
        sqlx::raw_sql(AssertSqlSafe(script.replace(SERIAL, serial))).execute(&mut *tx).await.map_err(failed)?;
    }
    sqlx::query("delete from trib_schema").execute(&mut *tx).await.map_err(failed)?;
    sqlx::query("insert into trib_schema (version) values ($1)").bind(wanted as i64).execute(&mut *tx).await.map_err(failed)?;
    tx.commit().await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    const NEXT: &str = "alter table trib_meta add column note text; update trib_meta set note = 'moved'";

    fn with_next() -> Vec<&'static str> {
        MIGRATIONS.iter().copied().chain([NEXT]).collect()
    }

    async fn at(dir: &std::path::Path, scripts: &[&str]) -> Result<Database> {
        let (database, _) = Database::open("control.db", dir).await?;
        migrate(&database, scripts).await?;
        Ok(database)
    }

    #[tokio::test]
    async fn an_older_version_moves_on_and_keeps_what_it_held() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open("control.db", dir.path(), "dev").await.unwrap();
        store.set_meta("k", "v").await.unwrap();
        drop(store);
        let database = at(dir.path(), &with_next()).await.unwrap();
        let row = sqlx::query("select value, note, version from trib_meta, trib_schema").fetch_one(&database.pool).await.unwrap();
        assert_eq!((crate::database::text(&row, 0).unwrap().as_str(), number(&row, 2).unwrap()), ("v", MIGRATIONS.len() as u64 + 1));
        assert_eq!(crate::database::text(&row, 1).unwrap(), "moved");
    }

    #[tokio::test]
    async fn a_script_that_fails_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        at(dir.path(), MIGRATIONS).await.unwrap();
        assert!(at(dir.path(), &[with_next(), vec!["select * from nowhere"]].concat()).await.is_err());
        // The version before still opens, and still has no `note`.
        let database = at(dir.path(), MIGRATIONS).await.unwrap();
        assert!(sqlx::query("select note from trib_meta").fetch_all(&database.pool).await.is_err());
    }

    #[tokio::test]
    async fn a_newer_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        at(dir.path(), &with_next()).await.unwrap();
        let Err(error) = at(dir.path(), MIGRATIONS).await else { panic!("opened a newer database") };
        assert_eq!(error.code(), Code::Unsupported);
        let known = MIGRATIONS.len();
        assert_eq!(error.detail_text(), Some(format!("its schema is version {}, this program knows {known}", known + 1).as_str()));
    }
}
