//! What to do next, decided from what the control store and the destination remember.
//!
//! A load passes these points; a process may die at each of them:
//!
//! 1. lease taken, destination opened, splits planned
//! 2. parts staged, receipts in hand
//! 3. the store records the load as staged
//! 4. the destination commits: rows, schema and marker in one step
//! 5. the store moves the state on
//! 6. the source is told
//!
//! The next run sees only what the store and the marker say, and [`recover`] maps that to one action. When step 4 gives an error,
//! [`aftermath`] says what became of the load. Both are pure, and tested below for each point.

use serde::{Deserialize, Serialize};

use crate::destination::Capabilities;
use crate::error::{Code, Error, Retry};
use crate::load::{Durability, Load, LoadId, Marker, TableLoad};
use crate::name::TableName;

/// What the control store remembers of a scope.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Known {
    /// Number of the last load whose commit the store has seen; 0 before the first.
    pub number: u64,
    /// That load.
    pub load: Option<LoadId>,
    /// A load that was recorded as staged, and whose commit the store has not seen.
    pub staged: Option<Load>,
}

/// The one thing to do before reading on.
#[derive(Clone, Debug)]
pub enum Recovery {
    /// Store and destination agree: read on from the stored state.
    GoOn,
    /// The staged parts are durable and not published: commit them, then read on.
    CommitStaged(Load),
    /// The staged parts died with their process, or are not wanted any more: drop what is left of them, and read the step again.
    ReadAgain(LoadId),
    /// The commit happened and only the store has not heard of it: move the state on to the load's.
    MoveState(Load),
    /// The two do not fit together: a person has to say which is right.
    Refuse(Disagreement),
}

/// Ways in which store and destination do not fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disagreement {
    /// The destination has loads of this sync; the store knows nothing of it.
    StateLost,
    /// The destination is further on than the store: the store is an older copy, or another store drives this sync.
    StoreBehind,
    /// The store is further on than the destination: the destination is an older copy.
    DestinationBehind,
    /// The store has loads of this sync; the destination knows nothing of it.
    DestinationLost,
    /// Both stand at the same number, but of different loads.
    OtherHistory,
    /// What was loaded before is not in the table that would get the rest.
    TableGone,
}

/// Compares what the two sides remember of one scope. `known` is `None` when the store has no record of it. `afresh`: what was staged would be
/// replaced at once by what is now read from the very beginning, so it is not published first.
pub fn recover(known: Option<&Known>, marker: Option<&Marker>, afresh: bool) -> Recovery {
    use Disagreement::*;
    let Some(known) = known else {
        return match marker {
            None => Recovery::GoOn,
            Some(_) => Recovery::Refuse(StateLost),
        };
    };
    let number = marker.map_or(0, |m| m.number);
    if let (Some(staged), Some(marker)) = (&known.staged, marker)
        && marker.load == staged.id
    {
        return Recovery::MoveState(staged.clone());
    }
    if number > known.number {
        return Recovery::Refuse(if known.number == 0 && known.staged.is_none() { StateLost } else { StoreBehind });
    }
    if number < known.number {
        return Recovery::Refuse(if marker.is_none() { DestinationLost } else { DestinationBehind });
    }
    if marker.map(|m| &m.load) != known.load.as_ref() {
        return Recovery::Refuse(OtherHistory);
    }
    match &known.staged {
        None => Recovery::GoOn,
        Some(load) if load.durability() == Durability::Durable && !afresh => Recovery::CommitStaged(load.clone()),
        Some(load) => Recovery::ReadAgain(load.id.clone()),
    }
}

impl Disagreement {
    /// The error that a run stops with.
    pub fn error(self, scope: &str) -> Error {
        let (message, hint) = match self {
            Disagreement::StateLost => (
                "the destination has loads of this sync, but there is no state for it",
                "`trib state recover` takes the state from the destination's markers; `--full-refresh` loads everything again",
            ),
            Disagreement::StoreBehind => (
                "the destination is further on than the stored state",
                "another control database may drive this sync; if not, `trib state recover` takes the state from the destination's markers",
            ),
            Disagreement::DestinationBehind => (
                "the stored state is further on than the destination",
                "if the destination was restored from a backup, `trib state recover` goes back to its state",
            ),
            Disagreement::DestinationLost => (
                "there is state for this sync, but the destination has no loads of it",
                "if its tables were dropped, `trib state reset` or `--full-refresh` loads them again",
            ),
            Disagreement::OtherHistory => (
                "the stored state and the destination come from different runs",
                "`trib state recover` takes the state from the destination's markers",
            ),
            Disagreement::TableGone => (
                "what was loaded before is not in this table",
                "`--full-refresh` loads everything again; if the table was renamed, or `into:` was changed, the old name goes on",
            ),
        };
        Error::new(Code::StateMissing, message).stream(scope).hint(hint)
    }
}

