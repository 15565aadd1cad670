//! Both ends in memory.

use std::{future::Future, pin::Pin, time::Duration};

use http::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    Authority, Baggage, ConnectError, ConnectHeaders, ConnectRequest, CopyError, Counters, Error, Forwarded,
    Responder, SendConnect, Settings, TraceParent, Transferred, Tunnel, copy, handshake, serve,
    settings::{CLIENT, Keepalive, SERVER},
};

/// Bytes in flight between the two ends.
const WIRE_BYTES: usize = 64 << 10;
const PATIENCE: Duration = Duration::from_secs(60);

type Never = std::future::Pending<()>;

struct Pair {
    send: SendConnect,
    asked: mpsc::UnboundedReceiver<(ConnectRequest, Responder)>,
    client: JoinHandle<Result<(), Error>>,
    server: JoinHandle<Result<(), Error>>,
}

async fn pair_until(server: Settings, drain: impl Future<Output = ()> + Send + 'static) -> Pair {
    let (near, far) = duplex(WIRE_BYTES);
    let (ask, asked) = mpsc::unbounded_channel();
    let server = tokio::spawn(serve(far, server, drain, move |request, responder| {
        let _ = ask.send((request, responder));
    }));
    let (send, driver) = handshake(near, CLIENT).await.unwrap();
    Pair { send, asked, client: tokio::spawn(driver), server }
}

async fn pair() -> Pair {
    let forever: Never = std::future::pending();
    pair_until(SERVER, forever).await
}

fn authority() -> Authority {
    "10.0.0.1:80".parse().unwrap()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("took too long")
}

impl Pair {
    async fn tunnels(&mut self) -> (Tunnel, Tunnel) {
        let (send, authority) = (self.send.clone(), authority());
        let asking = tokio::spawn(async move { send.connect(&authority, &ConnectHeaders::default()).await });
        let (_, responder) = within(self.asked.recv()).await.unwrap();
        let far = responder.accept(None).unwrap();
        (within(asking).await.unwrap().unwrap(), far)
    }

    /// A TCP connection at each end, with an HBONE tunnel between.
    async fn copied(&mut self) -> (Ends, Ends) {
        let (near, far) = self.tunnels().await;
        (Ends::start(near), Ends::start(far))
    }
}

struct Ends {
    app: DuplexStream,
    copying: JoinHandle<Result<Transferred, CopyError>>,
}

impl Ends {
    fn start(tunnel: Tunnel) -> Self {
        let (app, proxy) = duplex(WIRE_BYTES);
        let copying = tokio::spawn(async move {
            let counters = Counters::default();
            copy(tunnel, proxy, &counters).await
        });
        Self { app, copying }
    }
}

#[tokio::test]
async fn a_connect_carries_authority_and_headers_and_bytes_both_ways() {
    let mut pair = pair().await;
    let headers = ConnectHeaders {
        baggage: Some(Baggage { namespace: Some("shop".into()), ..Baggage::default() }),
        forwarded: Some(Forwarded { client: Some("10.0.0.9:1".parse().unwrap()), host: None }),
        traceparent: Some(TraceParent { trace_id: 1, span_id: 2, flags: 0 }),
    };
    let (send, sent, target) = (pair.send.clone(), headers.clone(), authority());
    let asking = tokio::spawn(async move { send.connect(&target, &sent).await.unwrap() });
    let (request, responder) = within(pair.asked.recv()).await.unwrap();
    assert_eq!(request, ConnectRequest { authority: authority(), headers });
    let mut far = Ends::start(responder.accept(Some(&Baggage::default())).unwrap());
    let mut near = Ends::start(within(asking).await.unwrap());
    near.app.write_all(b"ping").await.unwrap();
    let mut buffer = [0; 4];
    within(far.app.read_exact(&mut buffer)).await.unwrap();
    far.app.write_all(b"pong!").await.unwrap();
    drop(far.app);
    let mut text = String::new();
    within(near.app.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "pong!");
    drop(near.app);
    assert_eq!(within(near.copying).await.unwrap().unwrap(), Transferred { sent: 4, received: 5 });
    assert_eq!(within(far.copying).await.unwrap().unwrap(), Transferred { sent: 5, received: 4 });
}

#[tokio::test]
async fn each_direction_ends_on_its_own() {
    let mut pair = pair().await;
    let (mut near, mut far) = pair.copied().await;
    near.app.write_all(b"question").await.unwrap();
    near.app.shutdown().await.unwrap();
    let mut text = String::new();
    within(far.app.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "question");
    // The other direction stays open.
    far.app.write_all(b"answer").await.unwrap();
    far.app.shutdown().await.unwrap();
    text.clear();
    within(near.app.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "answer");
    assert_eq!(within(near.copying).await.unwrap().unwrap(), Transferred { sent: 8, received: 6 });
    within(far.copying).await.unwrap().unwrap();
}

