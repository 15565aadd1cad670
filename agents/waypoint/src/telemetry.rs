//! What the workers tell about their requests and streams: counted, logged, traced.
//!
//! Invariant: telling never waits and never fails; log and span are made of the same record.

use std::{cell::RefCell, fmt, sync::Arc, time::SystemTime};

use ambit_model::{NetworkAddress, Workload};
use ambit_resilience::Overflow;
use http::{HeaderMap, HeaderValue, Version};

use crate::{
    access_log::{AccessLog, End, Heard, Record},
    context::Shared,
    http::Exchange,
    metrics::{Cache, Ended, Flags, Limit, Metrics, Parties, Sizes, StreamInUse},
    peer::{Known, Peer},
    stream::{Flow, StreamError},
    trace::{Trace, Tracer, Tried},
    upstream::Target,
};

/// Where all workers tell. Clones share.
#[derive(Clone, Debug, Default)]
pub struct Books {
    /// Counters.
    pub metrics: Metrics,
    /// Lines; none writes none.
    pub log: Option<AccessLog>,
    /// Spans; without, trace context only goes through.
    pub tracer: Option<Tracer>,
}

/// The books of one worker.
pub struct Telemetry {
    books: Books,
    series: RefCell<Cache>,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("books", &self.books).finish_non_exhaustive()
    }
}

impl Telemetry {
    /// For a new worker.
    pub fn new(books: &Books) -> Self {
        Self { books: books.clone(), series: RefCell::new(books.metrics.traffic.cache()) }
    }

    /// A request comes in: its trace goes on, or begins.
    pub fn begin(&self, headers: &mut HeaderMap) -> Option<Trace> {
        match &self.books.tracer {
            Some(tracer) => Some(tracer.begin(headers, rand::random())),
            None => Trace::passed(headers),
        }
    }

    /// A request is over.
    pub fn request(&self, exchange: &Exchange) {
        let session = &exchange.session;
        let (service, duration) = (session.service(), exchange.begun.elapsed());
        let client = self.client(&session.local.shared, &session.peer);
        let parties = parties(&client, &service.bound.key, exchange.target.as_deref());
        let (code, flags) = (exchange.status.map(|status| status.as_u16()), Flags::new(&exchange.flags));
        let ended = match exchange.asked.is_grpc {
            true => Ended::grpc(code.unwrap_or_default(), exchange.grpc_status, flags),
            false => Ended::request(code.unwrap_or_default(), flags),
        };
        let (request_messages, response_messages) = exchange.messages();
        let sizes = Sizes {
            duration,
            request: exchange.request_bytes.get(),
            response: exchange.response_bytes,
            request_messages,
            response_messages,
        };
        self.series.borrow_mut().request(&parties, ended, &sizes);
        self.books.metrics.retries.inc_by(exchange.tries.saturating_sub(1).into());
        self.tell(
            exchange.trace.map(|trace| (trace, &exchange.tried[..])),
            &Record {
                request: Some(heard(exchange)),
                flags: &exchange.flags,
                code_details: &exchange.code_details,
                bytes_recv: sizes.request,
                bytes_sent: sizes.response,
                duration,
                tries: exchange.tries,
                route: exchange.rule.as_deref(),
                service: service.hostname(),
                source: source(&client, &session.peer),
                destination: destination(exchange.target.as_deref()),
                trace_id: exchange.trace.map(|trace| trace.id),
                error: exchange.detail.as_deref(),
            },
        );
    }

    /// A stream has reached an endpoint.
    pub fn opened(&self, shared: &Shared, flow: &Flow) -> StreamInUse {
        self.open(shared, flow, Flags::default())
    }

    /// A stream is over.
    pub fn stream(&self, shared: &Shared, flow: &Flow, ended: &Result<(), StreamError>) {
        let flag = [ended.as_ref().err().map_or("", StreamError::flag)];
        let never = || self.open(shared, flow, Flags::new(&flag));
        let series = flow.counted.as_ref();
        let (to_client, to_server) = flow.moved();
        flow.tell();
        match series {
            Some(series) => series.closed(),
            None => never().closed(),
        }
        let error = ended.as_ref().err().map(ToString::to_string);
        let details = ended.as_ref().err().map(StreamError::details).unwrap_or_default();
        let client = self.client(shared, &flow.peer);
        self.tell(
            None,
            &Record {
                request: None,
                flags: if flag == [""] { &[] } else { &flag },
                code_details: &details,
                bytes_recv: to_server,
                bytes_sent: to_client,
                duration: flow.begun.elapsed(),
                tries: 0,
                route: None,
                service: flow.service.hostname(),
                source: source(&client, &flow.peer),
                destination: destination(flow.target.as_deref()),
                trace_id: None,
                error: error.as_deref(),
            },
        );
    }