/// Whether a read that goes on from a state may add to this table, or [`Disagreement::TableGone`]. `filled` is the marker's, `alone`: all rows of the scope go into
/// this table and its child tables.
pub fn may_add(filled: &[TableName], table: &TableName, exists: bool, alone: bool) -> Result<(), Disagreement> {
    let fits = if filled.contains(table) { exists } else { !alone || filled.is_empty() };
    if fits { Ok(()) } else { Err(Disagreement::TableGone) }
}

/// What is known of a load whose commit has given an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aftermath {
    /// It is visible; only the answer was lost.
    Published,
    /// It may still become visible, now or in a later attempt: it stays recorded, and [`recover`] decides.
    Open,
    /// It never will be, but some of its rows, or of its tables, may be visible already, and another load would add its rows to them. Dropped where the
    /// destination takes them back ([`crate::Destination::take_back`]); otherwise it stays recorded.
    InPart,
    /// As it was staged it never will be: drop it, so that the step is read, and the table looked at, again.
    Dropped,
}

/// Decides by the error's code and by the marker that the destination gives when it is asked after the error.
pub fn aftermath(load: &Load, error: Code, marker: Option<&Marker>, can: &Capabilities) -> Aftermath {
    if marker.is_some_and(|m| m.load == load.id) {
        return Aftermath::Published;
    }
    // The first two are no answer about the load. Where waiting may help, nothing is wrong with what is staged.
    if matches!(error, Code::LeaseLost | Code::Cancelled) || error.retry() == Retry::Backoff {
        return Aftermath::Open;
    }
    let written: Vec<&TableLoad> = load.tables.iter().filter(|t| !t.receipts.is_empty()).collect();
    let tables_apart = !can.atomic_across_tables && written.len() > 1 && written.iter().any(|t| !t.table.write.absorbs_repeats());
    let rows_apart = !can.atomic_tables && load.rows() > 0;
    if rows_apart || tables_apart { Aftermath::InPart } else { Aftermath::Dropped }
}

/// The destination's side of the contract: whether a commit may go ahead, given the marker it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitGate {
    Go,
    AlreadyCommitted,
    /// The lease is outdated, or another load has taken this one's place.
    Outdated,
}

/// Every destination decides by this, inside its transaction. `generation` is the greatest that it has been opened with.
pub fn commit_gate(load: &Load, lease_generation: u64, generation: u64, marker: Option<&Marker>) -> CommitGate {
    if marker.is_some_and(|m| m.load == load.id) {
        return CommitGate::AlreadyCommitted;
    }
    if lease_generation < generation || marker.map_or(0, |m| m.number) + 1 != load.number {
        return CommitGate::Outdated;
    }
    CommitGate::Go
}

