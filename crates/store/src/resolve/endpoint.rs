//! Where an endpoint takes traffic: its port, its address, and whether in a tunnel.

use std::net::{IpAddr, SocketAddr};

use ambit_model::{Service, TunnelProtocol, Workload};

/// How many further endpoints [`alternatives`](super::alternatives) offers.
pub const ALTERNATIVES_MAX: usize = 2;

/// The port of `endpoint` for `port` of `service`: the endpoint's own mapping, otherwise the
/// service's target port.
pub(super) fn target_port(endpoint: &Workload, service: &Service, port: u16) -> Option<u16> {
    endpoint.target_port(&service.key(), port).or_else(|| {
        let of_service = service.ports.iter().find(|p| p.port == port)?;
        (of_service.target_port > 0).then_some(of_service.target_port)
    })
}

/// The port of `service` that leads to `target` of `endpoint`, if one does.
pub fn port_to(endpoint: &Workload, service: &Service, target: u16) -> Option<u16> {
    let mut ports = service.ports.iter().map(|port| port.port);
    ports.find(|port| target_port(endpoint, service, *port) == Some(target))
}

pub(super) fn tunnels(workload: &Workload) -> bool {
    match workload.tunnel_protocol {
        TunnelProtocol::Hbone => true,
        TunnelProtocol::None => false,
    }
}

/// The first address of the requested family, otherwise the first.
pub(super) fn preferred_address(endpoint: &Workload, asked: IpAddr) -> Option<IpAddr> {
    let asked = asked.to_canonical();
    let same_family = endpoint.addresses.iter().find(|ip| ip.to_canonical().is_ipv4() == asked.is_ipv4());
    same_family.or_else(|| endpoint.addresses.first()).map(IpAddr::to_canonical)
}

pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
