//! One stream, and how it ended.
//!
//! Invariant: a byte is counted once, however often the counters are updated.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Instant};

use ambit_hbone::CopyError;
use ambit_model::Verdict;
use ambit_proxy::bytes::{ByteCount, Bytes};
use ambit_resilience::Overflow;

use crate::{
    access_log::{Record, rbac_details},
    metrics::StreamInUse,
    peer::{Known, Peer},
    service::Service,
    target::Pod,
    telemetry::{Ends, FinishedStream, Telemetry},
    upstream::{ConnectFailure, Endpoint, Upstream},
};

/// Why a stream was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// Denied by policy.
    #[error("connection denied by policy: {0}")]
    Policy(Verdict),
    /// Denied by a policy that changed while it was open.
    #[error("connection closed due to policy change: {0}")]
    PolicyChanged(Verdict),
    /// The route has no valid backend.
    #[error("the route leads nowhere: {0}")]
    InvalidBackend(Arc<str>),
    /// The destination has no healthy endpoint.
    #[error("no healthy upstream")]
    NoHealthyEndpoint,
    /// A limit of the destination is reached.
    #[error("{0}")]
    Overflow(Overflow),
    /// No endpoint could be reached.
    #[error("{0}")]
    Unreachable(#[from] ConnectFailure),
    /// Bytes could not be moved through the tunnel.
    #[error("{0}")]
    Copy(#[from] CopyError),
    /// Bytes could not be moved to or from a socket.
    #[error("{0}")]
    Socket(#[source] std::io::Error),
}

impl StreamError {
    /// Response flag, as Envoy and Istio name it.
    pub fn flag(&self) -> &'static str {
        match self {
            Self::Policy(_) | Self::PolicyChanged(_) => "",
            Self::InvalidBackend(_) => "NR",
            Self::NoHealthyEndpoint => "UH",
            Self::Overflow(_) => "UO",
            Self::Unreachable(_) => "UF",
            Self::Copy(_) | Self::Socket(_) => "UC",
        }
    }

    /// Envoy's `connection_termination_details`; empty where Envoy has none.
    pub fn details(&self) -> String {
        match self {
            Self::Policy(verdict) | Self::PolicyChanged(verdict) => rbac_details(verdict),
            Self::InvalidBackend(_)
            | Self::NoHealthyEndpoint
            | Self::Overflow(_)
            | Self::Unreachable(_)
            | Self::Copy(_)
            | Self::Socket(_) => String::new(),
        }
    }
}

/// One stream.
#[derive(Debug)]
pub struct Flow {
    /// The client.
    pub peer: Rc<Peer>,
    /// The service.
    pub service: Arc<Service>,
    /// The address that the client connected to.
    pub destination: SocketAddr,
    /// The pod, if the client addressed one by its own address.
    pub pod: Option<Pod>,
    /// When the CONNECT arrived.
    pub begun: Instant,
    /// The destination chosen for it.
    pub upstream: Option<Arc<Upstream>>,
    /// The endpoint, or the last one tried.
    pub endpoint: Option<Arc<Endpoint>>,
    /// Bytes to the endpoint, and from it.
    pub bytes: ByteCount,
    /// Its series; `None` until an endpoint was reached.
    pub counted: Option<StreamInUse>,
}

impl Flow {
    /// Its ends, for reports.
    pub(super) fn ends<'a>(&'a self, client: &'a Known) -> Ends<'a> {
        let endpoint = self.endpoint.as_deref();
        Ends { peer: &self.peer, client, service: &self.service.bound.key, endpoint }
    }

    /// Reports that it is over; `failure` is why it did not end well.
    pub(super) fn report(&self, telemetry: &Telemetry, client: &Known, failure: Option<&StreamError>) {
        let flag = failure.map_or("", StreamError::flag);
        let details = failure.map(StreamError::details).unwrap_or_default();
        let error = failure.map(ToString::to_string);
        let Bytes { sent, received } = self.bytes.total();
        let ends = self.ends(client);
        let record = Record {
            request: None,
            flags: if flag.is_empty() { &[] } else { &[flag] },
            code_details: &details,
            bytes_recv: sent,
            bytes_sent: received,
            duration: self.begun.elapsed(),
            tries: 0,
            route: None,
            service: self.service.hostname(),
            source: ends.source(),
            destination: ends.destination(),
            trace_id: None,
            error: error.as_deref(),
        };
        telemetry.stream(&FinishedStream { ends, record, counted: self.counted.as_ref() });
    }

    /// Adds the bytes moved since the last call to the series.
    pub(super) fn tell(&self) {
        let Some(counted) = &self.counted else { return };
        let Bytes { sent, received } = self.bytes.take();
        counted.moved(received, sent);
    }
}
