//! Leases, markers, parts: what makes a load happen once, wholly or not at all.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use futures::stream;
use trib_core::load::Durability;
use trib_core::{Code, Error, LoadId, Marker, TableName, WriteMode};

use super::bench::{Bench, Place, Wanted, conformed};
use super::{Check, Report, ensure};

pub(super) async fn checks(at: &Place<'_>, report: &mut Report) {
    macro_rules! run {
        ($($check:ident),* $(,)?) => { $(report.check(concat!("protocol::", stringify!($check)), $check(at)).await;)* };
    }
    run![
        the_system_answers,
        what_is_staged_is_not_seen,
        a_commit_is_done_once,
        loads_come_in_order,
        an_outdated_lease_commits_nothing,
        markers_come_back,
        an_empty_load_moves_the_marker,
        an_empty_part_has_a_receipt,
        only_parts_with_receipts_are_published,
        a_read_that_fails_leaves_nothing,
        what_was_aborted_is_gone,
        a_sweep_spares_what_it_is_told_to,
        durable_parts_are_committed_by_another_process,
        lost_rows_are_noticed,
        forgotten_scopes_begin_again,
        parts_are_staged_side_by_side,
    ];
}

/// Rows `from..to` with an id and a name.
pub(super) fn some_rows(from: i64, to: i64) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(from..to));
    let names: ArrayRef = Arc::new(StringArray::from_iter_values((from..to).map(|i| format!("row {i}"))));
    RecordBatch::try_from_iter([("id", ids), ("name", names)]).expect("columns of one length")
}

fn wanted(at: &Place<'_>, table: &TableName, from: i64, to: i64) -> Wanted {
    Wanted::new(table.clone(), at.plain_mode(), some_rows(from, to))
}

async fn begun<'a>(at: &'a Place<'a>, name: &str) -> Result<(Bench<'a>, TableName), Error> {
    let table = at.table(&format!("conf_{name}"));
    Ok((Bench::open(at, name, std::slice::from_ref(&table)).await?, table))
}

fn lease_lost<T>(result: Result<T, Error>, what: &str) -> Check {
    match result {
        Ok(_) => Err(super::Failure::new(format!("{what} went through"))),
        Err(e) => {
            ensure!(e.code() == Code::LeaseLost, "{what} should fail with lease_lost, not {e:?}");
            Ok(())
        }
    }
}

async fn the_system_answers(at: &Place<'_>) -> Check {
    let destination = (at.make)();
    destination.check().await?;
    let unknown = destination.markers("conf_never_opened", &[]).await?;
    ensure!(unknown.as_ref().is_none_or(Vec::is_empty), "a sync that was never opened has markers: {unknown:?}");
    let nothing = destination.inspect(&at.table("conf_never_made")).await?;
    ensure!(nothing.is_none(), "a table that was never made is there: {nothing:?}");
    ensure!(!at.modes().is_empty(), "no write mode is declared");
    Ok(())
}

async fn what_is_staged_is_not_seen(at: &Place<'_>) -> Check {
    let (mut bench, table) = begun(at, "unseen").await?;
    let load = bench.stage("s", &[wanted(at, &table, 0, 10)]).await?;
    bench.verify(&table).await?;
    bench.commit(&load).await?;
    bench.verify(&table).await?;
    let load = bench.stage("s", &[wanted(at, &table, 10, 20)]).await?;
    bench.verify(&table).await?;
    bench.commit(&load).await?;
    bench.verify(&table).await
}

async fn a_commit_is_done_once(at: &Place<'_>) -> Check {
    let (mut bench, table) = begun(at, "once").await?;
    let (load, first, _) = bench.load("s", &[wanted(at, &table, 0, 10)]).await?;
    ensure!(!first.already_committed, "the first commit says that it was done before");
    let (again, _) = bench.commit(&load).await?;
    ensure!(again.already_committed, "the second commit does not say that it was done before");
    bench.verify(&table).await?;
    bench.reopen().await?;
    let (again, _) = bench.commit(&load).await?;
    ensure!(again.already_committed, "a later process does not find the commit");
    bench.verify(&table).await
}

