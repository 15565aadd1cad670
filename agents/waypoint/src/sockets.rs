//! Sockets: listeners on both address families, and connects with a time limit.
//!
//! Invariant: no connect waits longer than [`CONNECT_TIMEOUT`].

use std::{io, net::SocketAddr};

pub use ambit_runtime::sockets::{CONNECT_TIMEOUT, canonical, reset, tune};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;

/// Connections that the kernel queues until they are accepted.
const BACKLOG: i32 = 1024;

/// Listens on IPv6 and IPv4, on a node without IPv6 on IPv4 alone.
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
