//! The operator's TLS port. Clients authenticate by token, so no client certificate is requested.
//!
//! A slow or failed handshake never delays other connections, and replacing the certificate closes
//! no connection.
//!
//! Invariant: until [`Peer::set_authenticated`] is called, a connection counts as unauthenticated, for at most
//! [`AUTHENTICATION_TIME_MAX`].

mod slots;

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use ambit_runtime::accept;
use arc_swap::ArcSwap;
use futures::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;

pub use slots::{
    AUTHENTICATED_PER_ADDRESS_MAX, KNOWN_MAX, Peer, Slot, Slots, UNAUTHENTICATED_MAX,
    UNAUTHENTICATED_PER_ADDRESS_MAX,
};

use crate::{Error, HandshakeError, ServerCertificate, forward::forward_write, svid::HANDSHAKE_TIMEOUT, tls};

/// How long a connection may stay unauthenticated, its handshake included. Longer than a handshake
/// and a token review may take.
pub const AUTHENTICATION_TIME_MAX: Duration = Duration::from_secs(30);
/// Secured connections waiting for the server to accept them.
const READY_MAX: usize = 64;

/// Secures accepted connections with the current certificate.
#[derive(Clone)]
pub struct Acceptor {
    config: Arc<ArcSwap<rustls::ServerConfig>>,
}

impl Acceptor {
    /// Starts with this certificate.
    ///
    /// # Errors
    /// If TLS cannot be configured with this certificate.
    pub fn new(certificate: &ServerCertificate) -> Result<Self, Error> {
        let config = tls::plain_server(&certificate.credentials)?;
        Ok(Self { config: Arc::new(ArcSwap::new(config)) })
    }

    /// Uses this certificate for new handshakes; established connections keep theirs.
    ///
    /// # Errors
    /// If TLS cannot be configured with this certificate; then the previous one stays.
    pub fn swap(&self, certificate: &ServerCertificate) -> Result<(), Error> {
        self.config.store(tls::plain_server(&certificate.credentials)?);
        Ok(())
    }

    /// Secured connections of a listener, for `serve_with_incoming`. Failed handshakes are logged
    /// and skipped. Must be called on a runtime; drop the stream to stop listening.
    pub fn incoming(self, listener: TcpListener) -> Incoming {
        let (ready, connections) = mpsc::channel(READY_MAX);
        let mut task = JoinSet::new();
        task.spawn(self.listen(listener, ready));
        Incoming { connections, _task: task }
    }

    async fn listen(self, listener: TcpListener, ready: mpsc::Sender<Connection>) {
        let (slots, mut handshakes) = (Slots::default(), JoinSet::new());
        loop {
            tokio::select! {
                Some(_ended) = handshakes.join_next() => {}
                (socket, peer) = accept::next("operator", || listener.accept()) => {
                    // The connection is dropped: all slots belong to earlier peers.
                    let Some(slot) = slots.enter(peer.ip()) else { continue };
                    handshakes.spawn(self.clone().receive(socket, slot, ready.clone()));
                }
            }
        }
    }

    /// Handles one connection until it is secured and accepted, or its slot is evicted.
    async fn receive(self, socket: TcpStream, mut slot: Slot, ready: mpsc::Sender<Connection>) {
        let peer = slot.peer().address();
        let authenticate_by = Box::pin(sleep(AUTHENTICATION_TIME_MAX));
        let secured = tokio::select! {
            secured = self.secure(socket) => secured,
            _taken = &mut slot.taken => return,
        };
        match secured {
            Ok(stream) => {
                let connection = Connection { stream, slot, authenticate_by: Some(authenticate_by) };
                // The receiver is gone only while the server shuts down.
                _ = ready.send(connection).await;
            }
            Err(error) => tracing::debug!(%peer, %error, "TLS handshake failed"),
        }
    }

    async fn secure(&self, socket: TcpStream) -> Result<TlsStream<TcpStream>, HandshakeError> {
        socket.set_nodelay(true).map_err(HandshakeError::Tls)?;
        let handshake = TlsAcceptor::from(self.config.load_full()).accept(socket);
        let done = timeout(HANDSHAKE_TIMEOUT, handshake).await.map_err(|_elapsed| HandshakeError::Timeout)?;
        done.map_err(HandshakeError::Tls)
    }
}

/// Secured connections, as they become ready.
#[derive(Debug)]
pub struct Incoming {
    connections: mpsc::Receiver<Connection>,
    /// Aborted when the stream is dropped.
    _task: JoinSet<()>,
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.connections.poll_recv(cx).map(|next| next.map(Ok))
    }
}

/// A connection of an agent, or of a peer that has not authenticated yet.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    slot: Slot,
    /// Deadline for authentication; `None` once authenticated.
    authenticate_by: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    /// Ready with the reason when the connection must end; otherwise registers a wakeup.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if Pin::new(&mut self.slot.taken).poll(cx).is_ready() {
            return Poll::Ready(io::ErrorKind::ConnectionAborted.into());
        }
        if self.authenticate_by.is_some() && self.slot.is_authenticated() {
            self.authenticate_by = None;
        }
        match &mut self.authenticate_by {
            Some(authenticate_by) => {
                authenticate_by.as_mut().poll(cx).map(|()| io::ErrorKind::TimedOut.into())
            }
            None => Poll::Pending,
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.slot.peer().clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // A server always reads, so the deadline is checked here.
        if let Poll::Ready(end) = self.poll_end(cx) {
            return Poll::Ready(Err(end));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    forward_write!(stream);
}

#[cfg(test)]
mod tests;
