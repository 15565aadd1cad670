//! Opens byte streams to endpoints: through a tunnel, or plain for those outside the mesh.
//!
//! Invariant: an endpoint with a tunnel is reached through it alone.

use std::net::SocketAddr;

use ambit_hbone::{Authority, ConnectHeaders, Tunnel};
use ambit_identity::Manager;
use ambit_model::Spiffe;
use ambit_proxy::tunnel::{TunnelKey, TunnelPeer, Tunnels};
use tokio::net::TcpStream;

use super::{ConnectFailure, Endpoint, Stream};
use crate::sockets;

/// Opens streams for one worker, and keeps its tunnel connections.
#[derive(Debug)]
pub(super) struct Connector {
    tunnels: Tunnels<ConnectFailure>,
    /// Identity of the waypoint.
    own: Spiffe,
}

impl Connector {
    /// Connects as the identity `own`. Needs a [`tokio::task::LocalSet`].
    pub(super) fn new(identities: Manager, own: Spiffe) -> Self {
        Self { tunnels: Tunnels::new(identities), own }
    }

    /// A stream to the application of an endpoint.
    ///
    /// # Errors
    /// [`ConnectFailure`]
    pub(super) async fn open(
        &self,
        endpoint: &Endpoint,
        headers: &ConnectHeaders,
    ) -> Result<Stream, ConnectFailure> {
        match &endpoint.tunnel {
            Some(peer) => Ok(Stream::Tunnel(self.tunnel(peer, endpoint.address, headers).await?)),
            None => Ok(Stream::Plain(connect(endpoint.address).await?)),
        }
    }

    async fn tunnel(
        &self,
        peer: &TunnelPeer,
        application: SocketAddr,
        headers: &ConnectHeaders,
    ) -> Result<Tunnel, ConnectFailure> {
        let key = TunnelKey { source: self.own.clone(), peer: peer.clone() };
        self.tunnels.open(&key, &Authority::from(application), headers, connect).await
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream, ConnectFailure> {
    sockets::connect(address).await.map_err(|source| ConnectFailure::Connect { address, source })
}
