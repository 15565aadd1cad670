//! The node agent's side of ZDS: listens, receives the hello, sends requests and waits for each
//! ack.
//!
//! Invariant: at most one request per connection is in flight, and none takes longer than
//! [`ACK_TIME_MAX`].

use std::{
    fs,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::Path,
    time::Duration,
};

use ambit_proto::{zds::workload_request::Payload, zds_ext};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    Kind, ZdsError,
    codec::{self, Connections, Hello, Pod},
    packet::{Socket, register},
};

/// How long a proxy may take to answer a request.
pub(crate) const ACK_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a proxy may take for its complete hello.
pub(crate) const HELLO_TIME_MAX: Duration = Duration::from_secs(5);
/// Hello packets per connection: 20 listeners each, enough for 1300 pods.
const HELLO_PACKETS_MAX: usize = 200;
/// Connections waiting to be accepted.
const BACKLOG: i32 = 8;
/// Only the owner (root) may connect.
const SOCKET_MODE: u32 = 0o600;

/// The listening socket.
#[derive(Debug)]
pub struct Server(AsyncFd<OwnedFd>);

/// The peer's credentials, from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Process id in our pid namespace; 0 when it is not visible from here.
    pub pid: i32,
    /// User id.
    pub uid: u32,
}

/// The connection of one proxy.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    peer: Peer,
}

impl Server {
    /// Listens at `path` with mode 0600, replacing the socket file of an earlier process.
    ///
    /// # Errors
    /// When the directory is missing or not writable.
    pub fn bind(path: &Path) -> Result<Self, ZdsError> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(ZdsError::io("replace an old socket")(error));
            }
            _ => {}
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .map_err(|error| ZdsError::io("open")(error.into()))?;
        let address = SocketAddrUnix::new(path).map_err(|error| ZdsError::io("be named")(error.into()))?;
        bind(&fd, &address).map_err(|error| ZdsError::io("bind")(error.into()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))
            .map_err(ZdsError::io("be closed to others"))?;
        listen(&fd, BACKLOG).map_err(|error| ZdsError::io("listen")(error.into()))?;
        register(fd).map(Self)
    }

    /// Accepts the next proxy. Cancel safe. Call [`Connection::hello`] next.
    ///
    /// # Errors
    /// When file descriptors ran out: pause and call again.
    pub async fn accept(&self) -> Result<Connection, ZdsError> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = self
            .0
            .async_io(Interest::READABLE, |fd| accept_with(fd, flags).map_err(Into::into))
            .await
            .map_err(ZdsError::io("accept"))?;
        Connection::new(fd)
    }
}

impl Connection {
    /// Wraps a connected, non-blocking socket.
    ///
    /// # Errors
    /// When the kernel does not return the peer's credentials.
    pub fn new(fd: OwnedFd) -> Result<Self, ZdsError> {
        let credentials =
            getsockopt(&fd, PeerCredentials).map_err(|error| ZdsError::io("learn its peer")(error.into()))?;
        let peer = Peer { pid: credentials.pid(), uid: credentials.uid() };
        Ok(Self { socket: Socket::new(fd)?, peer })
    }

    /// The peer's credentials.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Receives the proxy's hello with all its listeners, within `HELLO_TIME_MAX`.
    ///
    /// # Errors
    /// Every error ends the connection.
    pub async fn hello(&mut self) -> Result<Hello, ZdsError> {
        let all = async {
            let mut hello = Hello::default();
            for _ in 0..HELLO_PACKETS_MAX {
                let packet = self.socket.receive().await?;
                if !codec::decode_hello(&mut hello, &packet.bytes, packet.fds)? {
                    return Ok(hello);
                }
            }
            Err(ZdsError::Protocol("the hello has too many packets"))
        };
        let late = ZdsError::Timeout { payload: "hello", limit: HELLO_TIME_MAX };
        tokio::time::timeout(HELLO_TIME_MAX, all).await.unwrap_or(Err(late))
    }

    /// Passes a pod with its namespace and listeners (none for a proxy that opens its own).
    ///
    /// # Errors
    /// [`ZdsError::Refused`] leaves the connection usable, all others end it. This applies to all
    /// requests.
    pub async fn add(
        &mut self,
        pod: &Pod,
        netns: BorrowedFd<'_>,
        listeners: &[(Kind, BorrowedFd<'_>)],
    ) -> Result<(), ZdsError> {
        let kinds: Vec<Kind> = listeners.iter().map(|(kind, _)| *kind).collect();
        let fds: Vec<BorrowedFd<'_>> =
            std::iter::once(netns).chain(listeners.iter().map(|(_, fd)| *fd)).collect();
        self.ask(codec::add(pod, &kinds), &fds).await
    }

    /// Lists a pod whose namespace is not known, so that the proxy keeps it at the end of the
    /// snapshot.
    ///
    /// # Errors
    /// As [`Connection::add`].
    pub async fn keep(&mut self, uid: &str) -> Result<(), ZdsError> {
        self.ask(codec::keep(uid), &[]).await
    }

    /// Removes a pod.
    ///
    /// # Errors
    /// As [`Connection::add`].
    pub async fn del(&mut self, uid: &str, connections: Connections) -> Result<(), ZdsError> {
        self.ask(codec::del(uid, connections), &[]).await
    }

    /// Ends the snapshot. Call once per connection.
    ///
    /// # Errors
    /// As [`Connection::add`].
    pub async fn snapshot_sent(&mut self) -> Result<(), ZdsError> {
        self.ask(codec::snapshot_sent(), &[]).await
    }

    /// Asks the proxy to drain, because a newer one took over.
    ///
    /// # Errors
    /// As [`Connection::add`].
    pub async fn drain(&mut self) -> Result<(), ZdsError> {
        self.ask(Payload::Drain(zds_ext::Drain {}), &[]).await
    }

    /// Checks that the proxy is alive.
    ///
    /// # Errors
    /// As [`Connection::add`].
    pub async fn ping(&mut self) -> Result<(), ZdsError> {
        self.ask(Payload::Ping(zds_ext::Ping {}), &[]).await
    }

    /// Returns when the proxy disconnects, or sends something without a request. Cancel safe.
    pub async fn ended(&mut self) -> ZdsError {
        match self.socket.receive().await {
            Ok(_) => ZdsError::Protocol("the proxy spoke without being asked"),
            Err(error) => error,
        }
    }

    async fn ask(&mut self, payload: Payload, fds: &[BorrowedFd<'_>]) -> Result<(), ZdsError> {
        let name = codec::name(&payload);
        let bytes = codec::encode_request(payload);
        let exchange = async {
            self.socket.send(&bytes, fds).await?;
            let packet = self.socket.receive().await?;
            codec::decode_ack(&packet.bytes, &packet.fds)
        };
        let late = ZdsError::Timeout { payload: name, limit: ACK_TIME_MAX };
        tokio::time::timeout(ACK_TIME_MAX, exchange).await.unwrap_or(Err(late))
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.fd().as_fd()
    }
}
