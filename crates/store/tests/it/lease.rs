//! At most one run works on a sync.

use std::time::Duration;

use trib_core::Code;

use crate::place::{Place, TTL, cases, load};

pub mod cases {
    super::cases![
        one_holder_at_a_time,
        generations_grow,
        the_dead_give_way_at_once,
        the_silent_give_way_in_time,
        an_outdated_lease_writes_nothing
    ];
}

async fn one_holder_at_a_time(place: &Place) {
    let (a, b) = (place.open().await, place.open().await);
    let held = a.acquire("shop", "host 1, run 1", TTL).await.unwrap();
    let refused = b.acquire("shop", "host 1, run 2", TTL).await.unwrap_err();
    assert_eq!(refused.code(), Code::LeaseLost);
    assert!(refused.detail_text().unwrap().starts_with("shop: held by host 1, run 1 since "), "{refused}");
    assert!(a.acquire("shop", "host 1, run 3", TTL).await.is_err(), "the same process, another run");
    b.acquire("other", "host 1, run 2", TTL).await.unwrap();

    let holder = b.holder("shop").await.unwrap().unwrap();
    assert_eq!((holder.holder.as_str(), holder.generation, holder.gone), ("host 1, run 1", held.generation, false));
    a.renew(&held).await.unwrap();
    assert!(b.holder("shop").await.unwrap().unwrap().expires_at > holder.expires_at);
    a.release(&held).await.unwrap();
    assert_eq!(b.holder("shop").await.unwrap(), None);
    b.acquire("shop", "host 1, run 2", TTL).await.unwrap();
}

async fn generations_grow(place: &Place) {
    let store = place.open().await;
    // A destination may have been opened from a control database that is lost: a new one must not begin below it.
    let mut last = chrono::Utc::now().timestamp_millis() as u64 - 1000;
    for _ in 0..3 {
        let lease = store.acquire("shop", "h", TTL).await.unwrap();
        assert!(lease.generation > last, "{} after {last}", lease.generation);
        last = lease.generation;
        store.release(&lease).await.unwrap();
    }
}

async fn the_dead_give_way_at_once(place: &Place) {
    let died = place.open().await;
    let old = died.acquire("shop", "died", TTL).await.unwrap();
    // Closing the file is what the death of a process does to its lock.
    drop(died);
    let next = place.open().await;
    assert!(next.holder("shop").await.unwrap().unwrap().gone);
    let new = next.acquire("shop", "next", TTL).await.unwrap();
    assert!(new.generation > old.generation);
}

async fn the_silent_give_way_in_time(place: &Place) {
    if !place.url.starts_with("postgres") {
        return;
    }
    let silent = place.open().await;
    let first = silent.acquire("shop", "silent", Duration::from_millis(1)).await.unwrap();
    let elsewhere = place.open_elsewhere().await;
    let mut second = elsewhere.acquire("shop", "elsewhere", TTL).await;
    while second.is_err() {
        second = elsewhere.acquire("shop", "elsewhere", TTL).await;
    }
    assert_eq!(silent.renew(&first).await.unwrap_err().code(), Code::LeaseLost);
    // What it no longer has, it cannot give back.
    silent.release(&first).await.unwrap();
    elsewhere.renew(&second.unwrap()).await.unwrap();
}

async fn an_outdated_lease_writes_nothing(place: &Place) {
    let store = place.open().await;
    let old = store.acquire("shop", "old", TTL).await.unwrap();
    store.release(&old).await.unwrap();
    let new = store.acquire("shop", "new", TTL).await.unwrap();
    let outcome = trib_core::Outcome::default();
    assert_eq!(store.record_staged(&old, &load("a", 1), &[], &[]).await.unwrap_err().code(), Code::LeaseLost);
    assert_eq!(store.committed(&old, &load("a", 1), &outcome, "r").await.unwrap_err().code(), Code::LeaseLost);
    assert_eq!(store.reset(&old, &["orders".into()]).await.unwrap_err().code(), Code::LeaseLost);
    assert!(store.scopes("shop").await.unwrap().is_empty());
    store.committed(&new, &load("a", 1), &outcome, "r").await.unwrap();
}
