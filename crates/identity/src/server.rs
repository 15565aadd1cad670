//! The operator's TLS port: clients prove themselves by token, so that no client certificate is asked for.
//!
//! A slow or broken handshake never holds up the next connection; the certificate is replaced without closing anything.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwap;
use futures::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::{Error, HandshakeError, ServerCertificate, svid::HANDSHAKE_TIMEOUT, tls};

/// Handshakes at a time; more wait in the listener's queue.
pub const HANDSHAKES_MAX: usize = 256;
/// Secured connections that wait for the server to take them.
const READY_MAX: usize = 64;
/// After the system refused to accept, e.g. for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Secures accepted connections with the certificate of the day.
#[derive(Clone)]
pub struct Acceptor {
    config: Arc<ArcSwap<rustls::ServerConfig>>,
}

impl Acceptor {
    /// Begins with this certificate.
    pub fn new(certificate: &ServerCertificate) -> Result<Self, Error> {
        let config = tls::plain_server(&certificate.credentials)?;
        Ok(Self { config: Arc::new(ArcSwap::new(config)) })
    }

    /// Handshakes from now on use this certificate; connections made before keep theirs.
    pub fn swap(&self, certificate: &ServerCertificate) -> Result<(), Error> {
        self.config.store(tls::plain_server(&certificate.credentials)?);
        Ok(())
    }

    /// One handshake.
    pub async fn accept(&self, socket: TcpStream) -> Result<Connection, HandshakeError> {
        socket.set_nodelay(true).map_err(HandshakeError::Tls)?;
        let handshake = TlsAcceptor::from(self.config.load_full()).accept(socket);
        match timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(done) => Ok(Connection(done.map_err(HandshakeError::Tls)?)),
            Err(_elapsed) => Err(HandshakeError::Timeout),
        }
    }

    /// Secured connections of a listener, for `serve_with_incoming`. Failed handshakes are logged and left out. Must be
    /// called on a runtime; drop the stream to stop listening.
    pub fn incoming(self, listener: TcpListener) -> Incoming {
        let (ready, connections) = mpsc::channel(READY_MAX);
        let mut task = JoinSet::new();
        task.spawn(self.listen(listener, ready));
        Incoming { connections, _task: task }
    }

    async fn listen(self, listener: TcpListener, ready: mpsc::Sender<Connection>) {
        let mut handshakes = JoinSet::new();
        loop {
            tokio::select! {
                Some(_ended) = handshakes.join_next() => {}
                accepted = listener.accept(), if handshakes.len() < HANDSHAKES_MAX => match accepted {
                    Ok((socket, peer)) => {
                        let (acceptor, ready) = (self.clone(), ready.clone());
                        handshakes.spawn(async move {
                            match acceptor.accept(socket).await {
                                // Nobody takes it: the server is going down.
                                Ok(connection) => _ = ready.send(connection).await,
                                Err(error) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "Connection could not be accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }
}

/// Secured connections, as they become ready.
#[derive(Debug)]
pub struct Incoming {
    connections: mpsc::Receiver<Connection>,
    /// Ends with the stream.
    _task: JoinSet<()>,
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.connections.poll_recv(cx).map(|next| next.map(Ok))
    }
}

/// A connection of an agent.
#[derive(Debug)]
pub struct Connection(TlsStream<TcpStream>);

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.0.get_ref().0.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