/// What a destination answers to [`CommitGate::Outdated`].
pub fn lease_lost(load: &Load, marker: Option<&Marker>) -> Error {
    Error::new(Code::LeaseLost, "another run has taken this sync over")
        .detail(format!("load {} is number {}, the destination stands at {}", load.id, load.number, marker.map_or(0, |m| m.number)))
        .stream(&load.scope)
        .hint("let the other run finish; `trib runs` shows it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Deletes, Part, Receipt, Table};
    use crate::mode::WriteMode;
    use crate::state::State;
    use arrow::datatypes::Schema;
    use std::sync::Arc;

    fn load(id: &str, number: u64, durability: Durability) -> Load {
        let name = TableName::parse("t");
        let table = Table {
            name: name.clone(),
            schema: Arc::new(Schema::empty()),
            key: vec![],
            write: WriteMode::Append,
            deletes: Deletes::Hard,
            scope: None,
            parent: None,
            partition_by: vec![],
            changes: false,
        };
        let part = Part { load: LoadId(id.into()), sync: "s".into(), split: 0, attempt: 0 };
        let receipt = Receipt { part, table: name, rows: 1, bytes: 1, durability, staged: serde_json::Value::Null, rejected: vec![] };
        Load {
            id: LoadId(id.into()),
            scope: "t".into(),
            number,
            tables: vec![TableLoad { table, changes: vec![], receipts: vec![receipt] }],
            state: State::default(),
            filled: vec![],
            made_from: None,
            loaded_at: chrono::DateTime::UNIX_EPOCH,
        }
    }

    fn marker(id: &str, number: u64) -> Marker {
        Marker {
            scope: "t".into(),
            number,
            load: LoadId(id.into()),
            generation: 1,
            state: State::default(),
            filled: vec![],
            committed_at: chrono::DateTime::UNIX_EPOCH,
        }
    }

    fn known(number: u64, last: Option<&str>, staged: Option<Load>) -> Known {
        Known { number, load: last.map(|l| LoadId(l.into())), staged }
    }

    fn can(atomic_tables: bool, atomic_across_tables: bool) -> Capabilities {
        Capabilities {
            write_modes: WriteMode::ALL,
            atomic_tables,
            atomic_across_tables,
            nested: false,
            partitions: false,
            max_columns: None,
            max_identifier: 63,
            case_sensitive: true,
            parallel_parts: 1,
            batch_bytes: 1,
            default_schema: None,
        }
    }

    fn name(r: &Recovery) -> String {
        match r {
            Recovery::GoOn => "go on".into(),
            Recovery::CommitStaged(l) => format!("commit {}", l.id),
            Recovery::ReadAgain(l) => format!("read {l} again"),
            Recovery::MoveState(l) => format!("move state to {}", l.id),
            Recovery::Refuse(d) => format!("{d:?}"),
        }
    }

    #[test]
    fn each_crash_point_of_a_load() {
        use Durability::*;
        let cases = [
            // (died, store, marker, expected)
            ("before anything was ever loaded", None, None, "go on"),
            ("1-2 of the first load", Some(known(0, None, None)), None, "go on"),
            ("1-2 of a later load", Some(known(1, Some("a"), None)), Some(marker("a", 1)), "go on"),
            ("3 of the first load, durable", Some(known(0, None, Some(load("a", 1, Durable)))), None, "commit a"),
            ("3, durable", Some(known(1, Some("a"), Some(load("b", 2, Durable)))), Some(marker("a", 1)), "commit b"),
            ("3, session", Some(known(1, Some("a"), Some(load("b", 2, Session)))), Some(marker("a", 1)), "read b again"),
            ("4, durable", Some(known(1, Some("a"), Some(load("b", 2, Durable)))), Some(marker("b", 2)), "move state to b"),
            ("4, session", Some(known(1, Some("a"), Some(load("b", 2, Session)))), Some(marker("b", 2)), "move state to b"),
            ("4 of the first load", Some(known(0, None, Some(load("a", 1, Session)))), Some(marker("a", 1)), "move state to a"),
            ("5-6", Some(known(2, Some("b"), None)), Some(marker("b", 2)), "go on"),
        ];
        for (died, store, marker, expected) in cases {
            assert_eq!(name(&recover(store.as_ref(), marker.as_ref(), false)), expected, "died at {died}");
        }
    }

    #[test]
    fn disagreements_are_refused() {
        use Durability::*;
        let cases = [
            (None, Some(marker("a", 1)), "StateLost"),
            (Some(known(0, None, None)), Some(marker("a", 1)), "StateLost"),
            (Some(known(1, Some("a"), None)), Some(marker("c", 3)), "StoreBehind"),
            (Some(known(1, Some("a"), Some(load("b", 2, Durable)))), Some(marker("x", 2)), "StoreBehind"),
            (Some(known(2, Some("b"), None)), Some(marker("a", 1)), "DestinationBehind"),
            (Some(known(2, Some("b"), None)), None, "DestinationLost"),
            (Some(known(1, Some("a"), None)), Some(marker("x", 1)), "OtherHistory"),
        ];
        for (store, marker, expected) in cases {
            assert_eq!(name(&recover(store.as_ref(), marker.as_ref(), false)), expected);
        }
    }

    #[test]
    fn what_was_staged_is_not_published_before_everything_is_read_again() {
        use Durability::*;
        let cases = [
            ("3, durable", known(1, Some("a"), Some(load("b", 2, Durable))), marker("a", 1), "read b again"),
            ("4, durable", known(1, Some("a"), Some(load("b", 2, Durable))), marker("b", 2), "move state to b"),
            ("5-6", known(2, Some("b"), None), marker("b", 2), "go on"),
        ];
        for (died, store, marker, expected) in cases {
            assert_eq!(name(&recover(Some(&store), Some(&marker), true)), expected, "died at {died}");
        }
    }

    #[test]
    fn what_becomes_of_a_load_whose_commit_fails() {
        use Aftermath::*;
        let (before, after) = (marker("a", 1), marker("b", 2));
        let cases = [
            // (the commit's error, the marker then, what becomes of load b)
            ("the answer was lost, after the commit", Code::ConnectionLost, Some(&after), Published),
            ("the answer was lost, before it", Code::ConnectionLost, Some(&before), Open),
            ("any error, after the commit", Code::SystemError, Some(&after), Published),
            ("no answer in time", Code::Timeout, Some(&before), Open),
            ("the disk is full", Code::ResourceExhausted, Some(&before), Open),
            ("a deadlock", Code::TransactionAborted, Some(&before), Open),
            ("another run has taken over", Code::LeaseLost, Some(&before), Open),
            ("the run is stopped", Code::Cancelled, Some(&before), Open),
            ("a unique index of the user's", Code::DataInvalid, Some(&before), Dropped),
            ("a staged part is gone", Code::NotFound, Some(&before), Dropped),
            ("a view holds the column's type", Code::SystemError, Some(&before), Dropped),
            ("the first load of all", Code::DataInvalid, None, Dropped),
        ];
        let load = load("b", 2, Durability::Durable);
        for (what, code, marker, expected) in cases {
            assert_eq!(aftermath(&load, code, marker, &can(true, true)), expected, "{what}");
        }
    }

    #[test]
    fn rows_that_may_be_visible_in_part_are_not_read_again() {
        let one = load("b", 2, Durability::Durable);
        let mut two = one.clone();
        two.tables.push(two.tables[0].clone());
        let mut absorbed = two.clone();
        absorbed.tables.iter_mut().for_each(|t| t.table.write = WriteMode::Upsert);
        let mut unwritten = two.clone();
        unwritten.tables[1].receipts.clear();
        let mut nothing = one.clone();
        nothing.tables[0].receipts[0].rows = 0;
        let (transaction, tables, rows) = (can(true, true), can(true, false), can(false, false));
        let cases = [
            ("one table", &one, &tables, Aftermath::Dropped),
            ("two, in one transaction", &two, &transaction, Aftermath::Dropped),
            ("two, one after the other", &two, &tables, Aftermath::InPart),
            ("two, matched by key", &absorbed, &tables, Aftermath::Dropped),
            ("two, one not written", &unwritten, &tables, Aftermath::Dropped),
            ("row by row", &one, &rows, Aftermath::InPart),
            ("row by row, without a row", &nothing, &rows, Aftermath::Dropped),
        ];
        for (what, load, can, expected) in cases {
            assert_eq!(aftermath(load, Code::NotFound, None, can), expected, "{what}");
        }
    }

    #[test]
    fn rows_are_added_to_the_table_that_has_the_others() {
        let (orders, other) = (TableName::parse("raw.orders"), TableName::parse("raw.other"));
        let cases = [
            // (the marker's tables, the table is there, it is the scope's only one, it may get more)
            ("never any rows, or an old marker", vec![], false, true, true),
            ("as it was", vec![orders.clone()], true, true, true),
            ("dropped", vec![orders.clone()], false, true, false),
            ("another `into`", vec![other.clone()], false, true, false),
            ("another `into`, where a table is", vec![other.clone()], true, true, false),
            ("a new stream beside others", vec![other.clone()], false, false, true),
            ("dropped, beside others", vec![other.clone(), orders.clone()], false, false, false),
        ];
        for (what, filled, exists, alone, expected) in cases {
            assert_eq!(may_add(&filled, &orders, exists, alone).is_ok(), expected, "{what}");
        }
    }

    #[test]
    fn of_two_rivals_one_commits() {
        let ours = load("b", 2, Durability::Durable);
        assert_eq!(commit_gate(&ours, 5, 5, Some(&marker("a", 1))), CommitGate::Go);
        assert_eq!(commit_gate(&ours, 5, 5, Some(&marker("b", 2))), CommitGate::AlreadyCommitted);
        assert_eq!(commit_gate(&ours, 5, 5, Some(&marker("x", 2))), CommitGate::Outdated);
        assert_eq!(commit_gate(&ours, 4, 5, Some(&marker("a", 1))), CommitGate::Outdated);
        assert_eq!(commit_gate(&load("a", 1, Durability::Session), 1, 1, None), CommitGate::Go);
    }
}
