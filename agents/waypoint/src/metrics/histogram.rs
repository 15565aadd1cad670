//! A histogram with Istio's buckets.
//!
//! Invariant: every observation is in exactly one bucket, so that the count is the sum of all.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use prometheus_client::encoding::{MetricEncoder, NoLabelSet};

/// Upper bounds in thousandths of the unit (milliseconds or bytes): those of Envoy, which Istio's dashboards expect.
const BOUNDS: [u64; 19] = [
    500,
    1_000,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    600_000_000,
    1_800_000_000,
    3_600_000_000,
];
/// The last one has no bound.
const BUCKETS: usize = BOUNDS.len() + 1;
const THOUSAND: f64 = 1000.0;

/// Counts by size.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Histogram {
    /// Takes thousandths: of a millisecond, or of a byte.
    pub(super) fn observe(&self, thousandths: u64) {
        let at = BOUNDS.partition_point(|bound| *bound < thousandths);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(thousandths, Ordering::Relaxed);
    }

    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    pub(super) fn encode(&self, mut metric: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let bounds = BOUNDS.iter().map(|bound| *bound as f64 / THOUSAND).chain([f64::INFINITY]);
        let mut buckets = [(0.0, 0); BUCKETS];
        let mut count = 0;
        for ((into, bound), bucket) in buckets.iter_mut().zip(bounds).zip(&self.buckets) {
            *into = (bound, bucket.load(Ordering::Relaxed));
            count += into.1;
        }
        let sum = self.sum.load(Ordering::Relaxed) as f64 / THOUSAND;
        metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}
