//! Sockets as every connection of this proxy has them: bounded connects, no delay, keepalive, resets on refusal.
//!
//! Invariant: no connect waits longer than [`CONNECT_TIMEOUT`].

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ambit_netns::NetNs;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};

use crate::error::Error;

/// How long a TCP connect may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle time before the first keepalive probe, and between probes.
const KEEPALIVE_TIME: Duration = Duration::from_secs(180);
/// Unanswered probes before the connection is lost.
const KEEPALIVE_RETRIES: u32 = 9;

/// Connects from a pod to somewhere outside of it.
///
/// # Errors
/// When no socket can be made, the other end refuses, or [`CONNECT_TIMEOUT`] passes.
pub async fn connect_out(netns: &NetNs, address: SocketAddr) -> Result<TcpStream, Error> {
    let failed = |source| Error::Connect { address, source };
    let socket = ambit_netns::outbound(netns, address)?;
    tune(&socket);
    let socket = TcpSocket::from_std_stream(socket.into());
    match tokio::time::timeout(CONNECT_TIMEOUT, socket.connect(address)).await {
        Ok(connected) => connected.map_err(failed),
        Err(_elapsed) => Err(Error::ConnectTimeout(address)),
    }
}

/// Connects to the application of a pod, from `source` where it is not the pod itself.
///
/// # Errors
/// When no socket can be made, the application refuses, or [`CONNECT_TIMEOUT`] passes.
pub async fn connect_app(
    netns: &NetNs,
    source: Option<IpAddr>,
    address: SocketAddr,
) -> Result<TcpStream, Error> {
    let failed = |source| Error::Connect { address, source };
    let stream = ambit_netns::upstream_to_app(netns, source, address)?;
    let stream = TcpStream::from_std(stream).map_err(failed)?;
    match tokio::time::timeout(CONNECT_TIMEOUT, stream.writable()).await {
        Ok(ready) => ready.map_err(failed)?,
        Err(_elapsed) => return Err(Error::ConnectTimeout(address)),
    }
    if let Some(refused) = stream.take_error().map_err(failed)? {
        return Err(failed(refused));
    }
    tune(&stream);
    Ok(stream)
}

/// No delay, and keepalive, so that a peer that vanished is noticed. A socket that is already dead keeps its
/// options; its next read tells.
pub fn tune<'a, S>(socket: &'a S)
where
    SockRef<'a>: From<&'a S>,
{
    let socket = SockRef::from(socket);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_TIME)
        .with_interval(KEEPALIVE_TIME)
        .with_retries(KEEPALIVE_RETRIES);
    let set = socket.set_tcp_nodelay(true).and_then(|()| socket.set_tcp_keepalive(&keepalive));
    if let Err(error) = set {
        tracing::debug!(%error, "Socket options cannot be set");
    }
}

/// Closes with a reset: an orderly end would look like an answer that is complete.
pub fn reset(stream: TcpStream) {
    if let Err(error) = SockRef::from(&stream).set_linger(Some(Duration::ZERO)) {
        tracing::debug!(%error, "A connection cannot be reset and is closed instead");
    }
}

/// Where an accepted connection was going, not v4-mapped.
///
/// # Errors
/// [`Error::Address`]
pub fn original_destination(stream: &TcpStream) -> Result<SocketAddr, Error> {
    stream.local_addr().map(canonical).map_err(Error::Address)
}

/// The same address, not v4-mapped.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Ports of the proxy's own listeners: never a target.
pub fn is_own_port(port: u16) -> bool {
    matches!(port, ambit_model::OUTBOUND_PORT | ambit_model::INBOUND_PLAINTEXT_PORT | ambit_model::HBONE_PORT)
}
