//! An endpoint, and how it is reached.
//!
//! Invariant: an endpoint with a tunnel is reached through it alone.

use std::{net::SocketAddr, sync::Arc};

use ambit_model::{Spiffe, Workload};
use ambit_store::Route;

/// One endpoint of a destination.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// The pod.
    pub workload: Arc<Workload>,
    /// Address and port of its application.
    pub address: SocketAddr,
    /// The tunnel to it; `None` for an endpoint outside the mesh, which is reached in plaintext.
    pub tunnel: Option<TunnelKey>,
}

/// What two streams must have in common to share a tunnel connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TunnelKey {
    /// Tunnel port of the peer.
    pub address: SocketAddr,
    /// The peer must prove one of these.
    pub expected: Arc<[Spiffe]>,
}

impl Endpoint {
    /// The end of a route of the store; `None` for a route that leads nowhere.
    pub fn of_route(route: &Route) -> Option<Self> {
        match route {
            Route::Hbone { address, authority, upstream, .. } => {
                let tunnel = TunnelKey { address: *address, expected: route.expected_identities().into() };
                Some(Self { workload: upstream.clone(), address: *authority, tunnel: Some(tunnel) })
            }
            Route::Tcp { address, upstream, .. } => {
                Some(Self { workload: upstream.clone()?, address: *address, tunnel: None })
            }
            Route::Unheard(_) | Route::Refused(_) => None,
        }
    }
}
