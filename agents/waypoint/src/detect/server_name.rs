//! The server name (SNI) of a TLS client, peeked at before its stream is forwarded.
//!
//! Invariant: bytes are only peeked at. The name of a client that sends none in time, or none that can be read, is unknown;
//! policy then assumes the name that it allows least.

use std::{future::poll_fn, io, sync::Arc, task::Poll};

use ambit_hbone::TunnelStream;
use ambit_identity::{ClientHello, client_hello};
use tokio::time::timeout;

use super::{DETECT_TIMEOUT, SILENCE_TIMEOUT};

/// Largest ClientHello that is read; with keys of a post-quantum exchange it has about 2 KiB.
const CLIENT_HELLO_MAX_BYTES: usize = 16 << 10;

/// A server name, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerName {
    /// The client has not sent a complete and readable ClientHello.
    Unknown,
    /// In lower case; `None` if it is not TLS, or a ClientHello without a name.
    Known(Option<Arc<str>>),
}

/// Waits for the name. A client that has to speak first (`is_awaited`) may wait with its first byte without limit.
///
/// # Errors
/// When the tunnel is reset before that.
pub async fn look(tunnel: &mut TunnelStream, is_awaited: bool) -> io::Result<ServerName> {
    let begins = poll_fn(|cx| tunnel.poll_peek(cx).map_ok(drop));
    match is_awaited {
        true => begins.await?,
        false => match timeout(SILENCE_TIMEOUT, begins).await {
            Ok(begun) => begun?,
            Err(_silent) => return Ok(ServerName::Unknown),
        },
    }
    timeout(DETECT_TIMEOUT, read(tunnel)).await.unwrap_or(Ok(ServerName::Unknown))
}

async fn read(tunnel: &mut TunnelStream) -> io::Result<ServerName> {
    let mut have = 0;
    loop {
        let (said, seen) = poll_fn(|cx| {
            let bytes = std::task::ready!(tunnel.poll_peek_more(cx, have))?;
            Poll::Ready(Ok::<_, io::Error>((client_hello(bytes), bytes.len())))
        })
        .await?;
        match said {
            ClientHello::Tls(name) => return Ok(ServerName::Known(name.map(Arc::from))),
            ClientHello::NotTls => return Ok(ServerName::Known(None)),
            // No more bytes than before: the client has ended.
            ClientHello::More if seen > have && seen < CLIENT_HELLO_MAX_BYTES => have = seen,
            ClientHello::More | ClientHello::Unreadable => return Ok(ServerName::Unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, time::Instant};

    use super::*;
    use crate::testing::tunnels;

    async fn seen(said: &[u8], ends: bool, is_awaited: bool) -> Option<ServerName> {
        let (_connection, mut near, mut far) = tunnels().await;
        near.write_all(said).await.unwrap();
        if ends {
            near.shutdown().await.unwrap();
        }
        timeout(DETECT_TIMEOUT * 100, look(&mut far, is_awaited)).await.ok().map(Result::unwrap)
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_does_not_come_is_unknown_in_time() {
        const BEGUN: &[u8] = b"\x16\x03\x01\x02\x00\x01";
        let begun = Instant::now();
        assert_eq!(seen(BEGUN, false, true).await, Some(ServerName::Unknown));
        assert_eq!(seen(BEGUN, true, true).await, Some(ServerName::Unknown));
        assert_eq!(seen(b"", false, false).await, Some(ServerName::Unknown));
        assert!(begun.elapsed() <= DETECT_TIMEOUT * 3);
        assert_eq!(seen(b"", false, true).await, None, "a client that has to speak first may take its time");
        assert_eq!(seen(b"GET / HTTP/1.1", false, false).await, Some(ServerName::Known(None)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_long_for_a_name_is_not_gathered() {
        // An endless handshake message in records of 256 bytes.
        let record = [&[22, 3, 1, 1, 0][..], &[1, 0, 0xff, 0xff], &[0; 252]].concat();
        let next = [&[22, 3, 1, 1, 0][..], &[0; 256]].concat();
        let long = [record, next.repeat(CLIENT_HELLO_MAX_BYTES / 256)].concat();
        let begun = Instant::now();
        assert_eq!(seen(&long, false, true).await, Some(ServerName::Unknown));
        assert!(begun.elapsed() < DETECT_TIMEOUT);
    }
}
