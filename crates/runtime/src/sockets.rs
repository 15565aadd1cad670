//! Socket options of a proxy's connections: no delay, keepalive, and reset instead of an orderly
//! close where needed.
//!
//! Invariant: a peer that vanished is detected within [`KEEPALIVE_TIME`] × ([`KEEPALIVE_RETRIES`] +
//! 1).

use std::{net::SocketAddr, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// How long a TCP connect may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle time before the first keepalive probe, and between probes.
const KEEPALIVE_TIME: Duration = Duration::from_secs(180);
/// Unanswered probes after which the connection counts as lost.
const KEEPALIVE_RETRIES: u32 = 9;

/// Sets no-delay and keepalive. Errors are ignored: a dead socket fails at its next read.
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

/// Closes with a reset, because an orderly close would look like the end of a complete response.
pub fn reset(stream: TcpStream) {
    if let Err(error) = SockRef::from(&stream).set_linger(Some(Duration::ZERO)) {
        tracing::debug!(%error, "A connection cannot be reset and is closed instead");
    }
}

/// The same address, with a v4-mapped address as IPv4.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn a_connection_is_probed_and_sent_without_delay() {
        let (near, _far) = pair().await;
        tune(&near);
        let socket = SockRef::from(&near);
        assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_TIME);
    }

    #[tokio::test]
    async fn a_reset_is_no_end_of_file() {
        let (mut near, far) = pair().await;
        reset(far);
        let error = near.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn an_ipv4_address_is_one_in_either_form() {
        let mapped = "[::ffff:10.0.0.1]:80".parse().unwrap();
        assert_eq!(canonical(mapped), "10.0.0.1:80".parse().unwrap());
        let v6 = "[fd00::1]:80".parse().unwrap();
        assert_eq!(canonical(v6), v6);
    }
}
