//! What a pod asks for, and the route that leads there.

use std::{net::SocketAddr, sync::Arc};

use ambit_model::{NamespacedName, Service, Spiffe, Workload};

/// An outbound connection of a pod.
#[derive(Clone, Copy, Debug)]
pub struct OutboundRequest<'a> {
    /// The pod that connects.
    pub source: &'a Workload,
    /// Its destination.
    pub destination: SocketAddr,
}

/// The routing decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Through an HBONE tunnel.
    Hbone {
        /// The HBONE listener to connect to.
        address: SocketAddr,
        /// The value of `:authority`: the pod and its target port, or for a waypoint the original
        /// destination.
        authority: SocketAddr,
        /// Whether the tunnel ends at the destination or at a waypoint.
        hop: Hop,
        /// The pod at the end of the tunnel.
        upstream: Arc<Workload>,
        /// The service that was addressed.
        service: Option<Arc<Service>>,
    },
    /// Plain TCP.
    Tcp {
        /// Address to connect to.
        address: SocketAddr,
        /// The destination pod, if it is one.
        upstream: Option<Arc<Workload>>,
        /// The service that was addressed.
        service: Option<Arc<Service>>,
    },
    /// The address is unknown and may belong to the cluster: [`crate::Lookup`] must decide.
    Unknown(SocketAddr),
    /// The connection must be reset.
    Refused(Refusal),
}

/// What is at the end of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// The destination pod.
    Last,
    /// A pod of the waypoint, which routes the traffic on.
    Waypoint,
}

/// Why a connection cannot be routed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Addresses have not been received, so the destination cannot be classified.
    #[error("the mesh's addresses have not been received yet; is the operator reachable from this node?")]
    AddressesNotReceived,
    /// The address may belong to the cluster, and the operator did not answer.
    #[error(
        "{0} may be a pod or service that this node does not know, and the operator did not answer in time; is it \
         reachable from this node?"
    )]
    UnknownAddress(SocketAddr),
    /// The operator knows the address, but its description could not be decoded.
    #[error("the operator knows {0}, but this node could not decode its description; see its log")]
    Undecodable(SocketAddr),
    /// The service has no eligible endpoint.
    #[error("no healthy upstream: service {0} has no endpoint that may take traffic from here")]
    NoHealthyEndpoint(NamespacedName),
    /// No endpoint of the service serves this port.
    #[error("service {0} does not serve port {1}")]
    NoSuchPort(NamespacedName, u16),
    /// A waypoint is required, and it has no eligible pod.
    #[error(
        "no healthy upstream: {destination} is only reached through its waypoint {waypoint}, which has no ready pod; see its Gateway"
    )]
    NoReadyWaypoint {
        /// The service or workload.
        destination: Arc<str>,
        /// Its waypoint.
        waypoint: Arc<str>,
    },
}

impl Route {
    /// The pod at the other end, if it is one.
    pub fn upstream(&self) -> Option<&Arc<Workload>> {
        match self {
            Self::Hbone { upstream, .. } => Some(upstream),
            Self::Tcp { upstream, .. } => upstream.as_ref(),
            Self::Unknown(_) | Self::Refused(_) => None,
        }
    }

    /// The service that was addressed.
    pub fn service(&self) -> Option<&Arc<Service>> {
        match self {
            Self::Hbone { service, .. } | Self::Tcp { service, .. } => service.as_ref(),
            Self::Unknown(_) | Self::Refused(_) => None,
        }
    }

    /// The accepted identities of the peer: the pod's, and the subject alternative names of its
    /// service; for a waypoint only its own. Empty for a route without a tunnel. Computed on
    /// demand, because only dialing needs it.
    pub fn expected_identities(&self) -> Arc<[Spiffe]> {
        match self {
            Self::Hbone { hop: Hop::Last, upstream, service: Some(service), .. }
                if !service.subject_alt_names.is_empty() =>
            {
                let also = service.subject_alt_names.iter().filter_map(|id| id.parse().ok());
                std::iter::once(upstream.identity()).chain(also).collect()
            }
            Self::Hbone { upstream, .. } => Arc::new([upstream.identity()]),
            Self::Tcp { .. } | Self::Unknown(_) | Self::Refused(_) => Arc::default(),
        }
    }

    /// A route to a destination outside the mesh.
    pub(crate) fn outside(address: SocketAddr) -> Self {
        Self::Tcp { address, upstream: None, service: None }
    }
}
