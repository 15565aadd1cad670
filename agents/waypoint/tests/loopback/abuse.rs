//! Peers that violate HTTP/2 or TLS, frame by frame.

use ambit_hbone::TunnelStream;
use ambit_identity::svid::HANDSHAKE_TIMEOUT;
use ambit_model::AppProtocol;
use ambit_waypoint::context::HANDSHAKES_PER_CLIENT_MAX;
use http::Request;
use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{
    endpoint::{echo, http1},
    fixture::{Mesh, PATIENCE, VIP, bound, identity},
};

/// The connection preface (RFC 9113 3.4) with empty SETTINGS.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// HPACK: indexed `:method: GET`, `:scheme: http`, `:path: /`, and `:authority: a`.
const HEAD: &[u8] = &[0x82, 0x86, 0x84, 0x41, 0x01, b'a'];
/// Error code from RFC 9113 7.
const CANCEL: [u8; 4] = 8_u32.to_be_bytes();
const ENHANCE_YOUR_CALM: u32 = 11;

pub(crate) const DATA: u8 = 0;
const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A client's first request, with this header block and flags.
pub(crate) fn opening(block: &[u8], flags: u8) -> Vec<u8> {
    [PREFACE, &frame(HEADERS, flags, 1, block)].concat()
}

async fn next(tunnel: &mut TunnelStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 9];
    tunnel.read_exact(&mut head).await.ok()?;
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    tunnel.read_exact(&mut payload).await.ok()?;
    Some((head[3], payload))
}

/// The error code of the waypoint's GOAWAY to a client that sent this.
async fn sent_away(mesh: &Mesh, sent: &[u8]) -> Option<u32> {
    let mut tunnel = mesh.tunnel(VIP).await.unwrap();
    // The waypoint may close the connection before everything is written.
    _ = tunnel.write_all(sent).await;
    let goaway = async {
        while let Some((kind, payload)) = next(&mut tunnel).await {
            if kind == GOAWAY {
                return Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
            }
        }
        None
    };
    timeout(PATIENCE, goaway).await.unwrap()
}

/// The body of the response to the first request.
async fn body(mesh: &Mesh, sent: &[u8]) -> String {
    let mut tunnel = mesh.tunnel(VIP).await.unwrap();
    tunnel.write_all(sent).await.unwrap();
    let data = async {
        while let Some((kind, payload)) = next(&mut tunnel).await {
            if kind == DATA {
                return String::from_utf8(payload).unwrap();
            }
        }
        String::new()
    };
    timeout(PATIENCE, data).await.unwrap()
}

async fn cart() -> Mesh {
    Mesh::with_cart(bound(AppProtocol::Http), http1(echo("cart"))).await
}

/// A request with a header that almost fills the dynamic table, and many references to it.
fn referring(times: usize) -> Vec<u8> {
    let mut block = HEAD.to_vec();
    // A name of one byte and a value of 127 + 3840 bytes (RFC 7541 5.1).
    block.extend([0x40, 0x01, b'x', 0x7f, 0x80, 0x1e]);
    block.extend(vec![b'y'; 127 + 3840]);
    block.extend(vec![0xbe; times]);
    opening(&block, END_HEADERS | END_STREAM)
}

#[tokio::test]
async fn abuse_of_http2_ends_its_tunnel_and_no_other() {
    let mesh = cart().await;
    let mut neighbour = mesh.http1().await;
    let mut rapid_reset = PREFACE.to_vec();
    for stream in (1..2000).step_by(2) {
        rapid_reset.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, HEAD));
        rapid_reset.extend(frame(RST_STREAM, 0, stream, &CANCEL));
    }
    let mut flood = opening(HEAD, END_STREAM);
    for _ in 0..2000 {
        flood.extend(frame(CONTINUATION, 0, 1, b"\0\x01x\x01y"));
    }
    assert!(body(&mesh, &referring(3)).await.starts_with("cart HTTP"), "what is no abuse is served");
    // 14 KB that expand to 40 MB.
    let cases = [("rapid reset", rapid_reset), ("CONTINUATION", flood), ("HPACK", referring(10_000))];
    for (name, sent) in cases {
        assert_eq!(sent_away(&mesh, &sent).await, Some(ENHANCE_YOUR_CALM), "{name}");
        let request = Request::get("/").header("host", "cart").body(Full::default()).unwrap();
        let answer = neighbour.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200, "{name}");
        super::fixture::text(answer).await;
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_for_http2_is_431_and_its_connection_goes_on() {
    let mesh = cart().await;
    let mut client = mesh.http2().await;
    let ask = |bytes: usize| {
        Request::get("http://cart/").header("x", "a".repeat(bytes)).body(Full::default()).unwrap()
    };
    for (bytes, status) in [(1 << 10, 200), (61 << 10, 431), (1 << 10, 200)] {
        let answer = timeout(PATIENCE, client.send_request(ask(bytes))).await.unwrap().unwrap();
        assert_eq!(answer.status(), status, "{bytes} bytes");
    }
}

#[tokio::test]
async fn abuse_of_a_tunnel_connection_ends_it_and_no_other() {
    let mesh = cart().await;
    let mut neighbour = mesh.http1().await;
    let mut sent = PREFACE.to_vec();
    for stream in (1..2000).step_by(2) {
        sent.extend(frame(HEADERS, END_HEADERS, stream, b"\x02\x07CONNECT\x01\x0b10.0.0.1:80"));
        sent.extend(frame(RST_STREAM, 0, stream, &CANCEL));
    }
    let mut connection = mesh.connection(&identity("shop", "web")).await;
    _ = connection.write_all(&sent).await;
    let mut heard = Vec::new();
    // The connection ends; whether all data arrives depends on which side closes first.
    _ = timeout(PATIENCE, connection.read_to_end(&mut heard)).await.unwrap();
    let request = Request::get("/").header("host", "cart").body(Full::default()).unwrap();
    assert_eq!(neighbour.send_request(request).await.unwrap().status(), 200);
}

#[tokio::test]
async fn plaintext_on_the_tunnel_port_is_closed_and_counted() {
    let mesh = cart().await;
    for sent in [&b"GET / HTTP/1.1\r\nhost: cart\r\n\r\n"[..], PREFACE] {
        let before = mesh.shared.sinks.metrics.handshakes_failed.get();
        let mut stream = mesh.dial().await;
        stream.write_all(sent).await.unwrap();
        let mut heard = Vec::new();
        _ = timeout(PATIENCE, stream.read_to_end(&mut heard)).await.unwrap();
        let text = String::from_utf8_lossy(&heard);
        assert!(!text.contains("HTTP"), "{text}");
        let counted = async {
            while mesh.shared.sinks.metrics.handshakes_failed.get() == before {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, counted).await.unwrap();
        assert_eq!(mesh.shared.sinks.metrics.handshakes_failed.get(), before + 1);
    }
    assert_eq!(mesh.get("/").await.0, 200);
}

#[tokio::test]
async fn tunnels_that_never_say_who_they_are_are_given_up_for_newer_ones() {
    let mesh = cart().await;
    let given_up = 100;
    let mut silent = Vec::new();
    // The fixture's waypoint has two workers.
    for _ in 0..2 * HANDSHAKES_PER_CLIENT_MAX + given_up {
        silent.push(mesh.dial().await);
    }
    // Long before the handshake timeout.
    let counted = async {
        while mesh.shared.sinks.metrics.handshakes_failed.get() < given_up as u64 {
            tokio::task::yield_now().await;
        }
    };
    timeout(HANDSHAKE_TIMEOUT / 2, counted).await.unwrap();
    assert_eq!(mesh.get("/").await.0, 200);
}
