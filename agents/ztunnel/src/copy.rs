//! Copies bytes between two sockets, without a tunnel.
//!
//! Invariant: each direction ends separately, as in TCP, and the counters are always up to date.

use std::{
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, ready},
};

use ambit_hbone::Counters;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes},
    net::TcpStream,
};

use crate::error::Error;

/// Buffer size per direction in bytes.
const BUFFER_BYTES: usize = 16 << 10;

/// Copies until both directions have ended. `pod` is the application's side, `far` the other.
///
/// # Errors
/// [`Error::Stream`]
pub(crate) async fn copy(pod: &mut TcpStream, far: &mut TcpStream, counters: &Counters) -> Result<(), Error> {
    // Bytes written to the far side were sent by the pod, and the other way round.
    let mut pod = Counted { stream: pod, written: &counters.received };
    let mut far = Counted { stream: far, written: &counters.sent };
    copy_bidirectional_with_sizes(&mut pod, &mut far, BUFFER_BYTES, BUFFER_BYTES)
        .await
        .map(drop)
        .map_err(Error::Stream)
}

/// A socket that counts bytes written to it.
struct Counted<'a> {
    stream: &'a mut TcpStream,
    written: &'a AtomicU64,
}

impl AsyncRead for Counted<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counted<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let written = ready!(Pin::new(&mut *self.stream).poll_write(cx, bytes))?;
        self.written.fetch_add(written as u64, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        // Shutting down fails when the far end is gone, and is not needed then.
        let _ = ready!(Pin::new(&mut *self.stream).poll_shutdown(cx));
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
        (client.unwrap(), server.unwrap().0)
    }

    #[tokio::test]
    async fn keeps_half_closed_connections_and_counts_both_ways() {
        let (mut app, mut pod) = pair().await;
        let (mut peer, mut far) = pair().await;
        let counters = Counters::default();
        let copied = copy(&mut pod, &mut far, &counters);
        let talk = async {
            app.write_all(b"question").await.unwrap();
            app.shutdown().await.unwrap();
            let mut question = String::new();
            peer.read_to_string(&mut question).await.unwrap();
            peer.write_all(b"the answer").await.unwrap();
            peer.shutdown().await.unwrap();
            let mut answer = String::new();
            app.read_to_string(&mut answer).await.unwrap();
            (question, answer)
        };
        let (copied, said) = tokio::join!(copied, talk);
        copied.unwrap();
        assert_eq!(said, ("question".to_owned(), "the answer".to_owned()));
        let counted = (counters.sent.load(Ordering::Relaxed), counters.received.load(Ordering::Relaxed));
        assert_eq!(counted, (8, 10));
    }
}
