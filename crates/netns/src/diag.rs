//! The TCP sockets of a network namespace, and closing them from outside (`sock_diag(7)`).
//!
//! Invariant: only exactly the listed socket is closed: the kernel compares its cookie.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use netlink_sys::{Socket, SocketAddr as NetlinkAddress, protocols::NETLINK_SOCK_DIAG};

use crate::{Error, NetNs, Result, run_in};

/// Listed sockets per namespace and family.
const SOCKETS_MAX: usize = 1 << 17;

/// The kernel puts at most 32 KiB into one response.
const DATAGRAM_BYTES: usize = 64 << 10;
/// From `linux/sock_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// From `linux/netlink.h`.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
/// From `linux/inet_diag.h`: the cgroup v2 of the task that made the socket.
const INET_DIAG_CGROUP_ID: u16 = 21;
/// Sizes of `struct nlmsghdr`, `struct inet_diag_sockid`, and `struct inet_diag_msg` before its
/// attributes.
const HEADER_BYTES: usize = 16;
const ID_BYTES: usize = 48;
const MESSAGE_BYTES: usize = 72;
/// Offset of the socket's inode; zero when no process holds the socket.
const INODE_AT: usize = 68;
/// From `include/net/tcp_states.h`.
const TCP_FIN_WAIT2: u8 = 5;
const TCP_TIME_WAIT: u32 = 6;
const TCP_CLOSE: u32 = 7;
const TCP_LISTEN: u8 = 10;
/// Every state in which data can still be exchanged, and listening. A socket in TIME_WAIT is
/// finished.
const STATES: u32 = 0x1fff & !(1 | 1 << TCP_TIME_WAIT | 1 << TCP_CLOSE);

/// A TCP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpSocket {
    /// Local address, not v4-mapped.
    pub local: SocketAddr,
    /// Peer address, not v4-mapped; unspecified for a listener.
    pub peer: SocketAddr,
    /// Whether it is listening.
    pub listens: bool,
    /// Id of the cgroup v2 of the task that created it; `None` for a connection that was not
    /// accepted yet.
    pub cgroup: Option<u64>,
    /// The kernel's identifier of the socket.
    pub id: SocketId,
}

/// The kernel's identifier of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketId {
    family: u8,
    id: [u8; ID_BYTES],
}

impl Default for SocketId {
    /// Matches no socket.
    fn default() -> Self {
        Self { family: 0, id: [0; ID_BYTES] }
    }
}

/// Lists the TCP sockets of a namespace.
///
/// # Errors
/// If the namespace cannot be entered, or the kernel's socket diagnostics cannot be read.
pub fn tcp_sockets(netns: &NetNs) -> Result<Vec<TcpSocket>> {
    let failed = |source| Error::Inspect { what: "list the TCP sockets of a network namespace", source };
    let list = || -> io::Result<Vec<TcpSocket>> {
        let mut sockets = list(libc::AF_INET)?;
        sockets.extend(list(libc::AF_INET6)?);
        Ok(sockets)
    };
    run_in(netns, list)?.map_err(failed)
}

