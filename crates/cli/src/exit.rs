//! How a command ends, for whoever called it.

use trib_core::{Code, Error};

/// The exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All well.
    Success = 0,
    /// Something failed.
    Failed = 1,
    /// The project or the call is wrong.
    Invalid = 2,
    /// Some streams failed and others succeeded.
    Partial = 3,
    /// Data tests failed.
    TestsFailed = 4,
    /// A guard holds the run until somebody approves it.
    Held = 5,
    /// Stopped by Ctrl-C or SIGTERM.
    Interrupted = 130,
}

impl Exit {
    /// What an error that ends the command means.
    pub fn of(code: Code) -> Self {
        match code {
            Code::ConfigInvalid | Code::UsageInvalid | Code::SecretMissing | Code::NotFound | Code::Unsupported => Exit::Invalid,
            Code::TestFailed => Exit::TestsFailed,
            Code::Held => Exit::Held,
            Code::Cancelled => Exit::Interrupted,
            _ => Exit::Failed,
        }
    }

    /// What becomes of a run of which `succeeded` streams went well and others ended with these codes. A guard that holds
    /// something is said before all else that did not fail, since it waits for a person.
    pub fn of_run(succeeded: usize, failed: &[Code]) -> Self {
        let Some(first) = failed.first() else { return Exit::Success };
        let all = |exit: Exit| failed.iter().all(|code| Exit::of(*code) == exit);
        if failed.contains(&Code::Cancelled) {
            Exit::Interrupted
        } else if all(Exit::Held) {
            Exit::Held
        } else if all(Exit::TestsFailed) {
            Exit::TestsFailed
        } else if succeeded > 0 {
            Exit::Partial
        } else if all(Exit::of(*first)) {
            Exit::of(*first)
        } else {
            Exit::Failed
        }
    }
}

/// All that is wrong, so that a person can mend it in one go. Never empty.
#[derive(Debug)]
pub struct Failure(pub Vec<Error>);

impl Failure {
    pub fn exit(&self) -> Exit {
        let codes: Vec<Code> = self.0.iter().map(Error::code).collect();
        Exit::of_run(0, &codes)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(vec![error])
    }
}

impl From<Vec<Error>> for Failure {
    fn from(errors: Vec<Error>) -> Self {
        Self(errors)
    }
}

impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Self {
        Error::from(e).into()
    }
}

pub type Result<T, E = Failure> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs() {
        use Code::{AuthFailed, Cancelled, ConfigInvalid, Held, TestFailed};
        let cases: &[(usize, &[Code], Exit)] = &[
            (0, &[], Exit::Success),
            (2, &[], Exit::Success),
            (1, &[AuthFailed], Exit::Partial),
            (0, &[AuthFailed], Exit::Failed),
            (0, &[ConfigInvalid, ConfigInvalid], Exit::Invalid),
            (0, &[ConfigInvalid, AuthFailed], Exit::Failed),
            (3, &[Held], Exit::Held),
            (3, &[Held, AuthFailed], Exit::Partial),
            (3, &[TestFailed], Exit::TestsFailed),
            (3, &[Cancelled, AuthFailed], Exit::Interrupted),
        ];
        for (succeeded, failed, expected) in cases {
            assert_eq!(Exit::of_run(*succeeded, failed), *expected, "{succeeded} {failed:?}");
        }
    }
}