#[tokio::test]
async fn bulk_passes_whole_through_every_buffer_size_while_the_reader_is_slow() {
    const BULK_BYTES: usize = 24 << 20;
    let mut pair = pair().await;
    let (near, mut far) = pair.copied().await;
    let writing = tokio::spawn(async move {
        let (mut app, copying) = (near.app, near.copying);
        let block: Vec<u8> = (0..=250).cycle().take(1 << 20).collect();
        let mut left = BULK_BYTES;
        while left > 0 {
            let size = left.min(block.len());
            app.write_all(&block[..size]).await.unwrap();
            left -= size;
        }
        app.shutdown().await.unwrap();
        drop(app);
        copying.await.unwrap().unwrap()
    });
    // Lets the sender fill the stream's window and wait for it.
    tokio::task::yield_now().await;
    let mut received = Vec::with_capacity(BULK_BYTES);
    within(far.app.read_to_end(&mut received)).await.unwrap();
    let expected: Vec<u8> = (0..=250).cycle().take(1 << 20).collect();
    assert_eq!(received.len(), BULK_BYTES);
    assert!(received.chunks(1 << 20).all(|chunk| chunk == &expected[..chunk.len()]));
    drop(far.app);
    assert_eq!(within(writing).await.unwrap().sent, BULK_BYTES as u64);
}

#[tokio::test]
async fn a_stream_that_is_not_read_does_not_hold_up_its_neighbours() {
    let mut pair = pair().await;
    let (mut stuck, _unread) = pair.tunnels().await;
    let (mut near, mut far) = pair.copied().await;
    // Fills the window of a stream that is not read.
    let more_than_the_window = 2 * SERVER.stream_window as usize;
    stuck.send.reserve_capacity(more_than_the_window);
    stuck.send.send_data(vec![0; more_than_the_window].into(), false).unwrap();
    near.app.write_all(b"ping").await.unwrap();
    let mut buffer = [0; 4];
    within(far.app.read_exact(&mut buffer)).await.unwrap();
}

#[tokio::test]
async fn a_refusal_is_a_status_and_the_connection_lives_on() {
    let mut pair = pair().await;
    let send = pair.send.clone();
    let asking = tokio::spawn(async move { send.connect(&authority(), &ConnectHeaders::default()).await });
    let (_, responder) = within(pair.asked.recv()).await.unwrap();
    responder.reject(StatusCode::UNAUTHORIZED).unwrap();
    assert!(matches!(within(asking).await.unwrap(), Err(ConnectError::Status(401))));
    pair.tunnels().await;
}

#[tokio::test]
async fn an_answer_that_never_comes_is_an_unanswered_connect() {
    let mut pair = pair().await;
    let send = pair.send.clone();
    let asking = tokio::spawn(async move { send.connect(&authority(), &ConnectHeaders::default()).await });
    drop(within(pair.asked.recv()).await.unwrap());
    let error = within(asking).await.unwrap().unwrap_err();
    assert!(error.is_unanswered(), "{error}");
}

#[tokio::test]
async fn what_is_not_a_well_formed_connect_never_reaches_the_handler() {
    let (near, far) = duplex(WIRE_BYTES);
    let forever: Never = std::future::pending();
    let server = tokio::spawn(serve(far, SERVER, forever, |request, _| panic!("reached by {request:?}")));
    let (requests, connection) = h2::client::handshake(near).await.unwrap();
    let driver = tokio::spawn(connection);
    for (method, uri, expected) in [
        (http::Method::GET, "http://10.0.0.1:80/", 405),
        (http::Method::CONNECT, "10.0.0.1", 400),
        (http::Method::CONNECT, "10.0.0.1:0", 400),
        (http::Method::CONNECT, "user@10.0.0.1:80", 400),
        (http::Method::CONNECT, "10.0.0:80", 400),
    ] {
        let request = http::Request::builder().method(method).uri(uri).body(()).unwrap();
        let mut requests = requests.clone().ready().await.unwrap();
        let (answer, _send) = requests.send_request(request, false).unwrap();
        assert_eq!(within(answer).await.unwrap().status().as_u16(), expected, "{uri}");
    }
    drop(requests);
    within(driver).await.unwrap().unwrap();
    within(server).await.unwrap().unwrap();
}

