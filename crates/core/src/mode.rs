//! How a stream is read, how a table is written, and which of the two go together.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReadMode {
    /// Everything, each time.
    Full,
    /// Rows whose cursor has moved since the last run.
    Incremental,
    /// Inserts, updates and deletes from the change log.
    Cdc,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WriteMode {
    /// The table holds what this load has read, and nothing else.
    Replace,
    /// Rows are added as they come.
    Append,
    /// Rows whose key is new are added; what is there stays as it is.
    Insert,
    /// The last row of each key wins.
    Upsert,
    /// Upsert, and what was not read is deleted.
    Mirror,
    /// Every version of a row is kept, with the time from and to which it held (SCD2).
    History,
    /// Only deletes what was not read: the rows carry keys alone. Made by `deletes: {detect: compare}`, never named in a project;
    /// it has a name of ours because a staged load is stored and read back.
    #[serde(rename = "_prune")]
    #[schemars(skip)]
    Prune,
    /// Rows whose key is there get the columns that were staged, where a value differs; their other columns stay, and so do all other rows. Nothing is
    /// added. Of a history this concerns the current versions, and begins no new ones. Made by `trib backfill --columns`, never named in a project.
    #[serde(rename = "_update")]
    #[schemars(skip)]
    Update,
}

impl ReadMode {
    pub const ALL: &[ReadMode] = &[ReadMode::Full, ReadMode::Incremental, ReadMode::Cdc];

    pub fn as_str(self) -> &'static str {
        match self {
            ReadMode::Full => "full",
            ReadMode::Incremental => "incremental",
            ReadMode::Cdc => "cdc",
        }
    }
}

impl WriteMode {
    /// The modes that a project can name.
    pub const ALL: &[WriteMode] =
        &[WriteMode::Replace, WriteMode::Append, WriteMode::Insert, WriteMode::Upsert, WriteMode::Mirror, WriteMode::History];

    pub fn as_str(self) -> &'static str {
        match self {
            WriteMode::Replace => "replace",
            WriteMode::Append => "append",
            WriteMode::Insert => "insert",
            WriteMode::Upsert => "upsert",
            WriteMode::Mirror => "mirror",
            WriteMode::History => "history",
            WriteMode::Prune => "prune",
            WriteMode::Update => "update",
        }
    }

    /// Rows are matched by key.
    pub fn needs_key(self) -> bool {
        !matches!(self, WriteMode::Replace | WriteMode::Append)
    }

    /// Staged rows carry `_trib_seq`, since one load may hold a key more than once.
    pub fn needs_sequence(self) -> bool {
        matches!(self, WriteMode::Insert | WriteMode::Upsert | WriteMode::Mirror | WriteMode::History | WriteMode::Update)
    }

    /// The load must have read everything before it may be committed.
    pub fn needs_complete_read(self) -> bool {
        matches!(self, WriteMode::Replace | WriteMode::Mirror | WriteMode::Prune)
    }

    /// A row that is read a second time leaves the table as it was.
    pub fn absorbs_repeats(self) -> bool {
        !matches!(self, WriteMode::Append)
    }
}

/// Whether a read mode and a write mode go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    Yes,
    /// Only with `duplicates: allow`, since each run repeats the rows of the one before.
    RepeatsRows,
    /// Never; the text says why.
    No(&'static str),
}

/// The published table of modes that go together.
pub fn fit(read: ReadMode, write: WriteMode) -> Fit {
    use {ReadMode as R, WriteMode as W};
    match (read, write) {
        (R::Full, W::Append) => Fit::RepeatsRows,
        (R::Full, _) | (R::Incremental, W::Append | W::Insert | W::Upsert | W::History | W::Update) => Fit::Yes,
        (R::Incremental, W::Replace) => Fit::No("an incremental read sees only what is new, and replace would drop the rest"),
        (R::Incremental, W::Mirror | W::Prune) => Fit::No("a cursor cannot see deletes"),
        (R::Cdc, W::Append | W::Upsert | W::Mirror | W::History | W::Update) => Fit::Yes,
        (R::Cdc, W::Insert) => Fit::No("insert keeps what is there, and would ignore the log's updates"),
        (R::Cdc, W::Replace | W::Prune) => Fit::No("a change log holds changes, not the whole table"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_modes() {
        let row = |read| -> Vec<&str> {
            WriteMode::ALL
                .iter()
                .map(|write| match fit(read, *write) {
                    Fit::Yes => "yes",
                    Fit::RepeatsRows => "asks",
                    Fit::No(_) => "no",
                })
                .collect()
        };
        #[rustfmt::skip]
        let table = [
            //                     replace append insert upsert mirror history
            (ReadMode::Full,        ["yes", "asks", "yes", "yes", "yes", "yes"]),
            (ReadMode::Incremental, ["no",  "yes",  "yes", "yes", "no",  "yes"]),
            (ReadMode::Cdc,         ["no",  "yes",  "no",  "yes", "yes", "yes"]),
        ];
        for (read, expected) in table {
            assert_eq!(row(read), expected, "{}", read.as_str());
        }
    }
}
