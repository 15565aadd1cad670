//! Comparison of success rates. Pure.
//!
//! Invariant: an endpoint with too few requests is neither compared nor counted.

use ambit_model::bound::SuccessRate;

/// Requests of one endpoint in an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Total number.
    pub requests: u64,
    /// Number of successes.
    pub good: u64,
}

impl Tally {
    fn rate(self) -> f64 {
        self.good as f64 / self.requests.max(1) as f64
    }
}

/// For each endpoint, whether its success rate is too far below the mean.
pub(crate) fn far_below(tallies: &[Tally], policy: &SuccessRate) -> Vec<bool> {
    let counts = |tally: &Tally| tally.requests >= u64::from(policy.request_volume.max(1));
    let rates: Vec<f64> = tallies.iter().filter(|tally| counts(tally)).map(|tally| tally.rate()).collect();
    let enough = u32::try_from(rates.len()).unwrap_or(u32::MAX) >= policy.minimum_hosts.max(1);
    if !enough {
        return vec![false; tallies.len()];
    }
    let mean = rates.iter().sum::<f64>() / rates.len() as f64;
    let variance = rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / rates.len() as f64;
    let least = mean - variance.sqrt() * f64::from(policy.stdev_factor_milli) / 1000.0;
    tallies.iter().map(|tally| counts(tally) && tally.rate() < least).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(rates: &[(u64, u64)], minimum_hosts: u32, volume: u32, factor: u32) -> Vec<bool> {
        let tallies: Vec<Tally> = rates.iter().map(|&(good, requests)| Tally { requests, good }).collect();
        let policy = SuccessRate { minimum_hosts, request_volume: volume, stdev_factor_milli: factor };
        far_below(&tallies, &policy)
    }

    #[test]
    fn the_one_far_below_the_mean_is_named() {
        let good = (100, 100);
        let cases: [(&str, Vec<bool>, Vec<bool>); 7] = [
            (
                "one of five fails half",
                judged(&[good, good, (50, 100), good, good], 5, 100, 1900),
                vec![false, false, true, false, false],
            ),
            (
                "the factor decides",
                judged(&[good, good, (50, 100), good, good], 5, 100, 2100),
                vec![false; 5],
            ),
            ("too few endpoints", judged(&[good, (0, 100)], 3, 100, 100), vec![false; 2]),
            ("too few requests", judged(&[good, good, (0, 99)], 2, 100, 100), vec![false; 3]),
            ("all alike", judged(&[(70, 100); 4], 2, 10, 0), vec![false; 4]),
            ("all failing", judged(&[(0, 100); 4], 2, 10, 1000), vec![false; 4]),
            ("no endpoints", judged(&[], 0, 0, 0), vec![]),
        ];
        for (name, found, expected) in cases {
            assert_eq!(found, expected, "{name}");
        }
    }
}
