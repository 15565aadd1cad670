//! A byte stream to an application, through a tunnel or on a socket.
//!
//! Invariant: an orderly end and a reset remain distinct, through a tunnel as on a socket.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use ambit_hbone::{Tunnel, TunnelStream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// A stream as it was opened.
#[derive(Debug)]
pub enum Stream {
    /// Inside a tunnel.
    Tunnel(Tunnel),
    /// On a socket.
    Plain(TcpStream),
}

/// The same stream, for reading and writing.
#[derive(Debug)]
pub(crate) enum Io {
    Tunnel(TunnelStream),
    Plain(TcpStream),
}

impl Stream {
    pub(crate) fn into_io(self) -> Io {
        match self {
            Self::Tunnel(tunnel) => Io::Tunnel(tunnel.into_stream()),
            Self::Plain(stream) => Io::Plain(stream),
        }
    }
}

macro_rules! forward {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Self::Tunnel(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Self::Plain(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        forward!(self, stream => stream.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        forward!(self, stream => stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        forward!(self, stream => stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, stream => stream.poll_shutdown(cx))
    }
}
