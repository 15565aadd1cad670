//! When to renew, and when to retry.
//!
//! Pure: time and randomness are arguments.

use std::time::{Duration, SystemTime};

/// The delay after the first failure.
pub(crate) const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// The longest delay between attempts.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(150);
/// Shortest time between two renewals, however short the certificate's lifetime.
const REFRESH_MIN: Duration = Duration::from_secs(1);
/// Number of doublings after which any delay exceeds [`BACKOFF_MAX`].
const DOUBLINGS_MAX: u32 = 16;

/// Halfway between now (or a later `not_before`) and `not_after`. Time before now does not count: a
/// CA backdates certificates, and a short one would otherwise be renewed continuously.
pub(crate) fn refresh_at(not_before: SystemTime, not_after: SystemTime, now: SystemTime) -> SystemTime {
    let start = not_before.max(now);
    let half = not_after.duration_since(start).unwrap_or_default() / 2;
    (start + half).max(now + REFRESH_MIN)
}

/// The delay after this many consecutive failures. `jitter` is from 0 to 1 and changes the delay by
/// up to a fifth either way, so that the nodes of a cluster do not retry in step.
pub(crate) fn backoff(failures: u32, jitter: f64) -> Duration {
    let doubled = BACKOFF_MIN * 2u32.saturating_pow(failures.saturating_sub(1).min(DOUBLINGS_MAX));
    doubled.min(BACKOFF_MAX).mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0)).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renews_half_way_to_the_end_and_never_in_a_tight_loop() {
        let at = |s: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(s);
        for (name, not_before, not_after, now, expected) in [
            ("fresh", 1000, 3000, 1000, 2000),
            ("dated back", 880, 2000, 1000, 1500),
            ("short and dated back", 880, 1060, 1000, 1030),
            ("begins later", 1100, 1300, 1000, 1200),
            ("about to end", 0, 1001, 1000, 1001),
            ("ended", 0, 900, 1000, 1001),
        ] {
            assert_eq!(refresh_at(at(not_before), at(not_after), at(now)), at(expected), "{name}");
        }
    }

    #[test]
    fn pauses_double_from_a_second_to_a_limit() {
        let pauses: Vec<f64> = [0, 1, 2, 3, 7, 8, 9, u32::MAX].map(|n| backoff(n, 0.5).as_secs_f64()).into();
        assert_eq!(pauses, [1.0, 1.0, 2.0, 4.0, 64.0, 128.0, 150.0, 150.0]);
        assert_eq!(backoff(2, 0.0), Duration::from_millis(1600));
        assert_eq!(backoff(2, 1.0), Duration::from_millis(2400));
        assert_eq!(backoff(20, 1.0), BACKOFF_MAX);
    }
}
