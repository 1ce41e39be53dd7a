//! What the suite says about destinations that are right, and about those that are not.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use trib_testkit::conformance;

use crate::memory::{Fault, System};

async fn verdict(fault: Fault) -> Result<(), String> {
    let system = System::default();
    let reader = system.clone();
    let suite = conformance::destination(
        || system.destination(fault),
        |table| {
            let rows = reader.read(&table);
            async move { rows }
        },
    );
    AssertUnwindSafe(suite).catch_unwind().await.map_err(|panic| *panic.downcast::<String>().unwrap())
}

#[tokio::test]
async fn a_right_destination_passes() {
    if let Err(text) = verdict(Fault::None).await {
        panic!("{text}");
    }
}

#[tokio::test]
async fn every_mistake_is_found_by_the_check_for_it() {
    let cases = [
        (Fault::PublishesAtStage, "protocol::what_is_staged_is_not_seen"),
        (Fault::IgnoresTheLease, "protocol::an_outdated_lease_commits_nothing"),
        (Fault::ForgetsMarkers, "protocol::markers_come_back"),
        (Fault::PublishesEveryAttempt, "protocol::only_parts_with_receipts_are_published"),
        (Fault::TrustsReceipts, "protocol::lost_rows_are_noticed"),
        (Fault::SweepsEverything, "protocol::a_sweep_spares_what_it_is_told_to"),
        (Fault::FirstRowWins, "modes::upsert"),
        (Fault::LosesUnicode, "round_trip::c_utf8: Utf8"),
        (Fault::ChangesTheTableAtStage, "evolution::changes_come_with_their_rows"),
        (Fault::IgnoresScopes, "modes::mirror within its scope"),
    ];
    for (fault, check) in cases {
        let text = verdict(fault).await.expect_err(&format!("{fault:?} was not found"));
        assert!(text.contains(&format!("✗ {check}\n")), "{fault:?} should fail {check}:\n{text}");
    }
}
