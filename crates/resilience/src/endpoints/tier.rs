//! Endpoints of the same preference.

use std::ops::Range;

/// Endpoints of equal preference.
#[derive(Debug)]
pub(super) struct Tier {
    pub(super) range: Range<usize>,
    /// Running sum of the weights; empty when all are equal.
    pub(super) cumulative: Vec<u64>,
}

impl Tier {
    /// Builds the tiers of endpoints sorted by tier, each given by tier and weight.
    pub(super) fn of(members: impl Iterator<Item = (u32, u32)>) -> Vec<Self> {
        let members: Vec<_> = members.collect();
        let mut start = 0;
        members
            .chunk_by(|(one, _), (other, _)| one == other)
            .map(|tier| {
                let range = start..start + tier.len();
                start = range.end;
                let (_, first) = tier.first().copied().unwrap_or_default();
                let alike = tier.iter().all(|(_, weight)| *weight == first);
                let sums = tier.iter().scan(0_u64, |sum, (_, weight)| {
                    *sum += u64::from(*weight);
                    Some(*sum)
                });
                Self { range, cumulative: if alike { Vec::new() } else { sums.collect() } }
            })
            .collect()
    }

    /// The index selected by `point`, which is uniformly distributed over `u64`.
    pub(super) fn at(&self, point: u64) -> usize {
        let total = self.cumulative.last().copied().unwrap_or(self.range.len() as u64);
        let point = u64::try_from((u128::from(point) * u128::from(total)) >> 64).unwrap_or(0);
        if self.cumulative.is_empty() {
            return usize::try_from(point).unwrap_or(0);
        }
        self.cumulative.partition_point(|end| *end <= point)
    }
}
