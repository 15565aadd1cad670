//! Opens byte streams to endpoints: through a tunnel, or plain for those outside the mesh.
//!
//! Invariant: every part has its own limit of time.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use ambit_hbone::{Authority, CheckoutError, ConnectError, ConnectHeaders, SendConnect, Tunnel, settings};
use ambit_model::Spiffe;
use tracing::Instrument as _;

use super::{ConnectFailure, Stream, Target};
use crate::{context::Local, sockets};

/// How long a peer may take to answer a CONNECT: its own connect to the application, and a round trip.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Connections on which one CONNECT is tried: the first may be lost between checkout and question.
const TRIES_MAX: usize = 2;

/// What two streams must have in common to share a tunnel connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Way {
    /// The peer's tunnel port.
    pub address: SocketAddr,
    /// The peer must show one of these.
    pub expected: Arc<[Spiffe]>,
}

/// A stream to the application of an endpoint.
///
/// # Errors
/// When it cannot be had.
pub async fn open(
    local: &Rc<Local>,
    target: &Target,
    headers: &ConnectHeaders,
) -> Result<Stream, ConnectFailure> {
    let address = target.address;
    match &target.way {
        Some(way) => Ok(Stream::Tunnel(tunnel(local, way, address, headers).await?)),
        None => {
            let failed = |source| ConnectFailure::Connect { address, source };
            Ok(Stream::Plain(sockets::connect(address).await.map_err(failed)?))
        }
    }
}

async fn tunnel(
    local: &Rc<Local>,
    way: &Way,
    application: SocketAddr,
    headers: &ConnectHeaders,
) -> Result<Tunnel, ConnectFailure> {
    let authority = Authority::from(application);
    let mut tries = 1;
    loop {
        let place = local.tunnels.checkout(way, || dial(local.clone(), way.clone())).await.map_err(pool)?;
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, place.connect(&authority, headers)).await;
        match answer.map_err(|_elapsed| ConnectFailure::Unanswered(way.address))? {
            Ok(tunnel) => return Ok(tunnel),
            Err(ConnectError::Closed(_)) if tries < TRIES_MAX => tries += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

fn pool(error: CheckoutError<ConnectFailure>) -> ConnectFailure {
    match error {
        CheckoutError::Dial(error) => ConnectFailure::Dial(error),
        CheckoutError::TooManyWaiters | CheckoutError::NoFreeStream => {
            ConnectFailure::Pool(error.to_string())
        }
    }
}

/// A new connection for the pool.
async fn dial(local: Rc<Local>, way: Way) -> Result<SendConnect, ConnectFailure> {
    let svid = local.shared.identities.get(&local.shared.identity).await?;
    let failed = |source| ConnectFailure::Connect { address: way.address, source };
    let stream = sockets::connect(way.address).await.map_err(failed)?;
    let (secured, peer) = ambit_identity::connect(&svid, &way.expected, stream).await?;
    let handshake = ambit_hbone::handshake(secured, settings::CLIENT).await;
    let (send, driver) = handshake.map_err(ConnectFailure::Http2)?;
    let span = tracing::debug_span!("tunnel", dst = %way.address, %peer);
    // Boxed: the task would hold it three times.
    let driver = Box::pin(driver);
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
