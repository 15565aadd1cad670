//! Shutdown of the process, and unbinding of a service.

use std::{sync::Arc, time::Duration};

use ambit_model::AppProtocol;
use http::Request;
use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{
    endpoint::{echo, http1},
    fixture::{Mesh, PATIENCE, VIP, bound, key, text},
};

fn ask() -> Request<Full<bytes::Bytes>> {
    Request::get("/").header("host", "cart").body(Full::default()).unwrap()
}

#[tokio::test]
async fn a_request_under_way_is_finished_and_idle_connections_are_let_go() {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = Arc::new(std::sync::Mutex::new(wait));
    let (reached, mut here) = tokio::sync::mpsc::unbounded_channel();
    let slow = move |_: Request<bytes::Bytes>| {
        reached.send(()).unwrap();
        tokio::task::block_in_place(|| wait.lock().unwrap().recv().unwrap());
        http::Response::new("late".to_owned())
    };
    // The endpoint blocks its thread, so it has a runtime of its own.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut mesh = Mesh::start();
    let handle = runtime.handle().clone();
    let serve = http1(slow);
    let spawned: super::endpoint::Serve = Arc::new(move |tunnel| {
        let _entered = handle.enter();
        serve(tunnel);
    });
    mesh.service("cart", VIP);
    mesh.endpoint("cart", spawned).await;
    mesh.bind(bound(AppProtocol::Http)).await;
    let mut client = mesh.http1().await;
    let answer = tokio::spawn(async move { client.send_request(ask()).await });
    here.recv().await.unwrap();
    let idle = mesh.http1().await;
    let mut idle_http2 = mesh.http2().await;
    idle_http2.ready().await.unwrap();
    let plane = mesh.plane.take().unwrap();
    let drained = tokio::spawn(plane.drain(Duration::from_secs(600)));
    timeout(PATIENCE, async {
        while !(idle.is_closed() && idle_http2.is_closed()) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert!(!drained.is_finished());
    release.send(()).unwrap();
    assert_eq!(text(answer.await.unwrap().unwrap()).await, "late");
    timeout(PATIENCE, drained).await.unwrap().unwrap();
    runtime.shutdown_background();
}

#[tokio::test]
async fn what_does_not_end_by_itself_is_cut_at_the_deadline() {
    let held = Arc::new(|tunnel: ambit_hbone::TunnelStream| {
        tokio::spawn(async move {
            let _open = tunnel;
            std::future::pending::<()>().await;
        });
    });
    let mut mesh = Mesh::with_cart(bound(AppProtocol::Tcp), held).await;
    let mut tunnel = mesh.tunnel(VIP).await.unwrap();
    tunnel.write_all(b"hello").await.unwrap();
    mesh.bind(bound(AppProtocol::Http)).await;
    let mut client = mesh.http1().await;
    let unanswered = tokio::spawn(async move { client.send_request(ask()).await });
    tokio::task::yield_now().await;
    let plane = mesh.plane.take().unwrap();
    timeout(PATIENCE, plane.drain(Duration::from_millis(50))).await.unwrap();
    assert!(tunnel.read(&mut [0; 1]).await.is_err());
    assert!(timeout(PATIENCE, unanswered).await.unwrap().unwrap().is_err());
}

#[tokio::test]
async fn a_service_that_is_unbound_fails_no_request_and_its_clients_are_sent_away() {
    let mesh = Mesh::with_cart(bound(AppProtocol::Http), http1(echo("cart"))).await;
    let mut client = mesh.http1().await;
    text(client.send_request(ask()).await.unwrap()).await;
    mesh.unbind(&key("cart")).await;
    let answer = client.send_request(ask()).await.unwrap();
    assert_eq!(answer.status(), 200);
    text(answer).await;
    timeout(PATIENCE, async { while client.ready().await.is_ok() {} }).await.unwrap();
    assert_eq!(mesh.tunnel(VIP).await.unwrap_err().to_string(), "http status: 404");
}
