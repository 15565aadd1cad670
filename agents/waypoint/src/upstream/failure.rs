//! Why an endpoint was not reached.
//!
//! Invariant: nothing of the request or stream was sent, so that another endpoint may be tried.

use std::{io, net::SocketAddr, sync::Arc};

use ambit_hbone::ConnectError;
use ambit_identity::HandshakeError;
use ambit_proxy::tunnel::TunnelError;
use ambit_resilience::Overflow;

/// No connection to an endpoint.
#[derive(Debug, thiserror::Error)]
pub enum ConnectFailure {
    /// This waypoint has no certificate.
    #[error("{0}")]
    Certificate(#[source] ambit_identity::Error),
    /// The TCP connect failed.
    #[error("connect to {address}: {source}")]
    Connect {
        /// Of the endpoint, or of its tunnel port.
        address: SocketAddr,
        /// Error of the kernel.
        source: io::Error,
    },
    /// TLS with the endpoint's proxy failed.
    #[error("{0}")]
    Handshake(#[source] HandshakeError),
    /// The peer speaks TLS but not HBONE.
    #[error("{0}")]
    Http2(#[source] ambit_hbone::Error),
    /// A tunnel connection failed; all streams that waited for it share the cause.
    #[error("{0}")]
    Dial(Arc<ConnectFailure>),
    /// Too many streams wait for one tunnel connection, or the peer allows none.
    #[error("{0}")]
    Pool(String),
    /// The endpoint's proxy did not open the tunnel.
    #[error("the proxy of the endpoint did not open the tunnel: {0}")]
    Tunnel(#[source] ConnectError),
    /// The endpoint's proxy did not answer the CONNECT in time.
    #[error("{0} did not answer a CONNECT in time")]
    Unanswered(SocketAddr),
    /// The endpoint accepted the connection, but the HTTP handshake failed.
    #[error("HTTP handshake with {address} failed: {source}")]
    Http {
        /// Of the endpoint.
        address: SocketAddr,
        /// Error of the handshake.
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

impl From<TunnelError<Self>> for ConnectFailure {
    fn from(error: TunnelError<Self>) -> Self {
        match error {
            TunnelError::Certificate(error) => Self::Certificate(error),
            TunnelError::Handshake(error) => Self::Handshake(error),
            TunnelError::Http2(error) => Self::Http2(error),
            TunnelError::Dial(error) => Self::Dial(error),
            TunnelError::Pool(reason) => Self::Pool(reason),
            TunnelError::Refused(error) => Self::Tunnel(error),
            TunnelError::Unanswered(address) => Self::Unanswered(address),
        }
    }
}
