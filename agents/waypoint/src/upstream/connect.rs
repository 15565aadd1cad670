//! Opens byte streams to endpoints: through a tunnel, or plain for those outside the mesh.
//!
//! Invariant: every step has its own time limit.

use std::{fmt, net::SocketAddr, time::Duration};

use ambit_hbone::{
    Authority, CheckoutError, ConnectError, ConnectHeaders, Pool, SendConnect, Tunnel,
    settings::{self, CLIENT_STREAMS_MAX},
};
use ambit_identity::Manager;
use ambit_model::Spiffe;
use tracing::Instrument as _;

use super::{ConnectFailure, Endpoint, Stream, endpoint::TunnelKey};
use crate::sockets;

/// How long a peer may take to answer a CONNECT: its own connect to the application, and a round trip.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Connections on which one CONNECT is tried: the first may be lost between checkout and CONNECT.
const TRIES_MAX: usize = 2;

/// Opens streams for one worker, and keeps its tunnel connections.
pub(super) struct Connector {
    tunnels: Pool<TunnelKey, ConnectFailure>,
    /// What a new tunnel connection is made with.
    dialer: Dialer,
}

#[derive(Clone)]
struct Dialer {
    identities: Manager,
    /// Identity of the waypoint.
    own: Spiffe,
}

impl Connector {
    /// Connects as the identity `own`. Needs a [`tokio::task::LocalSet`].
    pub(super) fn new(identities: Manager, own: Spiffe) -> Self {
        let tunnels = Pool::new(CLIENT_STREAMS_MAX, ambit_hbone::pool::IDLE_MAX);
        // Ends when the pool does.
        tokio::task::spawn_local(tunnels.sweeper());
        Self { tunnels, dialer: Dialer { identities, own } }
    }

    /// A stream to the application of an endpoint.
    ///
    /// # Errors
    /// [`ConnectFailure`]
    pub(super) async fn open(
        &self,
        endpoint: &Endpoint,
        headers: &ConnectHeaders,
    ) -> Result<Stream, ConnectFailure> {
        let address = endpoint.address;
        match &endpoint.tunnel {
            Some(tunnel) => Ok(Stream::Tunnel(self.tunnel(tunnel, address, headers).await?)),
            None => {
                let failed = |source| ConnectFailure::Connect { address, source };
                Ok(Stream::Plain(sockets::connect(address).await.map_err(failed)?))
            }
        }
    }

    async fn tunnel(
        &self,
        key: &TunnelKey,
        application: SocketAddr,
        headers: &ConnectHeaders,
    ) -> Result<Tunnel, ConnectFailure> {
        let authority = Authority::from(application);
        let mut tries = 1;
        loop {
            let dial = || self.dialer.clone().dial(key.clone());
            let place = self.tunnels.checkout(key, dial).await.map_err(pool)?;
            let answer = tokio::time::timeout(ANSWER_TIMEOUT, place.connect(&authority, headers)).await;
            match answer.map_err(|_elapsed| ConnectFailure::Unanswered(key.address))? {
                Ok(tunnel) => return Ok(tunnel),
                Err(ConnectError::Closed(_)) if tries < TRIES_MAX => tries += 1,
                Err(error) => return Err(error.into()),
            }
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

impl Dialer {
    /// A new connection for the pool.
    async fn dial(self, key: TunnelKey) -> Result<SendConnect, ConnectFailure> {
        let svid = self.identities.get(&self.own).await?;
        let failed = |source| ConnectFailure::Connect { address: key.address, source };
        let stream = sockets::connect(key.address).await.map_err(failed)?;
        let (secured, peer) = ambit_identity::connect(&svid, &key.expected, stream).await?;
        let handshake = ambit_hbone::handshake(secured, settings::CLIENT).await;
        let (send, driver) = handshake.map_err(ConnectFailure::Http2)?;
        let span = tracing::debug_span!("tunnel", dst = %key.address, %peer);
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
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("own", &self.dialer.own).finish_non_exhaustive()
    }
}
