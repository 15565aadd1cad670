//! A histogram of integers, without locks.
//!
//! Invariant: every observation is in exactly one bucket, so that the count is the sum of all buckets.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use prometheus_client::encoding::{MetricEncoder, NoLabelSet};

/// Largest number of buckets; the last one in use has no upper bound.
const BUCKETS_MAX: usize = 13;
const THOUSAND: f64 = 1000.0;

/// Observations by bucket.
#[derive(Debug)]
pub(super) struct Histogram {
    /// In thousandths of the unit, fewer than [`BUCKETS_MAX`].
    bounds: &'static [u64],
    buckets: [AtomicU64; BUCKETS_MAX],
    sum: AtomicU64,
}

impl Histogram {
    /// With these upper bounds, in thousandths of the unit.
    pub(super) fn new(bounds: &'static [u64]) -> Self {
        Self { bounds, buckets: Default::default(), sum: AtomicU64::new(0) }
    }

    /// Adds an observation in thousandths of the unit: microseconds, or thousandths of a byte.
    pub(super) fn observe(&self, thousandths: u64) {
        let at = self.bounds.partition_point(|bound| *bound < thousandths);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(thousandths, Ordering::Relaxed);
    }

    pub(super) fn encode(&self, mut metric: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let bounds = self.bounds.iter().map(|bound| *bound as f64 / THOUSAND).chain([f64::INFINITY]);
        let mut buckets = [(0.0, 0); BUCKETS_MAX];
        let mut count = 0;
        for ((into, bound), bucket) in buckets.iter_mut().zip(bounds).zip(&self.buckets) {
            *into = (bound, bucket.load(Ordering::Relaxed));
            count += into.1;
        }
        let sum = self.sum.load(Ordering::Relaxed) as f64 / THOUSAND;
        let used = buckets.get(..=self.bounds.len()).unwrap_or(&buckets);
        metric.encode_histogram::<NoLabelSet>(sum, count, used, None)
    }
}
