//! Copies bytes between a tunnel and a TCP stream.
//!
//! Each direction ends separately: end of file becomes END_STREAM, and back. Both directions run in
//! one task without a lock. Received data is written without copying, and data read from the TCP
//! stream is passed to the tunnel without copying.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::{CopyError, Tunnel};

/// Read size of a stream that has transferred little, in bytes: the memory of an idle connection.
const SMALL_BYTES: usize = 1 << 10;
/// Read size after [`MEDIUM_AFTER`] bytes: one TLS record, with room for the frame header.
const MEDIUM_BYTES: usize = (16 << 10) - 64;
/// Read size after [`LARGE_AFTER`] bytes.
const LARGE_BYTES: usize = (256 << 10) - 64;
const MEDIUM_AFTER: u64 = 128 << 10;
const LARGE_AFTER: u64 = 10 << 20;

/// Bytes transferred so far; can be read while a copy runs.
#[derive(Debug, Default)]
pub struct Counters {
    /// From the TCP stream into the tunnel.
    pub sent: AtomicU64,
    /// From the tunnel to the TCP stream.
    pub received: AtomicU64,
}

/// Bytes transferred by a copy that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transferred {
    /// From the TCP stream into the tunnel.
    pub sent: u64,
    /// From the tunnel to the TCP stream.
    pub received: u64,
}

/// Copies until both directions have ended. If the TCP stream fails, or this future is dropped
/// early, the tunnel is reset, so that the far application sees a reset too. A reset of the tunnel
/// is an error, except CANCEL and NO_ERROR, which peers use to end a stream.
///
/// # Errors
/// If the tunnel is reset, or the TCP stream cannot be read or written; it says which of the two.
pub async fn copy<IO>(tunnel: Tunnel, mut io: IO, counters: &Counters) -> Result<Transferred, CopyError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let mut whole = Whole { tunnel, done: false };
    let tunnel = &mut whole.tunnel;
    let mut outgoing = Outgoing::new();
    let mut incoming = Incoming::Waiting { unflushed: false };
    let copied = poll_fn(|cx| {
        let received = incoming.poll(cx, &mut tunnel.recv, &mut io, &counters.received)?;
        let sent = outgoing.poll(cx, &mut io, &mut tunnel.send, &counters.sent)?;
        if received.is_ready() && sent.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    });
    copied.await?;
    whole.done = true;
    Ok(Transferred {
        sent: counters.sent.load(Ordering::Relaxed),
        received: counters.received.load(Ordering::Relaxed),
    })
}

/// Resets its tunnel unless the copy completed: a truncated stream must not look complete at the
/// far end.
struct Whole {
    tunnel: Tunnel,
    done: bool,
}

impl Drop for Whole {
    fn drop(&mut self) {
        if !self.done {
            self.tunnel.send.send_reset(Reason::CONNECT_ERROR);
        }
    }
}

/// From the TCP stream into the tunnel.
struct Outgoing {
    /// Read from the TCP stream, not yet sent.
    buffer: BytesMut,
    total: u64,
    done: bool,
}

impl Outgoing {
    fn new() -> Self {
        Self { buffer: BytesMut::new(), total: 0, done: false }
    }

