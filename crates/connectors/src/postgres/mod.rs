//! PostgreSQL.

use trib_core::Connector;

pub fn connector() -> Connector {
    todo!()
}
