//! Counters of connections and bytes, one set per label set.
//!
//! Invariant: at most [`SERIES_MAX`] series exist; a series is dropped only while no connection uses it and nothing
//! has for [`UNUSED_MAX`], and a connection never counts into a dropped one.

use std::{
    collections::{HashMap, hash_map::Entry as Slot},
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::labels::{Labels, Reporter, ResponseFlags};

/// Series kept; what comes after is counted as [`Labels::overflow`].
pub const SERIES_MAX: usize = 10_000;
/// How long a series that nobody uses is kept.
pub const UNUSED_MAX: Duration = Duration::from_secs(15 * 60);
/// Series that one worker remembers without asking the shared table.
const CACHE_MAX: usize = 4096;

/// The counters of one label set.
#[derive(Debug, Default)]
pub struct Series {
    opened: AtomicU64,
    closed: AtomicU64,
    failed: AtomicU64,
    /// Bytes towards the client: Istio's `sent`.
    to_client: AtomicU64,
    /// Bytes towards the server: Istio's `received`.
    to_server: AtomicU64,
    users: AtomicU64,
    retired: AtomicBool,
    /// Milliseconds since the table was made.
    used_at: AtomicU64,
}

/// A series in use: it stays in the table while this lives.
#[derive(Debug)]
pub struct InUse {
    series: Arc<Series>,
    epoch: Instant,
}

impl InUse {
    /// A connection began.
    pub fn opened(&self) {
        self.series.opened.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection ended, well or not.
    pub fn closed(&self) {
        self.series.closed.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection ended with an error.
    pub fn failed(&self) {
        self.series.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes went to the client.
    pub fn to_client(&self, bytes: u64) {
        self.series.to_client.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes went to the server.
    pub fn to_server(&self, bytes: u64) {
        self.series.to_server.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.series.used_at.store(millis(self.epoch), Ordering::Relaxed);
        self.series.users.fetch_sub(1, Ordering::SeqCst);
    }
}

fn millis(epoch: Instant) -> u64 {
    u64::try_from(epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// All series of the process.
#[derive(Clone)]
pub struct Traffic {
    table: Arc<Mutex<HashMap<Arc<Labels>, Arc<Series>>>>,
    epoch: Instant,
}

impl Default for Traffic {
    fn default() -> Self {
        Self { table: Arc::default(), epoch: Instant::now() }
    }
}

impl fmt::Debug for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traffic").field("series", &self.lock().len()).finish()
    }
}

/// One worker's way to the series: no lock once a series is known.
#[derive(Debug)]
pub struct Cache {
    traffic: Traffic,
    known: HashMap<Labels, Arc<Series>>,
}

impl Traffic {
    /// A way in for one worker.
    pub fn cache(&self) -> Cache {
        Cache { traffic: self.clone(), known: HashMap::new() }
    }

    /// Drops series that have not been used for `unused`.
    pub fn sweep(&self, unused: Duration) {
        let limit = u64::try_from(unused.as_millis()).unwrap_or(u64::MAX);
        let now = millis(self.epoch);
        self.lock().retain(|_, series| {
            if now.saturating_sub(series.used_at.load(Ordering::Relaxed)) < limit {
                return true;
            }
            // Whoever takes the series next adds itself first and looks at `retired` afterwards.
            series.retired.store(true, Ordering::SeqCst);
            if series.users.load(Ordering::SeqCst) == 0 {
                return false;
            }
            series.retired.store(false, Ordering::SeqCst);
            true
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Arc<Labels>, Arc<Series>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The series of `labels`, held by the caller.
    fn series(&self, labels: &Labels) -> Arc<Series> {
        let mut table = self.lock();
        let key = if table.len() < SERIES_MAX || table.contains_key(labels) {
            Arc::new(labels.clone())
        } else {
            Arc::new(Labels::overflow(labels.reporter))
        };
        let series = match table.entry(key) {
            Slot::Occupied(slot) => slot.get().clone(),
            Slot::Vacant(slot) => slot.insert(Arc::default()).clone(),
        };
        // Under the lock: `sweep` cannot retire it in between.
        series.users.fetch_add(1, Ordering::SeqCst);
        series
    }
}

impl Cache {
    /// Counters for one connection.
    pub fn acquire(&mut self, labels: &Labels) -> InUse {
        let epoch = self.traffic.epoch;
        if let Some(series) = self.known.get(labels) {
            series.users.fetch_add(1, Ordering::SeqCst);
            if !series.retired.load(Ordering::SeqCst) {
                return InUse { series: series.clone(), epoch };
            }
            series.users.fetch_sub(1, Ordering::SeqCst);
        }
        let series = self.traffic.series(labels);
        if self.known.len() >= CACHE_MAX {
            self.known.clear();
        }
        self.known.insert(labels.clone(), series.clone());
        InUse { series, epoch }
    }

    /// Counts a failure under the labels of the connection and what went wrong.
    pub fn failed(&mut self, labels: &Labels, flags: ResponseFlags) {
        self.acquire(&Labels { flags, ..labels.clone() }).failed();
    }

    /// Counts a connection that ended before anything was known about it.
    pub fn failed_early(&mut self, reporter: Reporter, flags: ResponseFlags) {
        self.acquire(&Labels { flags, ..Labels::unknown(reporter) }).failed();
    }
}

/// Name, help and the counter of one family.
type Family = (&'static str, &'static str, fn(&Series) -> u64);

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
        let rows: Vec<_> =
            self.lock().iter().map(|(labels, series)| (labels.clone(), series.clone())).collect();
        for (name, help, value) in FAMILIES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (labels, series) in &rows {
                let mut metric = family.encode_family(labels.as_ref())?;
                metric.encode_counter::<NoLabelSet, u64, u64>(&value(series), None)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
