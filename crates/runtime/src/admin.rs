//! Health and metrics over HTTP: `/healthz/ready` on one port, `/metrics` on another.
//!
//! Invariant: a slow or hostile client can neither hold more than [`CONNECTIONS_MAX`] connections nor keep one
//! longer than [`CONNECTION_TIME_MAX`].

use std::{
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
use tokio::{net::TcpListener, sync::Semaphore};

use crate::Readiness;

/// Connections served at once on one port.
pub const CONNECTIONS_MAX: usize = 64;
/// How long one connection may live.
pub const CONNECTION_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a client may take to send its headers.
pub const HEADER_TIME_MAX: Duration = Duration::from_secs(5);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics of a program, encoded on request.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl Metrics {
    /// Registers metrics once, at start.
    pub fn register<T>(&self, with: impl FnOnce(&mut Registry) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says which program this is, in which version.
    pub fn register_build(&self, component: &'static str, version: &'static str) {
        // Not `Info`: Istio's dashboards know a gauge of 1.
        let build: Family<Vec<(&'static str, &'static str)>, Gauge> = Family::default();
        build.get_or_create(&vec![("component", component), ("tag", version)]).set(1);
        self.register(|registry| registry.register("istio_build", "Istio component build info", build));
    }

    /// OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let registry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = prometheus_client::encoding::text::encode(&mut text, &registry) {
            tracing::error!(%error, "Metrics cannot be encoded");
        }
        text
    }
}

/// Binds a port for [`serve_health`] or [`serve_metrics`], all addresses, both families.
///
/// # Errors
/// When the port is taken; the error names it.
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
    serve(listener, move |request| health(&readiness, request.uri().path())).await;
}

/// Serves `GET /metrics` and `/stats/prometheus` until the task is dropped.
pub async fn serve_metrics(listener: TcpListener, metrics: Metrics) {
    serve(listener, move |request| match request.uri().path() {
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

async fn serve<F>(listener: TcpListener, answer: F)
where
    F: Fn(&Request<Incoming>) -> Response<Full<Bytes>> + Clone + Send + Sync + 'static,
{
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "A connection cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let answer = answer.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                std::future::ready(Ok::<_, Infallible>(only_get(&answer, &request)))
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIME_MAX)
                .serve_connection(TokioIo::new(stream), service);
            if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_TIME_MAX, connection).await {
                tracing::debug!(%error, "A health or metrics connection ended early");
            }
            drop(permit);
        });
    }
}

/// Pause after `accept` failed, so that running out of file descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
}
