//! Socket operations for all connections of this proxy: limited connect time, no delay, keepalive,
//! reset on refusal.
//!
//! Invariant: no connect takes longer than [`CONNECT_TIMEOUT`].

use std::net::{IpAddr, SocketAddr};

use ambit_netns::NetNs;
pub(crate) use ambit_runtime::sockets::{CONNECT_TIMEOUT, canonical, reset, tune};
use tokio::net::{TcpSocket, TcpStream};

use crate::error::Error;

/// Connects from a pod to a destination outside of it.
///
/// # Errors
/// When no socket can be created, the other end refuses, or [`CONNECT_TIMEOUT`] passes.
pub(crate) async fn connect_out(netns: &NetNs, address: SocketAddr) -> Result<TcpStream, Error> {
    let failed = |source| Error::Connect { address, source };
    let socket = ambit_netns::outbound(netns, address)?;
    tune(&socket);
    let socket = TcpSocket::from_std_stream(socket.into());
    match tokio::time::timeout(CONNECT_TIMEOUT, socket.connect(address)).await {
        Ok(connected) => connected.map_err(failed),
        Err(_elapsed) => Err(Error::ConnectTimeout(address)),
    }
}

/// Connects to the application of a pod, with the address `source` unless the client is the pod
/// itself.
///
/// # Errors
/// When no socket can be created, the application refuses, or [`CONNECT_TIMEOUT`] passes.
pub(crate) async fn connect_app(
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

/// Original destination of an accepted connection, not v4-mapped.
///
/// # Errors
/// [`Error::Address`]
pub(crate) fn original_destination(stream: &TcpStream) -> Result<SocketAddr, Error> {
    stream.local_addr().map(canonical).map_err(Error::Address)
}

/// Ports of the proxy's own listeners, which are never a target.
pub(crate) fn is_own_port(port: u16) -> bool {
    matches!(port, ambit_model::OUTBOUND_PORT | ambit_model::INBOUND_PLAINTEXT_PORT | ambit_model::HBONE_PORT)
}
