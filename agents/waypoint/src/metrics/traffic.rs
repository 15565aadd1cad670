//! `istio_requests_total` and its histograms, and `istio_tcp_*`.
//!
//! Invariant: at most [`SERIES_MAX`] label sets of each kind exist beside those of overflow. A request finds its series
//! by addresses of what it holds anyway; what they belong to is kept alive for as long as they are remembered.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ambit_model::{NamespacedName, Spiffe, TunnelProtocol, Workload, bound::PODS};
use ambit_runtime::series::{self, Row, Table};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::{
    histogram::Histogram,
    labels::{End, Ended, Labels},
};

/// Series kept of requests, and of streams. A series of requests is 70 lines of a scrape.
pub const SERIES_MAX: usize = 2000;
/// How long a series that nobody uses is kept.
pub const UNUSED_MAX: Duration = Duration::from_secs(15 * 60);
/// Clients that one worker remembers.
const CLIENTS_MAX: usize = 4096;

/// What is counted of the requests of one label set; their number is that of the durations.
#[derive(Debug, Default)]
pub struct Requests {
    duration: Histogram,
    request: Histogram,
    response: Histogram,
}

/// What is counted of the streams of one label set.
#[derive(Debug, Default)]
pub struct Streams {
    opened: AtomicU64,
    closed: AtomicU64,
    to_client: AtomicU64,
    to_server: AtomicU64,
}

/// A series of streams in use.
pub type StreamInUse = series::InUse<Streams>;

/// Sizes of a request that is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// From its head to the end of the response.
    pub duration: Duration,
    /// Bytes of its body.
    pub request: u64,
    /// Bytes of the response's body.
    pub response: u64,
}

/// Who took part.
#[derive(Clone, Copy, Debug)]
pub struct Parties<'a> {
    /// The client, of [`Cache::client`].
    pub source: &'a Arc<End>,
    /// The service it asked for.
    pub service: &'a NamespacedName,
    /// The endpoint; none where there was none.
    pub destination: Option<&'a Arc<Workload>>,
}

impl Streams {
    /// A stream began.
    pub fn opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    /// A stream ended, and moved that much.
    pub fn closed(&self, to_client: u64, to_server: u64) {
        self.to_client.fetch_add(to_client, Ordering::Relaxed);
        self.to_server.fetch_add(to_server, Ordering::Relaxed);
        self.closed.fetch_add(1, Ordering::Relaxed);
    }
}

/// All series of the process. Clones share.
#[derive(Clone, Debug)]
pub struct Traffic {
    requests: Table<Labels, Requests>,
    streams: Table<Labels, Streams>,
}

impl Default for Traffic {
    fn default() -> Self {
        Self { requests: Table::new(SERIES_MAX), streams: Table::new(SERIES_MAX) }
    }
}

impl Traffic {
    /// A way in for one worker.
    pub fn cache(&self) -> Cache {
        Cache { clients: HashMap::new(), requests: self.requests.cache(), streams: self.streams.cache() }
    }

    /// Drops series that have not been used for `unused`.
    pub fn sweep(&self, unused: Duration) {
        self.requests.sweep(unused);
        self.streams.sweep(unused);
    }
}

/// Addresses of what [`Pinned`] keeps alive, and how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    source: usize,
    service: [usize; 2],
    destination: usize,
    ended: Ended,
}

/// Keeps the addresses of a [`Key`] from being given to something else.
type Pinned = (Arc<End>, NamespacedName, Option<Arc<Workload>>);

/// Its labels, and what keeps its address from being given to another.
type Client = (Option<Arc<Workload>>, Arc<End>);

/// One worker's way to the series: no lock once a series is known.
#[derive(Debug)]
pub struct Cache {
    clients: HashMap<(Spiffe, usize), Client>,
    requests: series::Cache<Key, Pinned, Labels, Requests>,
    streams: series::Cache<Key, Pinned, Labels, Streams>,
}

impl Cache {
    /// A client, once per connection: who it proved to be, and what the mesh knows of its address.
    pub fn client(&mut self, identity: &Spiffe, workload: Option<&Arc<Workload>>) -> Arc<End> {
        let key = (identity.clone(), workload.map_or(0, address));
        if let Some((_, end)) = self.clients.get(&key) {
            return end.clone();
        }
        if self.clients.len() >= CLIENTS_MAX {
            self.clients.clear();
        }
        let end = Arc::new(End::new(workload.map(|workload| &**workload), Some(identity.clone())));
        self.clients.insert(key, (workload.cloned(), end.clone()));
        end
    }

