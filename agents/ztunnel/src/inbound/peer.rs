//! The client of a tunnel connection.
//!
//! Invariant: its identity was proven by mTLS.

use std::net::SocketAddr;

use ambit_model::Spiffe;

/// A tunnel connection with a known peer.
pub(super) struct Peer {
    /// Identity of the peer.
    pub(super) identity: Spiffe,
    /// Address of the peer.
    pub(super) client: SocketAddr,
    /// Local end of the tunnel: the pod's address and the tunnel port.
    pub(super) local: SocketAddr,
}
