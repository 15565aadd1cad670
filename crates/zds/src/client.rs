//! The proxy's side of ZDS: connects, sends a hello, receives requests and acknowledges each.
//!
//! Invariant: requests arrive in the order that the protocol permits, or [`Client::receive`] fails.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::{
    ZdsError,
    codec::{self, ListenerOf, Request},
    packet::Socket,
};

/// A connection to the node agent.
#[derive(Debug)]
pub struct Client {
    socket: Socket,
    snapshot_received: bool,
    owes_ack: bool,
}

impl Client {
    /// Connects to the agent's socket and sends a hello with the listeners in `held`, which the
    /// caller keeps.
    ///
    /// `instance` must be unique per process. Dropping the client closes the connection.
    ///
    /// # Errors
    /// [`ZdsError::Io`] when no agent is listening: retry after a pause.
    pub async fn connect(path: &Path, instance: &str, held: &[ListenerOf]) -> Result<Self, ZdsError> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .map_err(|error| ZdsError::io("open")(error.into()))?;
        let address =
            SocketAddrUnix::new(path).map_err(|error| ZdsError::io("name the agent")(error.into()))?;
        connect(&fd, &address).map_err(|error| ZdsError::io("connect to the agent")(error.into()))?;
        Self::hello(fd, instance, held).await
    }

    /// Sends a hello on a connected, non-blocking socket.
    ///
    /// # Errors
    /// When the agent does not accept the hello.
    pub async fn hello(fd: OwnedFd, instance: &str, held: &[ListenerOf]) -> Result<Self, ZdsError> {
        let socket = Socket::new(fd)?;
        for (bytes, part) in codec::hello(instance, held) {
            let fds: Vec<BorrowedFd<'_>> = part.iter().map(|of| of.listener.fd.as_fd()).collect();
            socket.send(&bytes, &fds).await?;
        }
        Ok(Self { socket, snapshot_received: false, owes_ack: false })
    }

    /// Receives the next request. Cancel safe. Every request must be answered with [`Client::ack`]
    /// before the next.
    ///
    /// # Errors
    /// Any error ends the connection. [`ZdsError::Closed`] when the agent closed it.
    pub async fn receive(&mut self) -> Result<Request, ZdsError> {
        if self.owes_ack {
            return Err(ZdsError::Protocol("a request has not been acknowledged yet"));
        }
        let packet = self.socket.receive().await?;
        let request = codec::decode_request(&packet.bytes, packet.fds)?;
        match &request {
            Request::Keep { .. } if self.snapshot_received => {
                return Err(ZdsError::Protocol("a keep came after the snapshot"));
            }
            Request::SnapshotSent if self.snapshot_received => {
                return Err(ZdsError::Protocol("the snapshot ended twice"));
            }
            Request::SnapshotSent => self.snapshot_received = true,
            Request::Add(_) | Request::Keep { .. } | Request::Del { .. } | Request::Drain | Request::Ping => {
            }
        }
        self.owes_ack = true;
        Ok(request)
    }

    /// Answers the last request with success or an error, after which the agent will retry.
    ///
    /// # Errors
    /// When there is no request to answer, or the agent is gone.
    pub async fn ack(&mut self, outcome: Result<(), &str>) -> Result<(), ZdsError> {
        if !self.owes_ack {
            return Err(ZdsError::Protocol("there is no request to acknowledge"));
        }
        self.socket.send(&codec::encode_ack(outcome), &[]).await?;
        self.owes_ack = false;
        Ok(())
    }
}
