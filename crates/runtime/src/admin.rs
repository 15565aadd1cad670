//! Health and metrics over HTTP: `/healthz/ready` on one port, `/metrics` on another.
//!
//! Invariant: every connection is accepted, and beyond the limit the oldest one is closed, so that
//! idle connections of strangers cannot make health checks fail. One request per connection, within
//! a time limit.

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::{
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

use crate::{Readiness, accept};

/// Limits of one port.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Concurrent connections.
    connections_max: usize,
    /// Longest lifetime of a connection.
    time_max: Duration,
}

/// The kubelet gives up after one second (the default of `timeoutSeconds`).
const HEALTH: Limits = Limits { connections_max: 256, time_max: Duration::from_secs(1) };
/// Few connections, because each encodes all metrics on the thread that also answers health checks.
const METRICS: Limits = Limits { connections_max: 16, time_max: Duration::from_secs(10) };
/// Largest request head; hyper's minimum buffer size.
const HEAD_BYTES_MAX: usize = 8 << 10;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A program's metrics registry, encoded on request.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl Metrics {
    /// Registers metrics at start.
    pub fn register<T>(&self, with: impl FnOnce(&mut Registry) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Registers the build info of this program.
    pub fn register_build(&self, component: &'static str, version: &'static str) {
        // Not an `Info` metric, because Istio's dashboards expect a gauge with value 1.
        let build: Family<Vec<(&'static str, &'static str)>, Gauge> = Family::default();
        build.get_or_create(&vec![("component", component), ("tag", version)]).set(1);
        self.register(|registry| registry.register("istio_build", "Istio component build info", build));
    }

    /// Encodes the metrics as OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let registry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = prometheus_client::encoding::text::encode(&mut text, &registry) {
            tracing::error!(%error, "Metrics cannot be encoded");
        }
        text
    }
}

/// Binds a port for [`serve_health`] or [`serve_metrics`] on all addresses of both families.
///
/// # Errors
/// When the port is in use; the error names it.
pub async fn bind(port: u16) -> std::io::Result<TcpListener> {
    let all = SocketAddr::from(([0u16; 8], port));
    let named = |error: std::io::Error| std::io::Error::new(error.kind(), format!("port {port}: {error}"));
    match TcpListener::bind(all).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind(SocketAddr::from(([0u8; 4], port))).await.map_err(named),
    }
}

/// Serves `GET /healthz/ready` until the task is dropped.
pub async fn serve_health(listener: TcpListener, readiness: Readiness) {
    serve(listener, HEALTH, move |request| health(&readiness, request.uri().path())).await;
}

/// Serves `GET /metrics` and `/stats/prometheus` until the task is dropped.
pub async fn serve_metrics(listener: TcpListener, metrics: Metrics) {
    serve(listener, METRICS, move |request| match request.uri().path() {
        "/metrics" | "/stats/prometheus" => respond(StatusCode::OK, OPEN_METRICS, metrics.encode()),
        _ => respond(StatusCode::NOT_FOUND, "text/plain", "try /metrics\n".into()),
    })
    .await;
}

fn health(readiness: &Readiness, path: &str) -> Response<Full<Bytes>> {
    if path != "/healthz/ready" {
        return respond(StatusCode::NOT_FOUND, "text/plain", "try /healthz/ready\n".into());
    }
    match readiness.pending().as_slice() {
        [] => respond(StatusCode::OK, "text/plain", "ready\n".into()),
        pending => {
            let text = format!("not ready, pending: {}\n", pending.join(", "));
            respond(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", text)
        }
    }
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

async fn serve<F>(listener: TcpListener, limits: Limits, answer: F)
where
    F: Fn(&Request<Incoming>) -> Response<Full<Bytes>> + Clone + Send + Sync + 'static,
{
    // Oldest first.
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let accepted = listener.accept().await;
        if accepted.is_err() || open.len() >= limits.connections_max {
            open.retain(|connection| !connection.is_finished());
        }
        // Also when `accept` failed, because file descriptors may have run out.
        if accepted.is_err() || open.len() >= limits.connections_max {
            open.pop_front().inspect(AbortHandle::abort);
        }
        match accepted {
            Ok((stream, _)) => {
                open.push_back(tokio::spawn(converse(stream, limits, answer.clone())).abort_handle());
            }
            Err(error) => accept::pause("health and metrics", &error).await,
        }
    }
}

/// Handles one connection.
async fn converse<F>(stream: TcpStream, limits: Limits, answer: F)
where
    F: Fn(&Request<Incoming>) -> Response<Full<Bytes>>,
{
    let service = service_fn(|request| std::future::ready(Ok::<_, Infallible>(only_get(&answer, &request))));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = tokio::time::timeout(limits.time_max, connection).await {
        tracing::debug!(%error, "A health or metrics connection ended early");
    }
}

fn only_get<F>(answer: &F, request: &Request<Incoming>) -> Response<Full<Bytes>>
where
    F: Fn(&Request<Incoming>) -> Response<Full<Bytes>>,
{
    if request.method() == Method::GET {
        answer(request)
    } else {
        respond(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET\n".into())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn serving() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve_health(listener, Readiness::default()));
        address
    }

    /// A client that starts a request and never finishes it.
    async fn slow(address: SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /healthz/ready HTTP/1.1\r\n").await.unwrap();
        stream
    }

    /// Whether the other end has closed the connection, in any way.
    async fn has_ended(stream: &mut TcpStream) -> bool {
        !matches!(stream.read(&mut [0; 512]).await, Ok(1..))
    }

    #[tokio::test]
    async fn says_what_it_waits_for_and_then_ready() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let readiness = Readiness::default();
        let blocker = readiness.block("xds");
        tokio::spawn(serve_health(listener, readiness.clone()));
        assert!(get(address, "/healthz/ready").await.contains("not ready, pending: xds"));
        drop(blocker);
        assert!(get(address, "/healthz/ready").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/").await.starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn hundreds_of_slow_connections_do_not_keep_a_kubelet_waiting() {
        let address = serving().await;
        let mut strangers = Vec::new();
        for round in 0..4 {
            for _ in 0..2 * HEALTH.connections_max {
                strangers.push(slow(address).await);
            }
            let answer = tokio::time::timeout(HEALTH.time_max, get(address, "/healthz/ready")).await;
            assert!(answer.expect("within a kubelet's patience").starts_with("HTTP/1.1 200"), "{round}");
        }
    }

    #[tokio::test]
    async fn the_oldest_goes_where_there_is_no_room() {
        let address = serving().await;
        let mut first = slow(address).await;
        let mut others = Vec::new();
        while others.len() < HEALTH.connections_max {
            others.push(slow(address).await);
        }
        assert!(has_ended(&mut first).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_asks_once_and_is_closed_after_its_time() {
        let address = serving().await;
        let begun = tokio::time::Instant::now();
        let mut silent = TcpStream::connect(address).await.unwrap();
        assert!(has_ended(&mut silent).await);
        assert!(begun.elapsed() <= HEALTH.time_max + Duration::from_millis(1), "{:?}", begun.elapsed());
        let mut twice = TcpStream::connect(address).await.unwrap();
        let request = "GET /healthz/ready HTTP/1.1\r\nhost: x\r\n\r\n";
        twice.write_all(request.repeat(2).as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _reset = twice.read_to_end(&mut answer).await;
        assert_eq!(String::from_utf8(answer).unwrap().matches("HTTP/1.1 200").count(), 1);
    }
}
