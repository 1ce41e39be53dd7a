//! Writing a part's rows where no reader looks.
//!
//! All parts of a load's table go into one staging table, each by one `COPY` in a transaction of its own that also registers
//! the part. So a part is there whole or not at all, several connections write side by side, and the table can become the final one without
//! its rows being written a second time.

use arrow::array::BinaryArray;
use arrow::buffer::Buffer;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use serde_json::json;
use tokio_postgres::CopyInSink;
use trib_core::load::{Durability, RejectedRow};
use trib_core::name::system;
use trib_core::{BatchStream, Error, Part, Receipt, Result, Table, wire};
use trib_kit::sift::{self, sift};
use trib_kit::sql::ANSI;

use super::connect::Session;
use super::control;
use super::encode::{HEADER, Prepared, TRAILER};
use super::error;
use super::layout::{Layout, Place};

/// Rows are sent in pieces of about this size; a little more is allocated, since a piece ends with a whole row. Together they are not
/// too large for the allocator to use the same memory again.
const CHUNK: usize = 56 << 10;

/// Makes and registers the staging table, and the schema that it stands in, unless they are there.
pub async fn create_table(session: &Session, part: &Part, place: &Place, layout: &Layout) -> Result<()> {
    let create = |schema: &str| {
        // The commit of a part is waited for, and comes after this one in the server's log.
        format!(
            "BEGIN; SET LOCAL synchronous_commit = off; {schema}{}; {}; COMMIT",
            control::register_table(part, place),
            layout.create_staging(place)
        )
    };
    let made = session.client.batch_execute(&create("")).await;
    if let Err(e) = &made
        && error::is_state(e, &["3F000"])
    {
        session.run("ROLLBACK").await?;
        // Two that make one schema at the same moment: the second finds it.
        let schema = format!("CREATE SCHEMA IF NOT EXISTS {}; ", ANSI.identifier(&place.schema));
        return match session.client.batch_execute(&create(&schema)).await {
            Err(e) if error::is_state(&e, &["23505", "42P06"]) => {
                session.run("ROLLBACK").await?;
                session.run(&create("")).await
            }
            made => made.map_err(error::driver),
        };
    }
    made.map_err(error::driver)
}

/// Copies the rows, and registers the part. When this fails, the transaction dies with the session.
pub async fn copy(session: &Session, part: &Part, table: &Table, place: &Place, layout: &Layout, mut rows: BatchStream) -> Result<Receipt> {
    let (targets, columns) = layout.targets(table)?;
    let names = ANSI.identifiers(targets.iter().map(|t| t.name.as_str()));
    let sql = format!("COPY {} ({names}) FROM STDIN (FORMAT binary)", place.sql());
    session.run("BEGIN").await?;
    let sink: CopyInSink<Bytes> = session.client.copy_in(sql.as_str()).await.map_err(error::driver)?;
    let mut sink = Box::pin(sink);
    let empty = || Vec::with_capacity(CHUNK + CHUNK / 8);
    let mut buffer = empty();
    buffer.extend_from_slice(HEADER);
    let (mut written, mut bytes, mut rejected) = (0, 0, Vec::new());
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        if let Some(rows) = wire::rows(&batch) {
            let mut rows = wire_bytes(rows)?;
            // What was encoded before comes before.
            bytes += (buffer.len() + rows.len()) as u64;
            sink.send(std::mem::replace(&mut buffer, empty()).into()).await.map_err(error::driver)?;
            while !rows.is_empty() {
                sink.send(rows.split_to(CHUNK.min(rows.len()))).await.map_err(error::driver)?;
            }
            written += batch.num_rows() as u64;
            continue;
        }
        let sifted = sift(&batch, &table.key, |rows| Prepared::new(rows, &targets, &columns))?;
        sift::keep(&mut rejected, sifted.rejected)?;
        for prepared in &sifted.taken {
            let mut encoding = prepared.rows();
            loop {
                let more = encoding.write(&mut buffer, CHUNK);
                if buffer.len() >= CHUNK {
                    bytes += buffer.len() as u64;
                    sink.send(std::mem::replace(&mut buffer, empty()).into()).await.map_err(error::driver)?;
                }
                if !more {
                    break;
                }
            }
            let (rows, refused) = encoding.finish();
            written += rows;
            sift::keep(&mut rejected, refused)?;
        }
    }
    buffer.extend_from_slice(&TRAILER);
    bytes += buffer.len() as u64;
    sink.send(buffer.into()).await.map_err(error::driver)?;
    let stored = sink.as_mut().finish().await.map_err(error::driver)?;
    if stored != written {
        return Err(Error::internal("the server has stored another number of rows than were sent"));
    }
    registered(session, part, table, place, stored, bytes, rejected).await
}

/// The rows, one behind the other, without copying them.
fn wire_bytes(rows: &BinaryArray) -> Result<Bytes> {
    let place = |offset: Option<&i32>| offset.and_then(|o| usize::try_from(*o).ok()).ok_or_else(|| Error::internal("rows without a place"));
    let (first, last) = (place(rows.offsets().first())?, place(rows.offsets().last())?);
    Ok(Bytes::from_owner(Owner(rows.values().clone())).slice(first..last))
}

struct Owner(Buffer);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Has the server compute the rows of a query into the staging table, and registers the part. When this fails, the transaction dies
/// with the session.
pub async fn compute(session: &Session, part: &Part, table: &Table, place: &Place, layout: &Layout, sql: &str) -> Result<Receipt> {
    let (mut names, mut values) = (Vec::new(), Vec::new());
    for (column, staged) in layout.staged() {
        let name = ANSI.identifier(&column.name);
        values.push(match column.name.as_str() {
            system::SEQ => "row_number() OVER ()".to_owned(),
            _ => format!("q.{name}::{}", staged.name),
        });
        names.push(name);
    }
    session.run("BEGIN").await?;
    let insert = format!("INSERT INTO {} ({}) SELECT {} FROM (\n{sql}\n) AS q", place.sql(), names.join(", "), values.join(", "));
    let stored = session.client.execute_typed(insert.as_str(), &[]).await.map_err(error::driver)?;
    registered(session, part, table, place, stored, 0, Vec::new()).await
}

async fn registered(
    session: &Session,
    part: &Part,
    table: &Table,
    place: &Place,
    rows: u64,
    bytes: u64,
    rejected: Vec<RejectedRow>,
) -> Result<Receipt> {
    session.run(&format!("{}; COMMIT", control::register_part(part, place, rows))).await?;
    Ok(Receipt {
        part: part.clone(),
        table: table.name.clone(),
        rows,
        bytes,
        durability: Durability::Durable,
        staged: json!(place),
        rejected,
    })
}
