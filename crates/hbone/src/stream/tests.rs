//! Both ends in memory.

use std::future::poll_fn;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    sync::mpsc,
};

use super::*;
use crate::{
    ConnectHeaders, SendConnect, Settings, handshake, serve,
    settings::{CLIENT, SERVER},
};

const WIRE_BYTES: usize = 64 << 10;
/// A window small enough to be filled by a test.
const WINDOW_BYTES: u32 = 65_535;

/// Both ends of one tunnel; the connection lives as long as the sender.
async fn pair() -> (SendConnect, TunnelStream, TunnelStream) {
    let (near, far) = duplex(WIRE_BYTES);
    let (ask, mut asked) = mpsc::unbounded_channel();
    let settings = Settings { stream_window: WINDOW_BYTES, connection_window: WINDOW_BYTES, ..SERVER };
    tokio::spawn(serve(far, settings, std::future::pending(), move |_, responder| {
        _ = ask.send(responder);
    }));
    let (send, driver) = handshake(near, CLIENT).await.unwrap();
    tokio::spawn(driver);
    let accepting = async { asked.recv().await.unwrap().accept(None).unwrap() };
    let (authority, headers) = ("10.0.0.1:80".parse().unwrap(), ConnectHeaders::default());
    let (near, far) = tokio::join!(send.connect(&authority, &headers), accepting);
    (send, near.unwrap().into_stream(), far.into_stream())
}

#[tokio::test]
async fn carries_bytes_both_ways_and_ends_each_way_on_its_own() {
    let (_connection, mut near, mut far) = pair().await;
    near.write_all(b"question").await.unwrap();
    near.shutdown().await.unwrap();
    let mut question = String::new();
    far.read_to_string(&mut question).await.unwrap();
    let slices = [io::IoSlice::new(b"the "), io::IoSlice::new(b"answer")];
    assert_eq!(far.write_vectored(&slices).await.unwrap(), 10);
    far.shutdown().await.unwrap();
    let mut answer = String::new();
    near.read_to_string(&mut answer).await.unwrap();
    assert_eq!((question.as_str(), answer.as_str()), ("question", "the answer"));
}

#[tokio::test]
async fn the_window_grows_only_by_what_was_read() {
    let (_connection, mut near, mut far) = pair().await;
    let whole = vec![7_u8; WINDOW_BYTES as usize * 3];
    let sent = whole.clone();
    let writing = tokio::spawn(async move {
        near.write_all(&sent).await.unwrap();
        near.shutdown().await.unwrap();
        near
    });
    // Peeking does not consume window.
    while far.unread.len() < 4 {
        let have = far.unread.len();
        poll_fn(|cx| far.poll_peek_more(cx, have).map_ok(drop)).await.unwrap();
    }
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert!(!writing.is_finished());
    let mut got = Vec::new();
    far.read_to_end(&mut got).await.unwrap();
    assert!(got == whole);
    writing.await.unwrap();
}

#[tokio::test]
async fn looking_leaves_the_bytes_and_gathers_more_of_them() {
    let (_connection, mut near, mut far) = pair().await;
    near.write_all(b"PR").await.unwrap();
    assert_eq!(&poll_fn(|cx| far.poll_peek(cx).map_ok(Bytes::clone)).await.unwrap()[..], b"PR");
    near.write_all(b"I * ").await.unwrap();
    let more = poll_fn(|cx| far.poll_peek_more(cx, 2).map_ok(Bytes::clone)).await.unwrap();
    assert_eq!(&more[..], b"PRI * ");
    near.shutdown().await.unwrap();
    // The end of the stream adds nothing.
    assert_eq!(poll_fn(|cx| far.poll_peek_more(cx, 6).map_ok(Bytes::len)).await.unwrap(), 6);
    let mut text = String::new();
    far.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "PRI * ");
}

#[tokio::test]
async fn a_stream_dropped_before_its_end_is_reset_at_the_other() {
    let (_connection, mut near, mut far) = pair().await;
    near.write_all(b"half").await.unwrap();
    let mut half = [0; 4];
    far.read_exact(&mut half).await.unwrap();
    drop(near);
    let error = far.read(&mut half).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert!(far.write_all(b"more").await.is_err());
}

#[tokio::test]
async fn a_lost_connection_is_no_end_of_file() {
    let (connection, near, mut far) = pair().await;
    drop((connection, near));
    assert!(far.read(&mut [0; 4]).await.is_err());
}
