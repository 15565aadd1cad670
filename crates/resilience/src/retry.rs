//! Whether and when a request is retried. Pure.
//!
//! Invariant: never after a byte of a response was sent to the client, never when the request
//! cannot be repeated completely, and never more often than the route permits.

use std::time::Duration;

use ambit_model::bound::Retry;

/// Longest backoff, as a multiple of the shortest.
const BACKOFF_FACTOR_MAX: u32 = 10;
/// Backoff of routes that do not set one.
const BACKOFF_DEFAULT: Duration = Duration::from_millis(25);

/// How a try ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// No connection, a reset before the response headers, or a timeout.
    Unanswered,
    /// A response with this status.
    Status(u16),
}

/// How far a request has progressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Tries that have ended.
    pub tries: u32,
    /// A byte of a response was sent to the client.
    pub answered: bool,
    /// The whole request body is still buffered.
    pub repeatable: bool,
}

/// The pause before the next try; `None` if the request is not repeated.
pub fn pause(retry: &Retry, progress: Progress, ended: Ended, random: u64) -> Option<Duration> {
    let is_worth = match ended {
        Ended::Unanswered => true,
        Ended::Status(code) => retry.codes.contains(&code),
    };
    let again = is_worth && !progress.answered && progress.repeatable && progress.tries <= retry.attempts;
    again.then(|| backoff(retry, progress.tries, random))
}

/// The shortest backoff, plus a random part (full jitter) of the exponential growth.
fn backoff(retry: &Retry, tries: u32, random: u64) -> Duration {
    // Gateway API: the backoff of a route is a minimum. Without one there is no minimum.
    let least = retry.backoff.unwrap_or(Duration::ZERO);
    let base = retry.backoff.unwrap_or(BACKOFF_DEFAULT);
    let factor = 2_u32.saturating_pow(tries).min(BACKOFF_FACTOR_MAX);
    let spread = base.saturating_mul(factor).saturating_sub(least);
    // 32 random bits are exact in a float.
    let share = (random >> 32) as f64 / f64::from(u32::MAX);
    least.saturating_add(spread.mul_f64(share))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FRESH: Progress = Progress { tries: 1, answered: false, repeatable: true };

    fn retry(backoff: Option<u64>) -> Retry {
        Retry { codes: vec![500, 503], attempts: 2, backoff: backoff.map(Duration::from_millis) }
    }

    #[test]
    fn is_tried_again_only_when_it_may_help_and_can_be_done() {
        let cases = [
            ("a listed status", FRESH, Ended::Status(503), true),
            ("another status", FRESH, Ended::Status(502), false),
            ("a good status", FRESH, Ended::Status(200), false),
            ("no answer", FRESH, Ended::Unanswered, true),
            ("the last try", Progress { tries: 2, ..FRESH }, Ended::Unanswered, true),
            ("one too many", Progress { tries: 3, ..FRESH }, Ended::Unanswered, false),
            ("a byte went out", Progress { answered: true, ..FRESH }, Ended::Unanswered, false),
            ("its body is gone", Progress { repeatable: false, ..FRESH }, Ended::Status(503), false),
        ];
        for (name, progress, ended, expected) in cases {
            assert_eq!(pause(&retry(None), progress, ended, 0).is_some(), expected, "{name}");
        }
        let never = Retry { attempts: 0, ..retry(None) };
        assert_eq!(pause(&never, FRESH, Ended::Unanswered, 0), None);
    }

    #[test]
    fn the_pause_grows_with_jitter_from_the_least_to_the_ceiling() {
        let retry = Retry { attempts: 100, ..retry(Some(100)) };
        let pause = |tries, random| {
            pause(&retry, Progress { tries, ..FRESH }, Ended::Unanswered, random).unwrap().as_millis()
        };
        let bounds: Vec<_> = [1, 2, 3, 4, 90].map(|tries| (pause(tries, 0), pause(tries, u64::MAX))).into();
        assert_eq!(bounds, [(100, 200), (100, 400), (100, 800), (100, 1000), (100, 1000)]);
    }

    proptest! {
        #[test]
        fn a_route_without_a_pause_gets_a_short_one(tries in 1..3_u32, random: u64) {
            let progress = Progress { tries, ..FRESH };
            let pause = pause(&retry(None), progress, Ended::Unanswered, random).unwrap();
            prop_assert!(pause <= BACKOFF_DEFAULT * BACKOFF_FACTOR_MAX);
        }

        #[test]
        fn no_pause_is_shorter_than_the_route_says(least in 0..10_000_u64, tries in 1..3_u32, random: u64) {
            let progress = Progress { tries, ..FRESH };
            let found = pause(&retry(Some(least)), progress, Ended::Unanswered, random).unwrap();
            prop_assert!(found >= Duration::from_millis(least));
        }
    }
}
