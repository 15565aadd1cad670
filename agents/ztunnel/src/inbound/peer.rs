//! The client of a tunnel connection.
//!
//! Invariant: its identity was proved by mTLS.

use std::net::SocketAddr;

use ambit_model::Spiffe;

/// A tunnel connection whose peer is known.
pub(super) struct Peer {
    /// Identity.
    pub(super) identity: Spiffe,
    /// Its address.
    pub(super) client: SocketAddr,
    /// Where the tunnel ends: the pod's address and the tunnel port.
    pub(super) local: SocketAddr,
}
