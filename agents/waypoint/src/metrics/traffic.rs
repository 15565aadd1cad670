//! `istio_requests_total` and its histograms, and `istio_tcp_*`.
//!
//! Invariant: at most [`SERIES_MAX`] label sets of each kind exist beside those of overflow. A request finds its series
//! by addresses of what it holds anyway; what they belong to is kept alive for as long as they are remembered.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, OnceLock,
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
    sizes::{Allotment, Assigned, Histograms, Sizes},
};

/// Series kept of requests. A line of a scrape is 1 kB long, nearly all of it labels, and a scrape is to stay below
/// 10 MB: 3 lines each, beside the 35 of those that have histograms of their own and 4 for each series of streams.
pub const SERIES_MAX: usize = 1000;
/// Series kept of streams.
pub const STREAMS_MAX: usize = 400;
/// How long a series that nobody uses is kept.
pub const UNUSED_MAX: Duration = Duration::from_secs(15 * 60);
/// Clients that one worker remembers.
const CLIENTS_MAX: usize = 4096;

/// What is counted of the requests of one label set.
#[derive(Debug, Default)]
pub struct Requests {
    count: AtomicU64,
    /// Of gRPC.
    request_messages: AtomicU64,
    response_messages: AtomicU64,
    /// Found once its first request is over.
    sizes: OnceLock<Assigned>,
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

    /// A stream moved that much more.
    pub fn moved(&self, to_client: u64, to_server: u64) {
        self.to_client.fetch_add(to_client, Ordering::Relaxed);
        self.to_server.fetch_add(to_server, Ordering::Relaxed);
    }

    /// A stream ended.
    pub fn closed(&self) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }
}

/// All series of the process. Clones share.
#[derive(Clone, Debug)]
pub struct Traffic {
    requests: Table<Labels, Requests>,
    streams: Table<Labels, Streams>,
    allotment: Allotment,
}

impl Default for Traffic {
    fn default() -> Self {
        let (requests, streams) = (Table::new(SERIES_MAX), Table::new(STREAMS_MAX));
        Self { requests, streams, allotment: Allotment::default() }
    }
}

impl Traffic {
    /// A way in for one worker.
    pub fn cache(&self) -> Cache {
        Cache {
            clients: HashMap::new(),
            requests: self.requests.cache(),
            streams: self.streams.cache(),
            traffic: self.clone(),
        }
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
    traffic: Traffic,
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
        series.count.fetch_add(1, Ordering::Relaxed);
        if ended.is_grpc() {
            series.request_messages.fetch_add(sizes.request_messages, Ordering::Relaxed);
            series.response_messages.fetch_add(sizes.response_messages, Ordering::Relaxed);
        }
        let assigned = series.sizes.get_or_init(|| {
            // In use, so it is in the table; it may be one of overflow.
            let labels = self.traffic.requests.labels(&series);
            self.traffic.allotment.assign(&labels.unwrap_or_else(|| parties.resolved(ended).1.into()))
        });
        assigned.observe(sizes);
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
type Sizing = for<'a> fn(&'a Histograms) -> &'a Histogram;

const HISTOGRAMS: [(&str, &str, Sizing); 3] = [
    ("istio_request_duration_milliseconds", "From the head of a request to the end of its response", |r| {
        &r.duration
    }),
    ("istio_request_bytes", "Sizes of request bodies", |r| &r.request),
    ("istio_response_bytes", "Sizes of response bodies", |r| &r.response),
];
const REQUESTS: [Family<Requests, u64>; 1] =
    [("istio_requests", "Requests", |r| r.count.load(Ordering::Relaxed))];
const MESSAGES: [Family<Requests, u64>; 2] = [
    ("istio_request_messages", "gRPC messages of requests", |r| r.request_messages.load(Ordering::Relaxed)),
    ("istio_response_messages", "gRPC messages of responses", |r| {
        r.response_messages.load(Ordering::Relaxed)
    }),
];
const STREAMS: [Family<Streams, u64>; 4] = [
    ("istio_tcp_connections_opened", "Streams opened", |s| s.opened.load(Ordering::Relaxed)),
    ("istio_tcp_connections_closed", "Streams closed", |s| s.closed.load(Ordering::Relaxed)),
    ("istio_tcp_received_bytes", "Bytes received from clients", |s| s.to_server.load(Ordering::Relaxed)),
    ("istio_tcp_sent_bytes", "Bytes sent to clients", |s| s.to_client.load(Ordering::Relaxed)),
];

fn encode_counters<S>(
    encoder: &mut DescriptorEncoder<'_>,
    families: &[Family<S, u64>],
    rows: &[&Row<Labels, S>],
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
        let (requests, streams) = (self.requests.rows(), self.streams.rows());
        let all: Vec<_> = requests.iter().collect();
        encode_counters(&mut encoder, &REQUESTS, &all)?;
        let grpc: Vec<_> = all.into_iter().filter(|row| row.labels.ended.is_grpc()).collect();
        encode_counters(&mut encoder, &MESSAGES, &grpc)?;
        let shared = self.allotment.shared();
        for (name, help, histogram) in HISTOGRAMS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
            for row in &requests {
                if let Some(own) = row.counts().sizes.get().and_then(Assigned::own) {
                    histogram(own).encode(family.encode_family(row.labels.as_ref())?)?;
                }
            }
            for (labels, of_all) in &shared {
                histogram(of_all).encode(family.encode_family(labels)?)?;
            }
        }
        encode_counters(&mut encoder, &STREAMS, &streams.iter().collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests;
