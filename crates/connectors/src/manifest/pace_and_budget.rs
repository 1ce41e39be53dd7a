//! Pace and budget together, by a clock of the test's own: what they let out, and how long it takes when some of it goes wrong.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use tokio::time::Instant;
use trib_testkit::chance::Chance;

use super::backoff::growing;
use super::budget::{Free, Spent, spent};
use super::pace::Lane;

/// Milliseconds that a request takes to the server, and as long back.
const WAY: u64 = 10;
/// What a server that says `Retry-After: 1` is given.
const TOLD: Duration = Duration::from_secs(2);

/// Calls to one host: so many, side by side, and so many a second at the most.
struct Calls {
    calls: usize,
    side_by_side: usize,
    limit: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// Its request is answered, with this status; 0: the connection was cut.
    Answered(u16),
    /// It has a place on the way to the host, and asks the budget.
    Spend,
    /// It wants such a place.
    Enter,
}

struct Simulation {
    lane: Lane,
    spent: Spent,
    began: Instant,
    steps: BinaryHeap<Reverse<(u64, Step, usize)>>,
    /// Who waits until something changes.
    parked: Vec<(Step, usize)>,
    arrivals: Vec<u64>,
}

impl Simulation {
    fn later(&mut self, at: u64, step: Step, call: usize) {
        self.steps.push(Reverse((at, step, call)));
    }

    fn milliseconds(&self, at: Instant) -> u64 {
        // The moment itself, not just before it.
        (at - self.began).as_micros().div_ceil(1000) as u64
    }
}

/// When requests reach the server, and when the last call is done. One call in a hundred is refused with 429, one in two hundred fails, and one in a hundred is cut.
fn run(of: &Calls, budgeted: bool) -> (Vec<u64>, u64) {
    let began = Instant::now();
    let mut sim = Simulation {
        lane: Lane::new(of.side_by_side),
        spent: spent(&[(of.limit, 1)]),
        began,
        steps: BinaryHeap::new(),
        parked: Vec::new(),
        arrivals: Vec::new(),
    };
    let mut chance = Chance::new(7);
    let (mut attempts, mut begun, mut done, mut last) = (vec![0; of.calls], 0, 0, 0);
    while done < of.calls {
        while begun < of.calls && begun - done < of.side_by_side + super::deliver::WAITING {
            sim.later(last, Step::Enter, begun);
            begun += 1;
        }
        let Reverse((at, step, call)) = sim.steps.pop().expect("somebody is always about to do something");
        last = at;
        let now = began + Duration::from_millis(at);
        match step {
            Step::Enter => match sim.lane.enter(now) {
                Free::Now => sim.later(at, Step::Spend, call),
                Free::At(until) => {
                    let until = sim.milliseconds(until);
                    sim.later(until, Step::Enter, call);
                }
                Free::Unknown => sim.parked.push((step, call)),
            },
            Step::Spend => match sim.spent.take(1, now) {
                Free::Now => {
                    sim.arrivals.push(at + WAY);
                    attempts[call] += 1;
                    let status = match chance.below(1000) {
                        0..10 => 429,
                        10..15 => 500,
                        15..25 => 0,
                        _ => 200,
                    };
                    sim.later(at + 2 * WAY, Step::Answered(status), call);
                }
                Free::At(until) => {
                    let until = sim.milliseconds(until);
                    sim.later(until, Step::Spend, call);
                }
                Free::Unknown => sim.parked.push((step, call)),
            },
            Step::Answered(status) => {
                sim.spent.settle(1, now);
                sim.lane.leave();
                match status {
                    200 => {
                        sim.lane.answered(of.side_by_side);
                        done += 1;
                    }
                    status => {
                        let wait = if status == 429 { TOLD } else { Duration::from_secs_f64(growing(attempts[call])) };
                        if status == 429 {
                            sim.lane.limited(now, wait, budgeted);
                        }
                        sim.later(at + wait.as_millis() as u64, Step::Enter, call);
                    }
                }
                for (step, call) in std::mem::take(&mut sim.parked) {
                    sim.later(at, step, call);
                }
            }
        }
    }
    sim.arrivals.sort_unstable();
    (sim.arrivals, last)
}

fn most_within_a_second(arrivals: &[u64]) -> usize {
    let within = |(i, from): (usize, &u64)| arrivals[i..].iter().take_while(|at| **at < from + 1000).count();
    arrivals.iter().enumerate().map(within).max().unwrap_or(0)
}

#[test]
fn trouble_costs_little_beside_a_declared_limit() {
    for of in [
        Calls { calls: 4000, side_by_side: 4, limit: 100 },
        Calls { calls: 1000, side_by_side: 2, limit: 20 },
        Calls { calls: 300, side_by_side: 4, limit: 5 },
    ] {
        let allowed = of.calls as u64 * 1000 / of.limit;
        let (arrivals, took) = run(&of, true);
        assert!(most_within_a_second(&arrivals) as u64 <= of.limit, "{} a second", of.limit);
        assert!(took * 10 <= allowed * 12, "{} a second: {took} ms, and {allowed} ms are the least", of.limit);
    }
    // Where no limit is declared, a refusal is the only one that is known: everybody waits.
    let of = Calls { calls: 4000, side_by_side: 4, limit: 100 };
    assert!(run(&of, false).1 > run(&of, true).1 * 3 / 2);
}