    fn poll<IO>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut IO,
        send: &mut SendStream<Bytes>,
        counter: &AtomicU64,
    ) -> Poll<Result<(), CopyError>>
    where
        IO: AsyncRead + Unpin,
    {
        while !self.done {
            if !self.buffer.is_empty() {
                match ready!(self.poll_send(cx, send)) {
                    Ok(sent) => _ = counter.fetch_add(sent as u64, Ordering::Relaxed),
                    Err(stopped) => return Poll::Ready(self.stop(stopped)),
                }
                continue;
            }
            match self.poll_read(cx, io) {
                Poll::Ready(Ok(0)) => {
                    self.finish();
                    // Fails when the peer has reset the stream, which then needs no end.
                    let _ = send.send_data(Bytes::new(), true);
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(CopyError::Read(error))),
                // Checked only when idle, because each check takes the connection's lock.
                Poll::Pending => {
                    let stopped = ready!(send.poll_reset(cx));
                    return Poll::Ready(self.stop(stopped.map_or_else(Stopped::Lost, Stopped::Reset)));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read<IO>(&mut self, cx: &mut Context<'_>, io: &mut IO) -> Poll<std::io::Result<usize>>
    where
        IO: AsyncRead + Unpin,
    {
        let size = match self.total {
            LARGE_AFTER.. => LARGE_BYTES,
            MEDIUM_AFTER.. => MEDIUM_BYTES,
            _ => SMALL_BYTES,
        };
        if self.buffer.capacity() < size / 2 {
            self.buffer.reserve(size);
        }
        let read = ready!(std::pin::pin!(io.read_buf(&mut self.buffer)).poll(cx))?;
        self.total = self.total.saturating_add(read as u64);
        Poll::Ready(Ok(read))
    }

    /// Sends as much as the tunnel's flow-control window permits.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        send: &mut SendStream<Bytes>,
    ) -> Poll<Result<usize, Stopped>> {
        send.reserve_capacity(self.buffer.len());
        while send.capacity() == 0 {
            match ready!(send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(lost)) => return Poll::Ready(Err(Stopped::Lost(lost))),
                None => return Poll::Ready(Err(stopped(cx, send))),
            }
        }
        let chunk = self.buffer.split_to(send.capacity().min(self.buffer.len())).freeze();
        let len = chunk.len();
        match send.send_data(chunk, false) {
            Ok(()) => Poll::Ready(Ok(len)),
            Err(_inactive) => Poll::Ready(Err(stopped(cx, send))),
        }
    }

    fn stop(&mut self, stopped: Stopped) -> Result<(), CopyError> {
        match stopped {
            Stopped::Reset(reason) if is_end(reason) => {
                self.finish();
                Ok(())
            }
            Stopped::Reset(reason) => Err(CopyError::Reset(reason.into())),
            Stopped::Lost(error) => Err(CopyError::Reset(error)),
        }
    }

    fn finish(&mut self) {
        self.done = true;
        self.buffer = BytesMut::new();
    }
}

/// Why a tunnel accepts no more bytes.
enum Stopped {
    Reset(Reason),
    Lost(h2::Error),
}

/// The reason why a stream no longer sends.
fn stopped(cx: &mut Context<'_>, send: &mut SendStream<Bytes>) -> Stopped {
    match send.poll_reset(cx) {
        Poll::Ready(Ok(reason)) => Stopped::Reset(reason),
        Poll::Ready(Err(lost)) => Stopped::Lost(lost),
        Poll::Pending => Stopped::Reset(Reason::CANCEL),
    }
}

/// From the tunnel to the TCP stream.
enum Incoming {
    /// Waiting for the tunnel's next bytes.
    Waiting {
        unflushed: bool,
    },
    /// Received, not yet completely written.
    Writing(Bytes),
    /// The tunnel has ended; the TCP stream is being shut down.
    Closing,
    Done,
}

impl Incoming {
    fn poll<IO>(
        &mut self,
        cx: &mut Context<'_>,
        recv: &mut RecvStream,
        io: &mut IO,
        counter: &AtomicU64,
    ) -> Poll<Result<(), CopyError>>
    where
        IO: AsyncWrite + Unpin,
    {
        loop {
            match self {
                Self::Waiting { unflushed } => match recv.poll_data(cx) {
                    Poll::Ready(Some(Ok(bytes))) => *self = Self::Writing(bytes),
                    Poll::Ready(None) => *self = Self::Closing,
                    Poll::Ready(Some(Err(error))) => {
                        if !(error.is_reset() && error.reason().is_some_and(is_end)) {
                            return Poll::Ready(Err(CopyError::Reset(error)));
                        }
                        *self = Self::Closing;
                    }
                    Poll::Pending => {
                        if *unflushed {
                            ready!(Pin::new(&mut *io).poll_flush(cx)).map_err(CopyError::Write)?;
                            *unflushed = false;
                        }
                        return Poll::Pending;
                    }
                },
                Self::Writing(bytes) if bytes.is_empty() => *self = Self::Waiting { unflushed: true },
                Self::Writing(bytes) => {
                    let written =
                        ready!(Pin::new(&mut *io).poll_write(cx, bytes)).map_err(CopyError::Write)?;
                    if written == 0 {
                        return Poll::Ready(Err(CopyError::Write(std::io::ErrorKind::WriteZero.into())));
                    }
                    bytes.advance(written);
                    counter.fetch_add(written as u64, Ordering::Relaxed);
                    // Fails only when more is released than was received.
                    let _ = recv.flow_control().release_capacity(written);
                }
                Self::Closing => {
                    // Shutting down fails when the far end is gone, and is not needed then.
                    let _ = ready!(Pin::new(&mut *io).poll_shutdown(cx));
                    *self = Self::Done;
                }
                Self::Done => return Poll::Ready(Ok(())),
            }
        }
    }
}

fn is_end(reason: Reason) -> bool {
    reason == Reason::CANCEL || reason == Reason::NO_ERROR
}