#[tokio::test]
async fn bytes_that_are_not_http2_end_the_connection_with_an_error() {
    let (mut near, far) = duplex(WIRE_BYTES);
    let forever: Never = std::future::pending();
    let server = tokio::spawn(serve(far, SERVER, forever, |_, _| {}));
    near.write_all(b"GET / HTTP/1.1\r\nHost: cart\r\n\r\n").await.unwrap();
    assert!(matches!(within(server).await.unwrap(), Err(Error::Handshake(_))));
}

#[tokio::test]
async fn a_reset_of_the_far_connection_is_an_error_here() {
    let mut pair = pair().await;
    let (near, far) = pair.tunnels().await;
    let near = Ends::start(near);
    far.reset();
    assert!(matches!(within(near.copying).await.unwrap(), Err(CopyError::Reset(_))));
}

#[tokio::test]
async fn a_cancelled_tunnel_is_an_orderly_end() {
    let mut pair = pair().await;
    let (near, far) = pair.tunnels().await;
    let mut near = Ends::start(near);
    drop(far);
    let mut text = String::new();
    within(near.app.read_to_string(&mut text)).await.unwrap();
    assert_eq!(within(near.copying).await.unwrap().unwrap(), Transferred { sent: 0, received: 0 });
}

/// A socket that fails as after a TCP reset.
struct ResetSocket;

impl tokio::io::AsyncRead for ResetSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Err(std::io::ErrorKind::ConnectionReset.into()))
    }
}

impl tokio::io::AsyncWrite for ResetSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::task::Poll::Ready(Err(std::io::ErrorKind::ConnectionReset.into()))
    }
    fn poll_flush(
        self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
    fn poll_shutdown(
        self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_tcp_reset_here_is_a_reset_there() {
    let mut pair = pair().await;
    let (near, far) = pair.tunnels().await;
    let far = Ends::start(far);
    let counters = Counters::default();
    assert!(matches!(within(copy(near, ResetSocket, &counters)).await, Err(CopyError::Read(_))));
    assert!(matches!(within(far.copying).await.unwrap(), Err(CopyError::Reset(_))));
}

#[tokio::test]
async fn a_lost_connection_ends_every_tunnel_with_an_error() {
    let mut pair = pair().await;
    let (near, _far) = pair.tunnels().await;
    let near = Ends::start(near);
    pair.server.abort();
    assert!(matches!(within(near.copying).await.unwrap(), Err(CopyError::Reset(_))));
    let error = pair.send.connect(&authority(), &ConnectHeaders::default()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Closed(_)), "{error}");
    assert!(!pair.send.is_open());
}

#[tokio::test]
async fn draining_refuses_new_tunnels_and_waits_for_the_open_ones() {
    let (drain, drained) = oneshot::channel::<()>();
    let mut pair = pair_until(SERVER, async { _ = drained.await }).await;
    let (mut near, mut far) = pair.copied().await;
    drain.send(()).unwrap();
    // Bytes still pass; by then the client has received the GOAWAY.
    near.app.write_all(b"ping").await.unwrap();
    let mut buffer = [0; 4];
    within(far.app.read_exact(&mut buffer)).await.unwrap();
    within(async {
        while pair.send.is_open() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!pair.server.is_finished());
    drop((near.app, far.app));
    within(near.copying).await.unwrap().unwrap();
    within(pair.server).await.unwrap().unwrap();
    within(pair.client).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_without_users_closes_itself() {
    let mut pair = pair().await;
    let tunnels = pair.tunnels().await;
    drop(pair.send);
    assert!(!pair.client.is_finished());
    drop(tunnels);
    within(pair.client).await.unwrap().unwrap();
    within(pair.server).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_no_ping_is_given_up_by_both_ends() {
    let forever: Never = std::future::pending();
    // Open but never polled, as if the peer's machine were gone.
    let (near, _silent) = duplex(WIRE_BYTES);
    let (_send, driver) = handshake(near, CLIENT).await.unwrap();
    assert!(matches!(driver.await, Err(Error::PingTimeout)));

    let (mut near, far) = duplex(WIRE_BYTES);
    let started = tokio::time::Instant::now();
    near.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let served = serve(far, SERVER, forever, |_, _| {}).await;
    assert!(matches!(served, Err(Error::PingTimeout)), "{served:?}");
    let Keepalive { first, timeout, .. } = SERVER.keepalive;
    assert!(started.elapsed() >= first + timeout);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_pings_is_kept() {
    let pair = pair().await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(pair.send.is_open() && !pair.client.is_finished() && !pair.server.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_speaks_is_not_waited_for() {
    let (_near, far) = duplex(WIRE_BYTES);
    let forever: Never = std::future::pending();
    assert!(matches!(serve(far, SERVER, forever, |_, _| {}).await, Err(Error::Handshake(_))));
}
