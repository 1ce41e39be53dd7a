//! The control database as tables.

use serde_json::{Value, json};
use trib_core::{Code, Outcome};
use trib_store::{Kind, RunStart, Store};

use crate::place::{Place, cases, lease, load};

pub mod cases {
    super::cases![every_table_can_be_read, values_keep_their_kinds, loads_are_found_with_their_runs];
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

async fn loads_are_found_with_their_runs(place: &Place) {
    let store = place.open().await;
    let lease = lease(&store).await;
    let [first, second] = ["1", "2"].map(|n| format!("{}-{n}", store.environment()));
    let command = "trib promote --from dev --to prod".to_owned();
    store.start_run(&RunStart { id: "p".into(), command: command.clone(), holder: "host".into(), ..RunStart::default() }).await.unwrap();
    assert_eq!(store.promoted("shop").await.unwrap(), None);
    store.committed(&lease, &load(&first, 1), &Outcome::default(), "p").await.unwrap();
    store.committed(&lease, &load(&second, 2), &Outcome::default(), "forgotten").await.unwrap();
    let found = store.published(&first).await.unwrap().unwrap();
    assert_eq!((&found.load, found.command.as_ref(), found.environment.as_str()), (&first, Some(&command), store.environment()));
    assert_eq!(store.promoted("shop").await.unwrap(), Some(found.clone()));
    assert_eq!(store.published(&second).await.unwrap().unwrap().command, None);
    assert_eq!(store.published("none").await.unwrap(), None);
    // Another environment of the same database sees it as what it is.
    let other = Store::open(&place.url, &place.base, "another").await.unwrap();
    assert_eq!((other.published(&first).await.unwrap(), other.promoted("shop").await.unwrap()), (Some(found), None));
}