async fn loads_come_in_order(at: &Place<'_>) -> Check {
    let (mut bench, table) = begun(at, "order").await?;
    bench.load("s", &[wanted(at, &table, 0, 10)]).await?;
    let load = bench.stage("s", &[wanted(at, &table, 10, 20)]).await?;
    for wrong in [1, 3] {
        let mut other = load.clone();
        other.number = wrong;
        lease_lost(bench.destination.commit(&other, &bench.lease).await, &format!("load number {wrong} after 1"))?;
    }
    bench.verify(&table).await?;
    bench.commit(&load).await?;
    bench.verify(&table).await
}

async fn an_outdated_lease_commits_nothing(at: &Place<'_>) -> Check {
    let (mut bench, table) = begun(at, "rivals").await?;
    bench.load("s", &[wanted(at, &table, 0, 10)]).await?;
    let (old, old_lease) = (bench.destination.clone(), bench.lease.clone());
    let late = bench.stage("s", &[wanted(at, &table, 10, 20)]).await?;
    bench.reopen().await?;
    lease_lost(old.commit(&late, &old_lease).await, "a commit under an older generation")?;
    bench.verify(&table).await?;
    bench.load("s", &[wanted(at, &table, 20, 30)]).await?;
    lease_lost(old.commit(&late, &old_lease).await, "a commit whose number was taken")?;
    bench.verify(&table).await
}

async fn markers_come_back(at: &Place<'_>) -> Check {
    let (mut bench, table) = begun(at, "markers").await?;
    let markers = bench.reopen().await?;
    ensure!(markers.is_empty(), "a sync that never loaded has markers: {markers:?}");
    let odd = "public.\"odd\" 'scope' ü";
    bench.load("s", &[wanted(at, &table, 0, 10)]).await?;
    let (second, ..) = bench.load("s", &[wanted(at, &table, 10, 20)]).await?;
    let (other, ..) = bench.load(odd, &[wanted(at, &table, 20, 30)]).await?;
    let committed_under = bench.lease.generation;
    let mut markers = bench.reopen().await?;
    markers.sort_by_key(|m| m.scope != "s");
    if let Some(mut seen) = bench.destination.markers(&bench.lease.sync, std::slice::from_ref(&table)).await? {
        seen.sort_by_key(|m| m.scope != "s");
        ensure!(seen == markers, "a look that takes nothing over sees {seen:?}, not {markers:?}");
    }
    ensure!(markers.len() == 2, "two scopes were loaded, {} have markers", markers.len());
    for (marker, load) in markers.iter().zip([&second, &other]) {
        let Marker { scope, number, load: id, generation, state, filled, .. } = marker;
        ensure!(
            (scope, *number, id, *generation, state, filled)
                == (&load.scope, load.number, &load.id, committed_under, &load.state, &load.filled),
            "the marker is not the load that was committed last: {marker:?}"
        );
    }
    // Another sync does not see them.
    let stranger = Bench::open(at, "markers_of_another", std::slice::from_ref(&table)).await?;
    let none = stranger.destination.open(&stranger.lease, &[table]).await?;
    ensure!(none.is_empty(), "markers of another sync: {none:?}");
    Ok(())
}

async fn an_empty_load_moves_the_marker(at: &Place<'_>) -> Check {
    let (mut bench, table) = begun(at, "empty_load").await?;
    bench.load("s", &[wanted(at, &table, 0, 10)]).await?;
    let load = bench.empty_load("s");
    bench.commit(&load).await?;
    bench.verify(&table).await?;
    let markers = bench.reopen().await?;
    ensure!(markers.iter().any(|m| m.load == load.id && m.number == 2), "the marker has not moved: {markers:?}");
    bench.load("s", &[wanted(at, &table, 10, 20)]).await?;
    bench.verify(&table).await
}

