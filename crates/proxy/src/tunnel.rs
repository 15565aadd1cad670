//! Tunnels to other proxies, opened through a pool of connections.
//!
//! Invariant: a tunnel is opened only on a connection whose peer proved one of the expected identities, and every step has a time
//! limit of its own.

use std::{fmt, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use ambit_hbone::{
    Authority, CheckoutError, ConnectError, ConnectHeaders, Pool, Responder, SendConnect, Tunnel,
    pool::IDLE_MAX,
    settings::{self, CLIENT_STREAMS_MAX},
};
use ambit_identity::{HandshakeError, Manager};
use ambit_model::Spiffe;
use http::StatusCode;
use tokio::net::TcpStream;
use tracing::Instrument as _;

/// How long a peer may take to answer a CONNECT: its own connect to the application, and a round trip.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Connections on which one CONNECT is tried: the first may be lost between checkout and CONNECT.
const TRIES_MAX: usize = 2;

/// A proxy that takes tunnels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TunnelPeer {
    /// Its tunnel port.
    pub address: SocketAddr,
    /// It must prove one of these.
    pub expected: Arc<[Spiffe]>,
}

/// What must be equal for two tunnels to share a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TunnelKey {
    /// The identity that this side proves.
    pub source: Spiffe,
    /// The other side.
    pub peer: TunnelPeer,
}

/// Why a tunnel was not opened, apart from the socket. `E` is the error that it becomes.
#[derive(Debug)]
pub enum TunnelError<E> {
    /// This side has no certificate.
    Certificate(ambit_identity::Error),
    /// TLS with the peer failed.
    Handshake(HandshakeError),
    /// The peer speaks TLS but not HBONE.
    Http2(ambit_hbone::Error),
    /// A tunnel connection failed; all tunnels that waited for it share the cause.
    Dial(Arc<E>),
    /// Too many tunnels wait for one connection, or the peer allows none.
    Pool(String),
    /// The peer did not open the tunnel.
    Refused(ConnectError),
    /// The peer did not answer the CONNECT in time.
    Unanswered(SocketAddr),
}

/// Opens tunnels, and keeps their connections for the next. `E` is the error of a tunnel and of a socket.
pub struct Tunnels<E> {
    pool: Pool<TunnelKey, E>,
    identities: Manager,
}

impl<E: From<TunnelError<E>> + fmt::Display + 'static> Tunnels<E> {
    /// Without any connection yet. Needs a [`tokio::task::LocalSet`].
    pub fn new(identities: Manager) -> Self {
        let pool = Pool::new(CLIENT_STREAMS_MAX, IDLE_MAX);
        // Ends when the pool does.
        tokio::task::spawn_local(pool.sweeper());
        Self { pool, identities }
    }

    /// Opens a tunnel to `target`. Where a new connection is needed, `connect` makes its socket.
    ///
    /// # Errors
    /// Those of `connect`, and [`TunnelError`].
    pub async fn open<F>(
        &self,
        key: &TunnelKey,
        target: &Authority,
        headers: &ConnectHeaders,
        connect: impl Fn(SocketAddr) -> F,
    ) -> Result<Tunnel, E>
    where
        F: Future<Output = Result<TcpStream, E>> + 'static,
    {
        let address = key.peer.address;
        let mut tries = 1;
        loop {
            let dial = || dial(self.identities.clone(), key.clone(), connect(address));
            let checkout = self.pool.checkout(key, dial).await.map_err(of_checkout)?;
            let answer = tokio::time::timeout(ANSWER_TIMEOUT, checkout.connect(target, headers)).await;
            match answer.map_err(|_elapsed| TunnelError::Unanswered(address))? {
                Ok(tunnel) => return Ok(tunnel),
                Err(ConnectError::Closed(_)) if tries < TRIES_MAX => tries += 1,
                Err(error) => return Err(TunnelError::Refused(error).into()),
            }
        }
    }
}

fn of_checkout<E: fmt::Display>(error: CheckoutError<E>) -> TunnelError<E> {
    match error {
        CheckoutError::Dial(error) => TunnelError::Dial(error),
        CheckoutError::TooManyWaiters | CheckoutError::NoFreeStream => TunnelError::Pool(error.to_string()),
    }
}

/// Makes a new connection for the pool.
async fn dial<E: From<TunnelError<E>>>(
    identities: Manager,
    TunnelKey { source, peer }: TunnelKey,
    socket: impl Future<Output = Result<TcpStream, E>>,
) -> Result<SendConnect, E> {
    let svid = identities.get(&source).await.map_err(TunnelError::Certificate)?;
    let secured = ambit_identity::connect(&svid, &peer.expected, socket.await?).await;
    let (secured, proved) = secured.map_err(TunnelError::Handshake)?;
    let handshake = ambit_hbone::handshake(secured, settings::CLIENT).await;
    let (send, driver) = handshake.map_err(TunnelError::Http2)?;
    let span = tracing::debug_span!("tunnel", dst = %peer.address, peer = %proved);
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

/// Answers a CONNECT of a peer with an error.
pub fn refuse(responder: Responder, status: StatusCode) {
    // A peer that has left meanwhile needs no answer.
    if let Err(error) = responder.reject(status) {
        tracing::debug!(%error, "CONNECT cannot be answered");
    }
}

impl<E> fmt::Debug for Tunnels<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnels").finish_non_exhaustive()
    }
}
