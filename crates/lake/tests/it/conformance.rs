//! The conformance suite, for both ends.

use serde_json::json;
use trib_core::Context;
use trib_testkit::conformance;

use crate::harness::context;

fn lake(context: &Context) -> std::sync::Arc<trib_lake::Lake> {
    trib_lake::open(&json!({"path": "lake"}), context).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn destination() {
    let dir = tempfile::tempdir().unwrap();
    let at = context(dir.path());
    conformance::destination(|| lake(&at), |table| conformance::read_by(lake(&at), table)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn source() {
    let dir = tempfile::tempdir().unwrap();
    let at = context(dir.path());
    conformance::source(|| lake(&at), |table, rows| conformance::filled_by(lake(&at), lake(&at), table, rows)).await;
}
