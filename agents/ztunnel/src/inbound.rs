//! Inbound tunnels: mTLS, then per CONNECT evaluate policy, connect to the application, copy.
//!
//! Invariant: no byte reaches the application before the peer has proven an identity of the trust
//! domain and policy has admitted it. Connections that are not mTLS are closed.

mod peer;
mod stream;
mod target;

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use ambit_hbone::settings;
use ambit_identity::ServerStream;
use ambit_model::{Spiffe, Workload};
use tokio::net::TcpStream;

use crate::{access_log::Direction, context::Context, error::Error, sockets};

use peer::Peer;

/// Serves one tunnel connection until it ends.
pub(crate) async fn serve(context: Rc<Context>, stream: TcpStream, client: SocketAddr) {
    sockets::tune(&stream);
    let local = sockets::original_destination(&stream);
    let at = local.as_ref().ok().copied();
    let secured = async {
        let local = local?;
        let (stream, identity) = context.pod.handshakes.within(client.ip(), secure(&context, stream)).await?;
        Ok((stream, Rc::new(Peer { identity, client, local })))
    };
    let stage = context.stage.clone();
    let secured: Result<_, Error> = tokio::select! {
        biased;
        cut = stage.cut() => Err(cut.into()),
        secured = secured => secured,
    };
    let (stream, peer) = match secured {
        Ok(secured) => secured,
        Err(error) => {
            context.local.shared.metrics.handshakes_failed.inc();
            return context.local.flows.refuse(Direction::Inbound, client, at, &error);
        }
    };
    let draining = context.stage.clone();
    let handler = {
        let (context, peer) = (context.clone(), peer.clone());
        move |request, responder| {
            context.tasks.spawn(stream::serve(context.clone(), peer.clone(), request, responder));
        }
    };
    let served =
        ambit_hbone::serve(stream, settings::SERVER, async move { draining.draining().await }, handler);
    let ended: Result<(), Error> = tokio::select! {
        biased;
        cut = stage.cut() => Err(cut.into()),
        served = served => served.map_err(Error::Http2),
    };
    match ended {
        Ok(()) => tracing::debug!(peer = %peer.identity, "Tunnel connection ended"),
        Err(error @ Error::Http2(ambit_hbone::Error::Handshake(_))) => {
            context.local.shared.metrics.handshakes_failed.inc();
            context.local.flows.refuse(Direction::Inbound, client, at, &error);
        }
        // Its streams have logged the effects.
        Err(error) => tracing::debug!(peer = %peer.identity, %error, "Tunnel connection lost"),
    }
}

/// Runs the TLS handshake. Each of its parts has a time limit.
async fn secure(context: &Context, stream: TcpStream) -> Result<(ServerStream<TcpStream>, Spiffe), Error> {
    let workload: Arc<Workload> = context.workload().await?;
    let svid = context.local.shared.identities.get(&workload.identity()).await?;
    Ok(ambit_identity::accept(&svid, stream).await?)
}
