//! `istio_requests_total` and its histograms, and `istio_tcp_*`.
//!
//! Invariant: at most [`SERIES_MAX`] label sets of requests and [`STREAMS_MAX`] of streams exist beside those of overflow. A
//! request finds its series by the addresses of objects that it holds anyway; the cache keeps those objects alive, so
//! that no address is reused.

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

/// Series of requests. Keeps a scrape below 10 MB: a line has about 1 kB, nearly all of it labels, and a series has 3 lines,
/// 35 more if it has histograms of its own; a series of streams has 4.
pub const SERIES_MAX: usize = 1000;
/// Series of byte streams.
pub const STREAMS_MAX: usize = 400;
/// Clients whose labels one worker caches.
const CLIENTS_MAX: usize = 4096;

/// Counters of the requests of one label set.
#[derive(Debug, Default)]
pub struct Requests {
    count: AtomicU64,
    /// gRPC only.
    request_messages: AtomicU64,
    response_messages: AtomicU64,
    /// Assigned when its first request has finished.
    sizes: OnceLock<Assigned>,
}

/// Counters of the streams of one label set.
#[derive(Debug, Default)]
pub struct Streams {
    opened: AtomicU64,
    closed: AtomicU64,
    to_client: AtomicU64,
    to_server: AtomicU64,
}

/// A series of streams, kept while a stream uses it.
pub type StreamInUse = series::InUse<Streams>;

/// Client, service and endpoint of a request.
#[derive(Clone, Copy, Debug)]
pub struct Parties<'a> {
    /// Labels of the client, from [`Cache::client`].
    pub source: &'a Arc<End>,
    /// The service that the client addressed.
    pub service: &'a NamespacedName,
    /// The endpoint; `None` if nothing was sent anywhere.
    pub destination: Option<&'a Arc<Workload>>,
}

impl Streams {
    /// Counts the beginning of a stream.
    pub fn opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds bytes of a stream.
    pub fn moved(&self, to_client: u64, to_server: u64) {
        self.to_client.fetch_add(to_client, Ordering::Relaxed);
        self.to_server.fetch_add(to_server, Ordering::Relaxed);
    }

    /// Counts the end of a stream.
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
    /// A cache for one worker.
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

/// The addresses of the objects in [`Pinned`], and how the request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    source: usize,
    service: [usize; 2],
    destination: usize,
    ended: Ended,
}

/// Keeps the objects alive whose addresses are in a [`Key`].
type Pinned = (Arc<End>, NamespacedName, Option<Arc<Workload>>);

/// The labels of a client, and the workload whose address is in its key.
type Client = (Option<Arc<Workload>>, Arc<End>);

/// The series that one worker has used: looked up without a lock.
#[derive(Debug)]
pub struct Cache {
    clients: HashMap<(Spiffe, usize), Client>,
    requests: series::Cache<Key, Pinned, Labels, Requests>,
    streams: series::Cache<Key, Pinned, Labels, Streams>,
    traffic: Traffic,
}

impl Cache {
    /// The labels of a client; called once per connection. `workload` is the pod of its address, if known.
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

    /// Counts a finished request.
    pub fn request(&mut self, parties: &Parties<'_>, ended: Ended, sizes: &Sizes) {
        let series = self.requests.acquire(&parties.key(ended), || parties.resolved(ended));
        series.count.fetch_add(1, Ordering::Relaxed);
        if ended.is_grpc() {
            series.request_messages.fetch_add(sizes.request_messages, Ordering::Relaxed);
            series.response_messages.fetch_add(sizes.response_messages, Ordering::Relaxed);
        }
        let assigned = series.sizes.get_or_init(|| {
            // In use, so it is in the table; it may be the series of overflow.
            let labels = self.traffic.requests.labels(&series);
            self.traffic.allotment.assign(&labels.unwrap_or_else(|| parties.resolved(ended).1.into()))
        });
        assigned.observe(sizes);
    }

    /// The series of a stream.
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
            // The peer of a tunnel has proved its identity.
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

/// Name, help text and value of a metric family.
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