    /// Counts a request that is over.
    pub fn request(&mut self, parties: &Parties<'_>, ended: Ended, sizes: &Sizes) {
        let series = self.requests.acquire(&parties.key(ended), || parties.resolved(ended));
        series.duration.observe(u64::try_from(sizes.duration.as_micros()).unwrap_or(u64::MAX));
        series.request.observe(sizes.request.saturating_mul(1000));
        series.response.observe(sizes.response.saturating_mul(1000));
    }

    /// Counters for one stream.
    pub fn stream(&mut self, parties: &Parties<'_>, ended: Ended) -> StreamInUse {
        self.streams.acquire(&parties.key(ended), || parties.resolved(ended))
    }
}

fn address<T: ?Sized>(of: &Arc<T>) -> usize {
    Arc::as_ptr(of).cast::<()>().addr()
}

impl Parties<'_> {
    fn key(&self, ended: Ended) -> Key {
        Key {
            source: address(self.source),
            service: [address(&self.service.namespace), address(&self.service.name)],
            destination: self.destination.map_or(0, address),
            ended,
        }
    }

    fn resolved(&self, ended: Ended) -> (Pinned, Labels) {
        let destination = self.destination.map_or_else(End::default, |workload| {
            // A tunnel ends only at who it was meant for.
            let proved = match workload.tunnel_protocol {
                TunnelProtocol::Hbone => Some(workload.identity()),
                TunnelProtocol::None => None,
            };
            End::new(Some(workload), proved)
        });
        let labels = Labels {
            source: self.source.clone(),
            destination: Arc::new(destination),
            service: Some(self.service.clone()).filter(|service| &*service.name != PODS),
            ended,
            overflow: false,
        };
        ((self.source.clone(), self.service.clone(), self.destination.cloned()), labels)
    }
}

/// Name, help and the value of one family.
type Family<S, V> = (&'static str, &'static str, fn(&S) -> V);
type Sizing = for<'a> fn(&'a Requests) -> &'a Histogram;

const HISTOGRAMS: [(&str, &str, Sizing); 3] = [
    ("istio_request_duration_milliseconds", "From the head of a request to the end of its response", |r| {
        &r.duration
    }),
    ("istio_request_bytes", "Sizes of request bodies", |r| &r.request),
    ("istio_response_bytes", "Sizes of response bodies", |r| &r.response),
];
const REQUESTS: [Family<Requests, u64>; 1] = [("istio_requests", "Requests", |r| r.duration.count())];
const STREAMS: [Family<Streams, u64>; 4] = [
    ("istio_tcp_connections_opened", "Streams opened", |s| s.opened.load(Ordering::Relaxed)),
    ("istio_tcp_connections_closed", "Streams closed", |s| s.closed.load(Ordering::Relaxed)),
    ("istio_tcp_received_bytes", "Bytes received from clients", |s| s.to_server.load(Ordering::Relaxed)),
    ("istio_tcp_sent_bytes", "Bytes sent to clients", |s| s.to_client.load(Ordering::Relaxed)),
];

fn encode_counters<S>(
    encoder: &mut DescriptorEncoder<'_>,
    families: &[Family<S, u64>],
    rows: &[Row<Labels, S>],
) -> Result<(), fmt::Error> {
    for (name, help, value) in families {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for row in rows {
            let mut metric = family.encode_family(row.labels.as_ref())?;
            metric.encode_counter::<NoLabelSet, u64, u64>(&value(row.counts()), None)?;
        }
    }
    Ok(())
}

impl Collector for Traffic {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let rows = self.requests.rows();
        encode_counters(&mut encoder, &REQUESTS, &rows)?;
        for (name, help, histogram) in HISTOGRAMS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
            for row in &rows {
                histogram(row.counts()).encode(family.encode_family(row.labels.as_ref())?)?;
            }
        }
        encode_counters(&mut encoder, &STREAMS, &self.streams.rows())
    }
}

#[cfg(test)]
mod tests;
