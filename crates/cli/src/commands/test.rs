//! `trib test`

use serde_json::json;
use trib_core::Error;
use trib_runtime::new_id;
use trib_store::{Tested, Verdict};

use crate::app::Session;
use crate::args::Select;
use crate::assemble::Ask;
use crate::conduct::ground;
use crate::exit::{Exit, Failure, Result};
use crate::prepare::{self, Wanted};
use crate::record::{Recording, record};
use crate::render;
use crate::testing::Subject;
use crate::unit_tests::{self, UnitTested};

/// Ask the tests of the selected nodes: unit tests on rows that they give, data tests on the tables as they are
#[derive(clap::Args, Debug)]
#[command(before_help = "Example: trib test revenue_by_country")]
pub struct Args {
    #[command(flatten)]
    select: Select,
    /// Unit tests only: no table is looked at
    #[arg(long, conflicts_with = "data")]
    unit: bool,
    /// Data tests only
    #[arg(long)]
    data: bool,
    /// Write a unit test of this model from live data, its texts masked
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["unit", "data"])]
    record: Option<String>,
    /// With --record: at most so many rows of each table that it reads
    #[arg(long, default_value_t = 10, requires = "record")]
    rows: usize,
    /// With --record: columns whose texts are left as they are
    #[arg(long, value_name = "COLUMN", value_delimiter = ',', requires = "record")]
    plain: Vec<String>,
    /// With --record: columns whose numbers are masked as well
    #[arg(long, value_name = "COLUMN", value_delimiter = ',', requires = "record")]
    mask: Vec<String>,
}

pub async fn run(args: &Args, session: &Session) -> Result<Exit> {
    let project = session.project()?;
    if let Some(name) = &args.record {
        let recording = Recording { model: project.model(name)?, rows: args.rows.max(1), plain: &args.plain, mask: &args.mask };
        let recorded = record(session, &recording).await?;
        let (file, given, expected) = (&recorded.file, recorded.given, recorded.expected);
        session.output.either(
            || json!({"file": file, "given": given, "expected": expected}),
            || format!("{file}: {given} rows given, {expected} expected. Texts are masked, numbers and times are not: look through it before you share it"),
        );
        return Ok(Exit::Success);
    }
    let selection = session.select(&args.select).await?;
    let mut errors: Vec<Error> = Vec::new();
    let mut units: Vec<UnitTested> = Vec::new();
    if !args.data {
        let wanted = |node: &str| match node.split_once('/') {
            Some((sync, stream)) => selection.takes(sync, stream),
            None => selection.contains(node),
        };
        for test in project.unit_tests.iter().filter(|t| t.spec.enabled && wanted(&t.spec.node)) {
            match unit_tests::ask(session, test).await {
                Ok(tested) => units.push(tested),
                Err(failure) => errors.extend(failure.0),
            }
        }
    }
    let mut tested: Vec<Tested> = Vec::new();
    if !args.unit {
        let store = session.store().await?.clone();
        for model in project.models().iter().filter(|m| selection.contains(&m.name) && !m.tests.is_empty()) {
            let subject = Subject::new(&model.name, "", &model.table, &model.tests).recalled(&store).await?;
            tested.extend(subject.ask(&ground(session, &model.spec.connection).await?).await);
        }
        let wanted = Wanted { selection: &selection, ask: &Ask::default(), paused: &[] };
        for sync in project.syncs().iter().filter(|s| selection.contains(&s.name) && s.has_tests()) {
            for prepared in prepare::sync(session, sync, &wanted).await {
                match prepared {
                    Err(Failure(more)) => errors.extend(more),
                    Ok(mut prepared) => {
                        errors.append(&mut prepared.errors);
                        for plan in prepared.plans.iter().filter(|p| !p.tests.is_empty()) {
                            let subject = Subject::new(&sync.name, &plan.stream, &plan.logical, &plan.tests).recalled(&store).await?;
                            tested.extend(subject.ask(&ground(session, &sync.spec.to).await?).await);
                        }
                    }
                }
            }
        }
        store.record_tests(&new_id(), &tested).await?;
    }
    let failed = tested.iter().any(|t| matches!(t.verdict, Verdict::Failed | Verdict::Broken)) || units.iter().any(|u| !u.passed());
    session
        .output
        .either(|| json!({"unit": units.iter().map(UnitTested::to_json).collect::<Vec<_>>(), "data": tested}), || text(&units, &tested));
    if !errors.is_empty() {
        return Err(Failure(errors));
    }
    Ok(if failed { Exit::TestsFailed } else { Exit::Success })
}

fn text(units: &[UnitTested], tested: &[Tested]) -> String {
    if units.is_empty() && tested.is_empty() {
        return "there are no tests: write them under `tests:` of a column, a stream or a model, or in tests/*.yaml".to_owned();
    }
    let mut out = String::new();
    for unit in units.iter().filter(|u| !u.passed()) {
        out.push_str(&unit.text());
    }
    if !units.is_empty() {
        let failed = units.iter().filter(|u| !u.passed()).count();
        let failed = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        out.push_str(&format!("unit tests: {} passed{failed}\n", units.iter().filter(|u| u.passed()).count()));
    }
    out + &render::verdicts::text(tested)
}
