//! Why a connection failed; the text is the `error` of its access log line.
//!
//! Invariant: every variant maps to exactly one response flag, so that metrics and log agree.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use ambit_hbone::{ConnectError, CopyError};
use ambit_identity::HandshakeError;
use ambit_model::{NamespacedName, Verdict};
use ambit_proxy::{stage::Cut, tunnel::TunnelError};
use ambit_store::Refusal;

use crate::metrics::ResponseFlags;

/// Every way for a connection to end other than both ends closing it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The original destination of the accepted socket cannot be read.
    #[error("the connection's own address cannot be read: {0}")]
    Address(#[source] io::Error),
    /// A client connected to the proxy's own listener.
    #[error("attempted recursive call to the proxy itself at {0}")]
    SelfCall(SocketAddr),
    /// The pod already has [`crate::pods::CONNECTIONS_PER_POD_MAX`] connections.
    #[error("the pod has {0} connections already; raise its replicas")]
    TooManyConnections(usize),
    /// The control plane has not described this pod.
    #[error(
        "failed to fetch information about local workload {name} within {waited:?}; is the operator reachable?"
    )]
    UnknownWorkload {
        /// Namespace and name of the pod.
        name: NamespacedName,
        /// How long the connection waited.
        waited: Duration,
    },
    /// Node agent and control plane disagree about the pod's service account.
    #[error("{name} runs as service account {agent} for the node agent and as {operator} for the operator")]
    AccountMismatch {
        /// Namespace and name of the pod.
        name: NamespacedName,
        /// The account according to the node agent.
        agent: Arc<str>,
        /// The account according to the operator.
        operator: Arc<str>,
    },
    /// There is no route to the destination.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// Policy denies the connection.
    #[error("connection denied by policy: {0}")]
    Policy(Verdict),
    /// Policy admitted the connection, but denies it now.
    #[error("connection closed due to policy change: {0}")]
    PolicyChanged(Verdict),
    /// The process is shutting down.
    #[error("connection closed due to connection drain")]
    Drained,
    /// The pod was deleted.
    #[error("connection closed because its pod is gone")]
    PodGone,
    /// There is no certificate for the pod.
    #[error("{0}")]
    Certificate(#[from] ambit_identity::Error),
    /// Connecting to the other end failed.
    #[error("connect to {address}: {source}")]
    Connect {
        /// Address of the other end.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// Connecting to the other end took too long.
    #[error("connect to {0}: connection timed out")]
    ConnectTimeout(SocketAddr),
    /// Connecting to a tunnel port took too long.
    #[error("connect to {0}: connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008")]
    TunnelTimeout(SocketAddr),
    /// No socket could be created in the pod's network namespace.
    #[error("{0}")]
    Socket(#[from] ambit_netns::Error),
    /// The TLS handshake with the peer failed.
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    /// The peer completed TLS, but not HTTP/2.
    #[error("{0}")]
    Http2(#[source] ambit_hbone::Error),
    /// A tunnel connection could not be established; all waiters share the cause.
    #[error("{0}")]
    Dial(Arc<Error>),
    /// Too many streams wait for one tunnel connection, or the peer permits no streams.
    #[error("{0}")]
    Pool(String),
    /// The peer did not open the tunnel.
    #[error("{0}")]
    Tunnel(#[source] ConnectError),
    /// The peer did not answer a CONNECT in time.
    #[error("{0} did not answer a CONNECT in time")]
    Unanswered(SocketAddr),
    /// Copying through a tunnel failed.
    #[error("{0}")]
    Copy(#[from] CopyError),
    /// Copying between two sockets failed.
    #[error("{0}")]
    Stream(#[source] io::Error),
    /// The target of a CONNECT is not this pod.
    #[error("ip mismatch: the tunnel ends at {local} and is asked to lead to {authority}")]
    IpMismatch {
        /// Local address of the tunnel.
        local: SocketAddr,
        /// The requested target.
        authority: Arc<str>,
    },
    /// The target of a CONNECT is a service that this pod does not serve.
    #[error("{0} is not a service and port of this workload")]
    UnknownTarget(Arc<str>),
    /// The response to a CONNECT could not be sent.
    #[error("{0}")]
    Respond(#[source] ambit_hbone::Error),
}

impl From<Cut> for Error {
    fn from(cut: Cut) -> Self {
        match cut {
            Cut::Drain => Self::Drained,
            Cut::PodGone => Self::PodGone,
        }
    }
}

impl From<TunnelError<Self>> for Error {
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

impl Error {
    /// The same error for a connection to another proxy.
    pub fn at_tunnel_port(self) -> Self {
        if let Self::ConnectTimeout(address) = self { Self::TunnelTimeout(address) } else { self }
    }

    /// Its response flag in metrics.
    pub fn flags(&self) -> ResponseFlags {
        match self {
            Self::Policy(_) | Self::PolicyChanged(_) => ResponseFlags::Deny,
            Self::Connect { .. } | Self::ConnectTimeout(_) | Self::Socket(_) | Self::Refused(_) => {
                ResponseFlags::Connect
            }
            Self::Unanswered(_) => ResponseFlags::Connect,
            Self::TunnelTimeout(_) => ResponseFlags::NetworkPolicy,
            Self::Handshake(HandshakeError::WrongIdentity { .. } | HandshakeError::NoIdentity)
            | Self::Certificate(_)
            | Self::AccountMismatch { .. } => ResponseFlags::Identity,
            Self::Handshake(
                HandshakeError::Tls(_)
                | HandshakeError::Timeout
                | HandshakeError::Evicted
                | HandshakeError::Expired(_),
            ) => ResponseFlags::TlsFailure,
            Self::Http2(_) => ResponseFlags::H2Handshake,
            Self::Dial(error) => error.flags(),
            Self::Tunnel(ConnectError::Status(401)) => ResponseFlags::Deny,
            Self::Tunnel(ConnectError::Status(503)) => ResponseFlags::Connect,
            Self::Address(_)
            | Self::SelfCall(_)
            | Self::TooManyConnections(_)
            | Self::UnknownWorkload { .. }
            | Self::Drained
            | Self::PodGone
            | Self::Pool(_)
            | Self::Tunnel(_)
            | Self::Copy(_)
            | Self::Stream(_)
            | Self::IpMismatch { .. }
            | Self::UnknownTarget(_)
            | Self::Respond(_) => ResponseFlags::None,
        }
    }

    /// Whether trying another endpoint of the service may help. Only before a byte of the
    /// application was sent.
    pub fn is_worth_another_endpoint(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::ConnectTimeout(_)
            | Self::TunnelTimeout(_)
            | Self::Unanswered(_)
            | Self::Handshake(_)
            | Self::Http2(_)
            | Self::Pool(_)
            | Self::Tunnel(ConnectError::Status(503) | ConnectError::Closed(_) | ConnectError::Stream(_)) => {
                true
            }
            Self::Dial(error) => error.is_worth_another_endpoint(),
            Self::Address(_)
            | Self::SelfCall(_)
            | Self::TooManyConnections(_)
            | Self::UnknownWorkload { .. }
            | Self::AccountMismatch { .. }
            | Self::Refused(_)
            | Self::Policy(_)
            | Self::PolicyChanged(_)
            | Self::Drained
            | Self::PodGone
            | Self::Certificate(_)
            | Self::Socket(_)
            | Self::Tunnel(_)
            | Self::Copy(_)
            | Self::Stream(_)
            | Self::IpMismatch { .. }
            | Self::UnknownTarget(_)
            | Self::Respond(_) => false,
        }
    }
}
