//! The control database: what Tributary remembers between runs.
//!
//! One [`Store`] keeps leases, state, loads, runs, logs, rejected rows and what people have asked for (pause, approve,
//! cancel), each under the environment that it was opened for. It is a SQLite file beside the project, or a PostgreSQL database that a
//! team shares; the SQL is the same for both.
//!
//! Secrets never get in. The store writes what it is given, so its callers pass only texts that may be shown: states and
//! logs hold no settings, errors come from [`trib_core::Error::to_json`], and a [`trib_core::Secret`] serialises as `***`.

mod database;
mod lease;
mod live;
mod log;
mod pause;
mod published;
mod rejected;
mod run;
mod schema;
mod scope;
mod table;
mod tested;

use std::path::Path;

use sqlx::Transaction;
use sqlx::any::Any;
use trib_core::Result;

use database::Database;
use live::Live;

pub use lease::Holder;
pub use log::{Level, LogLine};
pub use pause::Pause;
pub use published::Published;
pub use rejected::Rejected;
pub use run::{Counts, Run, RunEnd, RunStart, RunStream, Status, StreamEnd};
pub use scope::ScopeRecord;
pub use table::{Column, Kind, Rows};
pub use tested::{LastTest, Tested, Verdict};

/// The control database, opened for one environment. Cheap to share behind an `Arc`; all methods take `&self`.
pub struct Store {
    database: Database,
    environment: String,
    live: Live,
}

impl Store {
    /// Opens the database that `url` names: a path (relative ones start at `base`), `sqlite:PATH` or `postgres://…`.
    /// Makes the file, its folders and the tables where they are missing, and brings older tables up to date.
    ///
    /// Fails with `unsupported` when a newer version of Tributary has written the database.
    pub async fn open(url: &str, base: &Path, environment: &str) -> Result<Self> {
        let (database, live) = Database::open(url, base).await?;
        schema::migrate(&database, schema::MIGRATIONS).await?;
        Ok(Self { database, environment: environment.to_owned(), live: Live::new(live) })
    }

    pub fn environment(&self) -> &str {
        &self.environment
    }

    async fn begin(&self) -> Result<Transaction<'static, Any>> {
        self.database.begin().await
    }
}
