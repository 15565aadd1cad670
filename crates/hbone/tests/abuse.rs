//! Peers that abuse HTTP/2 on a connection that carries tunnels, frame by frame.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests are not in a test module; a failure here is a failed test"
)]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use ambit_hbone::{ConnectRequest, Error, Responder, serve, settings::SERVER};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex, split},
    sync::oneshot,
    time::{Instant, timeout},
};

const PATIENCE: Duration = Duration::from_secs(60);
/// The connection preface (RFC 9113 3.4) with empty SETTINGS.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// HPACK: `:method: CONNECT` and `:authority: 10.0.0.1:80`.
const CONNECT: &[u8] = b"\x02\x07CONNECT\x01\x0b10.0.0.1:80";
/// Error code from RFC 9113 7.
const ENHANCE_YOUR_CALM: u32 = 11;

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// How a server reacted to a peer's bytes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdict {
    /// CONNECTs that reached the handler.
    asked: usize,
    /// Responses; all are refusals, because the handler sends none.
    refused: usize,
    /// Error code of the GOAWAY.
    sent_away: Option<u32>,
    /// Whether the connection still answers PINGs.
    alive: bool,
}

/// Sends everything, then two PINGs, because PING responses overtake others.
async fn verdict(sent: &[u8]) -> Verdict {
    let (near, far) = duplex(64 << 10);
    let asked: Arc<Mutex<Vec<(ConnectRequest, Responder)>>> = Arc::default();
    let heard = asked.clone();
    let forever = std::future::pending::<()>();
    tokio::spawn(serve(far, SERVER, forever, move |request, responder| {
        heard.lock().unwrap().push((request, responder));
    }));
    let (mut read, mut write) = split(near);
    let bytes = [sent, &frame(PING, 0, 0, b"are you?")].concat();
    let (again, asked_again) = oneshot::channel();
    tokio::spawn(async move {
        // The server may close the connection before everything is written.
        _ = write.write_all(&bytes).await;
        if asked_again.await.is_ok() {
            write.write_all(&frame(PING, 0, 0, b"and now?")).await.unwrap();
        }
    });
    let mut again = Some(again);
    let mut verdict = Verdict::default();
    let mut head = [0; 9];
    while timeout(PATIENCE, read.read_exact(&mut head)).await.unwrap().is_ok() {
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        timeout(PATIENCE, read.read_exact(&mut payload)).await.unwrap().unwrap();
        match head[3] {
            HEADERS => verdict.refused += 1,
            GOAWAY => {
                verdict.sent_away = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
                break;
            }
            PING => match again.take() {
                Some(again) => again.send(()).unwrap(),
                None => {
                    verdict.alive = true;
                    break;
                }
            },
            _ => {}
        }
    }
    verdict.asked = asked.lock().unwrap().len();
    verdict
}

fn sent_away(asked: usize) -> Verdict {
    Verdict { asked, refused: 0, sent_away: Some(ENHANCE_YOUR_CALM), alive: false }
}

#[tokio::test]
async fn a_peer_that_keeps_to_the_rules_is_served() {
    let sent = [PREFACE, &frame(HEADERS, END_HEADERS, 1, CONNECT)].concat();
    assert_eq!(verdict(&sent).await, Verdict { asked: 1, alive: true, ..Verdict::default() });
}

/// Rapid reset, CVE-2023-44487.
#[tokio::test]
async fn streams_that_are_opened_only_to_be_reset_end_the_connection() {
    let mut sent = PREFACE.to_vec();
    for stream in (1..2000).step_by(2) {
        sent.extend(frame(HEADERS, END_HEADERS, stream, CONNECT));
        sent.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    let verdict = verdict(&sent).await;
    assert_eq!((verdict.sent_away, verdict.alive), (Some(ENHANCE_YOUR_CALM), false));
    assert!(verdict.asked < 1000, "{verdict:?}");
}

/// CONTINUATION flood, CVE-2024-27316 and related.
#[tokio::test]
async fn a_head_that_goes_on_in_ever_more_frames_ends_the_connection() {
    for piece in [&b""[..], b"\0\x01x\x01y"] {
        let mut sent = PREFACE.to_vec();
        sent.extend(frame(HEADERS, 0, 1, CONNECT));
        for _ in 0..2000 {
            sent.extend(frame(CONTINUATION, 0, 1, piece));
        }
        assert_eq!(verdict(&sent).await, sent_away(0), "{piece:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_stops_in_the_middle_is_given_up_with_its_connection() {
    let (mut near, far) = duplex(64 << 10);
    near.write_all(&[PREFACE, &frame(HEADERS, 0, 1, CONNECT)].concat()).await.unwrap();
    let (begun, mut asked) = (Instant::now(), 0);
    // No other frame may come before the end of the headers, not even a PING response (RFC 9113
    // 6.10).
    let served = serve(far, SERVER, std::future::pending(), |_, _| asked += 1).await;
    assert!(matches!(served, Err(Error::PingTimeout)), "{served:?}");
    assert!(begun.elapsed() < 2 * (SERVER.keepalive.first + SERVER.keepalive.timeout));
    assert_eq!(asked, 0);
}

/// HPACK (RFC 7541 5.1, 5.2): a header `x` with a value of that many bytes; `literal` selects
/// whether it is indexed.
fn header(literal: u8, bytes: usize) -> Vec<u8> {
    let mut header = vec![literal, 0x01, b'x', 0x7f];
    let mut left = bytes - 0x7f;
    while left > 0x7f {
        header.push(0x80 | u8::try_from(left & 0x7f).unwrap());
        left >>= 7;
    }
    header.push(u8::try_from(left).unwrap());
    header.extend(vec![b'y'; bytes]);
    header
}

/// A CONNECT with a header that almost fills the dynamic table of 4096 bytes, and many references
/// to it.
fn referring(times: usize) -> Vec<u8> {
    let block = [CONNECT, &header(0x40, 4000), &vec![0xbe; times]].concat();
    [PREFACE, &frame(HEADERS, END_HEADERS, 1, &block)].concat()
}

#[tokio::test]
async fn a_head_that_grows_without_bounds_when_it_is_unpacked_ends_the_connection() {
    assert_eq!(verdict(&referring(3)).await, Verdict { asked: 1, alive: true, ..Verdict::default() });
    // 14 KB that expand to 40 MB.
    assert_eq!(verdict(&referring(10_000)).await, sent_away(0));
}

#[tokio::test]
async fn a_head_beyond_its_limit_is_refused_and_the_connection_goes_on() {
    let limit = SERVER.header_list_max as usize;
    let block = [CONNECT, &header(0x00, limit)].concat();
    let sent = [PREFACE, &frame(HEADERS, END_HEADERS, 1, &block)].concat();
    assert_eq!(verdict(&sent).await, Verdict { refused: 1, alive: true, ..Verdict::default() });
}
