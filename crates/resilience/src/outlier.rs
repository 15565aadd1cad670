//! Outlier detection: endpoints that perform badly are ejected for a while.
//!
//! Invariant: at most the configured share of a destination's endpoints is ejected at once, but one
//! always may be.

mod stage;
mod success_rate;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ambit_model::bound::OutlierDetection;

use stage::millis;

pub(crate) use stage::{Signal, Stage};
pub(crate) use success_rate::{Tally, far_below};

/// The health of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// A packed [`Stage`].
    stage: AtomicU64,
    /// Requests since the last comparison: the total in the upper half, successes in the lower.
    tally: AtomicU64,
}

impl Health {
    pub(crate) fn is_ejected(&self, now: Duration) -> bool {
        Stage::unpack(self.stage.load(Ordering::Relaxed)).is_ejected(now)
    }
}

/// State that survives changes of the endpoints.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Locked during an ejection, so that two workers cannot exceed the limit together.
    ejecting: Mutex<()>,
    /// Time of the next comparison of success rates, in milliseconds.
    compare_at: AtomicU64,
    /// Number of ejections so far.
    ejections: AtomicU64,
}

impl Ledger {
    pub(crate) fn ejections(&self) -> u64 {
        self.ejections.load(Ordering::Relaxed)
    }
}

/// Outlier detection for the endpoints of one destination.
#[derive(Debug)]
pub(crate) struct Detector {
    pub(crate) policy: OutlierDetection,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) healths: Vec<Arc<Health>>,
}

impl Detector {
    /// Records a success or failure of one endpoint. Returns the number of ejections.
    pub(crate) fn record(&self, health: &Health, good: bool, now: Duration) -> u64 {
        if self.policy.success_rate.is_some() {
            health.tally.fetch_add(1 << 32 | u64::from(good), Ordering::Relaxed);
        }
        let ejected = self.signal(health, if good { Signal::Success } else { Signal::Failure }, now);
        let compared = if self.is_time_to_compare(now) { self.compare(now) } else { 0 };
        u64::from(ejected) + compared
    }

    /// Applies a signal. Returns whether the endpoint was ejected.
    fn signal(&self, health: &Health, signal: Signal, now: Duration) -> bool {
        let next = |stage: Stage, room| stage.next(signal, now, &self.policy, room);
        let mut ejected = false;
        let outcome = health.stage.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let stage = Stage::unpack(word);
            let wanted = next(stage, true);
            ejected = wanted.is_ejected(now) && !stage.is_ejected(now);
            // Usually nothing changes: a success of a healthy endpoint.
            (!ejected && wanted != stage).then(|| wanted.pack())
        });
        outcome.is_err() && ejected && self.eject(health, next, now)
    }

    fn eject(&self, health: &Health, next: impl Fn(Stage, bool) -> Stage, now: Duration) -> bool {
        // Does not wait for another ejection: as long as failures continue, the next one tries
        // again.
        let Ok(_alone) = self.ledger.ejecting.try_lock() else { return false };
        let out = self.healths.iter().filter(|health| health.is_ejected(now)).count();
        let room = out < most_ejected(self.healths.len(), self.policy.max_ejected_percent);
        let mut ejected = false;
        // The closure always returns a value, so this cannot fail.
        let _ = health.stage.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let stage = Stage::unpack(word);
            let next = next(stage, room);
            ejected = next.is_ejected(now) && !stage.is_ejected(now);
            Some(next.pack())
        });
        self.ledger.ejections.fetch_add(u64::from(ejected), Ordering::Relaxed);
        ejected
    }

    /// True for one caller per interval.
    fn is_time_to_compare(&self, now: Duration) -> bool {
        if self.policy.success_rate.is_none() {
            return false;
        }
        let due = self.ledger.compare_at.load(Ordering::Relaxed);
        let now = millis(now);
        if now < due {
            return false;
        }
        let next = now.saturating_add(millis(self.policy.interval).max(1));
        let won = self.ledger.compare_at.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed);
        // The very first call only starts the first interval.
        won.is_ok() && due != 0
    }

    fn compare(&self, now: Duration) -> u64 {
        let Some(policy) = self.policy.success_rate else { return 0 };
        let tallies: Vec<Tally> = self
            .healths
            .iter()
            .map(|health| {
                let word = health.tally.swap(0, Ordering::Relaxed);
                Tally { requests: word >> 32, good: word & u64::from(u32::MAX) }
            })
            .collect();
        let judged = self.healths.iter().zip(far_below(&tallies, &policy));
        judged.map(|(health, bad)| u64::from(bad && self.signal(health, Signal::FarBelow, now))).sum()
    }
}

/// At least one, so that a destination with two endpoints is protected as well.
fn most_ejected(endpoints: usize, percent: u32) -> usize {
    let percent = usize::try_from(percent.min(100)).unwrap_or(100);
    (endpoints * percent / 100).max(1)
}

#[cfg(test)]
mod tests;
