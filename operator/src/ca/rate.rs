//! How many certificates one pod may ask for.
//!
//! Invariant: no more than [`CALLERS_MAX`] callers are remembered, and forgetting one gives it nothing it did not have.

use std::{collections::HashMap, sync::Arc};

use tokio::time::Instant;

/// Requests a caller may make at once: one for every pod of a large node, twice.
pub const BURST_MAX: u32 = 500;
/// Requests a caller gets back per second.
pub const REQUESTS_PER_SECOND: u32 = 20;
/// Callers remembered at a time.
const CALLERS_MAX: usize = 8192;

/// One bucket per caller.
#[derive(Debug, Default)]
pub(super) struct RateLimit {
    buckets: HashMap<Arc<str>, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn left_at(&self, now: Instant) -> f64 {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * f64::from(REQUESTS_PER_SECOND);
        (self.left + gained).min(f64::from(BURST_MAX))
    }
}

impl RateLimit {
    /// Whether this request may be served.
    pub(super) fn take(&mut self, caller: &Arc<str>, now: Instant) -> bool {
        if self.buckets.len() >= CALLERS_MAX && !self.buckets.contains_key(caller) {
            // A full bucket is the same as none.
            self.buckets.retain(|_, bucket| bucket.left_at(now) < f64::from(BURST_MAX));
            if self.buckets.len() >= CALLERS_MAX {
                return false;
            }
        }
        let fresh = || Bucket { left: f64::from(BURST_MAX), at: now };
        let bucket = self.buckets.entry(caller.clone()).or_insert_with(fresh);
        let left = bucket.left_at(now);
        let served = left >= 1.0;
        *bucket = Bucket { left: if served { left - 1.0 } else { left }, at: now };
        served
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn serves_a_burst_then_as_many_as_time_gives_back_and_each_caller_for_itself() {
        let (mut limit, start) = (RateLimit::default(), Instant::now());
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
        let (mut limit, start) = (RateLimit::default(), Instant::now());
        for number in 0..CALLERS_MAX {
            assert!(limit.take(&number.to_string().into(), start));
        }
        assert!(!limit.take(&"late".into(), start));
        assert!(limit.take(&"late".into(), start + Duration::from_secs(60)));
        assert_eq!(limit.buckets.len(), 1);
    }
}
