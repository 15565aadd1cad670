//! Tunnels that reach the waypoint: mTLS, then for each CONNECT the service it names, then the protocol it carries.
//!
//! Invariant: no byte is forwarded before the peer proved an identity of the trust domain; a peer that speaks anything but
//! mTLS is disconnected.

use std::{cell::OnceCell, net::SocketAddr, rc::Rc, time::Instant};

use ambit_hbone::{Authority, ConnectRequest, Host, Responder, TunnelStream, settings};
use ambit_identity::ServerStream;
use ambit_model::{NetworkAddress, Spiffe};
use ambit_proxy::tunnel::refuse;
use ambit_store::LookupResult;
use tokio::net::TcpStream;

use crate::{
    context::Local,
    detect::{Protocol, tell},
    http::{self, Session},
    peer::Peer,
    stream,
    target::{self, Refused, Target},
};

/// Why a tunnel connection was not established.
#[derive(Debug, thiserror::Error)]
enum Insecure {
    #[error("{0}")]
    Certificate(#[from] ambit_identity::Error),
    #[error("{0}")]
    Handshake(#[from] ambit_identity::HandshakeError),
}

/// Serves one tunnel connection until it ends.
pub async fn serve(local: Rc<Local>, stream: TcpStream, client: SocketAddr) {
    let secured = local.handshakes.within(client.ip(), secure(&local, stream)).await;
    let (stream, identity) = match secured {
        Ok(secured) => secured,
        Err(error) => {
            local.telemetry.handshake_failed();
            return tracing::debug!(%client, %error, "Connection refused");
        }
    };
    let peer = Rc::new(Peer { identity, client, known: OnceCell::new() });
    let draining = local.stage.clone();
    let handler = {
        let (local, peer) = (local.clone(), peer.clone());
        move |request, responder| local.tasks.spawn(connect(local.clone(), peer.clone(), request, responder))
    };
    let served =
        ambit_hbone::serve(stream, settings::SERVER, async move { draining.draining().await }, handler);
    match served.await {
        Ok(()) => tracing::debug!(peer = %peer.identity, "Tunnel connection ended"),
        Err(error) => tracing::debug!(peer = %peer.identity, %error, "Tunnel connection lost"),
    }
}

/// The mTLS handshake. Each of its steps has its own time limit.
async fn secure(local: &Local, stream: TcpStream) -> Result<(ServerStream<TcpStream>, Spiffe), Insecure> {
    let svid = local.shared.identities.get(&local.shared.identity).await?;
    Ok(ambit_identity::accept(&svid, stream).await?)
}

/// Serves one CONNECT.
async fn connect(local: Rc<Local>, peer: Rc<Peer>, request: ConnectRequest, responder: Responder) {
    let begun = Instant::now();
    let target = match find(&local, &peer, &request.authority).await {
        Ok(target) => target,
        Err(refused) => {
            tracing::info!(peer = %peer.identity, reason = %refused, "CONNECT refused");
            return refuse(responder, refused.status());
        }
    };
    // Answered without the endpoint's address: a tunnel carries many requests, each to an endpoint of its own.
    let mut tunnel = match responder.accept(None) {
        Ok(tunnel) => tunnel.into_stream(),
        Err(error) => return tracing::debug!(%error, "CONNECT cannot be answered"),
    };
    let Some(protocol) = target.protocol() else { return };
    let told = tokio::select! {
        biased;
        told = tell(protocol, &mut tunnel) => told,
        // No request has begun, so the client loses nothing by opening another tunnel elsewhere.
        () = local.stage.draining() => Ok(Protocol::Nothing),
    };
    match told {
        Ok(Protocol::Stream) => stream::serve(local, peer, target, (tunnel, begun)).await,
        Ok(Protocol::Http1) => http::serve(Session::new(local, peer, target), tunnel, false).await,
        Ok(Protocol::Http2) => {
            target.speaks_http2();
            http::serve(Session::new(local, peer, target), tunnel, true).await;
        }
        Ok(Protocol::Nothing) => end(tunnel).await,
        Err(error) => tracing::debug!(%error, "Tunnel was reset before its first byte"),
    }
}

/// Where an authority leads. The operator is asked about an address that the store does not know: it may be that of a new
/// pod, which the client's proxy was told of earlier.
async fn find(local: &Local, peer: &Peer, authority: &Authority) -> Result<Target, Refused> {
    let shared = &local.shared;
    let known = || {
        let (bound, snapshot) = (shared.services.load(), shared.store.load());
        target::target(authority, &peer.identity, (&bound, &snapshot), &shared.own(&snapshot))
    };
    let found = known();
    let (Err(Refused::NotBound(_)), Host::Ip(ip)) = (&found, &authority.host) else { return found };
    let address = {
        let snapshot = shared.store.load();
        let network = shared.own(&snapshot).network.clone();
        let address = NetworkAddress { network, address: ip.to_canonical() };
        if !snapshot.is_unknown(&address) {
            return found;
        }
        address
    };
    match local.lookup.look_up(&shared.store, &address).await {
        LookupResult::Described => known(),
        LookupResult::Unknown | LookupResult::UnknownBefore => found,
        LookupResult::Unanswered => Err(Refused::UnknownAddress(authority.clone())),
    }
}

async fn end(mut tunnel: TunnelStream) {
    // Cannot fail: it only marks the end.
    let _ = tokio::io::AsyncWriteExt::shutdown(&mut tunnel).await;
}
