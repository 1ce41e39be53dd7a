//! How many requests are under way to a host: as many as the manifest lets, fewer while the host asks for fewer.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use url::Url;

pub(super) struct Pace {
    most: usize,
    lanes: Mutex<HashMap<String, Lane>>,
    changed: Notify,
}

/// One host. What it says about limits halves what may be under way; as many good answers as that let one more.
struct Lane {
    allowed: usize,
    under_way: usize,
    good: usize,
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
            lane.under_way -= 1;
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
            let closed = {
                let mut lanes = self.lanes();
                let lane = lanes.entry(host.clone()).or_insert_with(|| Lane::new(self.most));
                let closed = lane.closed_until.filter(|until| *until > Instant::now());
                if closed.is_none() && lane.under_way < lane.allowed {
                    lane.under_way += 1;
                    return UnderWay { pace: self, host };
                }
                closed
            };
            match closed {
                Some(until) => tokio::time::sleep_until(until).await,
                None => changed.await,
            }
        }
    }

    /// The host has asked for fewer requests, and for none before this time has passed.
    pub(super) fn limited(&self, url: &Url, wait: Duration) {
        if let Some(lane) = self.lanes().get_mut(&host(url)) {
            lane.limited(Instant::now() + wait);
        }
    }

    pub(super) fn answered(&self, url: &Url) {
        if let Some(lane) = self.lanes().get_mut(&host(url)) {
            lane.answered(self.most);
        }
    }
}

impl Lane {
    fn new(most: usize) -> Self {
        Self { allowed: most, under_way: 0, good: 0, closed_until: None }
    }

    fn limited(&mut self, until: Instant) {
        // Requests that went out together are refused together: that is one sign, not several.
        if self.closed_until.is_none_or(|known| known <= Instant::now()) {
            self.allowed = (self.allowed / 2).max(1);
        }
        self.good = 0;
        self.closed_until = Some(self.closed_until.map_or(until, |known| known.max(until)));
    }

    fn answered(&mut self, most: usize) {
        self.good += 1;
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
        let (mut lane, now) = (Lane::new(8), Instant::now());
        let later = now + Duration::from_secs(60);
        lane.limited(later);
        lane.limited(later);
        assert_eq!((lane.allowed, lane.closed_until), (4, Some(later)), "refused together");
        (0..4).for_each(|_| lane.answered(8));
        assert_eq!(lane.allowed, 5);
        for _ in 0..5 {
            lane.closed_until = None;
            lane.limited(now);
        }
        assert_eq!(lane.allowed, 1, "one request always");
        (0..100).for_each(|_| lane.answered(8));
        assert_eq!(lane.allowed, 8);
    }
}
