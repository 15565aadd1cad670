//! What a tunnel carries: what its port is declared to speak, told by the first bytes where that leaves a choice.
//!
//! Invariant: nothing is read out of the tunnel, and nothing is kept for a client that is silent.

use std::{future::poll_fn, io};

use ambit_hbone::TunnelStream;
use ambit_model::AppProtocol;
use tokio::time::timeout;

use super::{DETECT_TIMEOUT, SILENCE_TIMEOUT, Sniffed, sniff, sniff_http};

/// What to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Bytes.
    Stream,
    /// HTTP/1.1, or 1.0.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// The client ended without a byte.
    Nothing,
}

/// Waits for as many bytes as it takes to tell.
///
/// # Errors
/// When the tunnel is reset before that.
pub async fn tell(declared: AppProtocol, tunnel: &mut TunnelStream) -> io::Result<Protocol> {
    match declared {
        AppProtocol::Tcp | AppProtocol::Tls => Ok(Protocol::Stream),
        // A port that is declared for HTTP/2 says what its endpoints speak: a health check, or `curl`, speaks HTTP/1.1.
        AppProtocol::Http | AppProtocol::Http2 => {
            // Silent before its first request it may be as long as it likes, but not in the middle of a word.
            poll_fn(|cx| tunnel.poll_peek(cx).map_ok(drop)).await?;
            let first = timeout(DETECT_TIMEOUT, first_bytes(tunnel, sniff_http)).await;
            Ok(match first.unwrap_or(Ok(Some(Sniffed::More)))? {
                // What is no HTTP at all is answered 400, and what does not become a head in time 408.
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

/// None when the client ends without a byte; [`Sniffed::More`] when it ends, or stops, too early to tell.
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
            // As much as before: it has ended.
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
