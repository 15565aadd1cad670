//! Why an endpoint was not reached.
//!
//! Invariant: nothing of a request or stream was sent yet, so that another endpoint may be tried.

use std::{io, net::SocketAddr, sync::Arc};

use ambit_hbone::ConnectError;
use ambit_identity::HandshakeError;
use ambit_resilience::Overflow;

/// No connection to an endpoint.
#[derive(Debug, thiserror::Error)]
pub enum ConnectFailure {
    /// This waypoint has no certificate.
    #[error("{0}")]
    Certificate(#[from] ambit_identity::Error),
    /// TCP failed.
    #[error("connect to {address}: {source}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// TLS with the endpoint's proxy failed.
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    /// The peer speaks TLS and no HBONE.
    #[error("{0}")]
    Http2(#[source] ambit_hbone::Error),
    /// A tunnel connection could not be made; the cause is shared by all who waited for it.
    #[error("{0}")]
    Dial(Arc<ConnectFailure>),
    /// Too many wait for one tunnel connection, or the peer gives no stream.
    #[error("{0}")]
    Pool(String),
    /// The endpoint's proxy did not open the tunnel.
    #[error("the proxy of the endpoint did not open the tunnel: {0}")]
    Tunnel(#[from] ConnectError),
    /// The endpoint's proxy does not answer.
    #[error("{0} did not answer a CONNECT in time")]
    Unanswered(SocketAddr),
    /// The endpoint took the connection and speaks no HTTP.
    #[error("HTTP with {address} cannot begin: {source}")]
    Http {
        /// The endpoint.
        address: SocketAddr,
        /// What is wrong.
        source: hyper::Error,
    },
}

/// No connection for a request.
#[derive(Debug, thiserror::Error)]
pub enum LeaseFailure {
    /// The endpoint cannot be reached.
    #[error("{0}")]
    Connect(#[from] ConnectFailure),
    /// The destination has too many connections, and too many requests wait for one.
    #[error("{0}")]
    Overflow(#[from] Overflow),
}
