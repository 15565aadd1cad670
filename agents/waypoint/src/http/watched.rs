//! A tunnel as the HTTP/1 server reads it, with a timeout for the head of a request.
//!
//! Invariant: a head is complete within [`HEAD_TIMEOUT`] of its first byte, or is answered 408 and the stream ends. A client
//! that is silent between two requests costs no timer.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use ambit_hbone::TunnelStream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// How long the head of a request may take from its first byte.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// RFC 9110 15.5.9.
const REQUEST_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Between requests, in a head, or serving. Shared by the stream and its requests.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<State>);

#[derive(Debug, Default)]
struct State {
    stage: AtomicU8,
    /// Complete heads so far.
    heads: AtomicU64,
    /// The last write had to wait.
    blocked: AtomicBool,
}

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const SERVING: u8 = 2;

impl Progress {
    /// Notes a complete head.
    pub fn serving(&self) {
        self.0.stage.store(SERVING, Ordering::Relaxed);
        self.0.heads.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes the end of a response.
    pub fn idle(&self) {
        self.0.stage.store(IDLE, Ordering::Relaxed);
    }

    /// Number of requests so far.
    pub fn heads(&self) -> u64 {
        self.0.heads.load(Ordering::Relaxed)
    }

    /// Whether it is between two requests, with all responses written.
    pub fn may_park(&self) -> bool {
        self.is_idle() && !self.0.blocked.load(Ordering::Relaxed)
    }

    fn is_idle(&self) -> bool {
        self.0.stage.load(Ordering::Relaxed) == IDLE
    }

    fn note(&self, written: &Poll<io::Result<usize>>) {
        self.0.blocked.store(written.is_pending(), Ordering::Relaxed);
    }

    fn bytes_came(&self) {
        // Load and store need not be atomic together: all writers are on one thread.
        if self.is_idle() {
            self.0.stage.store(HEAD, Ordering::Relaxed);
        }
    }

    fn is_serving(&self) -> bool {
        self.0.stage.load(Ordering::Relaxed) == SERVING
    }

    fn is_in_head(&self) -> bool {
        self.0.stage.load(Ordering::Relaxed) == HEAD
    }
}

/// A tunnel with a timeout for heads of requests.
#[derive(Debug)]
pub(super) struct Watched {
    stream: TunnelStream,
    progress: Progress,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Watched {
    /// Wraps a tunnel.
    pub(super) fn new(stream: TunnelStream, progress: Progress) -> Self {
        Self { stream, progress, timer: None }
    }

    /// The tunnel itself.
    pub(super) fn into_stream(self) -> TunnelStream {
        self.stream
    }

    /// Ends the stream in order.
    pub(super) async fn end(mut self) {
        // The peer may have reset it.
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut self.stream).await;
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(HEAD_TIMEOUT)));
        timer.as_mut().poll(cx)
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Ready(read) => {
                self.progress.bytes_came();
                if !self.progress.is_in_head() {
                    self.timer = None;
                }
                Poll::Ready(read)
            }
            Poll::Pending if self.progress.is_in_head() => {
                ready!(self.poll_timer(cx));
                // Best effort: the part that does not fit into the window now is not sent.
                let _ = Pin::new(&mut self.stream).poll_write(cx, REQUEST_TIMEOUT);
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Pending => {
                self.timer = None;
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.progress.note(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.progress.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing is buffered here. While a request is served nothing is read, so that a reset by the client is noticed here,
    /// where the server calls in any case.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.progress.is_serving()
            && let Poll::Ready(gone) = self.stream.poll_reset(cx)
        {
            return Poll::Ready(Err(gone));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
