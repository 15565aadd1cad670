//! Packets with file descriptors on a non-blocking `SOCK_SEQPACKET` socket.
//!
//! Invariant: every received descriptor is owned, so that error paths close it, and close-on-exec
//! from the start.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{BorrowedFd, OwnedFd},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::ZdsError;

/// Largest packet in bytes: the receive buffer size of Istio's implementations.
pub const PACKET_BYTES_MAX: usize = 1024;
/// Most file descriptors in one packet (the kernel's own limit is 253).
pub const FDS_MAX: usize = 32;

/// A received packet.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

/// A connected socket.
#[derive(Debug)]
pub(crate) struct Socket(AsyncFd<OwnedFd>);

impl Socket {
    /// Wraps a connected, non-blocking socket.
    pub(crate) fn new(fd: OwnedFd) -> Result<Self, ZdsError> {
        register(fd).map(Self)
    }

    pub(crate) fn fd(&self) -> &OwnedFd {
        self.0.get_ref()
    }

    /// Sends one packet. Cancel safe: a packet is sent completely or not at all.
    pub(crate) async fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), ZdsError> {
        if bytes.len() > PACKET_BYTES_MAX {
            return Err(ZdsError::TooLarge { limit: PACKET_BYTES_MAX });
        }
        if fds.len() > FDS_MAX {
            return Err(ZdsError::TooManyDescriptors { limit: FDS_MAX });
        }
        let sent = self.0.async_io(Interest::WRITABLE, |socket| send_now(socket, bytes, fds)).await;
        match sent {
            Ok(()) => Ok(()),
            Err(error) if is_closed(&error) => Err(ZdsError::Closed),
            Err(source) => Err(ZdsError::Io { doing: "send a packet", source }),
        }
    }

    /// Receives one packet. Cancel safe.
    pub(crate) async fn receive(&self) -> Result<Packet, ZdsError> {
        let received = self.0.async_io(Interest::READABLE, receive_now).await;
        let (packet, flags) = match received {
            Ok(received) => received,
            Err(error) if is_closed(&error) => return Err(ZdsError::Closed),
            Err(source) => return Err(ZdsError::Io { doing: "receive a packet", source }),
        };
        if flags.contains(ReturnFlags::CTRUNC) {
            return Err(ZdsError::TooManyDescriptors { limit: FDS_MAX });
        }
        if flags.contains(ReturnFlags::TRUNC) {
            return Err(ZdsError::TooLarge { limit: PACKET_BYTES_MAX });
        }
        if packet.bytes.is_empty() {
            // On this socket type an empty packet and the end of the stream look the same; ZDS uses
            // neither otherwise.
            return Err(ZdsError::Closed);
        }
        Ok(packet)
    }
}

/// Registers a non-blocking socket with the runtime.
#[expect(deprecated, reason = "sound for OwnedFd, whose descriptor never changes; the successor is unsafe")]
pub(crate) fn register(fd: OwnedFd) -> Result<AsyncFd<OwnedFd>, ZdsError> {
    AsyncFd::new(fd).map_err(ZdsError::io("register with the runtime"))
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

fn send_now(socket: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("too many file descriptors for one packet"));
    }
    let sent = sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    if sent == bytes.len() { Ok(()) } else { Err(io::Error::other("a packet was sent in part")) }
}

fn receive_now(socket: &OwnedFd) -> io::Result<(Packet, ReturnFlags)> {
    let mut bytes = vec![0u8; PACKET_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let fds = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            RecvAncillaryMessage::ScmCredentials(_) | _ => None,
        })
        .flatten()
        .collect();
    bytes.truncate(received.bytes);
    Ok((Packet { bytes, fds }, received.flags))
}
