//! A minimal HTTP proxy on hyper: no policy, no routes, no log. The cost of a waypoint is compared
//! with it.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use ambit_hbone::{
    Authority, ConnectHeaders, ConnectRequest, Host, Pool, Responder, SendConnect, pool, serve, settings,
};
use ambit_identity::Svid;
use anyhow::{Context as _, Result, anyhow};
use hyper::{Request, Response, Uri, body::Incoming, client::conn::http1, service::service_fn};
use hyper_util::{rt::TokioIo, server::conn::auto};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::{LocalSet, spawn_local},
};

use crate::{
    control::{Credentials, certified},
    plan::{self, Places},
};

/// How requests are forwarded.
#[derive(Clone)]
enum Upstream {
    Plain(Places),
    Tunnel(Places, Arc<Svid>, Pool<(), anyhow::Error>),
}

/// Idle connections.
type Idle = Rc<RefCell<Vec<http1::SendRequest<Incoming>>>>;

/// Runs until killed.
pub(crate) async fn run(places: Places, credentials: Credentials) -> Result<()> {
    let svid = certified(&credentials, &plan::waypoint()).await?;
    let plain = TcpListener::bind(places.bare_plain()).await?;
    let hbone = TcpListener::bind(places.bare_hbone()).await?;
    LocalSet::new()
        .run_until(async move {
            spawn_local(async move {
                let upstream = Upstream::Plain(places);
                let idle = Idle::default();
                while let Ok((socket, _)) = plain.accept().await {
                    let _ = socket.set_nodelay(true);
                    spawn_local(proxy(socket, upstream.clone(), idle.clone()));
                }
            });
            let pool = Pool::new(settings::CLIENT_STREAMS_MAX, pool::IDLE_MAX);
            let upstream = Upstream::Tunnel(places, svid.clone(), pool);
            let idle = Idle::default();
            loop {
                let (socket, _) = hbone.accept().await?;
                spawn_local(tunnels(socket, svid.clone(), upstream.clone(), idle.clone()));
            }
        })
        .await
}

async fn tunnels(socket: TcpStream, svid: Arc<Svid>, upstream: Upstream, idle: Idle) -> Result<()> {
    socket.set_nodelay(true)?;
    let (stream, _peer) = ambit_identity::accept(&svid, socket).await?;
    let accept = |_asked: ConnectRequest, responder: Responder| {
        if let Ok(tunnel) = responder.accept(None) {
            spawn_local(proxy(tunnel.into_stream(), upstream.clone(), idle.clone()));
        }
    };
    Ok(serve(stream, settings::SERVER, std::future::pending(), accept).await?)
}

/// An executor that spawns on this thread, so that nothing needs to be `Send`.
#[derive(Clone, Copy)]
struct Here;

impl<F: Future + 'static> hyper::rt::Executor<F> for Here {
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}

async fn proxy<IO>(stream: IO, upstream: Upstream, idle: Idle)
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let service = service_fn(move |request| forward(request, upstream.clone(), idle.clone()));
    // A client that disconnects is not a failure of the proxy.
    let _ = auto::Builder::new(Here).serve_connection(TokioIo::new(stream), service).await;
}

async fn forward(
    mut request: Request<Incoming>,
    upstream: Upstream,
    idle: Idle,
) -> Result<Response<Incoming>> {
    let path = request.uri().path_and_query().context("no path")?.as_str().to_owned();
    if let Some(host) = request.uri().authority().map(|authority| authority.as_str().parse()) {
        request.headers_mut().insert("host", host?);
    }
    *request.uri_mut() = Uri::try_from(path)?;
    *request.version_mut() = hyper::Version::HTTP_11;
    let free = idle.borrow_mut().pop().filter(|sender| sender.is_ready());
    let mut sender = match free {
        Some(sender) => sender,
        None => dial(&upstream).await?,
    };
    let answer = sender.send_request(request).await?;
    spawn_local(async move {
        // Idle again once its response was read.
        if sender.ready().await.is_ok() {
            idle.borrow_mut().push(sender);
        }
    });
    Ok(answer)
}

async fn dial(upstream: &Upstream) -> Result<http1::SendRequest<Incoming>> {
    match upstream {
        Upstream::Plain(places) => {
            let socket = TcpStream::connect(places.backend_plain()).await?;
            socket.set_nodelay(true)?;
            speak(socket).await
        }
        Upstream::Tunnel(places, svid, pool) => {
            let (places, svid) = (*places, svid.clone());
            let checkout = pool.checkout(&(), || tunnel(places, svid.clone())).await;
            let checkout = checkout.map_err(|error| anyhow!("{error}"))?;
            let backend = places.backend_plain();
            let authority = Authority { host: Host::Ip(backend.ip()), port: backend.port() };
            speak(checkout.connect(&authority, &ConnectHeaders::default()).await?.into_stream()).await
        }
    }
}

async fn tunnel(places: Places, svid: Arc<Svid>) -> Result<SendConnect> {
    let socket = TcpStream::connect(places.backend_hbone()).await?;
    socket.set_nodelay(true)?;
    let (stream, _) = ambit_identity::connect(&svid, &[plan::backend()], socket).await?;
    let (tunnels, driver) = ambit_hbone::handshake(stream, settings::CLIENT).await?;
    spawn_local(driver);
    Ok(tunnels)
}

async fn speak<IO>(stream: IO) -> Result<http1::SendRequest<Incoming>>
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
    spawn_local(driver);
    Ok(sender)
}
