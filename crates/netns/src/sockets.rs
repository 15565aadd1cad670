//! The sockets of a proxy, created inside a pod's network namespace.
//!
//! A listener never has a mark: resets of its connections would leave through the pod's device, and
//! the client would time out.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

use ambit_redirect_common::{MARK, PROXY_MARK};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::{Error, NetNs, Result, raw, run_in};

/// Connections of a listener that wait to be accepted; the kernel limits it to the namespace's
/// `somaxconn`.
pub const BACKLOG: i32 = 4096;
const LOOPBACK: &[u8] = b"lo";
/// Source ports for connections to the application, below the default range for clients (32768 and
/// up).
///
/// The application's own outbound connections use the same addresses, so equal ports would match
/// the wrong socket.
const SOURCE_PORTS: std::ops::Range<u16> = 1024..32768;
/// How many source ports to try.
const SOURCE_PORT_TRIES: u32 = 64;

/// Properties of a received listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerFacts {
    /// Cookie of its network namespace.
    pub cookie: u64,
    /// Local address, not v4-mapped.
    pub local: SocketAddr,
    /// Whether it is listening.
    pub listening: bool,
    /// Whether it may answer for foreign addresses (IP_TRANSPARENT).
    pub transparent: bool,
}

/// Opens a proxy's listener on `127.0.0.1` for both families, non-blocking.
///
/// The pod's address is not exposed: connections arrive only through redirection. It is bound to
/// the v4-mapped address, because a socket bound to `::1` could not accept IPv4.
///
/// # Errors
/// If the namespace cannot be entered, or a step of opening the socket fails, for example because the
/// port is taken.
pub fn listener(netns: &NetNs, port: u16) -> Result<TcpListener> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port));
    let failed = |step| Failed { step, address, inode: netns.id().inode };
    run_in(netns, || {
        let socket = Socket::new(Domain::IPV6, Type::STREAM.nonblocking(), Some(Protocol::TCP));
        match socket {
            Ok(socket) => {
                socket.set_only_v6(false).map_err(failed("IPV6_V6ONLY").because())?;
                socket.set_ip_transparent_v6(true).map_err(failed("IPV6_TRANSPARENT").because())?;
                listen(socket, address, failed)
            }
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP))
                    .map_err(failed("socket").because())?;
                socket.set_ip_transparent_v4(true).map_err(failed("IP_TRANSPARENT").because())?;
                listen(socket, SocketAddr::from((Ipv4Addr::LOCALHOST, port)), failed)
            }
            Err(error) => Err(failed("socket").because()(error)),
        }
    })?
}

