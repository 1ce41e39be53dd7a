//! When to try again.

use std::time::Duration;

use rand::Rng;
use trib_core::{Error, Retry};

use crate::task::Limits;

/// The pause before the next attempt, or `None` when there is none. `attempt` is the one that failed, from 1.
pub fn pause(error: &Error, attempt: u32, limits: &Limits) -> Option<Duration> {
    if error.code().retry() != Retry::Backoff || attempt >= limits.attempts {
        return None;
    }
    let doubled = limits.backoff.saturating_mul(1 << (attempt - 1).min(10));
    // Up to a quarter more, so that streams that failed together do not come back together.
    Some(doubled.mul_f64(1.0 + rand::rng().random_range(0.0..0.25)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use trib_core::Code;

    #[test]
    fn only_what_waiting_may_mend_is_tried_again() {
        let limits = Limits { attempts: 3, backoff: Duration::from_secs(10), ..Limits::default() };
        let lost = Error::new(Code::ConnectionLost, "x");
        assert!(pause(&lost, 1, &limits).is_some_and(|p| (10..13).contains(&p.as_secs())));
        assert!(pause(&lost, 2, &limits).is_some_and(|p| (20..26).contains(&p.as_secs())));
        assert!(pause(&lost, 3, &limits).is_none());
        assert!(pause(&Error::new(Code::AuthFailed, "x"), 1, &limits).is_none());
    }
}
