//! One token bucket in one word.
//!
//! Invariant: within any time `t` at most `burst + t / step` requests are admitted, in whatever
//! order workers run.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// The refill rate and capacity of a bucket, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Time between two requests.
    step: u64,
    /// How far ahead of its time a request may be, which gives the burst.
    ahead: u64,
}

impl Pace {
    /// `requests` per `interval`, with bursts of `burst` (at least one); `None` when nothing may
    /// ever pass.
    pub(crate) fn new(requests: u32, interval: Duration, burst: u32) -> Option<Self> {
        let step = (nanos(interval) / u64::from(requests.max(1))).max(1);
        let ahead = step.saturating_mul(u64::from(burst.max(1)) - 1);
        (requests > 0).then_some(Self { step, ahead })
    }
}

/// The time, in nanoseconds, at which the bucket is full again. A new one is full.
#[derive(Debug, Default)]
pub(crate) struct Bucket(AtomicU64);

impl Bucket {
    /// Takes one token.
    ///
    /// # Errors
    /// The time until a token is available.
    pub(crate) fn take(&self, pace: &Pace, now: Duration) -> Result<(), Duration> {
        let now = nanos(now);
        let mut full = self.0.load(Ordering::Relaxed);
        loop {
            let ahead = full.saturating_sub(now);
            if ahead > pace.ahead {
                return Err(Duration::from_nanos(ahead - pace.ahead));
            }
            let next = full.max(now).saturating_add(pace.step);
            match self.0.compare_exchange_weak(full, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(other) => full = other,
            }
        }
    }

    /// Returns a token that was not used.
    pub(crate) fn give_back(&self, pace: &Pace) {
        let back = |full: u64| Some(full.saturating_sub(pace.step));
        // `back` always returns a value, so this cannot fail.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, back);
    }

    /// Whether it is full, so that dropping it loses no state.
    pub(super) fn is_full(&self, now: Duration) -> bool {
        self.full_at() <= nanos(now)
    }

    /// The time since which it is full, or at which it will be.
    pub(super) fn full_at(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
