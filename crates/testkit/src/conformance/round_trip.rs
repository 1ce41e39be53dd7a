//! Values arrive as they left: every type that a destination says it holds exactly comes back equal.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field};
use trib_core::contract::{Contract, meet};
use trib_core::name::system;
use trib_core::{Code, Error};

use super::bench::{Bench, Place, Wanted};
use super::protocol::some_rows;
use super::{Check, Failure, Report, ensure};
use crate::chance::Chance;
use crate::rows;
use crate::values;

const ROWS: usize = 60;

pub(super) async fn checks(at: &Place<'_>, report: &mut Report) {
    report.check("round_trip::every_type_is_held_or_refused_by_name", async { every_type_is_held_or_refused_by_name(at) }).await;
    let fields: Vec<Field> = values::fields().into_iter().filter(|f| at.is_exact(f)).collect();
    if !report.check("round_trip::all_in_one_table", round_trip(at, "together", &fields, 8)).await {
        // One by one, to name those that are to blame.
        for field in &fields {
            report
                .check(
                    &format!("round_trip::{}: {}", field.name(), field.data_type()),
                    round_trip(at, field.name(), std::slice::from_ref(field), 7),
                )
                .await;
        }
    }
    report.check("round_trip::required_columns", required_columns(at)).await;
    report.check("round_trip::odd_names", odd_names(at)).await;
    report.check("round_trip::a_text_with_nul_is_kept_or_rejected", a_text_with_nul_is_kept_or_rejected(at)).await;
}

fn every_type_is_held_or_refused_by_name(at: &Place<'_>) -> Check {
    let destination = (at.make)();
    for field in values::fields() {
        match destination.column_type(&field) {
            Ok(t) => ensure!(!t.native.is_empty() && t.lossy.as_deref() != Some(""), "{field}: {t:?}"),
            Err(e) => {
                let named = e.code() == Code::Unsupported && e.hint_text().is_some();
                ensure!(named, "{field} should be refused as unsupported, with a hint: {e:?}");
            }
        }
    }
    let again = (at.make)().capabilities().write_modes;
    ensure!(again == at.modes(), "capabilities differ from one instance to the next");
    Ok(())
}

/// Loads the columns and reads them back.
async fn round_trip(at: &Place<'_>, name: &str, fields: &[Field], seed: u64) -> Check {
    let table = at.table(&format!("conf_types_{name}"));
    let mut bench = Bench::open(at, &format!("types_{name}"), std::slice::from_ref(&table)).await?;
    let batch = with_id(&values::batch(fields, ROWS, &mut Chance::new(seed)))?;
    let wanted = Wanted::new(table.clone(), at.plain_mode(), batch.clone());
    let (load, ..) = bench.load("s", std::slice::from_ref(&wanted)).await?;
    // A destination may turn NaN away, row by row and with a reason, and nothing else.
    let rejected: Vec<_> = load.tables.iter().flat_map(|t| &t.receipts).flat_map(|r| &r.rejected).collect();
    let mut expected = rows::rows(std::slice::from_ref(&batch));
    let all = expected.len();
    if !rejected.is_empty() {
        expected.retain(|row| !row.values().any(|text| text == "NaN"));
    }
    let told = rejected.len() == all - expected.len() && rejected.iter().all(|r| r.reason.contains("NaN"));
    ensure!(told, "values of types that are held exactly were rejected: {:?}", rejected.first());

    let found = rows::rows(&(at.read)(table.clone()).await);
    for column in fields.iter().map(Field::name) {
        let pair = |rows: &[rows::Row]| -> Vec<String> {
            let mut pairs: Vec<String> = rows
                .iter()
                .map(|r| format!("{} of row {}", r.get(column).map_or("nothing", String::as_str), r.get("id").map_or("?", String::as_str)))
                .collect();
            pairs.sort_unstable();
            pairs
        };
        if let Some(difference) = rows::difference(&pair(&expected), &pair(&found)) {
            return Err(Failure::new(format!("column {column}: {difference}")));
        }
    }

    // The next run finds nothing to change, and each column as it was declared.
    let existing = bench.destination.inspect(&table).await?.ok_or_else(|| Failure::new("inspect does not find the table"))?;
    for column in &existing.columns {
        let Ok(field) = load.tables[0].table.schema.field_with_name(column.field.name()) else { continue };
        let native = bench.destination.column_type(field)?.native;
        ensure!(column.native == native, "column {}: declared as {native}, found as {}", field.name(), column.native);
    }
    let native = |field: &Field| bench.destination.column_type(field).map(|t| t.native);
    let meeting = meet(Some(&existing), &load.tables[0].table.schema, &Contract::default(), native)?;
    ensure!(meeting.changes.is_empty(), "a second run would change the table: {:?}", meeting.changes);
    bench.load("s", &[wanted]).await?;
    Ok(())
}

