//! Who and where everything is: two network namespaces, one of the proxies and one of clients and backend.
//!
//! Invariant: a waypoint listens on port 15008 of every address and dials port 15008 of its endpoints, so that both
//! cannot share a network namespace; they are joined by one virtual link.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ambit_model::{HBONE_PORT, Spiffe};

/// Address of the service that is measured; nobody has it, it only stands in an `:authority`.
pub(crate) const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 199, 1, 1));
/// Its port.
pub(crate) const PORT: u16 = 80;

/// The two ends of the link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    /// Where the proxies are.
    pub(crate) proxies: IpAddr,
    /// Where this process is.
    pub(crate) here: IpAddr,
}

impl Places {
    /// The control plane.
    pub(crate) fn control(&self) -> SocketAddr {
        (self.here, 15012).into()
    }

    /// The backend without a tunnel.
    pub(crate) fn backend_plain(&self) -> SocketAddr {
        (self.here, 18080).into()
    }

    /// The backend's tunnels.
    pub(crate) fn backend_hbone(&self) -> SocketAddr {
        (self.here, HBONE_PORT).into()
    }

    /// Envoy without a tunnel.
    pub(crate) fn envoy_plain(&self) -> SocketAddr {
        (self.proxies, 11080).into()
    }

    /// Envoy's tunnels.
    pub(crate) fn envoy_hbone(&self) -> SocketAddr {
        (self.proxies, 11008).into()
    }

    /// The bare proxy without a tunnel.
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

    /// Where the waypoint says that it is ready.
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

/// Whoever makes the load.
pub(crate) fn client() -> Spiffe {
    identity("shop", "client")
}

/// Whoever is behind the proxies.
pub(crate) fn backend() -> Spiffe {
    identity("shop", "backend")
}

/// Every proxy.
pub(crate) fn waypoint() -> Spiffe {
    identity("shop", "waypoint")
}

/// Someone who may call and never does.
pub(crate) fn other(number: usize) -> Spiffe {
    identity("shop", &format!("other-{number}"))
}
