//! The load of each worker. Pure.
//!
//! Invariant: a busy worker still gets connections, since a burst of work passes.

use std::time::Duration;

/// A worker that is always busy counts as if it had this many times more connections than an idle one.
const BUSY_WEIGHT: f64 = 3.0;
/// Weight of the last sample in the moving average.
const SAMPLE_WEIGHT: f64 = 0.5;

/// The load of one worker.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Connections it has.
    pub connections: usize,
    /// Share of the last seconds in which its thread was busy, 0 to 1.
    pub busy: f64,
    /// Time in which its thread was busy since it started, as of the last sample.
    busy_so_far: Duration,
}

impl Load {
    /// Takes a sample: `busy_so_far` now, `passed` after the one before.
    pub fn sample(&mut self, busy_so_far: Duration, passed: Duration) {
        let busy = busy_so_far.saturating_sub(self.busy_so_far);
        self.busy_so_far = busy_so_far;
        if !passed.is_zero() {
            let share = (busy.as_secs_f64() / passed.as_secs_f64()).min(1.0);
            self.busy += (share - self.busy) * SAMPLE_WEIGHT;
        }
    }

    fn weight(&self) -> f64 {
        (self.connections as f64 + 1.0) * (1.0 + BUSY_WEIGHT * self.busy)
    }
}

/// The index of the worker that gets the next connection; 0 if there are no workers.
pub fn least_loaded(loads: &[Load]) -> usize {
    let lightest = loads.iter().enumerate().min_by(|(_, a), (_, b)| a.weight().total_cmp(&b.weight()));
    lightest.map_or(0, |(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(connections: usize, busy: f64) -> Load {
        Load { connections, busy, busy_so_far: Duration::ZERO }
    }

    #[test]
    fn idle_workers_share_connections_evenly_and_a_busy_one_gets_fewer() {
        let mut loads = [load(0, 0.0); 3];
        for _ in 0..9 {
            loads[least_loaded(&loads)].connections += 1;
        }
        assert_eq!(loads.map(|load| load.connections), [3, 3, 3]);
        assert_eq!(least_loaded(&[load(1, 1.0), load(4, 0.1)]), 1);
        // But not none: a burst of work passes.
        assert_eq!(least_loaded(&[load(1, 1.0), load(9, 0.1)]), 0);
        assert_eq!(least_loaded(&[]), 0);
    }

    #[test]
    fn the_busy_share_follows_the_samples() {
        let mut load = Load::default();
        for second in 1..=8 {
            load.sample(Duration::from_millis(500 * second), Duration::from_secs(1));
        }
        assert!((load.busy - 0.5).abs() < 0.01, "{load:?}");
        load.sample(Duration::from_secs(60), Duration::from_secs(1));
        assert!(load.busy <= 1.0);
    }
}
