//! Latency of an endpoint as a moving average that rises at once and falls slowly (peak EWMA).
//!
//! Invariant: one atomic word holds the average and its time, so that they are always read
//! together.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Time after which the weight of an observation has fallen to 1/e.
const DECAY: Duration = Duration::from_secs(5);
/// Resolution of the time; 32 bits of it last for three days, after which an old average may look
/// recent.
const TICK_NANOS: u128 = 65_536;

/// The average of one endpoint, in microseconds.
#[derive(Debug, Default)]
pub(crate) struct Latency(AtomicU64);

/// The content of the word. All zero means no observation yet.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Average {
    micros: f32,
    ticks: u32,
}

impl Average {
    fn unpack(word: u64) -> Self {
        Self { micros: f32::from_bits(low(word)), ticks: low(word >> 32) }
    }

    fn pack(self) -> u64 {
        u64::from(self.ticks) << 32 | u64::from(self.micros.to_bits())
    }

    /// Remaining weight of the average at `ticks`. The time wraps; threads may disagree by a tick
    /// on which is later.
    fn weight(self, ticks: u32) -> f32 {
        let passed = ticks.wrapping_sub(self.ticks);
        if passed > u32::MAX / 2 {
            return 1.0;
        }
        (-(passed as f32) * (TICK_NANOS as f32 / DECAY.as_nanos() as f32)).exp()
    }

    fn observed(self, micros: f32, ticks: u32) -> Self {
        if micros >= self.micros {
            return Self { micros, ticks };
        }
        let weight = self.weight(ticks);
        Self { micros: self.micros * weight + micros * (1.0 - weight), ticks }
    }
}

impl Latency {
    /// Records a latency; `now` counts from any fixed time.
    pub(crate) fn observe(&self, latency: Duration, now: Duration) {
        // Never zero after an observation.
        let micros = (latency.as_nanos() as f32 / 1000.0).max(1.0);
        let ticks = ticks(now);
        let observed = |word| Some(Average::unpack(word).observed(micros, ticks).pack());
        // `observed` always returns a value, so this cannot fail.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, observed);
    }

    /// The decayed average in microseconds; `None` before the first observation.
    pub(crate) fn micros(&self, now: Duration) -> Option<f32> {
        let word = self.0.load(Ordering::Relaxed);
        let average = Average::unpack(word);
        (word != 0).then(|| average.micros * average.weight(ticks(now)))
    }
}

/// The lower half of the word.
fn low(word: u64) -> u32 {
    u32::try_from(word & u64::from(u32::MAX)).unwrap_or_default()
}

fn ticks(now: Duration) -> u32 {
    u32::try_from((now.as_nanos() / TICK_NANOS) & u128::from(u32::MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn after(observations: &[(u32, u32)], now: u32) -> Option<u32> {
        let latency = Latency::default();
        observations.iter().for_each(|(took, at)| latency.observe(MS * *took, MS * *at));
        latency.micros(MS * now).map(|micros| micros as u32)
    }

    #[test]
    fn rises_at_once_and_falls_slowly() {
        let cases = [
            ("nothing is known", vec![], 5, None),
            ("the first is the average", vec![(10, 0)], 0, Some(10_000)),
            ("a peak counts at once", vec![(10, 0), (90, 1)], 1, Some(90_000)),
            ("a low one at the same moment does not", vec![(90, 5), (10, 5)], 5, Some(90_000)),
            ("after five seconds it makes up 1 - 1/e", vec![(90, 0), (10, 5_000)], 5_000, Some(39_430)),
            ("unused, it fades", vec![(100, 0)], 5_000, Some(36_788)),
        ];
        for (name, observations, now, expected) in cases {
            let found = after(&observations, now);
            let close = match (found, expected) {
                (Some(found), Some(expected)) => found.abs_diff(expected) <= expected / 1000,
                (found, expected) => found == expected,
            };
            assert!(close, "{name}: {found:?}");
        }
    }

    #[test]
    fn a_worker_whose_clock_lags_by_a_tick_does_not_erase_the_average() {
        let average = Average { micros: 500.0, ticks: 10 };
        assert_eq!(average.weight(9), 1.0);
        assert_eq!(Average::unpack(average.pack()), average);
    }

    #[test]
    fn an_answer_in_no_time_still_counts_as_known() {
        let latency = Latency::default();
        latency.observe(Duration::ZERO, Duration::ZERO);
        assert_eq!(latency.micros(Duration::ZERO), Some(1.0));
    }
}
