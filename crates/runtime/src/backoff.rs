//! Exponential backoff.
//!
//! Invariant: a delay is never longer than `max` and never shorter than half of `min`.

use std::time::Duration;

use rand::Rng;

/// Doubling delays. Each is between half of its step and the full step, so that the clients of a
/// restarted server spread out.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts at `min`, doubles up to `max`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    /// The next delay, without jitter.
    pub fn step(&mut self) -> Duration {
        let pause = self.next;
        self.next = self.next.saturating_mul(2).min(self.max);
        pause
    }

    /// The next delay, with jitter.
    pub fn pause(&mut self) -> Duration {
        self.step().mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// Starts again at `min`, after a success.
    pub fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_the_limit_and_starts_again_after_success() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(35));
        let steps: Vec<u128> = (0..4).map(|_| backoff.step().as_millis()).collect();
        assert_eq!(steps, [10, 20, 35, 35]);
        backoff.reset();
        assert_eq!(backoff.step().as_millis(), 10);
    }
}
