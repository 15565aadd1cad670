//! A pod with its proxy: accepts tunnels, and answers the HTTP requests inside them.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use ambit_hbone::{TunnelStream, settings::SERVER};
use ambit_identity::testing::FakeCa;
use ambit_model::Spiffe;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

/// How an endpoint handles a tunnel.
pub(crate) type Serve = Arc<dyn Fn(TunnelStream) + Send + Sync>;

/// A shared counter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Count(Arc<AtomicUsize>);

impl Count {
    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn one_more(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

/// Serves tunnels at `address` until the test ends.
pub(crate) async fn start(ca: &FakeCa, identity: &Spiffe, address: SocketAddr, serve: Serve) {
    let listener = TcpListener::bind(address).await.unwrap();
    let svid = ca.svid(identity).unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (svid, serve) = (svid.clone(), serve.clone());
            tokio::spawn(async move {
                let Ok((stream, _)) = ambit_identity::accept(&svid, stream).await else { return };
                let handler = move |_, responder: ambit_hbone::Responder| {
                    serve(responder.accept(None).unwrap().into_stream());
                };
                _ = ambit_hbone::serve(stream, SERVER, std::future::pending(), handler).await;
            });
        }
    });
}

/// An HTTP/1.1 server; `answer` gets each request with its complete body.
pub(crate) fn http1<F>(answer: F) -> Serve
where
    F: Fn(Request<Bytes>) -> Response<String> + Clone + Send + Sync + 'static,
{
    Arc::new(move |tunnel| {
        let answer = answer.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| respond(request, answer.clone()));
            let serving = conn::http1::Builder::new().serve_connection(TokioIo::new(tunnel), service);
            _ = serving.await;
        });
    })
}

/// The same over HTTP/2.
pub(crate) fn http2<F>(answer: F) -> Serve
where
    F: Fn(Request<Bytes>) -> Response<String> + Clone + Send + Sync + 'static,
{
    Arc::new(move |tunnel| {
        let answer = answer.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| respond(request, answer.clone()));
            let serving = conn::http2::Builder::new(TokioExecutor::new());
            _ = serving.serve_connection(TokioIo::new(tunnel), service).await;
        });
    })
}

async fn respond<F>(request: Request<Incoming>, answer: F) -> Result<Response<Full<Bytes>>, Infallible>
where
    F: Fn(Request<Bytes>) -> Response<String>,
{
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Ok(answer(Request::from_parts(parts, body)).map(|text| Full::new(Bytes::from(text))))
}

/// Answers with its name, and the request as it arrived.
pub(crate) fn echo(name: &'static str) -> impl Fn(Request<Bytes>) -> Response<String> + Clone + Send + Sync {
    move |request: Request<Bytes>| {
        let mut text = format!("{name} {:?} {} {}\n", request.version(), request.method(), request.uri());
        for (name, value) in request.headers() {
            text.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
        }
        text.push_str(&String::from_utf8_lossy(request.body()));
        Response::new(text)
    }
}