async fn an_empty_part_has_a_receipt(at: &Place<'_>) -> Check {
    let (mut bench, table) = begun(at, "empty_part").await?;
    let load = bench.stage("s", &[wanted(at, &table, 0, 0)]).await?;
    ensure!(load.rows() == 0, "receipts of empty parts count {} rows", load.rows());
    bench.commit(&load).await?;
    bench.verify(&table).await?;
    let made = bench.destination.inspect(&table).await?;
    ensure!(made.is_some(), "a table whose first load is empty is not made");
    bench.load("s", &[wanted(at, &table, 0, 3)]).await?;
    bench.verify(&table).await
}

async fn only_parts_with_receipts_are_published(at: &Place<'_>) -> Check {
    let (mut bench, table) = begun(at, "attempts").await?;
    let mut load = bench.stage("s", &[wanted(at, &table, 0, 10)]).await?;
    let planned = load.tables[0].table.clone();
    // A second attempt of split 0 whose receipt never came back, and a split that was tried twice.
    bench.stage_part(&load, &planned, 0, 1, vec![conformed(&some_rows(100, 110), &planned, &load)?]).await?;
    bench.stage_part(&load, &planned, 2, 0, vec![conformed(&some_rows(200, 210), &planned, &load)?]).await?;
    let again = conformed(&some_rows(10, 15), &planned, &load)?;
    let receipt = bench.stage_part(&load, &planned, 2, 1, vec![again.clone()]).await?;
    load.tables[0].receipts.push(receipt);
    bench.commit(&load).await?;
    let rows = crate::rows::rows(&[again]);
    bench.model(&table).apply(&append_to(&planned), &rows, None, "");
    bench.verify(&table).await
}

/// The table with rows simply added, for the model.
fn append_to(table: &trib_core::Table) -> trib_core::Table {
    trib_core::Table { write: WriteMode::Append, parent: None, ..table.clone() }
}

async fn a_read_that_fails_leaves_nothing(at: &Place<'_>) -> Check {
    let (mut bench, table) = begun(at, "broken_read").await?;
    bench.load("s", &[wanted(at, &table, 0, 10)]).await?;
    let load = bench.empty_load("s");
    let (planned, _) = bench.plan(&wanted(at, &table, 10, 20)).await?;
    let rows = conformed(&some_rows(10, 20), &planned, &load)?;
    let broken = stream::iter([Ok(rows), Err(Error::new(Code::ConnectionLost, "the source has gone away"))]);
    match bench.stage_stream(&load, &planned, 0, 0, Box::pin(broken)).await {
        Ok(_) => return Err(super::Failure::new("a read that failed gave a receipt")),
        Err(e) => ensure!(e.code() == Code::ConnectionLost, "the source's error has become another: {e:?}"),
    }
    bench.destination.abort(&load.id).await?;
    bench.verify(&table).await?;
    bench.load("s", &[wanted(at, &table, 20, 30)]).await?;
    bench.verify(&table).await
}

async fn what_was_aborted_is_gone(at: &Place<'_>) -> Check {
    let (mut bench, table) = begun(at, "abort").await?;
    bench.load("s", &[wanted(at, &table, 0, 10)]).await?;
    let load = bench.stage("s", &[wanted(at, &table, 10, 20)]).await?;
    bench.destination.abort(&load.id).await?;
    bench.destination.abort(&load.id).await?;
    bench.destination.abort(&LoadId("0198d3a0000070008000000000000000".to_owned())).await?;
    ensure!(bench.destination.commit(&load, &bench.lease).await.is_err(), "a load that was aborted is committed");
    bench.verify(&table).await?;
    bench.load("s", &[wanted(at, &table, 20, 30)]).await?;
    bench.verify(&table).await
}

