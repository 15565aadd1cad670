//! Finds the connections of a pod that bypassed policy. Pure.
//!
//! A pod that ran outside the mesh although it was wanted in it from its start has connections to
//! which no policy was applied. Invariant: a connection with both ends in the pod's namespace is
//! kept, because it is local or goes through the proxy; so are the proxy's own connections.

use std::{collections::BTreeSet, net::SocketAddr};

use ambit_netns::diag::TcpSocket;

use super::pod::Inbound;

/// The sockets among `all` of a namespace that bypassed policy; `proxies` are the cgroups of
/// proxies.
pub(crate) fn unjudged<'a>(all: &'a [TcpSocket], proxies: &[u64], inbound: Inbound) -> Vec<&'a TcpSocket> {
    let ends: BTreeSet<(SocketAddr, SocketAddr)> =
        all.iter().map(|socket| (socket.local, socket.peer)).collect();
    let served: BTreeSet<u16> =
        all.iter().filter(|socket| socket.listens).map(|socket| socket.local.port()).collect();
    let is_unjudged = |socket: &&TcpSocket| {
        let is_inside = socket.peer.ip().is_loopback() || ends.contains(&(socket.peer, socket.local));
        let is_of_proxy = socket.cgroup.is_some_and(|cgroup| proxies.contains(&cgroup));
        // Such a pod has opted out of policy for inbound plaintext.
        let is_let_in = inbound == Inbound::Bypassed && served.contains(&socket.local.port());
        !(socket.listens || is_inside || is_of_proxy || is_let_in)
    };
    all.iter().filter(is_unjudged).collect()
}

#[cfg(test)]
mod tests;
