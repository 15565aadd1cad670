//! Traffic splitting.
//!
//! Invariant: `random` is uniform over `u64`, so taking a remainder has an error below 2^-32 of a
//! share.

use ambit_model::bound::{Fraction, WeightedBackend};

/// Selects a backend by weight; `None` when all weights are zero.
pub fn pick(backends: &[WeightedBackend], random: u64) -> Option<usize> {
    let total: u64 = backends.iter().map(|backend| u64::from(backend.weight)).sum();
    let mut left = random.checked_rem(total)?;
    backends.iter().position(|backend| {
        let weight = u64::from(backend.weight);
        let taken = left < weight;
        left = left.saturating_sub(weight);
        taken
    })
}

/// Whether a request belongs to a share; `None` means all requests.
pub fn takes(fraction: Option<Fraction>, random: u64) -> bool {
    fraction.is_none_or(|Fraction { numerator, denominator }| {
        random.checked_rem(u64::from(denominator)).is_some_and(|rest| rest < u64::from(numerator))
    })
}

#[cfg(test)]
mod tests {
    use ambit_model::bound::Backend;

    use super::*;

    fn backends(weights: &[u32]) -> Vec<WeightedBackend> {
        let backend =
            |weight| WeightedBackend { weight, backend: Backend::Invalid("".into()), filters: vec![] };
        weights.iter().copied().map(backend).collect()
    }

    #[test]
    fn every_backend_takes_exactly_its_weight() {
        for weights in [&[1, 2, 0, 3][..], &[0, 5], &[7], &[0, 0, 1, 0]] {
            let backends = backends(weights);
            let total: u32 = weights.iter().sum();
            let mut taken = vec![0; weights.len()];
            for random in 0..u64::from(total) {
                taken[pick(&backends, random).unwrap()] += 1;
            }
            assert_eq!(taken, weights);
        }
    }

    #[test]
    fn weights_that_are_all_zero_take_nothing() {
        assert_eq!(pick(&backends(&[]), 7), None);
        assert_eq!(pick(&backends(&[0, 0]), 7), None);
    }

    #[test]
    fn weights_whose_sum_exceeds_32_bits_still_count() {
        let backends = backends(&[u32::MAX, u32::MAX]);
        assert_eq!(pick(&backends, u64::from(u32::MAX) - 1), Some(0));
        assert_eq!(pick(&backends, u64::from(u32::MAX)), Some(1));
    }

    #[test]
    fn a_fraction_takes_its_share_and_none_takes_all() {
        let share = |numerator, denominator| {
            let fraction = Some(Fraction { numerator, denominator });
            (0..1000).filter(|random| takes(fraction, *random)).count()
        };
        assert_eq!(share(20, 100), 200);
        assert_eq!(share(0, 100), 0);
        assert_eq!(share(100, 100), 1000);
        assert_eq!(share(1, 0), 0);
        assert!(takes(None, 999));
    }
}
