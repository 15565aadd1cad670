//! Counters of connections and bytes per label set.
//!
//! Invariant: at most [`SERIES_MAX`] series exist in addition to those for overflow; see
//! [`ambit_runtime::series`].

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use ambit_runtime::series::{self, Table};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::labels::{Labels, Reporter, ResponseFlags};

/// Number of series; everything beyond is counted in [`Labels::overflow`].
pub(crate) const SERIES_MAX: usize = 10_000;

/// The counters of one label set.
#[derive(Debug, Default)]
pub struct Counts {
    opened: AtomicU64,
    closed: AtomicU64,
    failed: AtomicU64,
    /// Bytes to the client: Istio's `sent`.
    to_client: AtomicU64,
    /// Bytes to the server: Istio's `received`.
    to_server: AtomicU64,
}

impl Counts {
    /// Counts a connection that starts.
    pub fn opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection that ends, successfully or not.
    pub fn closed(&self) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection that ended with an error.
    pub fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds bytes sent to the client.
    pub fn to_client(&self, bytes: u64) {
        self.to_client.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Adds bytes sent to the server.
    pub fn to_server(&self, bytes: u64) {
        self.to_server.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A series in use, which is not removed before this is dropped.
pub(crate) type InUse = series::InUse<Counts>;

/// All series of the process.
#[derive(Clone, Debug)]
pub struct Traffic(Table<Labels, Counts>);

impl Default for Traffic {
    fn default() -> Self {
        Self(Table::new(SERIES_MAX))
    }
}

impl Traffic {
    /// A cache for one worker.
    pub fn cache(&self) -> Cache {
        Cache(self.0.cache())
    }

    /// Removes series that have been unused for at least `unused`.
    pub fn sweep(&self, unused: Duration) {
        self.0.sweep(unused);
    }
}

impl series::Labels for Labels {
    fn overflow(&self) -> Self {
        Self::overflow(self.reporter)
    }
}

/// A worker's cache of series: no lock once a series is cached.
#[derive(Debug)]
pub struct Cache(series::Cache<Labels, (), Labels, Counts>);

impl Cache {
    /// The counters of one connection.
    pub fn acquire(&mut self, labels: &Labels) -> InUse {
        self.0.acquire(labels, || ((), labels.clone()))
    }

    /// Counts a failure with the labels of the connection.
    pub fn failed(&mut self, labels: &Labels, flags: ResponseFlags) {
        self.acquire(&Labels { flags, ..labels.clone() }).failed();
    }

    /// Counts a connection that ended before anything was known about it.
    pub fn failed_early(&mut self, reporter: Reporter, flags: ResponseFlags) {
        self.acquire(&Labels { flags, ..Labels::unknown(reporter) }).failed();
    }
}

/// Name, help text and counter of one metric family.
type Family = (&'static str, &'static str, fn(&Counts) -> u64);

const FAMILIES: [Family; 5] = [
    ("istio_tcp_connections_opened", "TCP connections opened", |s| s.opened.load(Ordering::Relaxed)),
    ("istio_tcp_connections_closed", "TCP connections closed", |s| s.closed.load(Ordering::Relaxed)),
    ("istio_tcp_connections_failed", "TCP connections that ended with an error", |s| {
        s.failed.load(Ordering::Relaxed)
    }),
    ("istio_tcp_received_bytes", "Bytes received from clients", |s| s.to_server.load(Ordering::Relaxed)),
    ("istio_tcp_sent_bytes", "Bytes sent to clients", |s| s.to_client.load(Ordering::Relaxed)),
];

impl Collector for Traffic {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let rows = self.0.rows();
        for (name, help, value) in FAMILIES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for row in &rows {
                let mut metric = family.encode_family(row.labels.as_ref())?;
                metric.encode_counter::<NoLabelSet, u64, u64>(&value(row.counts()), None)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
