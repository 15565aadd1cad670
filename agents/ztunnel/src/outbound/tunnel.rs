//! Tunnels to other proxies, from the network namespace of the pod.
//!
//! Invariant: a tunnel is opened only to a peer that proves one of the identities the route expects.

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use ambit_hbone::{Authority, ConnectHeaders, Forwarded, TraceParent, Tunnel};
use ambit_model::Workload;
use ambit_proxy::tunnel::{TunnelKey, TunnelPeer};
use ambit_store::Route;

use crate::{context::Context, error::Error, sockets};

/// Opens a tunnel for an HBONE route; fails for other routes.
pub(super) async fn open(
    context: &Rc<Context>,
    source: &Arc<Workload>,
    client: SocketAddr,
    route: &Route,
) -> Result<Tunnel, Error> {
    let Route::Hbone { address, authority, service, .. } = route else {
        return Err(Error::Pool("the route has no tunnel".to_owned()));
    };
    let peer = TunnelPeer { address: *address, expected: route.expected_identities() };
    let key = TunnelKey { source: source.identity(), peer };
    let target = Authority::from(*authority);
    let headers = ConnectHeaders {
        baggage: Some(context.baggage(source).as_ref().clone()),
        forwarded: Some(Forwarded {
            client: Some(client),
            host: service.as_ref().map(|service| service.hostname.to_string()),
        }),
        traceparent: Some(TraceParent { trace_id: rand::random(), span_id: rand::random(), flags: 0 }),
    };
    let connect = |address| {
        let context = context.clone();
        async move {
            let connected = sockets::connect_out(&context.pod.netns, address).await;
            connected.map_err(Error::at_tunnel_port)
        }
    };
    context.tunnels.open(&key, &target, &headers, connect).await
}
