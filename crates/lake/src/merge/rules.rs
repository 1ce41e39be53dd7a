//! What becomes of a row: pure decisions, one table of them.

use trib_core::load::Deletes;

use super::keys::{Entry, Met};

/// What a staged key does to the row that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMatch {
    /// The staged row takes its place.
    Replace,
    /// It stays, and the staged row is left out.
    Keep,
    /// It stays as an earlier version, and the staged row becomes the current one, if they differ.
    Version,
    /// It stays; staged rows are keys alone and never become rows.
    Only,
    /// It goes: it belongs to a parent row that was staged, and so were the rows that belong to it now.
    Clear,
}

/// How a row goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Going {
    /// Out of the table.
    Drop,
    /// It stays with a time: when it was deleted, or until when it held.
    Mark,
    /// It does not.
    Not,
}

#[derive(Clone, Debug)]
pub struct Rules {
    pub on_match: OnMatch,
    pub going: Going,
    /// Rows whose key was not staged go away.
    pub absent_goes: bool,
}

/// What is known of a row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Not marked yet: not deleted, or the current version.
    pub live: bool,
    /// It belongs to the scope of the load.
    pub in_scope: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Stay,
    Drop,
    Mark,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub inserted: u64,
    pub updated: u64,
    pub deleted: u64,
    /// See [`trib_core::load::TableOutcome::unmatched`].
    pub unmatched: u64,
}

impl Rules {
    /// Decides on a row of the table. `entry` is the staged row of its key, if any; `same` says that it holds the same values.
    pub fn judge(&self, row: Row, entry: Option<&mut Entry>, same: bool, counts: &mut Counts) -> Fate {
        let Some(entry) = entry else {
            return if self.absent_goes && row.in_scope { self.go(row, counts) } else { Fate::Stay };
        };
        match self.on_match {
            OnMatch::Keep | OnMatch::Only => {
                entry.met = Met::Yes;
                Fate::Stay
            }
            OnMatch::Replace if entry.delete => {
                entry.met = Met::Yes;
                self.go(row, counts)
            }
            OnMatch::Replace => {
                counts.updated += u64::from(entry.met == Met::No);
                entry.met = Met::Yes;
                Fate::Drop
            }
            OnMatch::Clear => {
                counts.deleted += 1;
                Fate::Drop
            }
            OnMatch::Version if !row.live => Fate::Stay,
            OnMatch::Version if entry.delete => {
                entry.met = Met::Yes;
                self.go(row, counts)
            }
            OnMatch::Version if same => {
                entry.met = Met::Same;
                Fate::Stay
            }
            OnMatch::Version => {
                counts.updated += u64::from(entry.met == Met::No);
                entry.met = Met::Yes;
                Fate::Mark
            }
        }
    }

    /// Whether a staged row becomes a row, once the whole table was looked at.
    pub fn accept(&self, entry: &Entry, counts: &mut Counts) -> bool {
        let accepted = !entry.delete
            && match self.on_match {
                OnMatch::Replace => true,
                OnMatch::Keep => entry.met == Met::No,
                OnMatch::Version => entry.met != Met::Same,
                // The rows of a child table are taken by their parent's key, not by one of their own.
                OnMatch::Only | OnMatch::Clear => false,
            };
        // A new version of a row is a row more.
        counts.inserted += u64::from(accepted && (entry.met == Met::No || self.on_match == OnMatch::Version));
        accepted
    }

    fn go(&self, row: Row, counts: &mut Counts) -> Fate {
        let fate = match self.going {
            Going::Drop => Fate::Drop,
            Going::Mark if row.live => Fate::Mark,
            // A row that is marked keeps the time of its first mark.
            Going::Mark | Going::Not => Fate::Stay,
        };
        counts.deleted += u64::from(fate != Fate::Stay);
        fate
    }
}

/// How rows of a table go away.
pub fn going(deletes: Deletes, history: bool) -> Going {
    match (deletes, history) {
        (Deletes::Ignore, _) => Going::Not,
        (Deletes::Soft, _) | (_, true) => Going::Mark,
        (Deletes::Hard, false) => Going::Drop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fates() {
        use {Fate::*, Going as G, OnMatch as M};
        let entry = |delete| Some(Entry::new(1, 0, 0, delete));
        let cases = [
            // (on match, going, absent goes, staged, same, live) -> fate, accepted, (inserted, updated, deleted)
            ((M::Replace, G::Drop, false, entry(false), false, true), Drop, true, (0, 1, 0)),
            ((M::Replace, G::Drop, false, entry(true), false, true), Drop, false, (0, 0, 1)),
            ((M::Replace, G::Mark, false, entry(true), false, true), Mark, false, (0, 0, 1)),
            ((M::Replace, G::Mark, false, entry(true), false, false), Stay, false, (0, 0, 0)),
            ((M::Replace, G::Drop, true, None, false, true), Drop, false, (0, 0, 1)),
            ((M::Replace, G::Drop, false, None, false, true), Stay, false, (0, 0, 0)),
            ((M::Keep, G::Drop, false, entry(false), false, true), Stay, false, (0, 0, 0)),
            ((M::Version, G::Mark, false, entry(false), true, true), Stay, false, (0, 0, 0)),
            ((M::Version, G::Mark, false, entry(false), false, true), Mark, true, (1, 1, 0)),
            ((M::Version, G::Mark, false, entry(false), false, false), Stay, true, (1, 0, 0)),
            ((M::Version, G::Mark, false, entry(true), false, true), Mark, false, (0, 0, 1)),
            ((M::Only, G::Mark, true, None, false, true), Mark, false, (0, 0, 1)),
            ((M::Only, G::Not, true, None, false, true), Stay, false, (0, 0, 0)),
        ];
        for ((on_match, going, absent_goes, mut staged, same, live), fate, accepted, (inserted, updated, deleted)) in cases {
            let rules = Rules { on_match, going, absent_goes };
            let mut counts = Counts::default();
            let row = Row { live, in_scope: true };
            assert_eq!(rules.judge(row, staged.as_mut(), same, &mut counts), fate, "{rules:?} {staged:?}");
            assert_eq!(staged.is_some_and(|e| rules.accept(&e, &mut counts)), accepted, "{rules:?}");
            assert_eq!(counts, Counts { inserted, updated, deleted, unmatched: 0 }, "{rules:?}");
        }
    }

    #[test]
    fn a_key_that_the_table_has_twice_counts_once() {
        let rules = Rules { on_match: OnMatch::Replace, going: Going::Drop, absent_goes: false };
        let (mut entry, mut counts) = (Entry::new(1, 0, 0, false), Counts::default());
        let row = Row { live: true, in_scope: true };
        for _ in 0..2 {
            assert_eq!(rules.judge(row, Some(&mut entry), false, &mut counts), Fate::Drop);
        }
        assert_eq!(counts.updated, 1);
    }
}
