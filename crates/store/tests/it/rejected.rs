//! Rejected rows wait until they are delivered, and count only with their load.

use serde_json::json;
use trib_core::{Code, Load, LoadId, Outcome, RejectedRow};

use crate::place::{Place, cases, lease, load};

pub mod cases {
    super::cases![rows_count_with_their_load, rows_wait_until_they_are_retried, many_rows, a_discarded_load_takes_its_rows_along];
}

fn rows(from: usize, to: usize) -> Vec<RejectedRow> {
    (from..to).map(|i| RejectedRow { place: format!("line {i}"), reason: "odd\0value".into(), row: json!({"i": i, "nul": "\0"}) }).collect()
}

async fn rows_count_with_their_load(place: &Place) {
    let store = place.open().await;
    let lease = lease(&store).await;
    let load = load("a", 1);
    store.reject("r", "shop", "orders", &load.id, &rows(0, 2)).await.unwrap();
    assert!(store.rejected(None, None, 10).await.unwrap().is_empty());
    assert!(store.rows("rejected").await.unwrap().rows.is_empty());
    store.committed(&lease, &load, &Outcome::default(), "r").await.unwrap();
    let waiting = store.rejected(Some("shop"), Some("orders"), 10).await.unwrap();
    // The last one is the receipt's.
    assert_eq!(waiting.iter().map(|w| w.row.place.as_str()).collect::<Vec<_>>(), ["line 0", "line 1", "id=9"]);
    assert_eq!((waiting[0].row.reason.as_str(), &waiting[0].row.row), ("odd\u{fffd}value", &json!({"i": 0, "nul": "\0"})));
    assert!(store.rejected(Some("other"), None, 10).await.unwrap().is_empty());
}

async fn rows_wait_until_they_are_retried(place: &Place) {
    let store = place.open().await;
    let lease = lease(&store).await;
    store.reject("r", "shop", "orders", &LoadId("a".into()), &rows(0, 2)).await.unwrap();
    store.committed(&lease, &load("a", 1), &Outcome::default(), "r").await.unwrap();
    let ids: Vec<u64> = store.rejected(None, None, 2).await.unwrap().iter().map(|r| r.id).collect();
    assert_eq!(store.take_rejected(&ids).await.unwrap().len(), 2);
    assert_eq!(store.take_rejected(&ids).await.unwrap().len(), 2, "a retry that died has lost nothing");
    let again = |id: &str| Load { tables: Vec::new(), ..load(id, 2) };
    store.record_staged(&lease, &again("b"), &ids).await.unwrap();
    assert!(store.take_rejected(&ids).await.unwrap().is_empty(), "they are on their way");
    store.discard_staged(&lease, "orders").await.unwrap();
    assert_eq!(store.take_rejected(&ids).await.unwrap().len(), 2, "the load died");
    store.record_staged(&lease, &again("c"), &ids).await.unwrap();
    assert_eq!(store.record_staged(&lease, &again("d"), &ids).await.unwrap_err().code(), Code::LeaseLost);
    store.committed(&lease, &again("c"), &Outcome::default(), "r2").await.unwrap();
    assert!(store.take_rejected(&ids).await.unwrap().is_empty());
    assert_eq!(store.rejected(None, None, 10).await.unwrap().len(), 1);
}

async fn many_rows(place: &Place) {
    let store = place.open().await;
    let lease = lease(&store).await;
    store.reject("r", "shop", "orders", &LoadId("a".into()), &rows(0, 1234)).await.unwrap();
    store.committed(&lease, &load("a", 1), &Outcome::default(), "r").await.unwrap();
    let ids: Vec<u64> = store.rejected(None, None, 10_000).await.unwrap().iter().map(|r| r.id).collect();
    assert_eq!(ids.len(), 1235);
    let again = Load { tables: Vec::new(), ..load("b", 2) };
    store.record_staged(&lease, &again, &ids).await.unwrap();
    store.committed(&lease, &again, &Outcome::default(), "r").await.unwrap();
    assert!(store.rejected(None, None, 1).await.unwrap().is_empty());
}

async fn a_discarded_load_takes_its_rows_along(place: &Place) {
    let store = place.open().await;
    let lease = lease(&store).await;
    store.reject("r", "shop", "orders", &LoadId("a".into()), &rows(0, 1)).await.unwrap();
    store.record_staged(&lease, &load("a", 1), &[]).await.unwrap();
    store.discard_staged(&lease, "orders").await.unwrap();
    store.reject("r", "shop", "orders", &LoadId("b".into()), &rows(0, 1)).await.unwrap();
    store.drop_rejected(&LoadId("b".into())).await.unwrap();
    for id in ["a", "b"] {
        let mut later = load(id, if id == "a" { 1 } else { 2 });
        later.tables.clear();
        store.committed(&lease, &later, &Outcome::default(), "r").await.unwrap();
    }
    assert!(store.rejected(None, None, 10).await.unwrap().is_empty());
}
