//! How many requests are under way to a host: as many as the manifest lets, fewer while the host asks for fewer.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use url::Url;

use super::budget::Free;

pub(super) struct Pace {
    most: usize,
    lanes: Mutex<HashMap<String, Lane>>,
    changed: Notify,
}

/// One host. What it says about limits halves what may be under way; as many good answers as that let one more.
pub(super) struct Lane {
    allowed: usize,
    under_way: usize,
    good: usize,
    /// The host's last word was that it wants fewer requests.
    refused: bool,
    closed_until: Option<Instant>,
}

/// A request that is under way, until it is dropped.
pub(super) struct UnderWay<'a> {
    pace: &'a Pace,
    host: String,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some(lane) = self.pace.lanes().get_mut(&self.host) {
            lane.leave();
        }
        self.pace.changed.notify_waiters();
    }
}

impl Pace {
    pub(super) fn new(most: usize) -> Self {
        Self { most, lanes: Mutex::default(), changed: Notify::new() }
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<String, Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until one more request may go to this host.
    pub(super) async fn enter(&self, url: &Url) -> UnderWay<'_> {
        let host = host(url);
        loop {
            let changed = self.changed.notified();
            let free = self.lanes().entry(host.clone()).or_insert_with(|| Lane::new(self.most)).enter(Instant::now());
            match free {
                Free::Now => return UnderWay { pace: self, host },
                Free::At(until) => tokio::time::sleep_until(until).await,
                Free::Unknown => changed.await,
            }
        }
    }

    /// The host has asked for fewer requests, and for none before this time has passed. `budgeted`: those that went out kept to a limit that is declared.
    pub(super) fn limited(&self, url: &Url, wait: Duration, budgeted: bool) {
        if let Some(lane) = self.lanes().get_mut(&host(url)) {
            lane.limited(Instant::now(), wait, budgeted);
        }
    }

    pub(super) fn answered(&self, url: &Url) {
        if let Some(lane) = self.lanes().get_mut(&host(url)) {
            lane.answered(self.most);
        }
    }
}

impl Lane {
    pub(super) fn new(most: usize) -> Self {
        Self { allowed: most, under_way: 0, good: 0, refused: false, closed_until: None }
    }

    /// Counts a request that may go out now.
    pub(super) fn enter(&mut self, now: Instant) -> Free {
        match self.closed_until.filter(|until| *until > now) {
            Some(until) => Free::At(until),
            None if self.under_way >= self.allowed => Free::Unknown,
            None => {
                self.under_way += 1;
                Free::Now
            }
        }
    }

    pub(super) fn leave(&mut self) {
        self.under_way -= 1;
    }

    /// Within a declared limit, one refusal among good answers is that request's own; the next one without a good answer in between is the host's.
    pub(super) fn limited(&mut self, now: Instant, wait: Duration, budgeted: bool) {
        // Requests that went out together are refused together: that is one sign, not several.
        if self.closed_until.is_none_or(|known| known <= now) {
            self.allowed = (self.allowed / 2).max(1);
        }
        self.good = 0;
        if !budgeted || self.refused {
            let until = now + wait;
            self.closed_until = Some(self.closed_until.map_or(until, |known| known.max(until)));
        }
        self.refused = true;
    }

    pub(super) fn answered(&mut self, most: usize) {
        self.good += 1;
        self.refused = false;
        if self.good >= self.allowed && self.allowed < most {
            (self.allowed, self.good) = (self.allowed + 1, 0);
        }
    }
}

fn host(url: &Url) -> String {
    url.origin().ascii_serialization()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_halve_and_good_answers_add_one() {
        let (mut lane, now, wait) = (Lane::new(8), Instant::now(), Duration::from_secs(60));
        lane.limited(now, wait, false);
        lane.limited(now, wait, false);
        assert_eq!((lane.allowed, lane.closed_until), (4, Some(now + wait)), "refused together");
        (0..4).for_each(|_| lane.answered(8));
        assert_eq!(lane.allowed, 5);
        for _ in 0..5 {
            lane.closed_until = None;
            lane.limited(now, wait, false);
        }
        assert_eq!(lane.allowed, 1, "one request always");
        (0..100).for_each(|_| lane.answered(8));
        assert_eq!(lane.allowed, 8);
    }

    #[test]
    fn within_a_declared_limit_one_refusal_stops_nobody_else() {
        let (mut lane, now, wait) = (Lane::new(8), Instant::now(), Duration::from_secs(60));
        lane.limited(now, wait, true);
        assert_eq!((lane.allowed, lane.closed_until), (4, None));
        lane.answered(8);
        lane.limited(now, wait, true);
        assert_eq!(lane.closed_until, None, "a good answer came in between");
        lane.limited(now, wait, true);
        assert_eq!(lane.closed_until, Some(now + wait));
    }
}