fn listen(
    socket: Socket,
    address: SocketAddr,
    failed: impl Fn(&'static str) -> Failed,
) -> Result<TcpListener> {
    socket.bind(&address.into()).map_err(failed("bind listener").because())?;
    socket.listen(BACKLOG).map_err(failed("listen").because())?;
    Ok(socket.into())
}

/// Starts a connection from a proxy to the application of its pod, non-blocking.
///
/// With a `source`, the application sees that address as its peer. The connection is still being
/// established when this returns: wait until it is writable, then check the socket's error.
///
/// # Errors
/// If the namespace cannot be entered, or a step of opening the socket fails.
pub fn upstream_to_app(netns: &NetNs, source: Option<IpAddr>, destination: SocketAddr) -> Result<TcpStream> {
    let destination = SocketAddr::new(destination.ip().to_canonical(), destination.port());
    let failed = |step| Failed { step, address: destination, inode: netns.id().inode };
    run_in(netns, || {
        let Some(source) = source else {
            let socket = stream(destination).map_err(failed("socket").because())?;
            start(&socket, destination).map_err(failed("connect").because())?;
            return Ok(socket.into());
        };
        for _ in 0..SOURCE_PORT_TRIES {
            let socket = stream(destination).map_err(failed("socket").because())?;
            match spoofed(&socket, SocketAddr::new(source.to_canonical(), next_source_port()), destination) {
                Ok(()) => return Ok(socket.into()),
                Err(error) if is_port_taken(&error) => {}
                Err(error) => return Err(failed("connect with the client's address").because()(error)),
            }
        }
        Err(failed("find a free source port").because()(io::Error::from(io::ErrorKind::AddrInUse)))
    })?
}

/// Opens an unconnected, non-blocking proxy socket for a connection to `destination`, with the mark
/// that [`is_proxys_own`] checks.
///
/// It is not captured if the calling task's cgroup is exempt when it connects.
///
/// # Errors
/// If the namespace cannot be entered, or the socket cannot be opened or marked.
pub fn outbound(netns: &NetNs, destination: SocketAddr) -> Result<Socket> {
    let failed = Failed { step: "socket", address: destination, inode: netns.id().inode };
    run_in(netns, || {
        let socket = stream(destination)?;
        socket.set_mark(PROXY_MARK)?;
        Ok(socket)
    })?
    .map_err(failed.because())
}

/// Whether a proxy opened the accepted connection itself, by its mark. Serving it would loop.
pub fn is_proxys_own(accepted: &impl AsFd) -> bool {
    socket2::SockRef::from(accepted).mark().is_ok_and(|mark| mark == PROXY_MARK)
}

/// Reads the properties that decide whether a listener may be armed.
///
/// # Errors
/// If the kernel does not report a property of the socket.
pub fn inspect(listener: &impl AsFd) -> Result<ListenerFacts> {
    let inspect = |what| move |source| Error::Inspect { what, source };
    let socket = socket2::SockRef::from(listener);
    let local = socket.local_addr().map_err(inspect("address of a listener"))?;
    let local = local
        .as_socket()
        .ok_or_else(|| inspect("address of a listener")(io::Error::from(io::ErrorKind::InvalidInput)))?;
    let (level, option) = if local.is_ipv6() {
        (libc::SOL_IPV6, libc::IPV6_TRANSPARENT)
    } else {
        (libc::SOL_IP, libc::IP_TRANSPARENT)
    };
    Ok(ListenerFacts {
        cookie: raw::netns_cookie(listener).map_err(inspect("network namespace cookie of a listener"))?,
        local: SocketAddr::new(local.ip().to_canonical(), local.port()),
        listening: socket.is_listener().map_err(inspect("state of a listener"))?,
        transparent: raw::int_option(listener, level, option)
            .map_err(inspect("transparency of a listener"))?
            != 0,
    })
}

fn stream(destination: SocketAddr) -> io::Result<Socket> {
    let socket =
        Socket::new(Domain::for_address(destination), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if destination.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    Ok(socket)
}

/// Prepares the socket so that both directions stay on loopback, and connects it.
///
/// The mark alone is not enough: the pod's own address is first found in the `local` table, on the
/// pod's device, where the packet would look like an external one. With the socket bound to `lo`,
/// only our route matches.
fn spoofed(socket: &Socket, source: SocketAddr, destination: SocketAddr) -> io::Result<()> {
    if destination.is_ipv6() {
        socket.set_ip_transparent_v6(true)?;
    } else {
        socket.set_ip_transparent_v4(true)?;
    }
    socket.set_mark(MARK)?;
    socket.bind_device(Some(LOOPBACK))?;
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(source))?;
    start(socket, destination)
}

fn start(socket: &Socket, destination: SocketAddr) -> io::Result<()> {
    match socket.connect(&destination.into()) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
        result => result,
    }
}

/// IP_LOCAL_PORT_RANGE does not help, because the kernel limits it to the namespace's range, which
/// clients use.
fn next_source_port() -> u16 {
    // Starts at random, because connections of an earlier process may still hold the first ports.
    static NEXT: LazyLock<AtomicU16> =
        LazyLock::new(|| AtomicU16::new(RandomState::new().hash_one(0) as u16));
    let turn = NEXT.fetch_add(1, Ordering::Relaxed) % (SOURCE_PORTS.end - SOURCE_PORTS.start);
    SOURCE_PORTS.start + turn
}

fn is_port_taken(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EADDRINUSE | libc::EADDRNOTAVAIL))
}

#[derive(Clone, Copy)]
struct Failed {
    step: &'static str,
    address: SocketAddr,
    inode: u64,
}

impl Failed {
    fn because(self) -> impl Fn(io::Error) -> Error {
        let Self { step, address, inode } = self;
        move |source| Error::Socket { step, address, inode, source }
    }
}