fn with_id(batch: &RecordBatch) -> Result<RecordBatch, Failure> {
    let mut columns: Vec<(String, ArrayRef, bool)> = vec![("id".to_owned(), Arc::new(Int64Array::from_iter_values(0..ROWS as i64)), false)];
    columns.extend(batch.schema().fields().iter().zip(batch.columns()).map(|(f, c)| (f.name().clone(), c.clone(), f.is_nullable())));
    let fields = batch.schema().fields().iter().map(|f| f.as_ref().clone()).collect::<Vec<_>>();
    let fields = std::iter::once(Field::new("id", DataType::Int64, false)).chain(fields).collect::<Vec<_>>();
    let schema = Arc::new(arrow::datatypes::Schema::new(fields));
    RecordBatch::try_new(schema, columns.into_iter().map(|c| c.1).collect()).map_err(Failure::new)
}

async fn required_columns(at: &Place<'_>) -> Check {
    let types = [DataType::Int32, DataType::Utf8, DataType::Boolean, DataType::Date32];
    let fields: Vec<Field> = types.into_iter().map(|t| Field::new(format!("required_{t}").to_lowercase(), t, false)).collect();
    let fields: Vec<Field> = fields.into_iter().filter(|f| at.is_exact(f)).collect();
    round_trip(at, "required", &fields, 9).await
}

/// Names that are words of SQL, hold its quotes, or belong to other scripts.
pub(super) const ODD_NAMES: &[&str] = &[
    "order",
    "select",
    "a\"b",
    "it's",
    "with space",
    "dot.ted",
    "Größe (cm)",
    "日本語",
    "semi;colon",
    "percent%",
    "$dollar",
    "back`tick",
    "[bracket]",
];

async fn odd_names(at: &Place<'_>) -> Check {
    let destination = (at.make)();
    let limits = destination.capabilities();
    let mut names: Vec<String> = ODD_NAMES.iter().map(|n| (*n).to_owned()).collect();
    names.push("x".repeat(limits.max_identifier.min(200)));
    if limits.case_sensitive {
        names.extend(["Case".to_owned(), "case".to_owned()]);
    }
    names.retain(|n| n.len() <= limits.max_identifier);
    let mut table = at.table("conf_Odd \"table\" 'ü'");
    let rows = some_rows(0, 20);
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(names.iter().cycle().take(20)));
    // A system that cannot have a name refuses it, and goes on with the others.
    let bench = loop {
        let mut bench = Bench::open(at, &format!("odd \"sync\" 'ü' {}", names.len()), std::slice::from_ref(&table)).await?;
        let columns = std::iter::once(("id".to_owned(), rows.column(0).clone())).chain(names.iter().map(|n| (n.clone(), texts.clone())));
        let batch = RecordBatch::try_from_iter(columns).map_err(Failure::new)?;
        match bench.load("s", &[Wanted::new(table.clone(), at.plain_mode(), batch)]).await {
            Ok(_) => break bench,
            Err(e) => match refused(&e, &names) {
                Some(refused) => names.retain(|n| *n != refused),
                None if e.code() == Code::Unsupported && e.to_string().contains(&table.name) => table = at.table("conf_odd_columns"),
                None => return Err(e.into()),
            },
        }
    };
    bench.verify(&table).await?;
    let existing = bench.destination.inspect(&table).await?.ok_or_else(|| Failure::new("inspect does not find the table"))?;
    let found: Vec<&str> = existing.columns.iter().map(|c| c.field.name().as_str()).filter(|n| !n.starts_with(system::PREFIX)).collect();
    ensure!(found[1..] == names, "columns are called {found:?}");
    Ok(())
}

/// The name that an error refuses, as a plan would: unsupported, and named.
pub(super) fn refused(e: &Error, names: &[String]) -> Option<String> {
    let text = e.to_string();
    names.iter().filter(|n| e.code() == Code::Unsupported && text.contains(n.as_str())).max_by_key(|n| n.len()).cloned()
}

async fn a_text_with_nul_is_kept_or_rejected(at: &Place<'_>) -> Check {
    let field = Field::new("text", DataType::Utf8, true);
    if !at.is_exact(&field) {
        return Ok(());
    }
    let table = at.table("conf_nul");
    let mut bench = Bench::open(at, "nul", std::slice::from_ref(&table)).await?;
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["fine", "a\0b"]));
    let batch = RecordBatch::try_from_iter([("id", ids), ("text", texts)]).map_err(Failure::new)?;
    let load = bench.stage("s", &[Wanted::new(table.clone(), at.plain_mode(), batch)]).await?;
    let rejected: Vec<_> = load.tables[0].receipts.iter().flat_map(|r| &r.rejected).collect();
    bench.destination.commit(&load, &bench.lease).await?;
    let found: Vec<String> = rows::rows(&(at.read)(table).await).into_iter().map(|r| r["text"].clone()).collect();
    let kept = found.iter().any(|t| t == "\"a\\u0000b\"");
    let told = rejected.len() == 1 && !rejected[0].reason.is_empty();
    ensure!(found.iter().any(|t| t == "\"fine\""), "the row beside it is gone: {found:?}");
    ensure!(kept != told, "neither kept nor rejected, or both: {found:?}, {rejected:?}");
    Ok(())
}
