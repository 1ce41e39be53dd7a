//! The control database as tables.

use serde_json::{Value, json};
use trib_core::{Code, Outcome};
use trib_store::{Kind, Store};

use crate::place::{Place, cases, lease, load};

pub mod cases {
    super::cases![every_table_can_be_read, values_keep_their_kinds];
}

async fn every_table_can_be_read(place: &Place) {
    let store = place.open().await;
    for table in Store::tables() {
        assert_eq!(store.rows(table).await.unwrap().columns, Store::columns(table).unwrap());
    }
    let error = store.rows("run").await.unwrap_err();
    assert_eq!((error.code(), error.hint_text()), (Code::NotFound, Some("did you mean _trib.runs?")));
}

async fn values_keep_their_kinds(place: &Place) {
    let store = place.open().await;
    let lease = lease(&store).await;
    store.committed(&lease, &load("a", 1), &Outcome::default(), "r").await.unwrap();
    let rows = store.rows("loads").await.unwrap();
    let value = |name: &str| -> (Kind, Value) {
        let at = rows.columns.iter().position(|c| c.name == name).unwrap();
        (rows.columns[at].kind, rows.rows[0][at].clone())
    };
    assert_eq!(value("load"), (Kind::Text, json!("a")));
    assert_eq!(value("rows"), (Kind::Integer, json!(3)));
    assert_eq!(value("to_state"), (Kind::Json, json!("{\"streams\":{\"orders\":{\"value\":1}}}")));
    assert_eq!(value("committed_at").0, Kind::Timestamp);
}
