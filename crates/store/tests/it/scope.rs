//! State moves as loads do.

use chrono::{TimeZone, Utc};
use serde_json::json;
use trib_core::protocol::{Recovery, recover};
use trib_core::{Code, Outcome, State};

use crate::place::{Place, cases, lease, load, marker, state};

pub mod cases {
    super::cases![
        a_load_from_staged_to_committed,
        what_a_crash_leaves_leads_to_the_right_step,
        loads_are_recorded_in_order,
        state_by_hand,
        state_is_kept_by_scope,
        compares_are_remembered,
    ];
}

async fn a_load_from_staged_to_committed(place: &Place) {
    let store = place.open().await;
    let lease = lease(&store).await;
    assert!(store.known("shop", "orders").await.unwrap().is_none());
    store.record_staged(&lease, &load("a", 1), &[], &[]).await.unwrap();
    let known = place.open().await.known("shop", "orders").await.unwrap().unwrap();
    assert_eq!((known.number, known.load), (0, None));
    assert_eq!(serde_json::to_value(known.staged).unwrap(), serde_json::to_value(load("a", 1)).unwrap());
    assert!(store.state("shop").await.unwrap().is_empty());

    store.committed(&lease, &load("a", 1), &Outcome::default(), "r1").await.unwrap();
    let known = place.open().await.known("shop", "orders").await.unwrap().unwrap();
    assert_eq!((known.number, known.load.unwrap().0.as_str(), known.staged.is_none()), (1, "a", true));
    assert_eq!(store.state("shop").await.unwrap(), state(json!({"value": 1})));
    assert_eq!(store.syncs().await.unwrap(), ["shop"]);
}

async fn what_a_crash_leaves_leads_to_the_right_step(place: &Place) {
    let store = place.open().await;
    let lease = lease(&store).await;
    store.committed(&lease, &load("a", 1), &Outcome::default(), "r").await.unwrap();
    store.record_staged(&lease, &load("b", 2), &[], &[]).await.unwrap();
    let step = |marker| async move {
        let known = place.open().await.known("shop", "orders").await.unwrap();
        recover(known.as_ref(), Some(&marker), false)
    };
    assert!(matches!(step(marker("a", 1)).await, Recovery::CommitStaged(l) if l.id.0 == "b"));
    assert!(matches!(step(marker("b", 2)).await, Recovery::MoveState(l) if l.id.0 == "b"));
    store.discard_staged(&lease, "orders").await.unwrap();
    assert!(matches!(step(marker("a", 1)).await, Recovery::GoOn));
    store.reset(&lease, &["orders".into()]).await.unwrap();
    assert!(matches!(step(marker("a", 1)).await, Recovery::Refuse(_)));
}

async fn loads_are_recorded_in_order(place: &Place) {
    let store = place.open().await;
    let lease = lease(&store).await;
    let outcome = Outcome::default();
    assert_eq!(store.committed(&lease, &load("b", 2), &outcome, "r").await.unwrap_err().code(), Code::Internal);
    store.committed(&lease, &load("a", 1), &outcome, "r").await.unwrap();
    store.committed(&lease, &load("a", 1), &outcome, "r").await.unwrap();
    store.committed(&lease, &load("b", 2), &outcome, "r").await.unwrap();
    assert_eq!(store.committed(&lease, &load("x", 2), &outcome, "r").await.unwrap_err().code(), Code::Internal);
    assert_eq!(store.rows("loads").await.unwrap().rows.len(), 2);
    assert_eq!(store.rows("schema_changes").await.unwrap().rows.len(), 2);
}

async fn state_by_hand(place: &Place) {
    let store = place.open().await;
    let lease = lease(&store).await;
    store.committed(&lease, &load("a", 1), &Outcome::default(), "r").await.unwrap();
    store.set_state(&lease, "orders", &state(json!({"value": "mine"}))).await.unwrap();
    assert_eq!(store.state_of("shop", "orders").await.unwrap(), state(json!({"value": "mine"})));
    assert_eq!(store.known("shop", "orders").await.unwrap().unwrap().number, 1);
    // From a marker that is further on, over a load that was on its way.
    store.record_staged(&lease, &load("b", 2), &[], &[]).await.unwrap();
    store.adopt(&lease, &marker("z", 7)).await.unwrap();
    let known = store.known("shop", "orders").await.unwrap().unwrap();
    assert!(matches!(recover(Some(&known), Some(&marker("z", 7)), false), Recovery::GoOn));
    assert_eq!(store.state("shop").await.unwrap(), state(json!({"value": 7})));
}

async fn state_is_kept_by_scope(place: &Place) {
    let store = place.open().await;
    let lease = lease(&store).await;
    let mut other = load("c", 1);
    other.scope = "customers".into();
    other.state = State::default().with_stream("customers", json!(5));
    store.committed(&lease, &load("a", 1), &Outcome::default(), "r").await.unwrap();
    store.committed(&lease, &other, &Outcome::default(), "r").await.unwrap();
    assert_eq!(store.state("shop").await.unwrap(), state(json!({"value": 1})).with_stream("customers", json!(5)));
    store.reset(&lease, &["orders".into()]).await.unwrap();
    assert_eq!(store.state("shop").await.unwrap(), other.state);
}

async fn compares_are_remembered(place: &Place) {
    let store = place.open().await;
    let lease = lease(&store).await;
    assert_eq!(store.last_prune("shop", "orders").await.unwrap(), None);
    let at = Utc.with_ymd_and_hms(2026, 1, 2, 3, 4, 5).unwrap();
    store.record_prune(&lease, "orders", at).await.unwrap();
    store.committed(&lease, &load("a", 1), &Outcome::default(), "r").await.unwrap();
    assert_eq!(store.last_prune("shop", "orders").await.unwrap(), Some(at));
}
