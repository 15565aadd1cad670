//! Sockets as every connection of this proxy has them: bounded connects, no delay, keepalive.
//!
//! Invariant: no connect waits longer than [`CONNECT_TIMEOUT`].

use std::{io, net::SocketAddr, time::Duration};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpStream;

/// How long a TCP connect may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// Idle time before the first keepalive probe, and between probes.
const KEEPALIVE_TIME: Duration = Duration::from_secs(180);
/// Unanswered probes before the connection is lost.
const KEEPALIVE_RETRIES: u32 = 9;

/// Listens on both families where the node has both.
///
/// # Errors
/// When the port is taken.
pub fn listen(port: u16) -> io::Result<std::net::TcpListener> {
    let bound = |domain, address: SocketAddr| {
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok::<_, io::Error>(socket.into())
    };
    bound(Domain::IPV6, (std::net::Ipv6Addr::UNSPECIFIED, port).into())
        .or_else(|_no_v6| bound(Domain::IPV4, (std::net::Ipv4Addr::UNSPECIFIED, port).into()))
}

/// Connects to an endpoint.
///
/// # Errors
/// When the other end refuses, or [`CONNECT_TIMEOUT`] passes.
pub async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
    let stream = connected.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))?;
    tune(&stream);
    Ok(stream)
}

/// No delay, and keepalive, so that a peer that vanished is noticed. A socket that is already dead keeps its
/// options; its next read tells.
pub fn tune(stream: &TcpStream) {
    let socket = SockRef::from(stream);
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

/// The same address, not v4-mapped.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
