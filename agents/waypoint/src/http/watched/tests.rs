//! Slow clients, in paused time.

use ambit_hbone::SendConnect;
use http_body_util::Full;
use hyper::{Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use super::*;
use crate::testing::tunnels;

/// A client of a server that answers at once.
async fn client() -> (SendConnect, TunnelStream) {
    let (send, near, far) = tunnels().await;
    let progress = Progress::default();
    let io = TokioIo::new(Watched::new(far, progress.clone()));
    let service = service_fn(move |_request| {
        progress.serving();
        let progress = progress.clone();
        async move {
            progress.idle();
            Ok::<_, std::convert::Infallible>(Response::new(Full::new(bytes::Bytes::from_static(b"ok"))))
        }
    });
    let mut connection =
        http1::Builder::new().header_read_timeout(None).serve_connection(io, service).with_upgrades();
    tokio::spawn(async move {
        _ = (&mut connection).await;
        connection.into_parts().unwrap().io.into_inner().end().await;
    });
    (send, near)
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_end_is_answered_408_in_time() {
    let (_connection, mut near) = client().await;
    let begun = Instant::now();
    near.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    tokio::time::sleep(HEAD_TIMEOUT / 2).await;
    // A byte now and then wins no time.
    near.write_all(b" cart").await.unwrap();
    let mut answer = String::new();
    near.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(begun.elapsed() < HEAD_TIMEOUT + Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_client_may_be_silent_between_its_requests() {
    let (_connection, mut near) = client().await;
    for _ in 0..3 {
        tokio::time::sleep(HEAD_TIMEOUT * 4).await;
        near.write_all(b"GET / HTTP/1.1\r\nhost: cart\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 1024];
        let read = near.read(&mut answer).await.unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer[..read]));
    }
}