    /// A limit of a destination refused something.
    pub fn overflowed(&self, overflow: Overflow) {
        self.books.metrics.overflows.get_or_create(&Limit { resource: overflow.0.as_str() }).inc();
    }

    /// So many endpoints are left out from now on.
    pub fn ejected(&self, endpoints: u64) {
        if endpoints > 0 {
            self.books.metrics.ejections.inc_by(endpoints);
        }
    }

    /// A copy of a request did not reach its destination.
    pub fn copy_failed(&self) {
        self.books.metrics.copies_failed.inc();
    }

    /// A rate limit refused a request.
    pub fn rate_limited(&self) {
        self.books.metrics.rate_limited.inc();
    }

    /// A request was believed on a token that never ends.
    pub fn token_without_expiry(&self) {
        self.books.metrics.tokens_without_expiry.inc();
    }

    /// A peer could not prove who it is.
    pub fn handshake_failed(&self) {
        self.books.metrics.handshakes_failed.inc();
    }

    fn open(&self, shared: &Shared, flow: &Flow, flags: Flags) -> StreamInUse {
        let client = self.client(shared, &flow.peer);
        let parties = parties(&client, &flow.service.bound.key, flow.target.as_deref());
        let series = self.series.borrow_mut().stream(&parties, Ended::stream(flags));
        series.opened();
        series
    }

    fn tell(&self, trace: Option<(Trace, &[Tried])>, record: &Record<'_>) {
        if let Some(log) = &self.books.log {
            log.put(record);
        }
        if let (Some(tracer), Some((trace, tried))) = (&self.books.tracer, trace) {
            tracer.end(&trace, record, tried, SystemTime::now());
        }
    }

    /// A client as the mesh knows it. Looked for until the control plane has described the client: its first request may come before that.
    pub fn client(&self, shared: &Shared, peer: &Peer) -> Known {
        if let Some(known) = peer.known.get() {
            return known.clone();
        }
        let workload = described(shared, peer);
        let labels = self.series.borrow_mut().client(&peer.identity, workload.as_ref());
        let known = Known { workload, labels };
        if known.workload.is_some() {
            // The cell is empty, as was seen above.
            let _ = peer.known.set(known.clone());
        }
        known
    }
}

/// The pod of the client's address, if that is who the client proved to be.
fn described(shared: &Shared, peer: &Peer) -> Option<Arc<Workload>> {
    let snapshot = shared.store.load();
    let network = snapshot.workload_by_name(&shared.pod).map(|own| own.network.clone()).unwrap_or_default();
    let address = NetworkAddress { network, address: peer.client.ip().to_canonical() };
    snapshot.workload_by_address(&address).filter(|found| found.identity() == peer.identity).cloned()
}

fn parties<'a>(
    client: &'a Known,
    service: &'a ambit_model::NamespacedName,
    target: Option<&'a Target>,
) -> Parties<'a> {
    Parties { source: &client.labels, service, destination: target.map(|target| &target.workload) }
}

fn source<'a>(client: &'a Known, peer: &'a Peer) -> End<'a> {
    End { addr: Some(peer.client), workload: client.workload.as_deref(), identity: Some(&peer.identity) }
}

fn destination(target: Option<&Target>) -> End<'_> {
    target.map_or_else(End::default, |target| End {
        addr: Some(target.address),
        workload: Some(&target.workload),
        // Whom a tunnel was opened to has proved who it is.
        identity: target.way.as_ref().and_then(|way| way.expected.first()),
    })
}

fn heard(exchange: &Exchange) -> Heard<'_> {
    let asked = &exchange.asked;
    let host = asked.host.as_ref().and_then(|host: &HeaderValue| host.to_str().ok());
    Heard {
        method: asked.method.as_str(),
        path: asked.uri.path(),
        host: asked.uri.authority().map(|authority| authority.as_str()).or(host),
        protocol: protocol(asked.version),
        status: exchange.status.map(|status| status.as_u16()),
        grpc_status: exchange.grpc_status,
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP",
    }
}
