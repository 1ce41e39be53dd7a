//! PostgreSQL, as source and as destination.
//!
//! Rows travel by `COPY … (FORMAT binary)` both ways, straight between the wire and Arrow's arrays. From the wire to the
//! committed row the way is: [`plan`] cuts a table into [`split`]s, [`copy_out`] and [`decode`] make batches of them;
//! [`encode`] writes batches into a staging table ([`staging`]), and [`commit`] publishes it.

mod catalog;
mod column_type;
mod commit;
mod config;
mod connect;
mod control;
mod copy_out;
mod decode;
mod destination;
mod encode;
mod error;
mod layout;
mod merge;
mod numeric;
mod pg_type;
mod plan;
mod source;
mod split;
mod staging;
mod target;
mod tls;

use std::sync::Arc;

use serde_json::Value;
use trib_core::connector::{Ends, Verified};
use trib_core::{Connector, ConnectorConfig, Context, Destination, Result, Source};

use config::PostgresConfig;
use connect::Server;
use destination::PostgresDestination;
use source::PostgresSource;

/// Rows as they stand in a binary `COPY`, without its header and trailer: a form of [`trib_core::wire`].
const WIRE: &str = "postgres-copy";

pub fn connector() -> Connector {
    Connector::of::<PostgresConfig>(Ends::Both)
}

impl ConnectorConfig for PostgresConfig {
    const NAME: &'static str = "postgres";
    const TITLE: &'static str = "PostgreSQL";
    const DESCRIPTION: &'static str = "Tables and views of a PostgreSQL database, read and loaded by binary COPY.";
    const VERIFIED: Verified = Verified::RealSystem;
    const PUSHES_FILTER: bool = true;

    fn source(self, context: &Context) -> Option<Result<Arc<dyn Source>>> {
        let server = self.endpoint(context).map(|endpoint| Server::new(endpoint, context.threads));
        Some(server.map(|server| Arc::new(PostgresSource::new(&self, server)) as Arc<dyn Source>))
    }

    fn destination(self, context: &Context) -> Option<Result<Arc<dyn Destination>>> {
        let server = self.endpoint(context).map(|endpoint| Server::new(endpoint, context.threads));
        Some(server.map(|server| Arc::new(PostgresDestination::new(server, self.rules())) as Arc<dyn Destination>))
    }

    fn from_url(url: &str) -> Option<Value> {
        config::from_url(url)
    }
}