async fn a_sweep_spares_what_it_is_told_to(at: &Place<'_>) -> Check {
    let (mut bench, table) = begun(at, "sweep").await?;
    let (mut other, their_table) = begun(at, "sweep_beside").await?;
    bench.load("s", &[wanted(at, &table, 0, 10)]).await?;
    let kept = bench.stage("s", &[wanted(at, &table, 10, 20)]).await?;
    let crashed = bench.stage("s", &[wanted(at, &table, 20, 30)]).await?;
    let theirs = other.stage("s", &[wanted(at, &their_table, 0, 10)]).await?;
    bench.destination.sweep(&bench.lease, std::slice::from_ref(&kept.id)).await?;
    ensure!(bench.destination.commit(&crashed, &bench.lease).await.is_err(), "a load that was swept is committed");
    bench.verify(&table).await?;
    bench.commit(&kept).await?;
    bench.verify(&table).await?;
    other.commit(&theirs).await?;
    other.verify(&their_table).await?;
    bench.destination.sweep(&bench.lease, &[]).await?;
    bench.verify(&table).await
}

async fn durable_parts_are_committed_by_another_process(at: &Place<'_>) -> Check {
    let (mut bench, table) = begun(at, "durable").await?;
    bench.load("s", &[wanted(at, &table, 0, 10)]).await?;
    let load = bench.stage("s", &[wanted(at, &table, 10, 20)]).await?;
    if load.durability() == Durability::Session {
        return Ok(());
    }
    // Through the control database and back.
    let stored = serde_json::to_string(&load).map_err(Error::from)?;
    bench.reopen().await?;
    bench.destination.sweep(&bench.lease, std::slice::from_ref(&load.id)).await?;
    let load = serde_json::from_str(&stored).map_err(Error::from)?;
    bench.commit(&load).await?;
    bench.verify(&table).await
}

async fn lost_rows_are_noticed(at: &Place<'_>) -> Check {
    let (mut bench, table) = begun(at, "lost_rows").await?;
    bench.load("s", &[wanted(at, &table, 0, 10)]).await?;
    let mut load = bench.stage("s", &[wanted(at, &table, 10, 20)]).await?;
    load.tables[0].receipts[0].rows += 1;
    ensure!(bench.destination.commit(&load, &bench.lease).await.is_err(), "a part with fewer rows than its receipt says is published");
    bench.verify(&table).await
}

async fn forgotten_scopes_begin_again(at: &Place<'_>) -> Check {
    let (mut bench, table) = begun(at, "forget").await?;
    bench.load("s", &[wanted(at, &table, 0, 10)]).await?;
    bench.load("t", &[wanted(at, &table, 10, 20)]).await?;
    bench.destination.forget(&bench.lease, &["s".to_owned(), "never".to_owned()], std::slice::from_ref(&table)).await?;
    let markers = bench.reopen().await?;
    ensure!(markers.len() == 1 && markers[0].scope == "t", "forgetting one scope of two leaves {markers:?}");
    let mut load = bench.stage("s", &[wanted(at, &table, 20, 30)]).await?;
    load.number = 1;
    bench.commit(&load).await?;
    bench.verify(&table).await
}

async fn parts_are_staged_side_by_side(at: &Place<'_>) -> Check {
    let (mut bench, table) = begun(at, "side_by_side").await?;
    let mut load = bench.stage("s", &[wanted(at, &table, 0, 4)]).await?;
    let planned = load.tables[0].table.clone();
    let batches = (1..9).map(|i| conformed(&some_rows(i * 10, i * 10 + 7), &planned, &load)).collect::<Result<Vec<_>, _>>()?;
    let staging = batches.iter().zip(2..).map(|(batch, split)| bench.stage_part(&load, &planned, split, 0, vec![batch.clone()]));
    let receipts = futures::future::try_join_all(staging).await?;
    load.tables[0].receipts.extend(receipts);
    bench.commit(&load).await?;
    bench.model(&table).apply(&append_to(&planned), &crate::rows::rows(&batches), None, "");
    bench.verify(&table).await
}
