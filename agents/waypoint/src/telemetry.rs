//! What the workers report about their requests and streams: counted, logged, traced.
//!
//! Invariant: reporting never waits and never fails; log line and span are made of the same record.

use std::{cell::RefCell, fmt, sync::Arc, time::SystemTime};

use ambit_model::{NamespacedName, Spiffe, Workload};
use ambit_proxy::access_log::AccessLog;
use ambit_resilience::Overflow;
use http::HeaderMap;

use crate::{
    access_log::{End, Record},
    metrics::{self, Cache, CheckResult, Ended, Flags, Limit, Metrics, Parties, Sizes, StreamInUse},
    peer::{Known, Peer},
    trace::{Trace, Tracer, Tried},
    upstream::Endpoint,
};

/// Where all workers report to. Clones share.
#[derive(Clone, Debug, Default)]
pub struct Sinks {
    /// Counters.
    pub metrics: Metrics,
    /// Access log; `None` while it is off.
    pub log: Option<AccessLog>,
    /// Spans; `None` while tracing is off: trace context then only passes through.
    pub tracer: Option<Tracer>,
}

/// The reports of one worker.
pub struct Telemetry {
    sinks: Sinks,
    series: RefCell<Cache>,
}

/// The two ends of a request or stream.
#[derive(Clone, Copy, Debug)]
pub struct Ends<'a> {
    /// The client's connection.
    pub peer: &'a Peer,
    /// The client as the mesh knows it.
    pub client: &'a Known,
    /// Key of the service that the client asked for.
    pub service: &'a NamespacedName,
    /// The endpoint; `None` if nothing was sent anywhere.
    pub endpoint: Option<&'a Endpoint>,
}

/// A request that is over.
#[derive(Clone, Copy, Debug)]
pub struct FinishedRequest<'a> {
    /// Its ends.
    pub ends: Ends<'a>,
    /// As it is logged.
    pub record: Record<'a>,
    /// Whether it is counted as gRPC.
    pub is_grpc: bool,
    /// gRPC messages of the request, and of the response.
    pub messages: (u64, u64),
    /// Its trace, and its tries if there were several.
    pub trace: Option<(Trace, &'a [Tried])>,
}

/// A stream that is over.
#[derive(Clone, Copy, Debug)]
pub struct FinishedStream<'a> {
    /// Its ends.
    pub ends: Ends<'a>,
    /// As it is logged.
    pub record: Record<'a>,
    /// Where it was counted as open; `None` if it never reached an endpoint.
    pub counted: Option<&'a StreamInUse>,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("sinks", &self.sinks).finish_non_exhaustive()
    }
}

impl Telemetry {
    /// For a new worker.
    pub fn new(sinks: &Sinks) -> Self {
        Self { sinks: sinks.clone(), series: RefCell::new(sinks.metrics.traffic.cache()) }
    }

    /// The metric labels of a client.
    pub fn client_labels(&self, identity: &Spiffe, workload: Option<&Arc<Workload>>) -> Arc<metrics::End> {
        self.series.borrow_mut().client(identity, workload)
    }

    /// Continues the trace of a new request, or begins one.
    pub fn begin(&self, headers: &mut HeaderMap) -> Option<Trace> {
        match &self.sinks.tracer {
            Some(tracer) => Some(tracer.begin(headers, rand::random())),
            None => Trace::passed(headers),
        }
    }

    /// Reports a request that is over.
    pub fn request(&self, finished: &FinishedRequest<'_>) {
        let FinishedRequest { ends, record, is_grpc, messages, trace } = finished;
        let fields = record.request.as_ref();
        let (code, flags) = (fields.and_then(|fields| fields.status), Flags::new(record.flags));
        let grpc_status = fields.and_then(|fields| fields.grpc_status);
        let ended = match is_grpc {
            true => Ended::grpc(code.unwrap_or_default(), grpc_status, flags),
            false => Ended::request(code.unwrap_or_default(), flags),
        };
        let (request_messages, response_messages) = *messages;
        let sizes = Sizes {
            duration: record.duration,
            request: record.bytes_recv,
            response: record.bytes_sent,
            request_messages,
            response_messages,
        };
        self.series.borrow_mut().request(&ends.parties(), ended, &sizes);
        self.sinks.metrics.retries.inc_by(record.tries.saturating_sub(1).into());
        self.log(record);
        if let (Some(tracer), Some((trace, tried))) = (&self.sinks.tracer, trace) {
            tracer.end(trace, record, tried, SystemTime::now());
        }
    }

    /// Counts a stream that has reached an endpoint.
    pub fn opened(&self, ends: &Ends<'_>) -> StreamInUse {
        self.open(ends, Flags::default())
    }

    /// Reports a stream that is over.
    pub fn stream(&self, finished: &FinishedStream<'_>) {
        let FinishedStream { ends, record, counted } = finished;
        match counted {
            Some(series) => series.closed(),
            None => self.open(ends, Flags::new(record.flags)).closed(),
        }
        self.log(record);
    }

    /// Counts what a limit of a destination refused.
    pub fn overflowed(&self, overflow: Overflow) {
        self.sinks.metrics.overflows.get_or_create(&Limit { resource: overflow.0.as_str() }).inc();
    }

    /// Counts endpoints that are ejected from now on.
    pub fn ejected(&self, endpoints: u64) {
        if endpoints > 0 {
            self.sinks.metrics.ejections.inc_by(endpoints);
        }
    }

    /// Counts a copy of a request that did not reach its destination.
    pub fn copy_failed(&self) {
        self.sinks.metrics.copies_failed.inc();
    }

    /// Counts a check of external authorization with this [`CheckResult::result`].
    pub fn checked(&self, result: &'static str) {
        self.sinks.metrics.checks.get_or_create(&CheckResult { result }).inc();
    }

    /// Counts a request that goes on although its provider gave no answer.
    pub fn check_failed_open(&self) {
        self.sinks.metrics.checks_failed_open.inc();
    }

    /// Counts a request that a rate limit refused.
    pub fn rate_limited(&self) {
        self.sinks.metrics.rate_limited.inc();
    }

    /// Counts a request that was accepted with a token that never expires.
    pub fn token_without_expiry(&self) {
        self.sinks.metrics.tokens_without_expiry.inc();
    }

    /// Counts a connection whose peer did not prove an identity.
    pub fn handshake_failed(&self) {
        self.sinks.metrics.handshakes_failed.inc();
    }

    fn open(&self, ends: &Ends<'_>, flags: Flags) -> StreamInUse {
        let series = self.series.borrow_mut().stream(&ends.parties(), Ended::stream(flags));
        series.opened();
        series
    }

    fn log(&self, record: &Record<'_>) {
        if let Some(log) = &self.sinks.log {
            log.put(record);
        }
    }
}

impl<'a> Ends<'a> {
    fn parties(&self) -> Parties<'a> {
        Parties {
            source: &self.client.labels,
            service: self.service,
            destination: self.endpoint.map(|endpoint| &endpoint.workload),
        }
    }

    /// The client, for the access log.
    pub fn source(&self) -> End<'a> {
        End {
            addr: Some(self.peer.client),
            workload: self.client.workload.as_deref(),
            identity: Some(&self.peer.identity),
        }
    }

    /// The endpoint, for the access log.
    pub fn destination(&self) -> End<'a> {
        self.endpoint.map_or_else(End::default, |endpoint| End {
            addr: Some(endpoint.address),
            workload: Some(&endpoint.workload),
            // The peer of a tunnel has proved its identity.
            identity: endpoint.tunnel.as_ref().and_then(|tunnel| tunnel.expected.first()),
        })
    }
}
