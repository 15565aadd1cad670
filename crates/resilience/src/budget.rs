//! The retry budget: limits retries in proportion to requests. Pure except for the reserve's
//! bucket.
//!
//! Invariant: during a full outage, retries add at most the budget's percentage and its reserve to
//! the load.

use std::time::Duration;

use crate::rate::{Bucket, Pace};

/// Whether `retries` in flight, including the new one, are within `percent` of the `requests` in
/// flight.
pub(crate) fn covers(percent: u32, requests: u32, retries: u32) -> bool {
    u64::from(retries) * 100 <= u64::from(requests) * u64::from(percent)
}

/// Takes one of the retries that are always allowed, if any is left this second.
pub(crate) fn reserve(bucket: &Bucket, per_second: u32, now: Duration) -> bool {
    Pace::new(per_second, Duration::from_secs(1), per_second)
        .is_some_and(|pace| bucket.take(&pace, now).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_counts_the_retry_that_is_asked_about() {
        for (percent, requests, retries, expected) in [
            (20, 10, 2, true),
            (20, 10, 3, false),
            (20, 4, 1, false),
            (0, 1000, 1, false),
            (100, 1, 1, true),
            (u32::MAX, u32::MAX, u32::MAX, true),
        ] {
            assert_eq!(covers(percent, requests, retries), expected, "{percent} {requests} {retries}");
        }
    }

    #[test]
    fn no_reserve_allows_nothing() {
        assert!(!reserve(&Bucket::default(), 0, Duration::ZERO));
    }
}
