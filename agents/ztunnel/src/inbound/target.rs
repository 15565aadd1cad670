//! The `:authority` of a CONNECT that arrived at a pod's tunnel port. Pure.
//!
//! Invariant: the result is always an address of that pod, and never one of the proxy's own ports.

use std::net::SocketAddr;

use ambit_hbone::{Authority, Host};
use ambit_model::{NamespacedName, Workload};
use ambit_store::Snapshot;
use http::StatusCode;

use crate::{error::Error, sockets};

/// The target of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Address of the application.
    pub address: SocketAddr,
    /// The service, if the authority names one.
    pub service: Option<NamespacedName>,
}

/// Why a tunnel is rejected.
#[derive(Debug)]
pub(crate) struct Refused {
    /// Status of the response.
    pub status: StatusCode,
    /// Error for the log.
    pub error: Error,
}

/// `local` is where the tunnel arrived, `workload` the pod.
///
/// # Errors
/// 400 for the address of another pod, 503 for a service or port that the pod does not serve.
pub(crate) fn target(
    authority: &Authority,
    local: SocketAddr,
    workload: &Workload,
    snapshot: &Snapshot,
) -> Result<Target, Refused> {
    let refused = |status, error| Refused { status, error };
    let text = || authority.to_string().into();
    let target = match &authority.host {
        Host::Ip(ip) if ip.to_canonical() == local.ip() => {
            Target { address: SocketAddr::new(local.ip(), authority.port), service: None }
        }
        Host::Ip(_) => {
            return Err(refused(StatusCode::BAD_REQUEST, Error::IpMismatch { local, authority: text() }));
        }
        Host::Name(hostname) => {
            let (service, port) = by_hostname(hostname, authority.port, workload, snapshot)
                .ok_or_else(|| refused(StatusCode::SERVICE_UNAVAILABLE, Error::UnknownTarget(text())))?;
            Target { address: SocketAddr::new(local.ip(), port), service: Some(service) }
        }
    };
    if sockets::is_own_port(target.address.port()) {
        return Err(refused(StatusCode::SERVICE_UNAVAILABLE, Error::SelfCall(target.address)));
    }
    Ok(target)
}

/// The service with this hostname that the workload serves, preferably in its own namespace, and
/// its port here.
fn by_hostname(
    hostname: &str,
    port: u16,
    workload: &Workload,
    snapshot: &Snapshot,
) -> Option<(NamespacedName, u16)> {
    let mut named: Vec<_> = workload.services.keys().filter(|key| &*key.name == hostname).collect();
    named.sort_by_key(|key| key.namespace != workload.namespace);
    named.into_iter().find_map(|key| {
        let of_service = || {
            let ports = &snapshot.service(key)?.ports;
            let found = ports.iter().find(|p| p.port == port)?;
            (found.target_port > 0).then_some(found.target_port)
        };
        Some((key.clone(), workload.target_port(key, port).or_else(of_service)?))
    })
}

#[cfg(test)]
mod tests {
    use ambit_model::{PortMapping, Service, ServicePort};
    use ambit_store::{AddressUpdate, Store};

    use super::*;

    fn mesh() -> (Workload, Store) {
        let key = |host: &str| NamespacedName::new("shop", host);
        let workload = Workload {
            uid: "Kubernetes//Pod/shop/cart".into(),
            namespace: "shop".into(),
            services: [
                (key("cart.shop.svc.cluster.local"), vec![]),
                (
                    key("named.shop.svc.cluster.local"),
                    vec![PortMapping { service_port: 80, target_port: 9090 }],
                ),
            ]
            .into(),
            ..Workload::default()
        };
        let service = Service {
            name: "cart".into(),
            namespace: "shop".into(),
            hostname: "cart.shop.svc.cluster.local".into(),
            ports: vec![
                ServicePort { port: 80, target_port: 8080 },
                ServicePort { port: 81, target_port: 0 },
                ServicePort { port: 82, target_port: 15006 },
            ],
            ..Service::default()
        };
        let store = Store::new();
        store.apply_addresses(vec![AddressUpdate::Service(service)], &[]);
        (workload, store)
    }

    #[test]
    fn leads_to_this_pod_or_nowhere() {
        let (workload, store) = mesh();
        let here = "10.0.0.2:15008".parse().unwrap();
        let ok = |port: u16| Ok(SocketAddr::from(([10, 0, 0, 2], port)));
        let cases: [(&str, Result<SocketAddr, u16>); 12] = [
            ("10.0.0.2:8080", ok(8080)),
            ("[::ffff:10.0.0.2]:8080", ok(8080)),
            ("10.0.0.3:8080", Err(400)),
            ("127.0.0.1:8080", Err(400)),
            ("[fd00::2]:8080", Err(400)),
            ("10.0.0.2:15001", Err(503)),
            ("10.0.0.2:15006", Err(503)),
            ("10.0.0.2:15008", Err(503)),
            ("cart.shop.svc.cluster.local:80", ok(8080)),
            ("cart.shop.svc.cluster.local:81", Err(503)),
            ("cart.shop.svc.cluster.local:82", Err(503)),
            ("other.shop.svc.cluster.local:80", Err(503)),
        ];
        for (authority, expected) in cases {
            let parsed = authority.parse().unwrap();
            let got = target(&parsed, here, &workload, &store.load());
            let got = got.map(|t| t.address).map_err(|refused| refused.status.as_u16());
            assert_eq!(got, expected, "{authority}");
        }
        let named = "named.shop.svc.cluster.local:80".parse().unwrap();
        let got = target(&named, here, &workload, &store.load()).unwrap();
        assert_eq!(got.address.port(), 9090);
        assert!(got.service.is_some_and(|service| &*service.name == "named.shop.svc.cluster.local"));
    }
}
