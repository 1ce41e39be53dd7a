//! Versions of a stream's table: a tap that reads a table anew gives its rows a new version, and says by ACTIVATE_VERSION that all of them have come. Rows of older
//! versions are gone then.

/// Where a stream stands.
#[derive(Clone, Debug, Default)]
pub struct Version {
    /// The version whose rows the table holds.
    active: Option<i64>,
    /// A newer one that was not activated yet.
    begun: Option<i64>,
    /// The load replaces all that the table holds.
    whole: bool,
    /// It does so because of the new version, of which all has come.
    complete: bool,
    /// Rows of the new version are in the load.
    rows: bool,
}

/// What a row or an activation asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    GoOn,
    /// The load must end before this message, and the next one must replace what the table holds.
    BeginAnew,
    /// All of the new version is in the load, which can end.
    Complete,
}

impl Version {
    pub fn of(active: Option<i64>) -> Self {
        Self { active, ..Self::default() }
    }

    pub fn active(&self) -> Option<i64> {
        self.active
    }

    /// What comes next replaces what the table holds.
    pub fn is_anew(&self) -> bool {
        self.begun.is_some()
    }

    /// All of a new version is in the load.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The load may not end here: what it has of the stream replaces the table, and is not all.
    pub fn keeps_on(&self) -> bool {
        self.whole && !self.complete
    }

    /// A load begins. Returns a version that was begun and cannot be followed, since the load adds to the table.
    pub fn begin(&mut self, whole: bool) -> Option<i64> {
        let unfollowed = self.begun.filter(|_| !whole);
        if let Some(version) = unfollowed {
            self.let_be(version);
        }
        (self.whole, self.complete, self.rows) = (whole, false, false);
        unfollowed
    }

    /// Takes a version for granted: its rows are added to what is there.
    pub fn let_be(&mut self, version: i64) {
        (self.active, self.begun) = (Some(version), None);
    }

    /// The input has ended. False when a new version was begun whose end did not come.
    pub fn is_whole(&self) -> bool {
        !self.is_anew() || !self.rows
    }

    pub fn row(&mut self, version: i64) -> Next {
        match self.active {
            Some(active) if active == version => Next::GoOn,
            Some(_) if self.begun == Some(version) && self.whole => {
                self.rows = true;
                Next::GoOn
            }
            Some(_) if self.whole => {
                self.active = Some(version);
                Next::GoOn
            }
            Some(_) => {
                self.begun = Some(version);
                Next::BeginAnew
            }
            // Nothing is known of what the table holds.
            None => {
                self.active = Some(version);
                Next::GoOn
            }
        }
    }

    pub fn activate(&mut self, version: i64) -> Next {
        if self.begun == Some(version) && self.whole {
            self.let_be(version);
            self.complete = true;
            return if self.rows { Next::Complete } else { Next::GoOn };
        }
        match self.row(version) {
            Next::BeginAnew => Next::BeginAnew,
            _ => Next::GoOn,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_read_anew() {
        let mut version = Version::of(Some(1));
        version.begin(false);
        assert_eq!((version.activate(1), version.row(1)), (Next::GoOn, Next::GoOn));
        assert_eq!(version.row(2), Next::BeginAnew);
        assert!(version.is_anew());
        version.begin(true);
        assert_eq!((version.row(2), version.row(2)), (Next::GoOn, Next::GoOn));
        assert!(version.keeps_on() && !version.is_whole());
        assert_eq!(version.activate(2), Next::Complete);
        assert!(version.is_complete() && !version.is_anew() && version.is_whole());
        version.begin(false);
        assert_eq!((version.row(2), version.active()), (Next::GoOn, Some(2)));
    }

    /// Incremental taps activate a version and give its rows then.
    #[test]
    fn activated_before_its_rows() {
        let mut version = Version::of(Some(1));
        version.begin(false);
        assert_eq!(version.activate(2), Next::BeginAnew);
        version.begin(true);
        assert_eq!((version.activate(2), version.row(2)), (Next::GoOn, Next::GoOn));
        assert!(version.is_complete() && version.is_whole());
    }

    #[test]
    fn nothing_is_known_or_nothing_can_be_done() {
        let mut version = Version::of(None);
        version.begin(false);
        assert_eq!((version.row(7), version.active()), (Next::GoOn, Some(7)));
        // The table is replaced in any case.
        version.begin(true);
        assert_eq!((version.row(8), version.is_whole(), version.active()), (Next::GoOn, true, Some(8)));
        // Rows are added in any case.
        version.begin(false);
        assert_eq!(version.row(9), Next::BeginAnew);
        assert_eq!((version.begin(false), version.row(9)), (Some(9), Next::GoOn));
    }
}
