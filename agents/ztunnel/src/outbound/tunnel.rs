//! Tunnels to other proxies, through the pod's pool.
//!
//! Invariant: a tunnel is opened only on a connection whose peer proved one of the identities the route expects.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use ambit_hbone::{
    Authority, CheckoutError, ConnectError, ConnectHeaders, Forwarded, SendConnect, TraceParent, Tunnel,
    settings,
};
use ambit_model::Workload;
use ambit_store::Route;
use tracing::Instrument as _;

use crate::{
    context::{Context, Way},
    error::Error,
    sockets,
};

/// How long a peer may take to answer a CONNECT: its own connect to the application, and a round trip.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Connections on which one CONNECT is tried: the first may be lost between checkout and question.
const TRIES_MAX: usize = 2;

/// Opens a tunnel along an HBONE route; on another one there is nothing to open.
pub(super) async fn open(
    context: &Rc<Context>,
    source: &Arc<Workload>,
    client: SocketAddr,
    route: &Route,
) -> Result<Tunnel, Error> {
    let Route::Hbone { address, authority, service, .. } = route else {
        return Err(Error::Pool("the route has no tunnel".to_owned()));
    };
    let way = Way { source: source.identity(), expected: route.expected_identities(), address: *address };
    let target = Authority::from(*authority);
    let headers = ConnectHeaders {
        baggage: Some(context.baggage(source).as_ref().clone()),
        forwarded: Some(Forwarded {
            client: Some(client),
            host: service.as_ref().map(|service| service.hostname.to_string()),
        }),
        traceparent: Some(TraceParent { trace_id: rand::random(), span_id: rand::random(), flags: 0 }),
    };
    let mut tries = 1;
    loop {
        let place = context.pool.checkout(&way, || dial(context.clone(), way.clone())).await.map_err(pool)?;
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, place.connect(&target, &headers)).await;
        match answer.map_err(|_elapsed| Error::Unanswered(*address))? {
            Ok(tunnel) => return Ok(tunnel),
            Err(ConnectError::Closed(_)) if tries < TRIES_MAX => tries += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

fn pool(error: CheckoutError<Error>) -> Error {
    match error {
        CheckoutError::Dial(error) => Error::Dial(error),
        CheckoutError::TooManyWaiters | CheckoutError::NoFreeStream => Error::Pool(error.to_string()),
    }
}

/// A new connection for the pool.
async fn dial(context: Rc<Context>, way: Way) -> Result<SendConnect, Error> {
    let svid = context.local.shared.identities.get(&way.source).await?;
    let connected = sockets::connect_out(&context.pod.netns, way.address).await;
    let stream = connected.map_err(Error::at_tunnel_port)?;
    let (secured, peer) = ambit_identity::connect(&svid, &way.expected, stream).await?;
    let (send, driver) = ambit_hbone::handshake(secured, settings::CLIENT).await.map_err(Error::Http2)?;
    let span = tracing::debug_span!("tunnel", dst = %way.address, %peer);
    let drive = async move {
        match driver.await {
            Ok(()) => tracing::debug!("Tunnel connection ended"),
            Err(error) => tracing::debug!(%error, "Tunnel connection lost"),
        }
    };
    // Ends when the pool and every stream have let go of the connection.
    tokio::task::spawn_local(drive.instrument(span));
    Ok(send)
}
