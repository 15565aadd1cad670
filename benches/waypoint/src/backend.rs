//! The service behind the proxies: every response is one kibibyte, with or without a tunnel.

use std::{convert::Infallible, sync::Arc};

use ambit_hbone::{Authority, ConnectRequest, Responder, serve, settings};
use ambit_identity::Svid;
use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};

use crate::plan::Places;

/// Response body.
const BODY: &[u8] = &[b'x'; 1024];

/// Starts serving.
pub(crate) async fn start(places: &Places, svid: Arc<Svid>) -> Result<()> {
    let bind = |address: std::net::SocketAddr| async move {
        TcpListener::bind(address).await.with_context(|| format!("{address} is taken"))
    };
    let (plain, hbone) = (bind(places.backend_plain()).await?, bind(places.backend_hbone()).await?);
    tokio::spawn(async move {
        while let Ok((socket, _)) = plain.accept().await {
            let _ = socket.set_nodelay(true);
            tokio::spawn(answer(socket));
        }
    });
    tokio::spawn(async move {
        while let Ok((socket, _)) = hbone.accept().await {
            tokio::spawn(tunnels(socket, svid.clone()));
        }
    });
    Ok(())
}

/// Terminates the tunnels of a connection like a pod's ztunnel, and answers in each.
async fn tunnels(socket: TcpStream, svid: Arc<Svid>) -> Result<()> {
    socket.set_nodelay(true)?;
    let (stream, _peer) = ambit_identity::accept(&svid, socket).await?;
    let accept = |_asked: ConnectRequest, responder: Responder| {
        if let Ok(tunnel) = responder.accept(None) {
            tokio::spawn(answer(tunnel.into_stream()));
        }
    };
    Ok(serve(stream, settings::SERVER, std::future::pending(), accept).await?)
}

async fn answer<IO>(stream: IO)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|_request: Request<Incoming>| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(BODY))))
    });
    // A client that disconnects is not a failure of the backend.
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

/// The `:authority` of a tunnel to the measured service.
pub(crate) fn authority() -> Authority {
    Authority { host: ambit_hbone::Host::Ip(crate::plan::VIP), port: crate::plan::PORT }
}
