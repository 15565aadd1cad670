//! The protocol of a tunnel: as its port declares it, and by the first bytes where that leaves a choice.
//!
//! Invariant: bytes are only peeked at, and a silent client costs no buffer.

use std::{future::poll_fn, io};

use ambit_hbone::TunnelStream;
use ambit_model::AppProtocol;
use tokio::time::timeout;

use super::{DETECT_TIMEOUT, SILENCE_TIMEOUT, Sniffed, sniff, sniff_http};

/// How a tunnel is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// As a byte stream.
    Stream,
    /// HTTP/1.1, or 1.0.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// The client ended the tunnel without sending a byte.
    Nothing,
}

/// Waits for as many bytes as detection needs.
///
/// # Errors
/// When the tunnel is reset before that.
pub async fn tell(declared: AppProtocol, tunnel: &mut TunnelStream) -> io::Result<Protocol> {
    match declared {
        AppProtocol::Tcp | AppProtocol::Tls => Ok(Protocol::Stream),
        // A port declared as HTTP/2 describes its endpoints: clients such as health checks or `curl` may speak HTTP/1.1.
        AppProtocol::Http | AppProtocol::Http2 => {
            // No time limit before the first byte; after it, DETECT_TIMEOUT applies.
            poll_fn(|cx| tunnel.poll_peek(cx).map_ok(drop)).await?;
            let first = timeout(DETECT_TIMEOUT, first_bytes(tunnel, sniff_http)).await;
            Ok(match first.unwrap_or(Ok(Some(Sniffed::More)))? {
                // The HTTP/1 server answers 400 to what is not HTTP, and 408 to a head that does not arrive in time.
                Some(Sniffed::Http1 | Sniffed::Opaque | Sniffed::More) => Protocol::Http1,
                Some(Sniffed::Http2) => Protocol::Http2,
                None => Protocol::Nothing,
            })
        }
        AppProtocol::Detect => {
            let begins = poll_fn(|cx| tunnel.poll_peek(cx).map_ok(drop));
            let Ok(begun) = timeout(SILENCE_TIMEOUT, begins).await else { return Ok(Protocol::Stream) };
            begun?;
            let first = timeout(DETECT_TIMEOUT, first_bytes(tunnel, sniff)).await;
            Ok(match first.unwrap_or(Ok(Some(Sniffed::More)))? {
                Some(Sniffed::Http1) => Protocol::Http1,
                Some(Sniffed::Http2) => Protocol::Http2,
                Some(Sniffed::Opaque | Sniffed::More) => Protocol::Stream,
                None => Protocol::Nothing,
            })
        }
    }
}

/// `None` if the client ends without a byte; [`Sniffed::More`] if it ends before detection can decide.
async fn first_bytes(
    tunnel: &mut TunnelStream,
    sniff: impl Fn(&[u8]) -> Sniffed,
) -> io::Result<Option<Sniffed>> {
    let mut have = 0;
    loop {
        let (told, seen) = poll_fn(|cx| {
            let bytes = std::task::ready!(tunnel.poll_peek_more(cx, have))?;
            std::task::Poll::Ready(Ok::<_, io::Error>((sniff(bytes), bytes.len())))
        })
        .await?;
        match told {
            Sniffed::More if seen == 0 => return Ok(None),
            // No more bytes than before: the client has ended.
            Sniffed::More if seen == have => return Ok(Some(Sniffed::More)),
            Sniffed::More => have = seen,
            Sniffed::Http1 | Sniffed::Http2 | Sniffed::Opaque => return Ok(Some(told)),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, time::Instant};

    use super::*;
    use crate::testing::tunnels;

    #[tokio::test(start_paused = true)]
    async fn what_a_port_speaks_is_what_was_declared_and_then_what_its_bytes_say() {
        let cases: [(AppProtocol, &[u8], Protocol); 12] = [
            (AppProtocol::Tcp, b"GET / HTTP/1.1", Protocol::Stream),
            (AppProtocol::Tls, b"GET / HTTP/1.1", Protocol::Stream),
            (AppProtocol::Http2, b"GET / HTTP/1.1", Protocol::Http1),
            (AppProtocol::Http2, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Protocol::Http2),
            (AppProtocol::Http, b"\r\nGET / HTTP/1.1", Protocol::Http1),
            (AppProtocol::Detect, b"\r\nLOCK / HTTP/1.1", Protocol::Http1),
            (AppProtocol::Http, b"\x16\x03\x01", Protocol::Http1),
            (AppProtocol::Http, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Protocol::Http2),
            (AppProtocol::Http, b"GE", Protocol::Http1),
            (AppProtocol::Detect, b"GET / HTTP/1.1", Protocol::Http1),
            (AppProtocol::Detect, b"GE", Protocol::Stream),
            (AppProtocol::Detect, b"", Protocol::Nothing),
        ];
        for (declared, sent, expected) in cases {
            let (_connection, mut near, mut far) = tunnels().await;
            near.write_all(sent).await.unwrap();
            near.shutdown().await.unwrap();
            assert_eq!(tell(declared, &mut far).await.unwrap(), expected, "{declared:?} {sent:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_of_http_may_be_silent_and_not_stop_in_the_middle_of_a_word() {
        for (sent, expected) in
            [(&b""[..], None), (b"PRI * HT", Some(Protocol::Http1)), (b"GE", Some(Protocol::Http1))]
        {
            let (_connection, mut near, mut far) = tunnels().await;
            near.write_all(sent).await.unwrap();
            let told = timeout(DETECT_TIMEOUT * 100, tell(AppProtocol::Http, &mut far)).await;
            assert_eq!(told.ok().map(Result::unwrap), expected, "{sent:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_silent_waits_for_its_server_to_speak_first() {
        for (sent, patience) in
            [(&b""[..], SILENCE_TIMEOUT), (b"GET ", DETECT_TIMEOUT), (b"\r\n", DETECT_TIMEOUT)]
        {
            let (_connection, mut near, mut far) = tunnels().await;
            let begun = Instant::now();
            near.write_all(sent).await.unwrap();
            assert_eq!(tell(AppProtocol::Detect, &mut far).await.unwrap(), Protocol::Stream);
            assert!(begun.elapsed() >= patience && begun.elapsed() < patience * 2, "{sent:?}");
        }
    }
}