/// Closes a connection as if its peer had reset it; both ends see a reset. Returns false if it is
/// already gone.
///
/// # Errors
/// If the namespace cannot be entered, or the kernel refuses to close the socket.
pub fn abort(netns: &NetNs, socket: &TcpSocket) -> Result<bool> {
    let address = socket.peer;
    let failed = |source| Error::Socket { step: "SOCK_DESTROY", address, inode: netns.id().inode, source };
    match run_in(netns, || destroy(&socket.id))? {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

fn list(family: i32) -> io::Result<Vec<TcpSocket>> {
    let family = u8::try_from(family).map_err(io::Error::other)?;
    let id = SocketId { family, id: [0; ID_BYTES] };
    let socket = ask(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, STATES, &id)?;
    let mut sockets = Vec::new();
    loop {
        let datagram = receive(&socket)?;
        for (kind, body) in messages(&datagram) {
            match kind {
                NLMSG_DONE => return Ok(sockets),
                NLMSG_ERROR => outcome(body)?,
                _ => sockets.extend(read(body)),
            }
        }
        if sockets.len() > SOCKETS_MAX {
            return Err(io::Error::other("more sockets than are looked through"));
        }
    }
}

fn destroy(id: &SocketId) -> io::Result<()> {
    let socket = ask(SOCK_DESTROY, NLM_F_ACK, STATES, id)?;
    let datagram = receive(&socket)?;
    messages(&datagram).filter(|(kind, _)| *kind == NLMSG_ERROR).try_for_each(|(_, body)| outcome(body))
}

/// Sends one `struct inet_diag_req_v2`.
fn ask(kind: u16, flags: u16, states: u32, of: &SocketId) -> io::Result<Socket> {
    let protocol = u8::try_from(libc::IPPROTO_TCP).map_err(io::Error::other)?;
    let mut request = vec![of.family, protocol, 0, 0];
    request.extend(states.to_ne_bytes());
    request.extend(of.id);
    let length = u32::try_from(HEADER_BYTES + request.len()).map_err(io::Error::other)?;
    let mut message = Vec::from(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    // Sequence number and port stay zero, because each query uses its own socket.
    message.extend([0; 8]);
    message.extend(request);
    let socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.connect(&NetlinkAddress::new(0, 0))?;
    socket.send(&message, 0)?;
    Ok(socket)
}

fn receive(socket: &Socket) -> io::Result<Vec<u8>> {
    let mut datagram = Vec::with_capacity(DATAGRAM_BYTES);
    socket.recv(&mut datagram, 0)?;
    Ok(datagram)
}

/// Iterates over `struct nlmsghdr` messages: type and body.
fn messages(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(part(rest, 0)?)).ok()?;
        let kind = u16::from_ne_bytes(part(rest, 4)?);
        let body = rest.get(HEADER_BYTES..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// Parses `struct nlmsgerr`: a negated error number, or zero.
fn outcome(body: &[u8]) -> io::Result<()> {
    match part(body, 0).map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        None => Err(io::Error::other("a message of the kernel is too short")),
    }
}

/// Parses `struct inet_diag_msg` and its attributes.
fn read(body: &[u8]) -> Option<TcpSocket> {
    let [family, state] = part(body, 0)?;
    let id: [u8; ID_BYTES] = part(body, 4)?;
    // An orphaned socket whose data has all arrived only waits for the other end, and not every
    // kernel can close it.
    if state == TCP_FIN_WAIT2 && part(body, INODE_AT).map(u32::from_ne_bytes) == Some(0) {
        return None;
    }
    let end = |port: usize, address: usize| {
        let port = u16::from_be_bytes(part(&id, port)?);
        let ip = match i32::from(family) {
            libc::AF_INET => IpAddr::from(Ipv4Addr::from(part::<4>(&id, address)?)),
            _ => IpAddr::from(Ipv6Addr::from(part::<16>(&id, address)?)).to_canonical(),
        };
        Some(SocketAddr::new(ip, port))
    };
    Some(TcpSocket {
        local: end(0, 4)?,
        peer: end(2, 20)?,
        listens: state == TCP_LISTEN,
        cgroup: cgroup(body.get(MESSAGE_BYTES..).unwrap_or_default()),
        id: SocketId { family, id },
    })
}

fn cgroup(mut attributes: &[u8]) -> Option<u64> {
    loop {
        let length = usize::from(u16::from_ne_bytes(part(attributes, 0)?));
        if u16::from_ne_bytes(part(attributes, 2)?) == INET_DIAG_CGROUP_ID {
            return part(attributes, 4).map(u64::from_ne_bytes);
        }
        // A length smaller than the attribute's header would loop forever.
        attributes = attributes.get(length.max(4).next_multiple_of(4)..)?;
    }
}

fn part<const N: usize>(bytes: &[u8], from: usize) -> Option<[u8; N]> {
    bytes.get(from..from + N)?.try_into().ok()
}
