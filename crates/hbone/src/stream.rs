//! A tunnel as a byte stream, for protocols spoken inside it.
//!
//! Invariant: the peer's window grows only by what was read, so a slow reader slows its peer. An
//! orderly end is end of file, and a reset is an error, in both directions. A stream that is
//! dropped before its end is reset.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::Tunnel;

/// The most bytes that are gathered into one DATA frame: a few TLS records.
const WRITE_MAX_BYTES: usize = 64 << 10;

/// Created by [`Tunnel::into_stream`].
#[derive(Debug)]
pub struct TunnelStream {
    tunnel: Tunnel,
    /// Received, not yet read.
    unread: Bytes,
    /// END_STREAM was sent.
    ended: bool,
}

impl Tunnel {
    /// Converts the tunnel for reading and writing.
    pub fn into_stream(self) -> TunnelStream {
        TunnelStream { tunnel: self, unread: Bytes::new(), ended: false }
    }
}

impl TunnelStream {
    /// The received bytes that have not been read. Waits until there are some; empty only at the
    /// end of the stream. Consumes nothing, so protocol detection leaves the bytes to the handler.
    pub fn poll_peek(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&Bytes>> {
        if self.unread.is_empty() {
            match ready!(self.tunnel.recv.poll_data(cx)) {
                Some(Ok(bytes)) => self.unread = bytes,
                Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => {}
                Some(Err(error)) => return Poll::Ready(Err(reset(error))),
                None => {}
            }
        }
        Poll::Ready(Ok(&self.unread))
    }

    /// Like [`Self::poll_peek`], but waits for more than the `have` bytes that were seen before.
    /// The caller must limit `have`: bytes gathered here do not open the peer's window.
    pub fn poll_peek_more(&mut self, cx: &mut Context<'_>, have: usize) -> Poll<io::Result<&Bytes>> {
        if self.unread.len() <= have && !self.unread.is_empty() {
            match ready!(self.tunnel.recv.poll_data(cx)) {
                Some(Ok(more)) => {
                    let mut gathered = BytesMut::with_capacity(self.unread.len() + more.len());
                    gathered.extend_from_slice(&self.unread);
                    gathered.extend_from_slice(&more);
                    self.unread = gathered.freeze();
                }
                Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => {}
                Some(Err(error)) => return Poll::Ready(Err(reset(error))),
                None => {}
            }
            return Poll::Ready(Ok(&self.unread));
        }
        self.poll_peek(cx)
    }

    /// Ready once the peer no longer reads: it has reset the stream, or its connection is lost. Its
    /// end of file does not count.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.tunnel.send.poll_reset(cx).map(|told| match told {
            Ok(_reason) => io::ErrorKind::ConnectionReset.into(),
            Err(error) => reset(error),
        })
    }

    fn consume(&mut self, bytes: usize) {
        self.unread.advance(bytes);
        if self.unread.is_empty() {
            // An empty remainder would keep alive the connection's whole buffer.
            self.unread = Bytes::new();
        }
        // Fails only when more is released than was received.
        let _ = self.tunnel.recv.flow_control().release_capacity(bytes);
    }

    /// Waits for window space of at most `wanted` bytes.
    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        let send = &mut self.tunnel.send;
        if send.capacity() < wanted {
            send.reserve_capacity(wanted);
        }
        while send.capacity() == 0 {
            match ready!(send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(reset(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        Poll::Ready(Ok(send.capacity().min(wanted)))
    }

    fn send(&mut self, bytes: Bytes) -> Poll<io::Result<usize>> {
        let len = bytes.len();
        Poll::Ready(self.tunnel.send.send_data(bytes, false).map(|()| len).map_err(reset))
    }
}

/// Resets the stream, as TCP would (RFC 9113 8.5): a truncated stream must not look complete at the
/// far end.
impl Drop for TunnelStream {
    fn drop(&mut self) {
        if !self.ended {
            self.tunnel.send.send_reset(Reason::CONNECT_ERROR);
        }
    }
}

fn reset(error: h2::Error) -> io::Error {
    let kind = if error.is_io() { io::ErrorKind::ConnectionAborted } else { io::ErrorKind::ConnectionReset };
    io::Error::new(kind, error)
}

impl AsyncRead for TunnelStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let taken = {
            let unread = ready!(self.poll_peek(cx))?;
            let taken = unread.len().min(buffer.remaining());
            buffer.put_slice(unread.get(..taken).unwrap_or_default());
            taken
        };
        if taken > 0 {
            self.consume(taken);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(self.poll_room(cx, bytes.len().min(WRITE_MAX_BYTES)))?;
        self.send(Bytes::copy_from_slice(bytes.get(..room).unwrap_or_default()))
    }

    /// One frame for all slices, so that a header and its body need only one TLS record.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total = slices.iter().map(|slice| slice.len()).sum::<usize>().min(WRITE_MAX_BYTES);
        if total == 0 {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(self.poll_room(cx, total))?;
        let mut gathered = BytesMut::with_capacity(room);
        for slice in slices {
            let part = slice.len().min(room - gathered.len());
            gathered.extend_from_slice(slice.get(..part).unwrap_or_default());
        }
        self.send(gathered.freeze())
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// No-op: the connection's driver sends what it was given.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended {
            self.ended = true;
            // Fails when the peer has reset the stream, which then needs no end.
            let _ = self.tunnel.send.send_data(Bytes::new(), true);
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
