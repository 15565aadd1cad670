//! Connecting to a destination, with other endpoints of a service if the first cannot be reached.
//!
//! Invariant: another endpoint is tried only while no byte of the application was sent, and at most
//! [`ambit_store::ALTERNATIVES_MAX`] times.

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use ambit_hbone::Tunnel;
use ambit_model::Workload;
use ambit_store::{LookupResult, OutboundRequest, Refusal, Route, alternatives};
use tokio::net::TcpStream;

use super::tunnel;
use crate::{context::Context, error::Error, sockets};

/// The other end of an outbound connection.
pub(super) enum Upstream {
    /// In a tunnel.
    Tunnel(Tunnel),
    /// Plain TCP.
    Plain(TcpStream),
}

/// The last route that was tried, and its result.
pub(super) struct Reached {
    pub(super) route: Route,
    /// The result of looking up the destination, if it was unknown on this node.
    pub(super) looked: Option<LookupResult>,
    pub(super) outcome: Result<Upstream, Error>,
}

/// Routes and connects.
pub(super) async fn reach(
    context: &Rc<Context>,
    source: &Arc<Workload>,
    client: SocketAddr,
    destination: SocketAddr,
) -> Reached {
    let pick = rand::random();
    let request = OutboundRequest { source, destination };
    let shared = &context.local.shared;
    let store = &shared.store;
    let (mut route, looked) = context.lookup.route(store, request, pick).await;
    if let Some(looked) = looked {
        shared.metrics.looked_up(looked);
    }
    let mut outcome = go(context, source, client, &route).await;
    if !matches!(&outcome, Err(error) if error.is_worth_another_endpoint()) {
        return Reached { route, looked, outcome };
    }
    let others = alternatives(&store.load(), request, pick);
    for other in others {
        let Err(error) = &outcome else { break };
        if !error.is_worth_another_endpoint() {
            break;
        }
        tracing::debug!(%destination, %error, "Endpoint failed, trying another");
        shared.metrics.failovers.inc();
        outcome = go(context, source, client, &other).await;
        route = other;
    }
    Reached { route, looked, outcome }
}

async fn go(
    context: &Rc<Context>,
    source: &Arc<Workload>,
    client: SocketAddr,
    route: &Route,
) -> Result<Upstream, Error> {
    match route {
        Route::Tcp { address, .. } => {
            sockets::connect_out(&context.pod.netns, *address).await.map(Upstream::Plain)
        }
        Route::Hbone { .. } => tunnel::open(context, source, client, route).await.map(Upstream::Tunnel),
        Route::Unknown(address) => Err(Refusal::UnknownAddress(*address).into()),
        Route::Refused(refusal) => Err(refusal.clone().into()),
    }
}
