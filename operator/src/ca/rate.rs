//! Rate limits per caller.
//!
//! Invariant: at most [`CALLERS_MAX`] callers are remembered, and forgetting one gives it no extra
//! budget.

use std::{collections::HashMap, hash::Hash};

use tokio::time::Instant;

/// Burst of certificate requests per pod: twice the pods of a large node.
pub(crate) const BURST_MAX: u32 = 500;
/// Sustained rate of certificate requests per pod.
pub(crate) const REQUESTS_PER_SECOND: u32 = 20;
/// Number of remembered callers.
const CALLERS_MAX: usize = 8192;

/// One bucket per caller.
#[derive(Debug)]
pub(super) struct RateLimit<K> {
    buckets: HashMap<K, Bucket>,
    burst: f64,
    per_second: f64,
}

#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl<K: Clone + Eq + Hash> RateLimit<K> {
    /// Limits burst and rate of each caller.
    pub(super) fn new(burst: f64, per_second: f64) -> Self {
        Self { buckets: HashMap::new(), burst, per_second }
    }

    /// Takes one request from the caller's budget; false if it is exhausted.
    pub(super) fn take(&mut self, caller: &K, now: Instant) -> bool {
        if !self.has_room(caller, now) {
            return false;
        }
        let left = self.left(caller, now);
        let served = left >= 1.0;
        let left = if served { left - 1.0 } else { left };
        self.buckets.insert(caller.clone(), Bucket { left, at: now });
        served
    }

    /// Whether [`Self::take`] would succeed.
    pub(super) fn has(&mut self, caller: &K, now: Instant) -> bool {
        self.has_room(caller, now) && self.left(caller, now) >= 1.0
    }

    fn has_room(&mut self, caller: &K, now: Instant) -> bool {
        if self.buckets.len() >= CALLERS_MAX && !self.buckets.contains_key(caller) {
            // A full bucket is equivalent to none.
            let full: Vec<K> =
                self.buckets.keys().filter(|of| self.left(of, now) >= self.burst).cloned().collect();
            for of in &full {
                self.buckets.remove(of);
            }
        }
        self.buckets.len() < CALLERS_MAX || self.buckets.contains_key(caller)
    }

    fn left(&self, caller: &K, now: Instant) -> f64 {
        let Some(bucket) = self.buckets.get(caller) else { return self.burst };
        let gained = now.saturating_duration_since(bucket.at).as_secs_f64() * self.per_second;
        (bucket.left + gained).min(self.burst)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;

    fn limit() -> RateLimit<Arc<str>> {
        RateLimit::new(f64::from(BURST_MAX), f64::from(REQUESTS_PER_SECOND))
    }

    #[test]
    fn serves_a_burst_then_as_many_as_time_gives_back_and_each_caller_for_itself() {
        let (mut limit, start) = (limit(), Instant::now());
        let (one, two): (Arc<str>, Arc<str>) = ("one".into(), "two".into());
        assert!((0..BURST_MAX).all(|_| limit.take(&one, start)));
        assert!(!limit.take(&one, start));
        assert!(limit.take(&two, start));
        let later = start + Duration::from_secs(1);
        let served = (0..BURST_MAX).filter(|_| limit.take(&one, later)).count();
        assert_eq!(served, REQUESTS_PER_SECOND as usize);
    }

    #[test]
    fn forgets_only_callers_that_lose_nothing() {
        let (mut limit, start) = (limit(), Instant::now());
        for number in 0..CALLERS_MAX {
            assert!(limit.take(&number.to_string().into(), start));
        }
        assert!(!limit.take(&"late".into(), start));
        assert!(limit.take(&"late".into(), start + Duration::from_secs(60)));
        assert_eq!(limit.buckets.len(), 1);
    }
}
