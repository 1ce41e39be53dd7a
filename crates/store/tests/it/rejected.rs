//! Rejected rows wait until they are delivered, and count only with their load.

use serde_json::json;
use trib_core::{Code, Load, LoadId, Outcome, RejectedRow};

use crate::place::{Place, cases, lease, load};

pub mod cases {
    super::cases![
        rows_count_with_their_load,
        rows_wait_until_they_are_retried,
        rows_of_a_stream_that_is_read_again_wait_no_longer,
        a_row_that_is_rejected_again_waits_once,
        many_rows,
        a_discarded_load_takes_its_rows_along
    ];
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
    store.record_staged(&lease, &again("b"), &ids, &[]).await.unwrap();
    assert!(store.take_rejected(&ids).await.unwrap().is_empty(), "they are on their way");
    store.discard_staged(&lease, "orders").await.unwrap();
    assert_eq!(store.take_rejected(&ids).await.unwrap().len(), 2, "the load died");
    store.record_staged(&lease, &again("c"), &ids, &[]).await.unwrap();
    assert_eq!(store.record_staged(&lease, &again("d"), &ids, &[]).await.unwrap_err().code(), Code::LeaseLost);
    store.committed(&lease, &again("c"), &Outcome::default(), "r2").await.unwrap();
    assert!(store.take_rejected(&ids).await.unwrap().is_empty());
    assert_eq!(store.rejected(None, None, 10).await.unwrap().len(), 1);
}

async fn rows_of_a_stream_that_is_read_again_wait_no_longer(place: &Place) {
    let store = place.open().await;
    let lease = lease(&store).await;
    for stream in ["orders", "others"] {
        store.reject("r", "shop", stream, &LoadId("a".into()), &rows(0, 2)).await.unwrap();
    }
    let only = |id: &str, number: u64| Load { tables: Vec::new(), ..load(id, number) };
    store.committed(&lease, &only("a", 1), &Outcome::default(), "r").await.unwrap();
    let waiting = async |stream: &str| store.rejected(Some("shop"), Some(stream), 10).await.unwrap();
    let whole = ["orders".to_owned()];
    store.reject("r2", "shop", "orders", &LoadId("b".into()), &rows(7, 8)).await.unwrap();
    store.record_staged(&lease, &only("b", 2), &[], &whole).await.unwrap();
    store.discard_staged(&lease, "orders").await.unwrap();
    assert_eq!(waiting("orders").await.len(), 2, "the load died");
    store.reject("r3", "shop", "orders", &LoadId("c".into()), &rows(8, 9)).await.unwrap();
    store.record_staged(&lease, &only("c", 2), &[], &whole).await.unwrap();
    store.committed(&lease, &only("c", 2), &Outcome::default(), "r3").await.unwrap();
    let places: Vec<String> = waiting("orders").await.into_iter().map(|r| r.row.place).collect();
    assert_eq!((places, waiting("others").await.len()), (vec!["line 8".to_owned()], 2));
    let shown = store.rows("rejected").await.unwrap();
    assert_eq!(shown.rows.len(), 5, "what was rejected once is not forgotten");
}

async fn a_row_that_is_rejected_again_waits_once(place: &Place) {
    let store = place.open().await;
    let lease = lease(&store).await;
    let row = |place: &str, reason: &str, row: serde_json::Value| RejectedRow { place: place.into(), reason: reason.into(), row };
    let first = row("id=1", "odd", json!({"id": 1, "n": "x", "_trib_load_id": "a"}));
    let raw = row("a.csv:7", "ragged", json!("1,2"));
    let nowhere = row("", "odd", json!({"n": "x"}));
    let loads = [
        vec![first.clone(), raw.clone(), nowhere.clone(), row("a.csv:8", "ragged", json!("1,2"))],
        // Another value, another reason.
        vec![row("id=1", "odd", json!({"id": 1, "n": "y"})), row("id=1", "even", first.row.clone())],
        vec![row("id=1", "odd", json!({"id": 1, "n": "x", "_trib_load_id": "c"})), raw, nowhere],
    ];
    for (number, rows) in (1..).zip(&loads) {
        let load = Load { tables: Vec::new(), ..load(&format!("load-{number}"), number) };
        store.reject("r", "shop", "orders", &load.id, rows).await.unwrap();
        // Of another stream, and of another sync.
        store.reject("r", "shop", "others", &load.id, &rows[..1]).await.unwrap();
        store.record_staged(&lease, &load, &[], &[]).await.unwrap();
        store.committed(&lease, &load, &Outcome::default(), "r").await.unwrap();
    }
    let waiting = async |stream: &str| {
        let waiting = store.rejected(None, Some(stream), 100).await.unwrap();
        waiting.iter().map(|w| format!("{} {} {}", w.load.0, w.row.place, w.row.reason)).collect::<Vec<_>>()
    };
    assert_eq!(
        waiting("orders").await,
        [
            "load-1  odd",
            "load-1 a.csv:8 ragged",
            "load-2 id=1 odd",
            "load-2 id=1 even",
            "load-3 id=1 odd",
            "load-3 a.csv:7 ragged",
            "load-3  odd"
        ]
    );
    assert_eq!(waiting("others").await, ["load-2 id=1 odd", "load-3 id=1 odd"]);
}

async fn many_rows(place: &Place) {
    let store = place.open().await;
    let lease = lease(&store).await;
    store.reject("r", "shop", "orders", &LoadId("a".into()), &rows(0, 1234)).await.unwrap();
    store.committed(&lease, &load("a", 1), &Outcome::default(), "r").await.unwrap();
    let ids: Vec<u64> = store.rejected(None, None, 10_000).await.unwrap().iter().map(|r| r.id).collect();
    assert_eq!(ids.len(), 1235);
    let again = Load { tables: Vec::new(), ..load("b", 2) };
    store.record_staged(&lease, &again, &ids, &[]).await.unwrap();
    store.committed(&lease, &again, &Outcome::default(), "r").await.unwrap();
    assert!(store.rejected(None, None, 1).await.unwrap().is_empty());
}

async fn a_discarded_load_takes_its_rows_along(place: &Place) {
    let store = place.open().await;
    let lease = lease(&store).await;
    store.reject("r", "shop", "orders", &LoadId("a".into()), &rows(0, 1)).await.unwrap();
    store.record_staged(&lease, &load("a", 1), &[], &[]).await.unwrap();
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
