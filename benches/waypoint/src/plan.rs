//! Addresses and identities: two network namespaces, one for the proxies and one for clients and
//! backend.
//!
//! Invariant: a waypoint listens on port 15008 of every address and dials port 15008 of its
//! endpoints, so the two cannot share a network namespace. A veth pair connects the two.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ambit_model::{HBONE_PORT, Spiffe};

/// Virtual address of the measured service; it is used only in `:authority`.
pub(crate) const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 199, 1, 1));
/// Port of the measured service.
pub(crate) const PORT: u16 = 80;

/// The two ends of the veth pair.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    /// Address of the proxies.
    pub(crate) proxies: IpAddr,
    /// Address of this process.
    pub(crate) here: IpAddr,
}

impl Places {
    /// The control plane.
    pub(crate) fn control(&self) -> SocketAddr {
        (self.here, 15012).into()
    }

    /// The backend without tunnels.
    pub(crate) fn backend_plain(&self) -> SocketAddr {
        (self.here, 18080).into()
    }

    /// The backend's tunnels.
    pub(crate) fn backend_hbone(&self) -> SocketAddr {
        (self.here, HBONE_PORT).into()
    }

    /// Envoy without tunnels.
    pub(crate) fn envoy_plain(&self) -> SocketAddr {
        (self.proxies, 11080).into()
    }

    /// Envoy's tunnels.
    pub(crate) fn envoy_hbone(&self) -> SocketAddr {
        (self.proxies, 11008).into()
    }

    /// The bare proxy without tunnels.
    pub(crate) fn bare_plain(&self) -> SocketAddr {
        (self.proxies, 12080).into()
    }

    /// The bare proxy's tunnels.
    pub(crate) fn bare_hbone(&self) -> SocketAddr {
        (self.proxies, 12008).into()
    }

    /// The waypoint's tunnels.
    pub(crate) fn waypoint_hbone(&self) -> SocketAddr {
        (self.proxies, HBONE_PORT).into()
    }

    /// The waypoint's health port.
    pub(crate) fn waypoint_health(&self) -> SocketAddr {
        (self.proxies, 15021).into()
    }
}

fn identity(namespace: &str, account: &str) -> Spiffe {
    Spiffe {
        trust_domain: "cluster.local".into(),
        namespace: namespace.into(),
        service_account: account.into(),
    }
}

/// Identity of the load generator.
pub(crate) fn client() -> Spiffe {
    identity("shop", "client")
}

/// Identity of the backend.
pub(crate) fn backend() -> Spiffe {
    identity("shop", "backend")
}

/// Identity of the proxies.
pub(crate) fn waypoint() -> Spiffe {
    identity("shop", "waypoint")
}

/// Identity of a permitted client that never calls.
pub(crate) fn other(number: usize) -> Spiffe {
    identity("shop", &format!("other-{number}"))
}
