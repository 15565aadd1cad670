//! An endpoint, and how it is reached.
//!
//! Invariant: an endpoint with a tunnel is reached through it alone.

use std::{net::SocketAddr, sync::Arc};

use ambit_model::Workload;
use ambit_proxy::tunnel::TunnelPeer;
use ambit_store::Route;

/// One endpoint of a destination.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// The pod.
    pub workload: Arc<Workload>,
    /// Address and port of its application.
    pub address: SocketAddr,
    /// The tunnel to it; `None` for an endpoint outside the mesh, which is reached in plaintext.
    pub tunnel: Option<TunnelPeer>,
}

impl Endpoint {
    /// The end of a route of the store; `None` for a route that leads nowhere.
    pub fn of_route(route: &Route) -> Option<Self> {
        match route {
            Route::Hbone { address, authority, upstream, .. } => {
                let tunnel = TunnelPeer { address: *address, expected: route.expected_identities() };
                Some(Self { workload: upstream.clone(), address: *authority, tunnel: Some(tunnel) })
            }
            Route::Tcp { address, upstream, .. } => {
                Some(Self { workload: upstream.clone()?, address: *address, tunnel: None })
            }
            Route::Unknown(_) | Route::Refused(_) => None,
        }
    }
}
