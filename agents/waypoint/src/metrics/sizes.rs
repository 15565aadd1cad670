//! Histograms of durations and sizes: one set for each label set up to a limit, a shared one beyond.
//!
//! Invariant: at most [`HISTOGRAMS_MAX`] label sets have histograms of their own; series of overflow use the shared ones.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ambit_runtime::series::Labels as _;

use super::{histogram::Histogram, labels::Labels};

/// Label sets with histograms of their own; each is 35 lines of a scrape, see [`super::SERIES_MAX`].
pub(super) const HISTOGRAMS_MAX: usize = 150;

/// Upper bounds in microseconds: a subset of Envoy's, so that Istio's dashboards show comparable quantiles.
const DURATIONS: &[u64] = &[
    1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    60_000_000,
];
/// Upper bounds in thousandths of a byte.
const BYTES: &[u64] = &[100_000, 1_000_000, 10_000_000, 60_000_000, 600_000_000, 3_600_000_000];

/// Duration and sizes of a finished request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Time from its head to the end of the response.
    pub duration: Duration,
    /// Bytes of the request's body.
    pub request: u64,
    /// Bytes of the response's body.
    pub response: u64,
    /// gRPC messages of the request.
    pub request_messages: u64,
    /// gRPC messages of the response.
    pub response_messages: u64,
}

/// The histograms of one label set.
#[derive(Debug)]
pub(super) struct Histograms {
    pub duration: Histogram,
    pub request: Histogram,
    pub response: Histogram,
}

impl Default for Histograms {
    fn default() -> Self {
        Self {
            duration: Histogram::new(DURATIONS),
            request: Histogram::new(BYTES),
            response: Histogram::new(BYTES),
        }
    }
}

impl Histograms {
    fn observe(&self, sizes: &Sizes) {
        self.duration.observe(u64::try_from(sizes.duration.as_micros()).unwrap_or(u64::MAX));
        self.request.observe(sizes.request.saturating_mul(1000));
        self.response.observe(sizes.response.saturating_mul(1000));
    }
}

/// The histograms that a series uses.
#[derive(Debug)]
pub(super) struct Assigned {
    histograms: Arc<Histograms>,
    /// `None` if they are the shared ones.
    place: Option<Place>,
}

/// Takes one of [`HISTOGRAMS_MAX`] while it lives.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Assigned {
    /// Adds a request.
    pub(super) fn observe(&self, sizes: &Sizes) {
        self.histograms.observe(sizes);
    }

    /// The histograms, if they are the series' own.
    pub(super) fn own(&self) -> Option<&Histograms> {
        self.place.as_ref().map(|_place| &*self.histograms)
    }
}

/// Assigns histograms to series, and holds the shared ones. Clones share.
#[derive(Clone, Debug, Default)]
pub(super) struct Allotment {
    taken: Arc<AtomicUsize>,
    shared: Arc<Mutex<HashMap<Labels, Arc<Histograms>>>>,
}

impl Allotment {
    /// Assigns histograms to the series of these labels.
    pub(super) fn assign(&self, labels: &Labels) -> Assigned {
        let one_more = |taken: usize| (taken < HISTOGRAMS_MAX).then(|| taken + 1);
        let has_room = !labels.overflow
            && self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok();
        if has_room {
            let place = Place(self.taken.clone());
            return Assigned { histograms: Arc::default(), place: Some(place) };
        }
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        Assigned { histograms: shared.entry(labels.overflow()).or_default().clone(), place: None }
    }

    /// The shared histograms, for a scrape.
    pub(super) fn shared(&self) -> Vec<(Labels, Arc<Histograms>)> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.iter().map(|(labels, histograms)| (labels.clone(), histograms.clone())).collect()
    }
}
