//! A client of the waypoint, by the connection of its tunnels.
//!
//! Invariant: its identity was proved in the handshake; what the mesh knows of its address counts only where both agree.

use std::{cell::OnceCell, net::SocketAddr, sync::Arc};

use ambit_model::{Connection, Spiffe, Workload};

use crate::metrics;

/// A client.
#[derive(Debug)]
pub struct Peer {
    /// Identity it proved in the handshake.
    pub identity: Spiffe,
    /// Its address.
    pub client: SocketAddr,
    /// As the mesh knows it, once it does.
    pub known: OnceCell<Known>,
}

/// A client as the mesh knows it.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its pod, if the control plane has described it.
    pub workload: Option<Arc<Workload>>,
    /// Its labels.
    pub labels: Arc<metrics::End>,
}

impl Peer {
    /// As policies see what it opens to `destination`.
    pub fn connection(&self, destination: SocketAddr) -> Connection {
        Connection {
            source: Some(self.identity.clone()),
            source_ip: self.client.ip(),
            destination_ip: destination.ip(),
            destination_port: destination.port(),
        }
    }
}
